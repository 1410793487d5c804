COMMON=(
  --rank 32   # the rank
  # --alpha 16
  --prompt "a cat; a dog"
)
COMMON+=(--steps 10)
MORE="--a 1 --b"
MORE+=" 2"
torchrun --standalone --nproc-per-node=2 train.py "${COMMON[@]}" $MORE "${NOTHING[@]}" --count ${#COMMON[@]} --first ${COMMON[1]}
