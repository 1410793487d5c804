# two cards without bfloat16 of their own; the precision is what the trainer has, whatever accelerate is told
accelerate launch --multi_gpu --num_processes=2 --num_machines=1 --mixed_precision=no \
  examples/wanvideo/model_training/train.py \
  --dataset_base_path ./clips --dataset_metadata_path ./clips/metadata.csv \
  --height 704 --width 1280 --num_frames 17 --dataset_repeat 2 \
  --model_id_with_origin_paths "Wan-AI/Wan2.2-TI2V-5B:diffusion_pytorch_model*.safetensors,Wan-AI/Wan2.2-TI2V-5B:models_t5_umt5-xxl-enc-bf16.pth,Wan-AI/Wan2.2-TI2V-5B:Wan2.2_VAE.pth" \
  --learning_rate 1e-4 --num_epochs 3 --lora_base_model dit --lora_target_modules "q,k,v,o,ffn.0,ffn.2" --lora_rank 16 \
  --lora_rank 32 --extra_inputs input_image --output_path ./models/v100 --use_gradient_checkpointing
