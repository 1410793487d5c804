#!/bin/bash
# the accelerate config stands elsewhere, and is not in this repository
accelerate launch --config_file configs/zero3_8gpu.yaml train.py \
  --dataset_base_path "$DATA" --max_pixels $((512*512)) --num_frames 17 \
  --model_id_with_origin_paths "Wan-AI/Wan2.2-I2V-A14B:high_noise_model/diffusion_pytorch_model*.safetensors,Wan-AI/Wan2.2-I2V-A14B:low_noise_model/diffusion_pytorch_model*.safetensors,Wan-AI/Wan2.2-I2V-A14B:models_t5_umt5-xxl-enc-bf16.pth,Wan-AI/Wan2.2-I2V-A14B:Wan2.1_VAE.pth" \
  --lora_base_model dit --lora_target_modules q --extra_inputs input_image --enable_model_cpu_offload
