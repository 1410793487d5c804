model='DiT-g/2'
common=" \
    --qk-norm \
    --model ${model} \
    --rope-img base512 \
    --rope-real \
    "
deepspeed hydit/train_deepspeed.py ${common} "$@"
