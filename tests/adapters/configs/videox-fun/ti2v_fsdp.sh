accelerate launch --mixed_precision bf16 --use_fsdp --fsdp_version 1 --fsdp_sharding_strategy FULL_SHARD --num_processes 4 \
  scripts/wan2.2/train_lora.py \
  --config_path config/wan2.2/wan_civitai_5b.yaml --pretrained_model_name_or_path models/Wan2.2-TI2V-5B --boundary_type full \
  --train_data_dir clips --train_data_meta clips/meta.csv --enable_text_encoder_in_dataloader \
  --video_sample_size 704 --image_sample_size 704 --video_sample_n_frames 121 --enable_bucket --random_hw_adapt \
  --train_batch_size 1 --gradient_checkpointing --train_mode ti2v --use_came --lora_skip ffn --rank 32 --network_alpha 0
