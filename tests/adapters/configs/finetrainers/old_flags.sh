#!/bin/bash
# v0.0.1: the data set by flags
GPU_IDS="0"
DATA_ROOT="/srv/video/kites"
dataset_cmd="--data_root $DATA_ROOT \
  --video_column videos.txt \
  --caption_column prompt.txt \
  --id_token KITE_STYLE \
  --video_resolution_buckets 49x512x768 65x512x768 25x320x512 \
  --caption_dropout_p 0.05 --precompute_conditions"
training_cmd="--training_type lora --batch_size 1 --train_steps 1200 --rank 128 --lora_alpha 128 \
  --target_modules to_q to_k to_v to_out.0 \
  --gradient_accumulation_steps 4 --gradient_checkpointing --checkpointing_steps 500 --enable_slicing --enable_tiling"
accelerate launch --num_processes 1 --mixed_precision bf16 --gpu_ids $GPU_IDS train.py \
  --model_name ltx_video --pretrained_model_name_or_path Lightricks/LTX-Video \
  $dataset_cmd $training_cmd \
  --optimizer adamw --use_8bit_bnb --lr 3e-5 \
  --validation_prompts "a red kite over a beach@@@49x512x768:::a kite against clouds@@@97x512x768" \
  --validation_steps 100 --num_validation_videos 1 \
  --output_dir /srv/out/ltx
