# without --mixed_precision here the trainer runs in float32, whatever accelerate is told
accelerate launch --mixed_precision bf16 --multi_gpu --num_processes 4 fine_tune.py \
  --pretrained_model_name_or_path /models/v1-5-pruned.safetensors --in_json meta_lat.json --train_data_dir /data/set \
  --resolution 512 --train_batch_size 8 --use_8bit_adam --xformers --gradient_checkpointing --max_train_steps 5000 --output_dir /runs/ft
