HERE="$(dirname "$0")"
NAME=train
CODE=$HERE/$NAME.py
python $CODE --out "$HERE/out/${NAME%in}.pt" --again ${CODE##*/}
