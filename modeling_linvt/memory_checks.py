"""Tells which models keep tokens of a video, and refuses a memory that another model made."""

from transformers import PreTrainedModel

from linvt.configuration.configuration_linvt import LinVTVideoConfig
from linvt.fingerprints import memory_fingerprints
from linvt.video_tokenizer.video_memory import VideoMemory


def keeps_tokens(model: PreTrainedModel) -> bool:
    """Returns whether a model chooses tokens of a video, which are then all that has to be remembered of it."""
    # The configuration says it; the class of a module is another where PEFT wraps it.
    config = model.config.video_tokenizer_config
    return isinstance(config, LinVTVideoConfig) and config.use_svr


def check_keeps_tokens(model: PreTrainedModel) -> None:
    """
    Refuses a model that cannot remember a video.

    Raises:
        `ValueError`: If its video tokenizer keeps no tokens, as RED-VILLM or one without SVR.
    """
    if not keeps_tokens(model):
        is_linvt = isinstance(model.config.video_tokenizer_config, LinVTVideoConfig)
        kind = "has no SVR (use_svr=False)" if is_linvt else "is RED-VILLM's"
        raise ValueError(f"The video tokenizer {kind}, so it keeps no tokens to remember; give frames each time.")


def check_memory(model: PreTrainedModel, memory: VideoMemory) -> None:
    """
    Refuses a memory that another model made.

    Raises:
        `ValueError`: If its tokens come from another encoder, or were chosen by another SVR, or have other channels.
    """
    check_keeps_tokens(model)
    encoder, scorer = memory_fingerprints(model)
    for made_by, found, expected in (("encoder", memory.encoder, encoder), ("SVR", memory.scorer, scorer)):
        if found != expected:
            raise ValueError(
                f"{memory.name} was made by another {made_by} ({found[:8]}) than this model's ({expected[:8]}); show "
                "the video to this model (linvt encode, or model.see)."
            )
    found, expected = memory.tokens.shape[1], model.config.video_tokenizer_config.embedding_size
    if found != expected:  # of a file whose fingerprints were copied
        raise ValueError(f"{memory.name} has tokens of {found} channels; this model's have {expected}.")


__all__ = ["check_keeps_tokens", "check_memory", "keeps_tokens"]
