SAMPLES=${1:-50000}
RANK=${RANK:=16}
NAME=${NAME-"a name"}
: "${STEPS:=100}"
LR=1e-4
python -u train.py --samples $SAMPLES --rank $RANK --steps $STEPS --lr ${LR} --name "$NAME" ${EXTRA:+--extra "$EXTRA"} ${LR:+--lr-set "$LR"}
