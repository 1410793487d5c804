# three things that stop the trainer
accelerate launch src/musubi_tuner/wan_train_network.py --task t2v-A14B --dit low.safetensors --dit_high_noise high.safetensors \
    --offload_inactive_dit --blocks_to_swap 20 --dataset_config clips.toml --sage_attn --fp8_scaled --mixed_precision bf16 \
    --optimizer_type adamw8bit --network_module networks.lora_wan --network_dim 32 --gradient_checkpointing
