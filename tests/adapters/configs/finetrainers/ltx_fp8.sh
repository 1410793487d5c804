#!/bin/bash
# one card: weights kept in fp8, nothing encoded ahead
accelerate launch --num_processes 1 --mixed_precision bf16 train.py \
  --parallel_backend accelerate \
  --model_name ltx_video --pretrained_model_name_or_path a-r-r-o-w/LTX-Video-diffusers \
  --layerwise_upcasting_modules transformer --layerwise_upcasting_storage_dtype float8_e4m3fn \
  --dataset_config kites.json \
  --training_type lora --rank 64 --lora_alpha 64 \
  --batch_size 2 --train_steps 1200 --gradient_accumulation_steps 4 --gradient_checkpointing \
  --optimizer adamw-bnb-8bit --lr 1e-4 \
  --enable_slicing --enable_tiling --enable_model_cpu_offload \
  --validation_dataset_file kites_validation.json --validation_steps 100 \
  --output_dir /srv/out/ltx
