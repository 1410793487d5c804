# Qwen-Image at 1024 x 1024 on a card of 24 GB
export CUDA_VISIBLE_DEVICES=0
accelerate launch --num_cpu_threads_per_process 1 --mixed_precision bf16 src/musubi_tuner/qwen_image_train_network.py \
    --dit /models/qwen_image_bf16.safetensors --vae /models/qwen_image_vae.safetensors \
    --dataset_config pictures.toml \
    --xformers --mixed_precision bf16 --fp8_base --fp8_scaled --blocks_to_swap 16 \
    --timestep_sampling shift --weighting_scheme none --discrete_flow_shift 2.2 \
    --optimizer_type adamw8bit --learning_rate 5e-5 --gradient_checkpointing \
    --network_module networks.lora_qwen_image --network_dim 16 --network_alpha 16 \
    --max_train_epochs 16 --save_every_n_epochs 1 --output_dir /runs/qwen
