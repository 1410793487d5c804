# both experts by one LoRA; the idle one waits on the host
accelerate launch --num_processes 1 --mixed_precision bf16 -m musubi_tuner.wan_train_network \
    --task i2v-A14B \
    --dit /models/wan2.2_i2v_low_noise_14B_fp16.safetensors \
    --dit_high_noise /models/wan2.2_i2v_high_noise_14B_fp16.safetensors \
    --offload_inactive_dit --timestep_boundary 900 \
    --dataset_config clips.toml \
    --xformers --split_attn --mixed_precision fp16 --fp8_base --fp8_scaled \
    --gradient_checkpointing --gradient_checkpointing_cpu_offload \
    --optimizer_type AdamW --optimizer_args "weight_decay=0.01" \
    --network_module networks.lora_wan --network_dim 16 --network_alpha 16 \
    --network_args "loraplus_lr_ratio=4" \
    --sample_prompts prompts.txt --sample_every_n_epochs 1 --vae /models/wan_2.1_vae.safetensors --t5 /models/umt5.pth \
    --max_train_steps 2000 --save_every_n_steps 250 --save_last_n_steps 500 --save_state \
    --output_dir /runs/wan22 --output_name both --force_v2_1_time_embedding
