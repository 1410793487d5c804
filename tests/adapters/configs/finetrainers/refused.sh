#!/bin/bash
# the default pattern does not fit Wan's names, four processes are one too many by two, and --enable_model_cpu_offload is for one
torchrun --standalone --nproc_per_node=4 train.py --parallel_backend ptd --dp_degree 2 \
  --model_name wan --pretrained_model_name_or_path Wan-AI/Wan2.1-T2V-14B-Diffusers \
  --dataset_config kites.json --training_type lora --train_steps 100 --enable_model_cpu_offload --gradient_checkpoint \
  --optimiser adamw
