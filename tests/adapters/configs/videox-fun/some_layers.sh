accelerate launch --num_processes 2 scripts/wan2.1/train.py --pretrained_model_name_or_path=models/Wan2.1-T2V-1.3B \
  --train_data_meta=data/meta.json --video_sample_n_frames=81 --trainable_modules self_attn cross_attn --mixed_precision=bf16
