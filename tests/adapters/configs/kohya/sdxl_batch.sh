accelerate launch --num_processes 1 sdxl_train.py --config_file=sdxl_full.toml --train_batch_size 4
