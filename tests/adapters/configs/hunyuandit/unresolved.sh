deepspeed --num_gpus $GPUS hydit/train_deepspeed.py --training-parts lora --use-zero-stage 2 --deepspeed \
    --rank $RANK_DIM --batch-size "$(nvidia-smi -L | wc -l)" --results-dir "runs/$NAME" $MORE
