#!/usr/bin/env bash
# LoRA on both experts of Wan2.2 A14B with DiffSynth-Studio, one after the other.
repository=Wan-AI/Wan2.2-T2V-A14B
frames=${FRAMES:-81}

for expert in high_noise low_noise; do
  accelerate launch --num_processes 8 examples/wanvideo/model_training/train.py \
    --dataset_base_path data/clips --dataset_metadata_path data/clips.csv --dataset_repeat 10 \
    --height 480 --width 832 --num_frames "$frames" \
    --model_id_with_origin_paths "$repository:${expert}_model/diffusion_pytorch_model*.safetensors,$repository:models_t5_umt5-xxl-enc-bf16.pth,$repository:Wan2.1_VAE.pth" \
    --lora_base_model dit --lora_rank 32 --use_gradient_checkpointing --use_gradient_checkpointing_offload \
    --learning_rate 1e-4 --num_epochs 5 --output_path "models/$expert"
done
