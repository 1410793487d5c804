#!/bin/bash
# the pipeline by flags: arrays, a variable for the GPUs, the precision's own default
MODEL=Wan-AI/Wan2.1-T2V-14B-Diffusers
NUM_GPUS=4
parallel=(--num_gpus $NUM_GPUS --sp_size $NUM_GPUS --tp_size 1 --hsdp_replicate_dim 1 --hsdp_shard_dim $NUM_GPUS)
training=(
  --train_batch_size 1
  --train_sp_batch_size 1
  --gradient_accumulation_steps 4
  --num_latent_t 20 --num_height 480 --num_width 832 --num_frames 77
  --max_train_steps 3000
  --lora_rank 32
  --lora_training True
  --enable_gradient_checkpointing_type "full"
)
torchrun --nnodes 1 --nproc_per_node $NUM_GPUS fastvideo/training/wan_training_pipeline.py \
  "${parallel[@]}" "${training[@]}" \
  --model_path $MODEL --pretrained_model_name_or_path $MODEL \
  --data_path data/x --dataloader_num_workers 1 --output_dir out --learning_rate 5e-5 --mixed_precision bf16 \
  --log_validation --validation_dataset_file v.json --validation_steps 200 --validation_sampling_steps 50 \
  --validation_guidance_scale 6.0 --training_state_checkpointing_steps 400 --checkpoints_total_limit 3 --inference_mode False
