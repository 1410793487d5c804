#!/bin/bash
# no --gradient_checkpointing, which is off unless it is asked for, and alpha stays 1
DIT=/models/wan2.1_t2v_1.3B_bf16.safetensors

accelerate launch --num_cpu_threads_per_process 1 --mixed_precision bf16 src/musubi_tuner/wan_train_network.py \
    --task t2v-1.3B \
    --dit $DIT \
    --dataset_config clips.toml --sdpa --mixed_precision bf16 \
    --optimizer_type adamw8bit --learning_rate 2e-4 \
    --max_data_loader_n_workers 2 --persistent_data_loader_workers \
    --network_module networks.lora_wan --network_dim 32 \
    --timestep_sampling shift --discrete_flow_shift 3.0 \
    --max_train_epochs 16 --save_every_n_epochs 1 --seed 42 \
    --output_dir /runs/wan --output_name wan-lora
