A=1 B=2
C=3
python train.py --a $A --b $B --c $C
X=1 python other.py --x "$A" ; D=4
python third.py --d $D
