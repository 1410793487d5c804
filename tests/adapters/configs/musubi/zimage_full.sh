# the whole of Z-Image; fp8 is for LoRA alone
python -m accelerate.commands.launch --mixed_precision bf16 src/musubi_tuner/zimage_train.py \
    --dit /models/z_image_de_turbo_v1_bf16.safetensors --dataset_config pictures.toml \
    --sdpa --mixed_precision bf16 --full_bf16 --fused_backward_pass --fp8_base \
    --gradient_checkpointing --optimizer_type adafactor \
    --optimizer_args "relative_step=False" "scale_parameter=False" "warmup_init=False" \
    --learning_rate 1e-6 --max_grad_norm 0 --max_train_steps 4000 --save_every_n_steps 1000 --output_dir /runs/zimage
