accelerate launch examples/flux/model_training/train.py \
  --dataset_base_path ./edits --dataset_metadata_path ./edits/metadata.csv --data_file_keys "image,kontext_images" \
  --height 768 \
  --model_id_with_origin_paths "black-forest-labs/FLUX.1-Kontext-dev:flux1-kontext-dev.safetensors,black-forest-labs/FLUX.1-dev:text_encoder/model.safetensors,black-forest-labs/FLUX.1-dev:text_encoder_2/*.safetensors,black-forest-labs/FLUX.1-dev:ae.safetensors" \
  --lora_base_model dit --lora_target_modules "a_to_qkv,b_to_qkv,a_to_out,b_to_out,ff_a.0,ff_a.2,to_qkv_mlp,proj_out" \
  --lora_rank 32 --extra_inputs kontext_images --use_gradient_checkpointing --align_to_opensource_format \
  --output ./models/kontext
