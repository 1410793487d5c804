deepspeed --num_gpus 2 hydit/train_deepspeed.py --use-zero-stage 2 --deepspeed \
    --image-size 512 \
    # --batch-size 8 \
    --gradient-checkpointing
