export TOKENS=1
CUDA_VISIBLE_DEVICES=0,1 python a.py --x 1
nohup python b.py --lr 1e-4 > /dev/null 2>&1 &
wait
srun --ntasks 2 python c.py && echo done | tee
uv run --extra gpu python d.py --y=2 2>&1 | tee
(cd . && python3 -m package.module --z -1)
{ python e.py; } < /dev/null
python f.py <<EOF
text --not-a-flag
EOF
python -m torch.distributed.run --nproc_per_node 2 g.py --local 1
python -m torch.distributed.launch --use_env h.py
deepspeed --include localhost:0,1 --master_port 29501 i.py --deepspeed ds.json
accelerate launch -m package.train --k
python -c "print('nothing')"
