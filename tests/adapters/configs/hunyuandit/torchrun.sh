#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# A beginning of a flag that no other has is that flag, and the last of two counts.
nohup torchrun --standalone --nproc-per-node=4 -m hydit.train_deepspeed \
    --model DiT-XL/2 --image-size 512 --batch-size 8 \
    --use-zero 3 --zero-stage 3 --gradient-check --gc-rate 0.5 \
    --batch-size 4 --deepspeed > train.log 2>&1 &
