train() {
  local rank=$1
  shift
  accelerate launch --num_processes 1 train.py --rank "$rank" "$@"
}
usage() { echo usage; exit 1; }
function later { return 0; python never.py; }
later
train 8 --fast
train 16 "two words" --slow
