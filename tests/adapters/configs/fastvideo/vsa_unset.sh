#!/bin/bash
torchrun --nproc_per_node 2 fastvideo/training/wan_training_pipeline.py --num_gpus 2 --sp_size 1 --hsdp_shard_dim 2 \
  --pretrained_model_name_or_path Wan-AI/Wan2.1-T2V-1.3B-Diffusers --num_latent_t 20 --num_height 448 --num_width 832 \
  --train_batch_size 1 --VSA_sparsity 0.9 --dit_precision fp32
