#!/usr/bin/env bash
# LoRA on CogVideoX-2b for one 16 GB card
MODEL=(--model_path /models/CogVideoX-2b --model_name cogvideox-t2v --model_type t2v --training_type lora)
DATA=(
    --data_root /data/surf
    --caption_column prompts.txt
    --video_column videos.txt
    --train_resolution 49x480x720  # frames, height, width
)
TRAIN=(
    --train_epochs 20
    --batch_size 1
    --mixed_precision fp16
    # --rank 64
)
accelerate launch --num_processes 1 train.py \
    "${MODEL[@]}" \
    "${DATA[@]}" \
    "${TRAIN[@]}" \
    --output_dir runs/surf --report_to tensorboard \
    --checkpointing_steps 100 --checkpointing_limit 2
