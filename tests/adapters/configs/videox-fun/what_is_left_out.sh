# little is said: a batch of 16, rank 128 on every layer whose name has one of the letters in it, and no checkpointing
accelerate launch scripts/wan2.1_fun/train_lora.py \
  --config_path config/wan2.1/wan_civitai.yaml --pretrained_model_name_or_path "$ROOT/Wan2.1-Fun-1.3B-InP" \
  --train_data_dir clips --train_data_meta clips/meta.json --video_sample_n_frames 49 --train_mode inpaint \
  --target_name "q,k,v"
