GPUS=4
BATCH=$((GPUS * 2))
ACCUMULATE=$(( (64 + BATCH - 1) / BATCH ))
python train.py --batch $BATCH --accumulate $ACCUMULATE --odd $((7 % 4)) --negative $((1 - GPUS)) --power $((2 ** 10)) --both $(($GPUS+${BATCH}))
