accelerate launch scripts/flux/train_lora.py --pretrained_model_name_or_path=models/FLUX.1-dev \
  --train_data_dir=pictures --train_data_meta=pictures/meta.json --image_sample_size=1024 --use_peft_lora --target_name=to_q
