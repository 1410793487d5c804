#!/bin/bash
torchrun --standalone --nproc_per_node=1 train.py --parallel_backend ptd \
  --model_name wan --pretrained_model_name_or_path Wan-AI/Wan2.1-T2V-1.3B-Diffusers \
  --dataset_config kites.json \
  --training_type control-lora --control_type none --frame_conditioning_type index --train_qk_norm \
  --rank 128 --lora_alpha 128 --target_modules "blocks.*(to_q|to_k|to_v|to_out.0|ffn.net.0.proj|ffn.net.2)" \
  --batch_size 1 --train_steps 10000 --gradient_checkpointing --optimizer adamw --output_dir /srv/out/control
