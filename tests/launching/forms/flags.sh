python train.py config.yaml --a 1 --b=2 --b 3 --c -1 --d -1e-3 --e "--f g" -h --list 1 2 3 --last
