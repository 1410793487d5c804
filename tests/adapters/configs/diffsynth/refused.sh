# a list of files without its end, a width that is no number, and a batch, which no trainer of DiffSynth-Studio has
accelerate launch examples/wanvideo/model_training/train.py \
  --dataset_base_path ./clips --height 480 --width 832p --batch_size 2 \
  --model_paths '["dit.safetensors", "t5.pth"' \
  --lora_base_model dit --lora_rank $RANK
