accelerate launch examples/wanvideo/model_training/train.py \
  --dataset_base_path ./clips --height 480 --width 832 \
  --model_paths '["/weights/student/high.safetensors", "/weights/umt5/models_t5_umt5-xxl-enc-bf16.pth", "/weights/vae/Wan2.1_VAE.pth"]' \
  --lora_base_model dit
