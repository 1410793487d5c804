accelerate launch --use_deepspeed --zero_stage 2 --offload_optimizer_device cpu --mixed_precision bf16 --num_processes 8 \
  --gradient_accumulation_steps 2 \
  examples/wanvideo/model_training/train.py \
  --dataset_base_path data/cars --dataset_metadata_path data/cars/metadata.csv \
  --max_pixels 399360 --num_frames 81 \
  --model_id_with_origin_paths "Wan-AI/Wan2.1-T2V-14B:diffusion_pytorch_model*.safetensors,Wan-AI/Wan2.1-T2V-14B:models_t5_umt5-xxl-enc-bf16.pth,Wan-AI/Wan2.1-T2V-14B:Wan2.1_VAE.pth" \
  --learning_rate 1e-5 --num_epochs 2 --output_path ./models/cars_full \
  --trainable_models "dit" --initialize_model_on_cpu --use_gradient_checkpointing_offload
