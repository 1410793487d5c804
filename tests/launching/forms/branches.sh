MODE=high
if [ "$MODE" = "high" ]; then RANK=64; elif [ "$MODE" = low ]; then RANK=32; else RANK=16; fi
if [[ $MODE == h* && -z "$UNSET" ]]; then NAME=matched; fi
case "$MODE" in
  low|medium) STEPS=10 ;;
  h*) STEPS=20 ;;
  *) exit 1 ;;
esac
[ "$RANK" -gt 32 ] && FLAG=--large || FLAG=--small
((RANK > 100)) && RANK=100
if test "$STEPS" -ne 20; then STEPS=0; fi
python train.py --rank $RANK --name $NAME --steps $STEPS $FLAG
