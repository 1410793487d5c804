# weights on the cluster's disk; no --num_frames, so clips of 81, and no --use_gradient_checkpointing, which Wan turns on all the same
export CUDA_VISIBLE_DEVICES=0,1,2,3
accelerate launch examples/wanvideo/model_training/train.py \
  --dataset_base_path ./clips \
  --height 480 --width 832 \
  --model_paths "[[\"$WEIGHTS/Wan2.1-I2V-14B-480P/diffusion_pytorch_model-00001-of-00007.safetensors\", \"$WEIGHTS/Wan2.1-I2V-14B-480P/diffusion_pytorch_model-00002-of-00007.safetensors\"], \"$WEIGHTS/Wan2.1-I2V-14B-480P/models_t5_umt5-xxl-enc-bf16.pth\", \"$WEIGHTS/Wan2.1-I2V-14B-480P/Wan2.1_VAE.pth\", \"$WEIGHTS/Wan2.1-I2V-14B-480P/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth\"]" \
  --learning_rate 1e-4 --num_epochs 3 \
  --output_path ./models/i2v --lora_base_model dit --lora_rank 16 \
  --extra_inputs input_image \
  --gradient_accumulation_steps 4
