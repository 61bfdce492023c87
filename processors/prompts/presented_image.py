"""How the processor of an image-LLM writes an image into a prompt; a video is written the same way.

It is read off a prompt with one blank image. So it holds for processors that only repeat a token, and for those that
put markers around it, fill in another token than the chat template writes, or add something to the whole prompt.
"""

from dataclasses import dataclass
from itertools import groupby

from PIL import Image
from transformers.processing_utils import ProcessorMixin


_UNPADDED = {"padding": False, "truncation": False}  # whatever the tokenizer does by default


@dataclass(frozen=True)
class PresentedImage:
    """
    Holds what a processor writes for an image.

    Args:
        start (`str`), end (`str`): Text before its first and after its last visual token.
        token (`str`), token_id (`int`): The token that stands for a visual token.
        prompt_start (`str`), prompt_end (`str`): Text at the ends of a prompt, beside what the chat template writes.
    """

    start: str
    end: str
    token: str
    token_id: int
    prompt_start: str
    prompt_end: str

    @classmethod
    def of_processor(
        cls, processor: ProcessorMixin, prompt: str, image_token: str, image: Image.Image
    ) -> "PresentedImage":
        """
        Reads off how `processor` writes `image` into `prompt`, where `image_token` is its place.

        Raises:
            `ValueError`: If it changes the prompt in a way that is not known here.
        """
        tokenizer = processor.tokenizer
        bos = tokenizer.bos_token
        written_bos = {"add_special_tokens": False} if bos is not None and prompt.startswith(bos) else {}
        images_kwargs = {"return_tensors": "pt", **_whole_image(processor)}
        call = {"images_kwargs": images_kwargs, "return_text_replacement_offsets": True, **_UNPADDED, **written_bos}
        try:
            inputs = processor(images=[image], text=[prompt], **call)
        except ValueError as error:
            raise ValueError(
                f"{type(processor).__name__} refuses the prompt {prompt!r} with an image ({error}), so LinVT does not "
                "know how to present a video."
            ) from error
        own = tokenizer.decode(_ids(inputs))
        offsets = inputs.get("text_replacement_offsets")
        if offsets is None:
            written = written_image(processor, image_token, image, images_kwargs)
        else:
            written = offsets[0][0]["replacement"]
        runs = [
            list(run) for _, run in groupby(tokenizer(written, add_special_tokens=False, **_UNPADDED)["input_ids"])
        ]
        token_id = max(runs, key=len)[0]  # visual tokens stand in rows, and nothing between them is repeated so often
        token = tokenizer.convert_ids_to_tokens(token_id)
        start, end = written.partition(token)[0], written.rpartition(token)[2]
        filled = prompt.replace(image_token, written)
        for special_tokens in (written_bos, {"add_special_tokens": False}):
            text = tokenizer.decode(tokenizer(filled, **special_tokens, **_UNPADDED)["input_ids"])
            added = _added(own, text, text.rindex(token) + len(token) + len(end))
            if added is not None:
                prompt_start, behind_image, prompt_end = added
                return cls(start, end + behind_image, token, token_id, prompt_start, prompt_end)
        raise ValueError(
            f"{type(processor).__name__} makes {own!r} of the prompt {prompt!r} with an image, which is more than "
            f"{written!r} for {image_token}, so LinVT does not know how to present a video. Is the chat template that "
            "of this image-LLM?"
        )


def written_image(processor: ProcessorMixin, image_token: str, image, images_kwargs: dict) -> str:
    """Returns what a processor that tells no replacements writes for an image: special tokens, read off its ids."""
    call = {"images_kwargs": images_kwargs, "add_special_tokens": False, **_UNPADDED}
    inputs = processor(images=[image], text=[image_token], **call)
    return processor.tokenizer.decode(_ids(inputs))


def _ids(inputs) -> list[int]:
    return [int(number) for number in inputs["input_ids"][0]]


def _whole_image(processor: ProcessorMixin) -> dict[str, bool]:
    """Settings under which processors do not cut an image that they would cut whatever its size."""
    known = processor.image_processor.valid_kwargs.__annotations__
    return {name: False for name in ("do_image_splitting",) if name in known}


def _added(own: str, text: str, place: int) -> tuple[str, str, str] | None:
    """Returns what `own` has beside `text`: before it, at `place`, and behind it; `None` if they differ otherwise."""
    head, tail = text[:place], text[place:]
    for start in range(len(own) - len(text) + 1):
        if own.startswith(head, start):
            rest = own[start + len(head) :]
            for gap in range(len(rest) - len(tail) + 1):
                if rest.startswith(tail, gap):
                    return own[:start], rest[:gap], rest[gap + len(tail) :]
    return None


__all__ = ["PresentedImage", "written_image"]
