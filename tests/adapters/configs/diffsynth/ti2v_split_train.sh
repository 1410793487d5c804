# second of two stages: what the first wrote stands in ./cache
accelerate launch --num_processes 1 examples/wanvideo/model_training/train.py \
  --task "sft:train" --dataset_base_path ./cache --dataset_repeat 50 \
  --height 704 --width 1280 --num_frames 121 \
  --model_id_with_origin_paths "Wan-AI/Wan2.2-TI2V-5B:diffusion_pytorch_model*.safetensors,Wan-AI/Wan2.2-TI2V-5B:models_t5_umt5-xxl-enc-bf16.pth,Wan-AI/Wan2.2-TI2V-5B:Wan2.2_VAE.pth" \
  --offload_models "Wan-AI/Wan2.2-TI2V-5B:Wan2.2_VAE.pth" \
  --lora_base_model dit --lora_rank 32 --extra_inputs input_image \
  --fp8_models "Wan-AI/Wan2.2-TI2V-5B:diffusion_pytorch_model*.safetensors" \
  --output_path ./models/ti2v
