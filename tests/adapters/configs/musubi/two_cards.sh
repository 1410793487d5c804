# what stands here goes before what stands in the file
accelerate launch --num_processes 2 --multi_gpu src/musubi_tuner/hv_train_network.py \
    --config_file hunyuan --network_dim 8 --blocks_to_swap 36
