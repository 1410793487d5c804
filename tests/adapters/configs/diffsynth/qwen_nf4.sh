accelerate launch --num_processes 1 examples/qwen_image/model_training/train.py \
  --dataset_base_path ./shoes --dataset_metadata_path ./shoes/metadata.csv \
  --max_pixels 1048576 --dataset_repeat 30 --dataset_num_workers 4 \
  --model_id_with_origin_paths "Qwen/Qwen-Image:transformer/diffusion_pytorch_model*.safetensors,Qwen/Qwen-Image:text_encoder/model*.safetensors,Qwen/Qwen-Image:vae/diffusion_pytorch_model.safetensors" \
  --quant_options "Qwen/Qwen-Image:transformer/diffusion_pytorch_model*.safetensors:bitsandbytes_nf4/img_in,txt_in,proj_out" \
  --lora_base_model dit --lora_target_modules "to_q,to_k,to_v,add_q_proj,add_k_proj,add_v_proj,to_out.0,to_add_out,img_mlp.net.2,txt_mlp.net.2" \
  --lora_rank 16 --use_gradient_checkpointing --customized_optimizer bitsandbytes.optim.AdamW8bit \
  --learning_rate 1e-4 --num_epochs 5 --find_unused_parameters --output_path ./models/shoes
