"""Configuration of RED-VILLM's way to make video tokens, which stands beside LinVT's as a baseline.

Section and table numbers are those of "From Image to Video, what do we need in multimodal LLMs?" (Huang et al., 2024).
"""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from linvt.configuration.known_settings import refuse_unknown_settings


@strict
class RedVillmVideoConfig(PreTrainedConfig):
    r"""
    Configuration of [`RedVillmVideoModel`].

    The features of T frames with N tokens each are averaged over time, which gives N, and over space, which gives T.
    Copies of the image-LLM's projector make video tokens of both.

    Args:
        embedding_size (`int`, *optional*):
            Channels of the video tokens, which is the width of the LLM's embeddings. [`LinVTConfig`] fills it in.
        num_frames (`int`, *optional*, defaults to 100):
            Frames T of every video (Tab. 6).
        num_frame_tokens (`int`, *optional*, defaults to 256):
            Tokens N of a frame at the frame size of the processor: 256 for LLaVA at 224 x 224 (Tab. 7), 576 for
            LLaVA 1.5 at 336 x 336.
        pooling (`str`, *optional*, defaults to `"both"`):
            Temporal pooling, which averages over time and gives N video tokens; spatial pooling, which averages over
            space and gives T; or both (Sec. 3.2, Tab. 3). One of `"both"`, `"temporal"` and `"spatial"`.
        temporal_module (`bool`, *optional*, defaults to `True`):
            Whether the temporal features have a module of their own (Sec. 3.3, Tab. 4). Without it the alignment
            module makes all video tokens, as in Video-ChatGPT; needed for `pooling` other than `"both"`.
        temporal_module_init (`str`, *optional*, defaults to `"projector"`):
            Where the temporal module starts: from the weights of the image-LLM's `"projector"` (Sec. 3.3) or at
            `"random"`.
        additional_mlp (`bool`, *optional*, defaults to `False`):
            Whether a fresh MLP stands behind the alignment module (Tab. 5).
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of fresh weights.
    """

    model_type = "red_villm_video"
    base_config_key = "video_tokenizer_config"
    text_conditioning: ClassVar[bool] = False  # the video tokens do not depend on the instruction

    embedding_size: int | None = None
    num_frames: int = 100
    num_frame_tokens: int = 256
    pooling: Literal["both", "temporal", "spatial"] = "both"
    temporal_module: bool = True
    temporal_module_init: Literal["projector", "random"] = "projector"
    additional_mlp: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        refuse_unknown_settings(self, kwargs)
        super().__post_init__(**kwargs)
        for name in ("embedding_size", "num_frames", "num_frame_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        if self.temporal_module and self.pooling != "both":
            raise ValueError(
                f"pooling is {self.pooling!r}, which leaves one kind of features, so either the alignment module or "
                "the temporal module would never be used; set temporal_module=False, as in Tab. 3."
            )

    @property
    def num_video_tokens(self) -> int:
        """Video tokens that the LLM sees of one video: T + N, N or T."""
        return {
            "both": self.num_frames + self.num_frame_tokens,
            "temporal": self.num_frame_tokens,
            "spatial": self.num_frames,
        }[self.pooling]

    @property
    def learns_relevance(self) -> bool:
        """Returns `False`: RED-VILLM does not read the instruction."""
        return False

    def check_num_video_tokens(self, number: int) -> None:
        """Raises a `ValueError` unless a video can become this number of tokens."""
        if number != self.num_video_tokens:
            raise ValueError(
                f"A video shall become {number!r} tokens (num_video_tokens); RED-VILLM makes {self.num_video_tokens} "
                "of it, by num_frames and num_frame_tokens."
            )


__all__ = ["RedVillmVideoConfig"]
