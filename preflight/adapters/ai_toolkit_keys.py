"""Every key that ai-toolkit reads, block by block: toolkit/config_modules.py and the processes (ostris/ai-toolkit, 27a03a9)."""

from __future__ import annotations

KEYS: dict[str, str] = {
    "": """
        device do_lorm first_sample log_dir lorm_extract_mode lorm_extract_mode_param name performance_log_every
        sqlite_db_path torch_profiler training_folder training_seed trigger_word type
    """,
    "model": """
        accuracy_recovery_adapter arch assistant_lora_path attn_masking auto_memory block_compile cache_size_limit compile
        compile_dynamic compile_fullgraph compile_mode dtype experimental_xl extras_name_or_path ignore_if_contains in_context
        inference_lora_path is_auraflow is_flux is_lumina2 is_pixart is_pixart_sigma is_ssd is_v2 is_v3 is_v_pred is_vega
        is_xl latent_space_version layer_offloading layer_offloading_text_encoder_percent layer_offloading_transformer_percent
        lora_path low_vram  model_paths name_or_path only_if_contains qtype qtype_te quantize quantize_kwargs
        quantize_te refiner_name_or_path refiner_start_at split_model_other_module_param_count_scale split_model_over_gpus
        te_device te_dtype te_name_or_path text_encoder_bits unconditional_lora_path unet_path unet_sample_size use_flux_cfg
        use_text_encoder_1 use_text_encoder_2 vae_device vae_dtype vae_path
    """,
    "network": """
        all_layers alpha conv conv_alpha dropout layer_offloading linear linear_alpha lokr_factor lokr_full_rank lorm
         old_lokr_format pretrained_lora_path rank split_multistage_loras transformer_only type
    """,
    "datasets.*": """
        alpha_mask audio_normalize audio_preserve_pitch augmentations augments auto_frame_count batch_size bucket_tolerance
        buckets cache_clip_vision_to_disk cache_latents cache_latents_num_workers cache_latents_to_disk cache_tensors_to_disk
        cache_text_embeddings caption_dropout_rate caption_ext caption_type clip_image_augmentations
        clip_image_from_same_folder clip_image_path clip_image_shuffle_augmentations control_from_same_folder control_path
        control_path_1 control_path_2 control_path_3 control_transparent_color controls dataset_path debug default_caption
        diff_output_preservation diff_output_preservation_class do_audio do_i2v extra_values fast_image_size flip_x flip_y
        folder_path fps full_size_control_images guidance_type inpaint_path invert_mask is_reg keep_tokens
        load_image_when_caching_latents loss_multiplier mask_min_value mask_path network_weight num_controls_from_same_folder
        num_frames num_repeats num_workers poi prefetch_factor prior_reg random_crop random_scale random_triggers
        random_triggers_max replacements replay_transforms resolution scale shrink_video_to_frames shuffle_augmentations
        shuffle_tokens square_crop standardize_images token_dropout_rate trigger_word trim_auto_frame_count_tail type
        unconditional_path use_short_captions
    """,
    "train": """
        adapter_assist_name_or_path adapter_assist_type adapter_lr adaptive_scaling_factor attention_backend
        audio_loss_multiplier batch_noise_correction_scale batch_size blank_prompt_preservation
        blank_prompt_preservation_multiplier blended_blur_noise bypass_guidance_embedding cache_text_embeddings cfg_rescale
        cfg_scale content_or_style correct_pred_norm correct_pred_norm_multiplier diff_output_preservation
        diff_output_preservation_class diff_output_preservation_multiplier differential_guidance_scale
        diffusion_feature_extractor_path diffusion_feature_extractor_weight disable_sampling do_batch_noise_correction
        do_blank_stabilization do_cfg do_differential_guidance do_fft_loss do_fft_velocity_equiv_weight do_guidance_loss
        do_guidance_loss_cfg_zero do_paramiter_swapping do_prior_divergence do_random_cfg do_signal_amplification
        do_signal_correction_noise dtype dynamic_noise_offset  embedding_lr force_consistent_noise
        force_first_sample free_u gradient_accumulation gradient_accumulation_steps gradient_checkpointing
        guidance_loss_schedule guidance_loss_target img_multiplier inverted_mask_prior inverted_mask_prior_multiplier
        latent_feature_extractor_path latent_feature_loss_weight latent_multiplier learnable_snr_gos linear_timesteps
        linear_timesteps2 loss_target loss_type lr lr_scheduler lr_scheduler_params match_adapter_assist match_adapter_chance
        match_noise_norm max_cfg_scale max_denoising_steps max_grad_norm max_loss max_loss_debug max_negative_prompts
        merge_network_on_save merge_network_on_save_strength min_denoising_steps min_snr_gamma negative_prompt
        next_sample_timesteps noise_multiplier noise_offset noise_scheduler noisy_latent_multiplier num_train_timesteps
        optimal_noise_pairing_samples optimizer optimizer_params paramiter_swapping_factor pred_scaler prompt_dropout_prob
        prompt_saturation_chance random_noise_multiplier random_noise_shift refiner_lr reg_weight sdp short_and_long_captions
        short_and_long_captions_encoder_split show_turbo_outputs signal_amplification_strength signal_correction_noise_scale
        single_item_batching skip_first_sample snr_gamma standardize_images standardize_latents start_step steps
        switch_boundary_every t0_loss_target t0_velocity_equiv_weight target_noise_multiplier target_norm_std
        target_norm_std_value text_encoder_lr timestep_type train_refiner train_text_encoder train_turbo train_unet
        unconditional_prompt unet_lr unload_text_encoder validation_config weight_jitter xformers
    """,
    "train.ema_config": """
        ema_decay param_multiplier use_ema use_feedback
    """,
    "save": """
        dtype hf_private hf_repo_id max_step_saves_to_keep push_to_hub save_every save_format
    """,
    "sample": """
        adapter_conditioning_scale do_cfg_norm extra_values format fps guidance_rescale guidance_scale height neg
        network_multiplier num_frames prompts refiner_start_at sample_every sample_start_step sample_steps sampler
        seed walk_seed width
    """,
    "sample.samples.*": """
        ctrl_idx ctrl_img ctrl_img_1 ctrl_img_2 ctrl_img_3 do_cfg_norm fps guidance_scale height neg network_multiplier
        num_frames prompt sample_steps seed width
    """,
    "slider": """
        additional_losses anchor_class anchor_strength guidance_strength negative_prompt positive_prompt target_class weight_jitter
    """,
    "slider.datasets.*": """
        neg_folder neg_weight network_weight pair_folder pos_folder pos_weight size target_class
    """,
    "logging": """
        log_every project_name run_name use_ui_logger use_wandb verbose
    """,
    "guidance": """
        guidance_scale negative_prompt positive_prompt target_class
    """,
}

#: Groups that go on whole to a model or a network.
OPEN = ("model.model_kwargs.*", "network.network_kwargs.*", "first_sample.*")


def read() -> tuple[str, ...]:
    """The keys, dotted."""
    return tuple(f"{group}.{word}".lstrip(".") for group, words in KEYS.items() for word in words.split())
