#!/usr/bin/env bash
# two cards, flags on the command line
cd "$HOME/SimpleTuner" || exit 1
accelerate launch --num_processes=2 --mixed_precision=bf16 simpletuner/train.py \
    --model_family=qwen_image --model_flavour=v1.0 --model_type=lora --lora_rank=16 \
    --base_model_precision=nf4-bnb --text_encoder_1_precision=int8-quanto --text_cache_disable \
    --data_backend_config=../../files/simpletuner/portraits.json \
    --train_batch_size=1 --gradient_checkpointing=true --optimizer=bnb-adamw8bit \
    --max_train_steps=3000 --num_train_epochs=0 --validation_disable \
    --output_dir="${OUT:-/scratch/qwen}"
