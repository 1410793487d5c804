# The whole network at 1024 x 1024, through the script that holds what every run has in common.
batch_size=1          # on each GPU
image_size=1024
accumulation=4
results=./log_EXP
every=2000

sh $(dirname "$0")/run_common.sh \
    --index-file dataset/porcelain/jsons/porcelain.json \
    --batch-size ${batch_size} \
    --image-size ${image_size} \
    --grad-accu-steps ${accumulation} \
    --lr 0.0001 \
    --use-fp16 \
    --extra-fp16 \
    --results-dir ${results} \
    --ckpt-every ${every} \
    --ckpt-latest-every ${every} \
    --epochs 8 \
    --use-zero-stage 2 \
    --gradient-checkpointing \
    --cpu-offloading \
    --deepspeed \
    "$@"
