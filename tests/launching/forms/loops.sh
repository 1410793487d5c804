ARGS=()
for name in q k "v o"; do ARGS+=(--target "$name"); done
for rank in 16 32; do
  for seed in {1..2}; do
    python train.py --rank $rank --seed $seed "${ARGS[@]}"
  done
done
while [ $# -gt 0 ]; do shift; done
