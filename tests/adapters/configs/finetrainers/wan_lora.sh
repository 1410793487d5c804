#!/bin/bash
set -e

BACKEND="ptd"
NUM_GPUS=2
CUDA_VISIBLE_DEVICES="0,1"

TRAINING="kites.json"
VALIDATION="kites_validation.json"

DDP_2="--parallel_backend $BACKEND --pp_degree 1 --dp_degree 2 --dp_shards 1 --cp_degree 1 --tp_degree 1"
FSDP_2="--parallel_backend $BACKEND --pp_degree 1 --dp_degree 1 --dp_shards 2 --cp_degree 1 --tp_degree 1"

parallel_cmd=( $DDP_2 )
model_cmd=(
  --model_name "wan"
  --pretrained_model_name_or_path "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
)
dataset_cmd=(
  --dataset_config $TRAINING
  --dataset_shuffle_buffer_size 10
  --enable_precomputation
  --precomputation_items 25
  --precomputation_once
)
diffusion_cmd=( --flow_weighting_scheme "logit_normal" )
training_cmd=(
  --training_type "lora"
  --seed 42
  --batch_size 1
  --train_steps 3000
  --rank 32
  --lora_alpha 32
  --target_modules "blocks.*(to_q|to_k|to_v|to_out.0)"
  --gradient_accumulation_steps 1
  --gradient_checkpointing
  --checkpointing_steps 500
  --checkpointing_limit 2
  # --resume_from_checkpoint 3000
  --enable_slicing
  --enable_tiling
)
optimizer_cmd=( --optimizer "adamw" --lr 5e-5 --beta2 0.99 )
validation_cmd=( --validation_dataset_file "$VALIDATION" --validation_steps 250 )

export CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES
torchrun --standalone --nnodes=1 --nproc_per_node=$NUM_GPUS --rdzv_backend c10d --rdzv_endpoint="localhost:0" train.py \
  "${parallel_cmd[@]}" \
  "${model_cmd[@]}" \
  "${dataset_cmd[@]}" \
  "${diffusion_cmd[@]}" \
  "${training_cmd[@]}" \
  "${optimizer_cmd[@]}" \
  "${validation_cmd[@]}" \
  --output_dir "/srv/out/kites"
