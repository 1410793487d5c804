torchrun --nproc_per_node $GPUS train.py --private "${PRIVATE:-none}" --all "$@"
