"""How the processors of all families present a picture: special tokens, what the chat template writes, settings.

Chat templates and tokenizers are on the Hub only; what they write for a picture is here.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Convention:
    """
    How a processor class presents a picture.

    Args:
        tokens (`dict[str, str]`): Special tokens that are attributes of the tokenizer.
        others (`tuple[str, ...]`): Special tokens that the class names itself.
        picture (`str`): What the chat template writes for a picture.
        visual_token (`str`): The token whose embeddings are replaced by visual tokens.
        count (`str`): Name of the setting that says how many of them a picture has.
        settings (`dict`): Other settings of the class.
    """

    tokens: dict[str, str] = field(default_factory=lambda: {"image_token": "<image>", "video_token": "<video>"})
    others: tuple[str, ...] = ()
    picture: str = "<image>"
    visual_token: str = "<image>"
    count: str = ""
    settings: dict = field(default_factory=dict)


def _between(start: str, token: str, end: str, **tokens: str) -> Convention:
    """The picture's token stands between markers that the template writes."""
    video_token = tokens.pop("video_token", "<|video|>")
    return Convention(
        {"image_token": token, "video_token": video_token, **tokens}, (start, end), start + token + end, token
    )


_BOI_EOI = {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
_AUDIO = {"audio_token": "<audio>", "boa_token": "<boa>", "eoa_token": "<eoa>"}
_LLAVA = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
_FULL = {"vision_feature_select_strategy": "full"}
_QWEN = _between(
    "<|vision_start|>",
    "<|image_pad|>",
    "<|vision_end|>",
    video_token="<|video_pad|>",
    vision_start_token="<|vision_start|>",
    vision_end_token="<|vision_end|>",
)
_GLM = _between("<|begin_of_image|>", "<|image|>", "<|end_of_image|>")
_IDEFICS = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
_MINICPM = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
_MUSE = Convention({}, ("<|patch|>", "<|image_start|>", "<|image_end|>", "<|audio|>"), "<|patch|>", "<|patch|>")
_OMNI = _between(
    "<|vision_bos|>",
    "<|IMAGE|>",
    "<|vision_eos|>",
    video_token="<|VIDEO|>",
    audio_token="<|AUDIO|>",
    vision_bos_token="<|vision_bos|>",
    vision_eos_token="<|vision_eos|>",
    audio_bos_token="<|audio_bos|>",
    audio_eos_token="<|audio_eos|>",
)
_INTERNVL = {
    "context_image_token": "<IMG_CONTEXT>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "video_token": "<video>",
}

CONVENTIONS = {
    "Apertus1p5Processor": Convention({**_BOI_EOI, **_AUDIO, "image_wrapper_token": "<wrap>", "eol_token": "<eol>"}),
    "AriaProcessor": Convention(
        {"image_token": "<|img|>"},
        ("<fim_prefix>", "<fim_suffix>"),
        "<fim_prefix><|img|><fim_suffix>",
        "<|img|>",
        settings={"size_conversion": {980: 4}},
    ),
    "AyaVisionProcessor": Convention(
        {},
        ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>"),
        visual_token="<|IMG_PATCH|>",
        settings={"img_size": 56},
    ),
    "ChameleonProcessor": Convention({**_BOI_EOI, "sep_token": "<sep>"}, count="image_seq_length"),
    "Cohere2VisionProcessor": Convention({**_BOI_EOI, "img_line_break_token": "<br>"}),
    "CohereCompassProcessor": _between(
        "<|VISION_START|>", "<|IMAGE_PAD|>", "<|VISION_END|>", video_token="<|VIDEO_PAD|>"
    ),
    "Cosmos3EdgeProcessor": _QWEN,
    # Its encoder makes 12 x 12 tokens of a small picture, however small.
    "DeepseekOcr2Processor": Convention(
        {"image_token": "<image>"}, settings={"patch_size": 11, "downsample_ratio": 1}
    ),
    "DeepseekVLProcessor": Convention({"image_token": "<image>"}, count="num_image_tokens"),
    "Dots3NoteProcessor": Convention(
        {}, ("<|imgpad|>", "<|video_pad|>", "<|audio_comp_pad|>"), "<|img|><|imgpad|><|endofimg|>", "<|imgpad|>"
    ),
    "Emu3Processor": Convention(
        {**_BOI_EOI, "image_wrapper_token": "<wrap>", "eof_token": "<eof>", "bos_token": "<bos>"}
    ),
    "Ernie4_5_VLMoeProcessor": _between(
        "<|IMAGE_START|>",
        "<|IMAGE_PLACEHOLDER|>",
        "<|IMAGE_END|>",
        image_start_token="<|IMAGE_START|>",
        image_end_token="<|IMAGE_END|>",
        video_start_token="<|VIDEO_START|>",
        video_end_token="<|VIDEO_END|>",
    ),
    "Exaone4_5_Processor": _between("<vision>", "<|image_pad|>", "</vision>", video_token="<|video_pad|>"),
    "FuyuProcessor": Convention({}, ("|SPEAKER|", "|NEWLINE|", "<s>", "<0x04>"), "|SPEAKER|", "|SPEAKER|"),
    "Gemma3Processor": Convention(_BOI_EOI, (), "<boi>", count="image_seq_length"),
    "Gemma3nProcessor": Convention({**_BOI_EOI, **_AUDIO}, count="image_seq_length"),
    "Gemma4Processor": Convention({**_BOI_EOI, **_AUDIO}),
    "Gemma4UnifiedProcessor": Convention({**_BOI_EOI, **_AUDIO}),
    "Glm46VProcessor": _GLM,
    "Glm4vProcessor": _GLM,
    "Glm5NextProcessor": _GLM,
    "GotOcr2Processor": Convention({}, ("<img>", "</img>", "<imgpad>"), "<img><imgpad></img>", "<imgpad>"),
    "GraniteDoclingProcessor": Convention({"image_token": "<image>"}, _IDEFICS, count="image_seq_len"),
    "HYV4VLProcessor": _QWEN,
    "HunYuanVLProcessor": _between("<img>", "<image>", "</img>", image_start_token="<img>", image_end_token="</img>"),
    "HyperCLOVAXVisionV2Processor": _QWEN,
    "Idefics2Processor": Convention(
        {"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"}, count="image_seq_len"
    ),
    "Idefics3Processor": Convention({}, _IDEFICS, count="image_seq_len"),
    "Inkling2Processor": Convention({"image_token": "<image>"}),
    "InklingProcessor": Convention(
        {"image_token": "<image>", "audio_token": "<audio>"},
        ("<|content_image|>", "<|content_audio_input|>"),
        "<|content_image|><image>",
    ),
    "InternVLProcessor": Convention(_INTERNVL, (), "<IMG_CONTEXT>", "<IMG_CONTEXT>", "image_seq_length"),
    "JanusProcessor": Convention(_BOI_EOI, count="num_image_tokens"),
    "Kimi_K25Processor": _between("<|media_begin|>", "<|media_pad|>", "<|media_end|>"),
    "Lfm2VlProcessor": Convention(
        {"image_token": "<image>"}, ("<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")
    ),
    "Lfm3VlProcessor": _QWEN,
    "LightOnOcrProcessor": Convention(
        {"image_token": "<image>", "image_break_token": "<break>", "image_end_token": "<end>"},
        settings={"patch_size": 14, "spatial_merge_size": 2},
    ),
    "LlavaNextProcessor": Convention(settings=_LLAVA),
    "LlavaNextVideoProcessor": Convention(settings=_LLAVA),
    "LlavaOnevisionProcessor": Convention(settings=_FULL | {"num_image_tokens": 16}),
    "LlavaProcessor": Convention(settings=_LLAVA),
    "MiniCPMOcrProcessor": Convention(_MINICPM, (), "<|image_pad|>", "<|image_pad|>"),
    "MiniCPMV4_6Processor": Convention(_MINICPM, (), "<|image_pad|>", "<|image_pad|>"),
    "MiniCPMV4_7Processor": Convention(_MINICPM, (), "<|image_pad|>", "<|image_pad|>"),
    "MiniMaxM3VLProcessor": Convention(
        {}, ("]<]start of image[>[", "]<]image[>[", "]<]end of image[>["), "]<]image[>[", "]<]image[>["
    ),
    "MolmoProcessor": Convention({}, ("<im_start>", "<im_patch>", "<im_col>", "<im_end>"), "<im_patch>", "<im_patch>"),
    "Molmo2Processor": Convention(
        {"image_token": "<|image|>", "video_token": "<|video|>", "bos_token": "<bos>"},
        (
            "<im_patch>",
            "<im_col>",
            "<im_start>",
            "<low_res_im_start>",
            "<frame_start>",
            "<im_end>",
            "<frame_end>",
            "<im_low>",
        ),
        "<|image|>",
        "<im_patch>",
    ),
    "MuseGlimmerProcessor": _MUSE,
    "MuseSparkProcessor": _MUSE,
    "NemotronH_Omni_Reasoning_V3Processor": Convention(
        {"image_token": "<image>", "video_token": "<video>"},
        ("<img>", "</img>", "<so_embedding>", "<so_start>", "<so_end>"),
    ),
    "Ovis2Processor": Convention(
        {},
        ("<image>", "<IMG_START>", "<IMG_ATOM>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"),
        visual_token="<IMG_ATOM>",
        count="image_seq_length",
    ),
    "PaddleOCRVLProcessor": _between("<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>"),
    "PaliGemmaProcessor": Convention({"image_token": "<image>", "bos_token": "<bos>"}),
    "PerceptionLMProcessor": Convention(settings={"patch_size": 14, "pooling_ratio": 1}),
    "PixtralProcessor": Convention(
        {},
        ("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        "[IMG]",
        "[IMG]",
        settings={"patch_size": 14, "spatial_merge_size": 2},
    ),
    "QianfanOCRProcessor": Convention(
        {name: token for name, token in _INTERNVL.items() if name != "video_token"},
        ("<image>",),
        visual_token="<IMG_CONTEXT>",
        count="image_seq_length",
    ),
    "Qwen2VLProcessor": _QWEN,
    "Qwen2_5OmniProcessor": _OMNI,
    "Qwen2_5_VLProcessor": _QWEN,
    "Qwen3OmniMoeProcessor": _OMNI,
    "Qwen3VLProcessor": _QWEN,
    "QwenVLProcessor": Convention({}, ("<img>", "<imgpad>", "</img>"), "<imgpad>", "<imgpad>", "num_image_tokens"),
    "SmolVLMProcessor": Convention(others=_IDEFICS, count="image_seq_len"),
    "Step3p7Processor": Convention({}, ("<im_patch>", "<im_start>", "<im_end>"), "<im_patch>", "<im_patch>"),
    "UnlimitedOcrProcessor": Convention({"image_token": "<image>"}, settings={"patch_size": 14}),
    "VideoLlama3Processor": Convention(_QWEN.tokens, (), "<|image_pad|>", "<|image_pad|>"),
    "VideoLlavaProcessor": Convention(settings=_LLAVA),
    "XGenMMProcessor": Convention({}, ("<image>",), count="num_latents"),
}

OF_MODEL_TYPE = {
    "fast_vlm": Convention(settings=_LLAVA | {"patch_size": 28, "num_additional_image_tokens": 0, **_FULL}),
    "linvt_mipha": Convention(settings=_LLAVA | _FULL),
}
"""Where the processor is that of another model type, and its settings are not."""
