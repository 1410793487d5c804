#!/usr/bin/env bash
# CogVideoX 1.5 with a first frame on four GPUs, under the ZeRO file that is written here
cat > zero2.json <<'JSON'
{
  "bf16": {"enabled": true},
  "optimizer": {"type": "AdamW", "params": {"lr": "auto", "torch_adam": true}},
  "zero_optimization": {
    "stage": 2, "overlap_comm": true, "reduce_scatter": true, "contiguous_gradients": true,
    "reduce_bucket_size": 5e8, "allgather_bucket_size": 2e8,
    "offload_optimizer": {"device": "cpu", "pin_memory": true}
  },
  "gradient_accumulation_steps": 1,
  "train_micro_batch_size_per_gpu": 1,
  "train_batch_size": "auto"
}
JSON
cat > accelerate.yaml <<'YAML'
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
deepspeed_config:
  deepspeed_config_file: zero2.json
  zero3_init_flag: false
num_machines: 1
num_processes: 4
YAML
export TOKENIZERS_PARALLELISM=false
accelerate launch --config_file accelerate.yaml train.py \
    --model_path /models/CogVideoX1.5-5B-I2V --model_name cogvideox1.5-i2v --model_type i2v --training_type sft \
    --data_root /data/clips --caption_column prompt.txt --video_column videos.txt \
    --train_resolution 81x768x1360 --train_steps 3000 --batch_size 1 --gradient_accumulation_steps 2 --mixed_precision bf16 \
    --do_validation true --validation_steps 500 --validation_dir val --validation_prompts p.txt --validation_images i.txt \
    --output_dir out --report_to tensorboard
