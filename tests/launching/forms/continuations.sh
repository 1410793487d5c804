#!/bin/bash
accelerate launch --num_processes 2 --mixed_precision=bf16 \
  train.py --lora_rank 32 \
  --gradient_checkpointing \
  --size 480 832 \
  `# a comment that is a command` \
  --prompt "two words" --empty "" --name='single $quoted'
# accelerate launch train.py --commented out
