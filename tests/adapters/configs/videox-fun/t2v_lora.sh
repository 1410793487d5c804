#!/usr/bin/env bash
MODEL_NAME="models/Diffusion_Transformer/Wan2.1-T2V-14B"
DATASET=datasets/dance

accelerate launch --num_processes 1 --mixed_precision="bf16" scripts/wan2.1/train_lora.py \
  --config_path="config/wan2.1/wan_civitai.yaml" \
  --pretrained_model_name_or_path=$MODEL_NAME \
  --train_data_dir=$DATASET --train_data_meta=$DATASET/metadata.json \
  --image_sample_size=1024 --video_sample_size=256 --token_sample_size=512 \
  --video_sample_stride=2 --video_sample_n_frames=81 \
  --train_batch_size=1 --gradient_accumulation_steps=2 --dataloader_num_workers=4 \
  --num_train_epochs=20 --checkpointing_steps=200 --checkpoints_total_limit=3 --seed=43 \
  --output_dir=out/dance --gradient_checkpointing --mixed_precision="bf16" \
  --enable_bucket --random_hw_adapt --training_with_video_token_length --uniform_sampling \
  --use_peft_lora --rank=64 --network_alpha=32 --target_name="q,k,v,ffn.0,ffn.2" --low_vram
