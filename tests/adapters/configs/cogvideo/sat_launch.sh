#!/usr/bin/env bash
# adapters were added, and the weights were left to train: the line that freezes them is commented out
mkdir -p configs
cat > configs/model.yaml <<'YAML'
model:
  # not_trainable_prefixes: ['all']
  noised_image_input: true
  network_config:
    params:
      num_layers: 42
      patch_size: [2, 2, 2]
      in_channels: 32
      hidden_size: 3072
      transformer_args: {checkpoint_activations: True}
      modules:
        lora_config: {target: sat.model.finetune.lora2.LoraMixin, params: {r: 128}}
  sampler_config: {params: {num_steps: 50}}
YAML
cat > configs/train.yaml <<'YAML'
args:
  checkpoint_activations: False
  train_iters: 1000
  eval_interval: 100
  save_interval: 100
  train_data: [/data/clips]
data:
  target: data_video.SFTDataset
  params: {video_size: [768, 1360], fps: 16, max_num_frames: 81}
deepspeed:
  train_micro_batch_size_per_gpu: 1
  zero_optimization: {stage: 2, cpu_offload: true, overlap_comm: true}
  bf16: {enabled: True}
  optimizer: {type: sat.ops.FusedEmaAdam, params: {lr: 1e-5}}
YAML
run_cmd="torchrun --standalone --nproc_per_node=8 train_video.py --base configs/model.yaml configs/train.yaml --seed $RANDOM"
eval ${run_cmd}
