#!/bin/bash
# usage: bash waymo.sh [samples]
export CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7
SAMPLES=${1:-50000}
BATCH=12
FLAGS=(
    --image-size 256 256
    --batch-size "$BATCH"
    --sample-limit "$SAMPLES"
    # --gc-rate 0.5
    --gradient-checkpointing
)
if [ -n "$RESUME" ]; then
    FLAGS+=(--resume --resume-module-root "$RESUME")
fi

deepspeed hydit/train_deepspeed.py "${FLAGS[@]}" \
    --use-zero-stage 2 --cpu-offloading --extra-fp16 --deepspeed \
    --max-training-steps $((1300 * 80)) \
    --ckpt-every 5000 --ckpt-latest-every 5000 2>&1 | tee "log_$(date +%F).txt"
