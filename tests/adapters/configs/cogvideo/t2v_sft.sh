#!/usr/bin/env bash
# the whole of CogVideoX-2b; the author means to turn checkpointing off, which type=bool does not let them
accelerate launch --num_processes 1 train.py \
    --model_path THUDM/CogVideoX-2b --model_name cogvideox-t2v --model_type t2v --training_type sft \
    --data_root data --caption_column prompts.txt --video_column videos.txt --train_resolution 49x480x720 \
    --train_epochs 5 --batch_size 1 --gradient_accumulation_steps 4 --mixed_precision fp16 \
    --gradient_checkpointing False \
    --do_validation True --validation_steps 400 --validation_dir data/val --validation_prompts prompts.txt \
    --checkpointing_steps 200 --output_dir out --report_to tensorboard
