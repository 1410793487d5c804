#!/usr/bin/env bash
accelerate launch train.py --model_path /models/mine --model_name cogvideo-2b --model_type t2v --training_type lora \
    --train_resolution 49x480x720 --data_root d --caption_column c --video_column v --output_dir o --report_to none
