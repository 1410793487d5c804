export CUDA_VISIBLE_DEVICES=0
model='DiT-g/2'
batch_size=2
rank=128
task="lora_porcelain_rank${rank}"
echo $task

# --no-flash-attn does not turn flash attention off: --infer-mode is fa where nothing else is said.
PYTHONPATH=./ deepspeed hydit/train_deepspeed.py \
    --no-flash-attn \
    --task-flag ${task} \
    --model ${model} \
    --training-parts lora \
    --rank ${rank} \
    --batch-size ${batch_size} \
    --image-size 1024 \
    --use-fp16 \
    --ema-dtype fp32 \
    --max-training-steps 2000\
    --ckpt-every 100 \
    --use-zero-stage 2 \
    --gradient-checkpointing \
    --deepspeed-optimizer \
    --deepspeed \
    "$@"
