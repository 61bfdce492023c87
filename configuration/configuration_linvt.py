"""Configuration of LinVT: an image-LLM, untouched, and the video tokenizer that is added to it.

Section and table numbers are those of "LinVT: Empower Your Image-level Large Language Model to Understand Videos".
"""

import copy
import re
from numbers import Integral
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from linvt.configuration.configuration_red_villm import RedVillmVideoConfig
from linvt.configuration.known_settings import check_settings, refuse_unknown_settings


MultiScale = Literal["single", "multi_a", "multi_b", "multi_c"]


@strict
class LinVTVideoConfig(PreTrainedConfig):
    r"""
    Configuration of the video tokenizer: the spatio-temporal visual token refiner (SVR, Sec. 3.2.1) and the
    text-conditioned token aggregation (TTA, Sec. 3.2.2).

    Args:
        start (`str`, *optional*, defaults to `"merge"`):
            What the video tokenizer does before it is trained. `"merge"`: SVR keeps the tokens that are new to their
            shot, and TTA averages clusters of them; what is learnt adds to that. `"random"`: the paper's, random
            weights all through. What was saved before there was a choice is `"random"`.
        embedding_size (`int`, *optional*):
            Channels C of the frame tokens, which is the width of the LLM's embeddings. [`LinVTConfig`] fills it in.
        hidden_size (`int`, *optional*, defaults to 1024):
            Channels d inside the video tokenizer. Independent of C, so that the parameters stay below the paper's
            267 M (Sec. 6) for every image-LLM.
        intermediate_size (`int`, *optional*, defaults to 4096):
            Channels inside the feed-forward layers.
        num_layers (`int`, *optional*, defaults to 4):
            Layers L of SVR and, separately, of TTA (Sec. 6, Tab. 12).
        num_attention_heads (`int`, *optional*, defaults to 8):
            Attention heads (Sec. 6).
        top_k (`int`, *optional*, defaults to 2048):
            Frame tokens of a video that SVR keeps (Sec. 3.2.1, Tab. 12): the best ones, or while it learns
            (`model.train()`) such as are drawn with odds of exp(score). A video with fewer keeps all.
        max_shot_frames (`int`, *optional*, defaults to 64):
            Frames of a shot that SVR looks at together; longer shots are cut into windows.
        num_queries (`list[int]`, *optional*, defaults to `(64, 32, 16)`):
            Video tokens per scale, finest scale first (Sec. 6, Tab. 12). Their sum is what the LLM sees of a video,
            unless a call asks for another number, which `start="merge"` allows.
        pooling_windows (`list[int]`, *optional*, defaults to `(1, 4, 16)`):
            Tokens that one average-pooling window covers, per scale (Sec. 3.2.1, multi-scale token pooling). Windows
            shift by half their length. The paper gives no lengths.
        multi_scale (`str`, *optional*, defaults to `"multi_c"`):
            Where multi-scale pooling stands (Fig. 3, Tab. 4): `"single"` nowhere; `"multi_a"` after TTA; `"multi_b"`
            before TTA, one TTA over all scales at once; `"multi_c"` before TTA, each scale on its own.
        temporal_attention (`str`, *optional*):
            Frames that a frame attends to when tokens are scored: those of its own `"shot"`, so that videos of any
            length are seen piece by piece, in flat memory; or all of the `"video"`, as in the paper. By default
            `"shot"` where SVR starts from merging, `"video"` elsewhere, and in what was saved before that.
        use_svr (`bool`, *optional*, defaults to `True`):
            Whether tokens are scored and selected (Tab. 2). Without it TTA reads every frame token.
        use_tta (`bool`, *optional*, defaults to `True`):
            Whether queries aggregate the tokens (Tab. 2). Without it, each video token is the score-weighted average
            of one window of the selected tokens. Without SVR too, it is the plain average of one even window of the
            frame tokens: with `num_queries=[num_frames]` one token per frame, the baseline of Tab. 2.
        text_conditioning (`bool`, *optional*, defaults to `True`):
            Whether the queries read the user's instruction (Tab. 5).
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of fresh weights.
    """

    model_type = "linvt_video"
    base_config_key = "video_tokenizer_config"

    start: Literal["merge", "random"] | None = None
    embedding_size: int | None = None
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_layers: int = 4
    num_attention_heads: int = 8
    top_k: int = 2048
    max_shot_frames: int = 64
    num_queries: list[int] | tuple[int, ...] = (64, 32, 16)
    pooling_windows: list[int] | tuple[int, ...] = (1, 4, 16)
    multi_scale: MultiScale = "multi_c"
    temporal_attention: Literal["video", "shot"] | None = None
    use_svr: bool = True
    use_tta: bool = True
    text_conditioning: bool = True
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        refuse_unknown_settings(self, kwargs)
        super().__post_init__(**kwargs)
        if self.start is None:
            self.start = "merge" if self.transformers_version is None else "random"
        if self.temporal_attention is None:
            streams = self.start == "merge" and self.use_svr and self.transformers_version is None
            self.temporal_attention = "shot" if streams else "video"
        self.num_queries = list(self.num_queries)
        self.pooling_windows = list(self.pooling_windows)
        self._check_sizes()
        self._check_variant()

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict, dict]:
        """As `PreTrainedConfig.get_config_dict`; as a part of a saved configuration it is a saved one, too."""
        fields, others = super().get_config_dict(*args, **kwargs)
        part = fields.get(cls.base_config_key)
        if isinstance(part, dict):
            part.setdefault("transformers_version", fields.get("transformers_version"))
        return fields, others

    def to_diff_dict(self) -> dict:
        """As `PreTrainedConfig.to_diff_dict`, with all whose default depends on where a configuration is from."""
        fields = {"start": self.start, "temporal_attention": self.temporal_attention}
        return {**super().to_diff_dict(), **fields}

    @property
    def num_video_tokens(self) -> int:
        """Video tokens that the LLM sees of one video."""
        return sum(self.num_queries)

    @property
    def learns_relevance(self) -> bool:
        """Returns whether the video tokenizer learns which frame tokens an instruction is about."""
        return self.start == "merge" and self.use_tta and self.text_conditioning

    def video_tokens_per_scale(self, number: int) -> list[int]:
        """
        Shares out a number of video tokens among the scales, in the proportions of `num_queries`; what rounding leaves
        goes to the finest, which has at least one.
        """
        coarser = [number * queries // self.num_video_tokens for queries in self.num_queries[1:]]
        return [number - sum(coarser), *coarser]

    def check_num_video_tokens(self, number: int) -> None:
        """Raises a `ValueError` unless a video can become this number of tokens."""
        is_count = isinstance(number, Integral) and not isinstance(number, bool) and number >= 1
        if is_count and number == self.num_video_tokens:
            return
        if not is_count or self.start != "merge" or (self.use_svr and number > self.top_k):
            allowed = f"any whole number from 1 to {self.top_k}, its top_k" if self.use_svr else "1 or more"
            if self.start != "merge":
                allowed = f"{self.num_video_tokens}, since it has learnt as many queries (start='random')"
            raise ValueError(
                f"A video shall become {number!r} tokens (num_video_tokens); this video tokenizer makes {allowed}."
            )

    def _check_sizes(self) -> None:
        for name in (
            "embedding_size",
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_attention_heads",
            "top_k",
            "max_shot_frames",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        if self.hidden_size % self.num_attention_heads != 0 or self.hidden_size % 8 != 0:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of 8, for the features of time, row and column, "
                f"and of num_attention_heads {self.num_attention_heads}; change one of them."
            )
        if not self.num_queries or min(self.num_queries) < 1:
            raise ValueError(f"num_queries is {self.num_queries}; give at least one scale and one query per scale.")
        if len(self.pooling_windows) != len(self.num_queries):
            raise ValueError(
                f"pooling_windows {self.pooling_windows} and num_queries {self.num_queries} must have one entry per "
                "scale each; make them equally long."
            )
        if min(self.pooling_windows) < 1 or sorted(self.pooling_windows) != self.pooling_windows:
            raise ValueError(
                f"pooling_windows is {self.pooling_windows}; windows must be at least 1 token long and go from the "
                "finest scale (shortest) to the coarsest."
            )
        if self.use_svr and self.top_k < self.num_video_tokens:
            raise ValueError(
                f"top_k {self.top_k} keeps fewer frame tokens than the {self.num_video_tokens} video tokens of "
                f"num_queries {self.num_queries} that are made of them; raise top_k or lower num_queries."
            )

    def _check_variant(self) -> None:
        if not self.use_svr and self.multi_scale != "single":
            raise ValueError(
                f"multi_scale is {self.multi_scale!r}, but pooling is a part of SVR (Sec. 3.2.1) and use_svr is "
                "False; set multi_scale='single'."
            )
        if not self.use_tta and self.multi_scale in ("multi_a", "multi_b"):
            raise ValueError(
                f"multi_scale is {self.multi_scale!r}, which says how TTA handles the scales, but use_tta is False; "
                "set multi_scale='multi_c' or 'single'."
            )
        if not self.use_tta and self.text_conditioning:
            raise ValueError(
                "text_conditioning is True, but only TTA reads the instruction and use_tta is False; set "
                "text_conditioning=False."
            )
        if not self.use_svr and self.temporal_attention == "shot":
            raise ValueError(
                "temporal_attention is 'shot', but only SVR attends over time and use_svr is False; set "
                "temporal_attention='video'."
            )
        if self.multi_scale == "multi_a" and max(self.num_queries) != self.num_queries[0]:
            raise ValueError(
                f"multi_scale='multi_a' pools the {self.num_queries[0]} tokens of the finest scale into those of the "
                f"others, so no scale of num_queries {self.num_queries} may have more; put the largest first."
            )


def _of_the_llm(name: str) -> property:
    """A property that stands for this field of the language model's configuration."""
    return property(
        lambda self: getattr(self.text_config, name),
        lambda self, value: setattr(self.text_config, name, value),
        doc=f"Returns {name} of the LLM.",
    )


@strict
class LinVTConfig(PreTrainedConfig):
    r"""
    Configuration of [`LinVTForConditionalGeneration`].

    Args:
        image_llm_config (`dict` or `PreTrainedConfig`):
            Configuration of the image-LLM that is wrapped, of any model type that `AutoConfig` knows.
        video_tokenizer_config (`dict`, `LinVTVideoConfig` or `RedVillmVideoConfig`, *optional*):
            Configuration of the video tokenizer; LinVT with all defaults if left out. The `model_type` of a dict says
            which it is, LinVT without one.
        frames_per_batch (`int`, *optional*, defaults to 16):
            Frames that go through the vision encoder at once. Lower it when the encoder runs out of memory; the
            result does not depend on it.
        frames_per_patch (`int`, *optional*, defaults to 1):
            Frames that the vision encoder takes in as one. The encoder of Qwen2-VL has patches two frames deep: 2
            halves its cost, and that of the video tokenizer, and two neighbours share their tokens.
        image_llm_source (`dict[str, str]`, *optional*):
            `"id"` and `"revision"` (the commit) of the image-LLM that was wrapped, if it came from the Hub.
        image_llm_weights (`str`, *optional*, defaults to `"inside"`):
            Where a checkpoint has the weights of its image-LLM: `"inside"`; in a light one `"source"`, that is
            `image_llm_source`, or `"source_and_adapter"`, there with the LoRA in its subfolder `adapter/` added.

    Example:

    ```python
    >>> from linvt import LinVTConfig
    >>> from transformers import LlavaConfig

    >>> config = LinVTConfig(image_llm_config=LlavaConfig(), video_tokenizer_config={"num_queries": [32, 16, 8]})
    >>> config.num_video_tokens
    56
    ```
    """

    model_type = "linvt"
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference: ClassVar = [
        "cache",
        "past_key_values",  # its name before Transformers 5.24
        "contrastive_loss",
        "video_tokens",
        "video_token_weights",
    ]
    sub_configs: ClassVar = {"image_llm_config": AutoConfig, "video_tokenizer_config": AutoConfig}

    image_llm_config: dict | PreTrainedConfig | None = None
    video_tokenizer_config: dict | PreTrainedConfig | None = None
    frames_per_batch: int = 16
    frames_per_patch: int = 1
    image_llm_source: dict | None = None
    image_llm_weights: Literal["inside", "source", "source_and_adapter"] = "inside"

    # What PEFT, TRL, Accelerate and DeepSpeed read off the configuration of any model that generates text.
    hidden_size = _of_the_llm("hidden_size")
    num_hidden_layers = _of_the_llm("num_hidden_layers")
    num_attention_heads = _of_the_llm("num_attention_heads")
    num_key_value_heads = _of_the_llm("num_key_value_heads")
    max_position_embeddings = _of_the_llm("max_position_embeddings")
    vocab_size = _of_the_llm("vocab_size")

    def __post_init__(self, **kwargs):
        tie_word_embeddings = kwargs.pop("tie_word_embeddings", None)
        refuse_unknown_settings(self, kwargs)
        image_llm_config = _image_llm_config(self.image_llm_config)
        video_tokenizer_config = _video_config(self.video_tokenizer_config, self.transformers_version)
        attn_implementation = kwargs.pop("attn_implementation", None)
        if not self.is_remote_code():
            kwargs.pop("auto_map", None)  # of a self-contained checkpoint, whose code this class does not save
        # The base class hands its own settings down to the sub-configurations. They stand aside meanwhile: the
        # configuration of a live image-LLM must not change because the model is wrapped.
        self.image_llm_config = self.video_tokenizer_config = None
        super().__post_init__(**kwargs)
        self.image_llm_config, self.video_tokenizer_config = image_llm_config, video_tokenizer_config
        if attn_implementation is not None:
            self._attn_implementation = attn_implementation
        if tie_word_embeddings not in (None, self.tie_word_embeddings):
            self.tie_word_embeddings = tie_word_embeddings
        for name in ("frames_per_batch", "frames_per_patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        self._check_image_llm_source()
        embedding_size = self.get_text_config().hidden_size
        if self.video_tokenizer_config.embedding_size not in (None, embedding_size):
            raise ValueError(
                f"This video tokenizer is made for embeddings of {self.video_tokenizer_config.embedding_size} "
                f"channels, but those of the image-LLM ({self.image_llm_config.model_type}) have {embedding_size}; "
                "leave embedding_size out, or use the image-LLM that it was trained with."
            )
        self.video_tokenizer_config.embedding_size = embedding_size

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs: Any) -> "LinVTConfig":
        """As `PreTrainedConfig.from_dict`; what is to be changed of the saved video tokenizer is checked as well."""
        changes = kwargs.get("video_tokenizer_config")
        if isinstance(changes, dict):
            saved = config_dict.get("video_tokenizer_config") or {}
            check_settings(_video_config_class({**saved, **changes}), changes)
        return super().from_dict(config_dict, **kwargs)

    @property
    def num_video_tokens(self) -> int:
        """Video tokens that the LLM sees of one video."""
        return self.video_tokenizer_config.num_video_tokens

    def _check_image_llm_source(self) -> None:
        source = self.image_llm_source
        if source is not None and not (
            source.keys() == {"id", "revision"} and re.fullmatch(r"[0-9a-f]{40}", source["revision"])
        ):
            raise ValueError(
                f"image_llm_source is {source}; give {{'id': Hub id of the image-LLM, 'revision': its whole commit}}."
            )
        if source is None and self.image_llm_weights != "inside":
            raise ValueError(
                f"image_llm_weights is {self.image_llm_weights!r}, but there is no image_llm_source, whose they are; "
                "give its id and revision."
            )

    @property
    def text_config(self) -> PreTrainedConfig:
        """Returns the configuration of the image-LLM's language model."""
        return self.get_text_config()

    @property
    def tie_word_embeddings(self) -> bool:
        """Returns whether the LLM's head shares its weights with the embeddings; set, it is so for the image-LLM."""
        return getattr(self.image_llm_config, "tie_word_embeddings", False)

    @tie_word_embeddings.setter
    def tie_word_embeddings(self, value: bool) -> None:
        # Many image-LLMs take it from their language model's configuration when they are loaded.
        self.image_llm_config.tie_word_embeddings = self.text_config.tie_word_embeddings = value

    def to_dict(self) -> dict:
        """
        As `PreTrainedConfig.to_dict`, with `tie_word_embeddings`, which PEFT reads off it, and without the folder or
        id that the image-LLM was loaded from.
        """
        fields = super().to_dict()
        fields["tie_word_embeddings"] = self.tie_word_embeddings
        # Transformers leaves it out of the outer configuration only, and would publish a path of this machine.
        fields["image_llm_config"]["_name_or_path"] = ""
        return fields

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The configuration of the image-LLM's language model."""
        return self.image_llm_config.get_text_config(decoder=decoder, encoder=encoder)


def _image_llm_config(config: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    if isinstance(config, PreTrainedConfig):
        return config
    if config is None:
        raise ValueError(
            "LinVTConfig needs image_llm_config, the configuration of the image-LLM to wrap; to wrap a trained one "
            "use LinVTForConditionalGeneration.from_image_llm(id)."
        )
    fields = dict(config)
    model_type = fields.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"image_llm_config has model_type {model_type!r}, which this version of Transformers does not know; give "
            "the model_type of a Transformers image-LLM, or the configuration object itself."
        )
    return CONFIG_MAPPING[model_type].from_dict(fields)


def _video_config(
    config: dict | PreTrainedConfig | None, transformers_version: str | None
) -> LinVTVideoConfig | RedVillmVideoConfig:
    """
    Makes the configuration of the video tokenizer; `transformers_version` is that of the saved configuration that it
    is a part of, `None` where it is not from a saved one.
    """
    if config is None or isinstance(config, dict):
        fields = {"transformers_version": transformers_version, **(config or {})}
        config_class = _video_config_class(fields)
        fields.pop("model_type", None)
        return config_class(**fields)
    if not isinstance(config, (LinVTVideoConfig, RedVillmVideoConfig)):
        raise ValueError(
            f"video_tokenizer_config is a {type(config).__name__}; give a LinVTVideoConfig, a RedVillmVideoConfig or "
            "a dict."
        )
    return copy.deepcopy(config)  # it is completed with the width of this image-LLM; the caller's stays as it is


def _video_config_class(fields: dict) -> type[LinVTVideoConfig] | type[RedVillmVideoConfig]:
    classes = {config_class.model_type: config_class for config_class in (LinVTVideoConfig, RedVillmVideoConfig)}
    model_type = fields.get("model_type", LinVTVideoConfig.model_type)
    if model_type not in classes:
        raise ValueError(
            f"video_tokenizer_config has model_type {model_type!r}; expected one of {', '.join(classes)}."
        )
    return classes[model_type]


__all__ = ["LinVTConfig", "LinVTVideoConfig"]
