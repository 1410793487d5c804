# four things that stop the trainer
accelerate launch flux_train_network.py --pretrained_model_name_or_path flux1-dev.safetensors --t5xxl t5.safetensors --ae ae.safetensors \
  --clip_l clip.safetensors --train_data_dir /data/set --resolution 1024,1536 --enable_bucket --cache_latents \
  --mixed_precision no --fp8_base --network_module networks.lora --network_dim 16 --use_8bit_adam --optimizer_type Lion \
  --gradient_checkpointing --cpu_offload_checkpointing --blocks_to_swap 16
