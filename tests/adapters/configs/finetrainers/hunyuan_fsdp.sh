#!/bin/bash
torchrun --nproc_per_node 8 train.py --parallel_backend ptd --dp_degree 2 --dp_shards 4 \
  --model_name hunyuan_video --pretrained_model_name_or_path hunyuanvideo-community/HunyuanVideo \
  --dataset_config kites.json --enable_precomputation --precomputation_reuse \
  --training_type full-finetune --batch_size 1 --train_steps 10000 --gradient_checkpointing \
  --optimizer adamw --checkpointing_steps 1000 --allow_tf32 --compile_modules transformer \
  --output_dir /srv/out/hunyuan
