"""Tests of Transformers that fail here, and why they do not fit. One that passes is an error: it leaves the table."""

LINVT_ON_ANY = {
    "test_inputs_embeds": "Videos stand in the prompt as ids. Embeddings beside them are refused by name.",
    "test_get_video_features_hidden_states": "The encoder sees a few frames at a time; states of its layers are not "
    "kept, since those of a long video take more memory than the model. The argument is refused by name.",
    "test_get_video_features_attentions": "As the hidden states.",
    "test_generate_compile_model_forward_fullgraph": "The test asks every input for a second dimension, which counts "
    "and times of frames do not have.",
}
WITHOUT_WORDS = {
    "test_model_get_set_embeddings": "It has no words.",
    "test_hidden_states_output": "Its layers work on different things, so there is no row of states of one shape; "
    "output_hidden_states is refused by name, by video tokenizers with the reason.",
    "test_model_outputs_equivalence": "The test asks for output_hidden_states.",
    "test_retain_grad_hidden_states_attentions": "The test asks for output_hidden_states.",
}
CLIP_POST_LAYERNORM = "LLaVA does not use the last layer norm of its CLIP, which therefore has no gradient."
FLAT_FRAMES = "Frames of all videos stand in a row; the test knows this form by Gemma 4's name for the counts."

EXPECTED_FAILURES: dict[str, dict[str, str]] = {
    "LlavaSuite": {
        "test_training_gradient_checkpointing": CLIP_POST_LAYERNORM,
        "test_training_gradient_checkpointing_use_reentrant_false": CLIP_POST_LAYERNORM,
        "test_training_gradient_checkpointing_use_reentrant_true": CLIP_POST_LAYERNORM,
    },
    "Qwen2VLSuite": {
        "test_generate_compile_model_forward_fullgraph": "The test halves every input, but the patches of all "
        "images stand in a row.",
    },
    "LinVTOnLlavaSuite": {
        **LINVT_ON_ANY,
        "test_training_gradient_checkpointing": CLIP_POST_LAYERNORM,
        "test_training_gradient_checkpointing_use_reentrant_false": CLIP_POST_LAYERNORM,
        "test_training_gradient_checkpointing_use_reentrant_true": CLIP_POST_LAYERNORM,
    },
    "LinVTOnQwen2VLSuite": LINVT_ON_ANY,
    "VideoTokenizerSuite": WITHOUT_WORDS,
    "AutoShotSuite": WITHOUT_WORDS,
    "LinVTConfigSuite": {
        "test_config_can_be_init_without_params": "There is no default image-LLM (`has_no_defaults_at_init`)."
    },
    "LlavaOnevisionProcessorSuite": {
        "test_apply_chat_template_video_0": "It reads files with torchcodec, which is not installed.",
        "test_apply_chat_template_video_1": "It reads files with torchcodec, which is not installed.",
        "test_apply_chat_template_video_frame_sampling": "It reads files with torchcodec, which is not installed.",
    },
    "LinVTProcessorSuite": {
        "test_apply_chat_template_decoded_video_0": FLAT_FRAMES,
        "test_apply_chat_template_video_0": FLAT_FRAMES,
        "test_apply_chat_template_video_1": FLAT_FRAMES,
        "test_apply_chat_template_video_frame_sampling": "Frames that are given as files are sampled too.",
        "test_if_input_has_mismatching_tokens_and_mm_data": "The error says the same in other words.",
        "test_init_arguments_not_in_processor_kwargs": "num_video_tokens is the model's, and free in every call; the "
        "test says itself that it may be too strict.",
        "test_get_num_multimodal_tokens_matches_processor_call_video": "The test writes its prompts without turns; a "
        "video stands in one, whose text is its instruction.",
        "test_tokenizer_decode_defaults": "The test leaves out the processor of the image-LLM.",
    },
    "LinVTVideoProcessorSuite": {
        "test_call_numpy_4_channels": "The channels of a frame are found by their number, and input_data_format is "
        "refused by name.",
        "test_call_sample_frames": "A video with fewer frames than are asked for gives all it has.",
        "test_video_processor_from_dict_with_kwargs": "All frames have one size; the test gives that of an edge.",
    },
}
