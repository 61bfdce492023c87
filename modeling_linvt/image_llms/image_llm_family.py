"""The default family, and what all families share.

The default stands on the contract that most image-text-to-text classes of Transformers keep:
`get_image_features(pixel_values=...).pooler_output` gives the visual tokens after the projector, and the LLM takes
`inputs_embeds`. Everything else is left to the image-LLM itself.
"""

import inspect
import math
from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel


class ImageLLMFamily:
    """The default family: one image in, one `(tokens, channels)` out."""

    inserts_images_itself = False
    """Whether the image-LLM must put images into a prompt with videos itself, since it does more than replace their
    placeholders: deep features for its lower layers, markers around them."""

    needs_input_ids = False
    """Whether the LLM needs the ids of a prompt beside its embeddings, since its layers look words up once more."""

    tokens_per_side = 16
    """Rows and columns of tokens of a frame by default, where images may have any size."""

    def __init__(self, image_llm: PreTrainedModel):
        self.image_llm = image_llm

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        """
        Encodes frames to visual tokens, after the projector, without tiling.

        Args:
            clips (`torch.Tensor` of shape `(clips, frames per clip, 3, height, width)`): Normalised frames, those of a
                clip to be encoded as one.

        Returns:
            `torch.Tensor` of shape `(clips, tokens per clip, channels)`.

        Raises:
            `ValueError`: If the vision encoder cannot encode this many frames as one clip, or frames of this size.
        """
        return stack_images(self.visual_tokens(self.frame_inputs(clips)), len(clips))

    def frame_inputs(self, clips: torch.Tensor) -> dict:
        """Prepares frames for `get_image_features`, each clip as one whole image; `clips` as above."""
        return {"pixel_values": self._single_frames(clips)}

    def visual_tokens(self, image_inputs: dict) -> torch.Tensor | list[torch.Tensor] | tuple[torch.Tensor, ...]:
        """Returns the tokens after the projector as the image-LLM gives them: one tensor, or one per image."""
        return self.encoder_owner().get_image_features(**image_inputs, return_dict=True).pooler_output

    def encoder_owner(self) -> nn.Module:
        """Returns the module whose `get_image_features` names its arguments: the image-LLM, or it without a head."""
        for module in (self.image_llm, self.image_llm.base_model):
            method = getattr(module, "get_image_features", None)
            # A method that only passes on what it is given (`*args`) does not name its arguments.
            if method is not None and "args" not in inspect.signature(method).parameters:
                return module
        raise ValueError(f"{type(self.image_llm).__name__} has no get_image_features(pixel_values).")

    def _single_frames(self, clips: torch.Tensor) -> torch.Tensor:
        if clips.shape[1] != 1:
            raise ValueError(
                f"frames_per_patch is {clips.shape[1]}, but the encoder of {self.image_llm.config.model_type!r} "
                "encodes frames one by one; set config.frames_per_patch = 1."
            )
        return clips[:, 0]

    def frame_size(self) -> tuple[int, int] | None:
        """
        Returns height and width in pixels of a frame by default: the size of images, or `tokens_per_side` tokens where
        they may have any; `None` where the configuration does not say, since only the image processor knows.
        """
        side = self.token_pixels()
        return self.image_size() if side is None else (side * self.tokens_per_side,) * 2

    def blank_frame_size(self) -> tuple[int, int]:
        """Returns height and width in pixels of a small frame that the vision encoder takes."""
        side = self.token_pixels()
        # Several image-LLMs take a picture of a single token for something else, or fail on it.
        return self.image_size() or (336, 336) if side is None else (2 * side, 2 * side)

    def image_size(self) -> tuple[int, int] | None:
        """Returns height and width in pixels of the images that the vision encoder takes, where it takes one size."""
        return _height_and_width(getattr(getattr(self.image_llm.config, "vision_config", None), "image_size", None))

    def token_pixels(self) -> int | None:
        """Returns the side of the square in pixels that becomes a token, where images may have any size."""
        return None

    def token_grid(self, num_tokens: int, height: int, width: int) -> tuple[int, int]:
        """Returns rows and columns of the tokens of a frame of this size in pixels; one row if they form no grid."""
        rows = max(round(math.sqrt(num_tokens * height / width)), 1)
        return (rows, num_tokens // rows) if num_tokens % rows == 0 else (1, num_tokens)

    def decoder(self) -> nn.Module | None:
        """Returns the layers of the language model, which LoRA is for."""
        return self.image_llm.get_decoder()

    def _language_parts(self) -> list[torch.nn.Module]:
        language = (self.decoder(), self.image_llm.get_output_embeddings())
        # A model that does not know its decoder returns itself or its base, which hold the encoder too.
        whole = (None, self.image_llm, self.image_llm.base_model)
        return [module for module in language if all(module is not other for other in whole)]

    def words_in_frames(self) -> Sequence[int]:
        """Returns the ids of the words whose embeddings are a part of V, beside what the vision encoder makes."""
        return ()

    def has_trainable_encoder(self) -> bool:
        """Returns whether a weight that V depends on learns: of the vision encoder, the projector, or these words."""
        spared = {id(parameter) for module in self._language_parts() for parameter in module.parameters()}
        if self.words_in_frames():
            spared.discard(id(self.image_llm.get_input_embeddings().weight))
        return any(
            parameter.requires_grad and id(parameter) not in spared for parameter in self.image_llm.parameters()
        )

    def encoder_tensors(self) -> dict[str, torch.Tensor]:
        """
        Returns the weights and persistent buffers that V depends on: all outside the language model, and the
        embeddings of `words_in_frames`.
        """
        language = [module.state_dict(keep_vars=True) for module in self._language_parts()]
        spared = {id(tensor) for tensors in language for tensor in tensors.values()}
        tensors = self.image_llm.state_dict(keep_vars=True)
        covered = {name: tensor for name, tensor in tensors.items() if id(tensor) not in spared}
        words, embeddings = self.words_in_frames(), self.image_llm.get_input_embeddings().weight
        if words:
            covered["embeddings of words_in_frames"] = embeddings[list(words)] if len(embeddings) else embeddings
        return covered

    def image_input_names(self, inputs: dict) -> set[str]:
        """Returns the names of the `inputs` that `get_image_features` takes."""
        return set(inputs) & set(inspect.signature(self.encoder_owner().get_image_features).parameters)

    def image_features(self, inputs: dict) -> torch.Tensor:
        """Encodes the images in `inputs` as the image-LLM does, to `(tokens of all images, channels)`."""
        features = self.visual_tokens({name: inputs[name] for name in self.image_input_names(inputs)})
        if isinstance(features, torch.Tensor):
            return features.flatten(0, -2)
        return torch.cat([image.flatten(0, -2) for image in features])

    def embed_words(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embeds the words of a prompt with videos, to `(batch, length, channels)`."""
        return self.image_llm.get_input_embeddings()(input_ids)

    def llm_inputs(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        is_image: torch.Tensor,
        is_video: torch.Tensor,
        inputs: dict,
    ) -> dict:
        """
        Makes the inputs that the LLM needs beside the embeddings of a prompt with videos.

        Args:
            is_image, is_video (`torch.BoolTensor` of shape `(batch, length)`): Where the tokens of images and videos
                stand.
            inputs (`dict`): The other inputs of the image-LLM, such as the sizes of the images.
        """
        owner = self.rope_owner()
        if owner is not None:
            # Images keep their axes; video tokens are mixtures without a place, so they count on like text.
            takes = inspect.signature(owner.get_rope_index).parameters
            images = {name: inputs[name] for name in self.image_input_names(inputs) & set(takes)}
            positions, deltas = self.count_positions(input_ids, attention_mask, is_image, images)
            owner.rope_deltas = deltas  # where the image-LLM looks when it goes on from the cache
            return {"position_ids": positions}
        takes = inspect.signature(self.image_llm.forward).parameters
        # Images keep their attention in both directions where a model has that. Video tokens come in the order of
        # time, and a longer prompt must not change what stands before it: they are read like text.
        return {name: is_image.int() for name in ("token_type_ids", "mm_token_type_ids") if name in takes}

    def answer_inputs(self, labels: torch.Tensor) -> dict:
        """Makes the inputs that say where the answers of a prompt are; `labels` are -100 outside them."""
        return {}

    def rope_owner(self) -> nn.Module | None:
        """Returns the module that counts positions of several axes (M-RoPE), if there is one."""
        modules = (self.image_llm, self.image_llm.base_model)
        return next((module for module in modules if callable(getattr(module, "get_rope_index", None))), None)

    def count_positions(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, is_image: torch.Tensor, images: dict
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns M-RoPE positions, and per row the next position minus its length, as `get_rope_index` does."""
        return self.rope_owner().get_rope_index(
            input_ids, mm_token_type_ids=is_image.int(), attention_mask=attention_mask, **images
        )

    def image_token_id(self) -> int:
        """Returns the id of the placeholder of an image's tokens."""
        return self.image_llm.config.image_token_id


def _height_and_width(size: int | list[int] | tuple[int, int] | None) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    return (size[0], size[1]) if size else None


def stack_images(
    features: torch.Tensor | list[torch.Tensor] | tuple[torch.Tensor, ...], num_images: int
) -> torch.Tensor:
    """Stacks tokens of images of one size, given one by one or all in a row, to `(images, tokens, channels)`."""
    if len(features) == 1 != num_images:
        features = features[0]
    elif not isinstance(features, torch.Tensor):
        features = torch.stack(list(features))
    if features.dim() == 2 and num_images:
        return features.unflatten(0, (num_images, -1))
    return features


__all__ = ["ImageLLMFamily", "stack_images"]
