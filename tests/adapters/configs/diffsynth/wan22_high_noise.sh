#!/bin/bash
# LoRA on the high-noise expert; the low-noise one has a script of its own
set -e
RUN=portrait_v3
accelerate launch --num_processes 2 --mixed_precision bf16 examples/wanvideo/model_training/train.py \
  --dataset_base_path /data/$RUN \
  --dataset_metadata_path /data/$RUN/metadata.csv \
  --height 480 --width 832 --num_frames 49 \
  --dataset_repeat 20 \
  --model_id_with_origin_paths "Wan-AI/Wan2.2-T2V-A14B:high_noise_model/diffusion_pytorch_model*.safetensors,Wan-AI/Wan2.2-T2V-A14B:models_t5_umt5-xxl-enc-bf16.pth,Wan-AI/Wan2.2-T2V-A14B:Wan2.1_VAE.pth" \
  --learning_rate 5e-5 --num_epochs 8 \
  --remove_prefix_in_ckpt "pipe.dit." \
  --output_path ./out/$RUN/high \
  --lora_base_model dit \
  --lora_target_modules "q,k,v,o,ffn.0,ffn.2" \
  --lora_rank 64 \
  --max_timestep_boundary 0.417 --min_timestep_boundary 0 \
  --save_steps 250
