#!/bin/bash
torchrun --standalone --nproc_per_node=1 train.py --parallel_backend ptd \
  --model_name flux --pretrained_model_name_or_path black-forest-labs/FLUX.1-dev \
  --dataset_config cards.json --enable_precomputation --precomputation_items 30 \
  --training_type lora --rank 32 --lora_alpha 32 \
  --batch_size 1 --train_steps 1000 --gradient_checkpointing --optimizer adamw \
  --validation_dataset_file /srv/cards/validation.csv --validation_steps 200 \
  --output_dir /srv/out/cards
