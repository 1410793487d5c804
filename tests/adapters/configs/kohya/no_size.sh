accelerate launch --mixed_precision fp16 train_network.py --pretrained_model_name_or_path /models/v1-5.safetensors \
  --train_data_dir /data/set --network_module networks.lora --mixed_precision fp16 --output_dir /runs/x
