#!/usr/bin/env bash
# nothing is cached, so the VAE and both text encoders stay on the card, and the encoders train as well
MODEL=/models/sd_xl_base_1.0.safetensors
accelerate launch --num_cpu_threads_per_process 2 --num_processes 1 sdxl_train_network.py \
  --pretrained_model_name_or_path="$MODEL" \
  --dataset_config=portraits.toml --output_dir=/runs/sdxl --output_name=portraits \
  --save_model_as=safetensors --prior_loss_weight=1.0 \
  --max_train_epochs=10 --learning_rate=1e-4 --optimizer_type="AdamW8bit" \
  --xformers --mixed_precision="bf16" --gradient_checkpointing --save_every_n_epochs=1 \
  --network_module=networks.lora --network_dim=32 --network_alpha=16 \
  --network_args "conv_dim=16" "conv_alpha=8" --max_token_length 225
