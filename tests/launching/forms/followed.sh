export GPUS=2
PRIVATE=1
source "$(dirname "$0")/parts/settings.sh"
bash $(dirname "$0")/parts/common.sh --rank $RANK "two words"
bash -c 'python inline.py --x "$0" --y $1' zero one
eval "python evaluated.py --rank $RANK"
set -- --from set
python arguments.py "$@"
