"""How the processor of an image-LLM writes an image into a prompt; a video is written the same way.

It is read off a prompt with one blank image. So it holds for processors that only repeat a token, and for those that
put markers around it, fill in another token than the chat template writes, or add something to the whole prompt.
"""

from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from PIL import Image
from transformers.processing_utils import ProcessorMixin


_UNPADDED = {"padding": False, "truncation": False}  # whatever the tokenizer does by default

_OF_TEXT = {"token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids", "labels"}
"""What processors return for a text, beside what its tokenizer does."""


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
            `ValueError`: If the prompt has not one place for it, or is changed in a way that is not known here.
        """
        if prompt.count(image_token) != 1:
            raise ValueError(
                f"The chat template writes {prompt!r} for a turn with one image; expected one {image_token}, the "
                f"place of an image for {type(processor).__name__}. Is it the template of this image-LLM?"
            )
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
            written = _written_image(processor, image_token, image, images_kwargs)
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


def process_images(
    processor: ProcessorMixin, images: list, prompts: list[str], image_token: str, images_kwargs: dict
) -> tuple[dict, list[str]]:
    """
    Processes the images of prompts as the image-LLM's processor does, without their text.

    Args:
        images (`list`): Those of all prompts, in their order.
        prompts (`list[str]`): With `image_token` where an image stands, and no videos.
        images_kwargs (`dict`): Arguments of the image processor.

    Returns:
        The model inputs for the images, and what is written into the prompts for each of them.

    Raises:
        `ValueError`: If there are more or fewer images than places.
    """
    num_places = [prompt.count(image_token) for prompt in prompts]
    if len(images) != sum(num_places):
        raise ValueError(
            f"The prompts have {sum(num_places)} images ({image_token}), but {len(images)} images were given; every "
            "image needs its place in a prompt."
        )
    if not images:
        return {}, []
    remaining = iter(images)
    samples = [list(islice(remaining, number)) for number in num_places if number]
    images_kwargs = {**images_kwargs, "return_tensors": "pt"}  # some processors read what they made as tensors
    inputs = processor(
        images=samples,
        text=[prompt for prompt, number in zip(prompts, num_places, strict=True) if number],
        images_kwargs=images_kwargs,
        text_kwargs={"return_tensors": None, "padding": len(samples) > 1},  # some compute with all texts at once
        return_text_replacement_offsets=True,
    )
    offsets = inputs.pop("text_replacement_offsets", None)
    if offsets is None:
        written = [_written_image(processor, image_token, image, images_kwargs) for image in images]
    else:
        written = [item["replacement"] for sample in offsets for item in sample]
    of_text = _OF_TEXT.union(processor.tokenizer.model_input_names)
    return {name: value for name, value in inputs.items() if name not in of_text}, written


def _written_image(processor: ProcessorMixin, image_token: str, image: Any, images_kwargs: dict) -> str:
    """Returns what a processor that tells no replacements writes for an image: special tokens, read off its ids."""
    call = {"images_kwargs": images_kwargs, "add_special_tokens": False, **_UNPADDED}
    inputs = processor(images=[image], text=[image_token], **call)
    return processor.tokenizer.decode(_ids(inputs))


def _ids(inputs: Any) -> list[int]:
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


__all__ = ["PresentedImage", "process_images"]
