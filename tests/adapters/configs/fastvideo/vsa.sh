#!/bin/bash
# video sparse attention is what the environment says, whose sparsity changes no memory
export FASTVIDEO_ATTENTION_BACKEND=VIDEO_SPARSE_ATTN
torchrun --nproc_per_node 8 fastvideo/training/wan_training_pipeline.py --num_gpus 8 --sp_size 1 --hsdp_shard_dim 8 \
  --pretrained_model_name_or_path Wan-AI/Wan2.1-T2V-1.3B-Diffusers --num_latent_t 20 --num_height 448 --num_width 832 \
  --train_batch_size 1 --VSA_sparsity 0.9 --enable_gradient_checkpointing_type full --dit_precision fp32
