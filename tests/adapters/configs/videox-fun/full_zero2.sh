accelerate launch --use_deepspeed --zero_stage 2 --num_machines 1 --num_processes 8 --mixed_precision bf16 \
  scripts/wan2.2/train.py \
  --config_path=config/wan2.2/wan_civitai_i2v.yaml --pretrained_model_name_or_path=models/Wan2.2-I2V-A14B --boundary_type=high \
  --train_data_dir= --train_data_meta=data/all.json \
  --image_sample_size=640 --video_sample_size=640 --fix_sample_size 480 832 --video_sample_n_frames=49 \
  --train_batch_size=1 --gradient_checkpointing --enable_bucket --low_vram --train_mode=i2v --trainable_modules "." \
  --use_8bit_adam --max_train_steps=4000 --validation_steps=500 --validation_prompts "a boat" "a street"
