accelerate launch examples/wanvideo/model_training/train.py \
  --dataset_base_path ./clips --dataset_metadata_path ./clips/metadata.csv --height 480 --width 832 --num_frames 17 \
  --model_id_with_origin_paths "Wan-AI/Wan2.1-VACE-1.3B:diffusion_pytorch_model*.safetensors,Wan-AI/Wan2.1-VACE-1.3B:models_t5_umt5-xxl-enc-bf16.pth,Wan-AI/Wan2.1-VACE-1.3B:Wan2.1_VAE.pth" \
  --lora_base_model vace --lora_rank 32 --extra_inputs "vace_video,vace_reference_image"
