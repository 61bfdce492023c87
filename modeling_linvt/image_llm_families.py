"""What differs between families of image-LLMs, one small class per family and a default for all others.

The default stands on the contract that most image-text-to-text classes of Transformers keep:
`get_image_features(pixel_values=...).pooler_output` gives the visual tokens after the projector, and the LLM takes
`inputs_embeds`. Everything else is left to the image-LLM itself.
"""

import inspect
import math

import torch
from torch import nn
from transformers import PreTrainedModel


class ImageLLMFamily:
    """The default family: one image in, one `(tokens, channels)` out."""

    def __init__(self, image_llm: PreTrainedModel):
        self.image_llm = image_llm

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        """
        Visual tokens of frames, after the projector, without tiling.

        Args:
            clips (`torch.Tensor` of shape `(clips, frames per clip, 3, height, width)`): Normalised frames, those of a
                clip to be encoded as one.

        Returns:
            `torch.Tensor` of shape `(clips, tokens per clip, channels)`.

        Raises:
            `ValueError`: If the vision encoder cannot take in so many frames as one.
        """
        frames = self._single_frames(clips)
        return _stack(self.image_llm.get_image_features(pixel_values=frames, return_dict=True).pooler_output)

    def encoder_features(self, clips: torch.Tensor) -> torch.Tensor:
        """
        What the vision encoder gives to the projector, for video tokenizers that have a projector of their own.

        Args:
            clips: As for [`~ImageLLMFamily.frame_tokens`].

        Returns:
            `torch.Tensor` of shape `(clips, tokens per clip, channels of the encoder)`.

        Raises:
            `ValueError`: If the projector cannot be told apart from the encoder.
        """
        raise self._no_projector()

    def projector(self) -> nn.Module:
        """The image-LLM's projector, which takes in `encoder_features`; a `ValueError` where there is none."""
        raise self._no_projector()

    def fresh_projector(self) -> nn.Module:
        """A module like `projector`, with weights of its own that are not the image-LLM's."""
        raise self._no_projector()

    def _no_projector(self) -> ValueError:
        supported = sorted(name for name, family in FAMILIES.items() if issubclass(family, ProjectorFamily))
        return ValueError(
            f"RED-VILLM needs the features of the vision encoder and the projector one by one, which linvt does not "
            f"know how to get from {self.image_llm.config.model_type!r}. Supported: {', '.join(supported)}."
        )

    def _single_frames(self, clips: torch.Tensor) -> torch.Tensor:
        if clips.shape[1] != 1:
            raise ValueError(
                f"frames_per_patch is {clips.shape[1]}, but the encoder of {self.image_llm.config.model_type!r} takes "
                "in frames one by one; set config.frames_per_patch = 1."
            )
        return clips[:, 0]

    def blank_frame_size(self) -> tuple[int, int]:
        """Height and width in pixels of a small frame that the vision encoder takes."""
        size = self.image_llm.config.vision_config.image_size
        return tuple(size) if isinstance(size, (list, tuple)) else (size, size)

    def token_grid(self, num_tokens: int, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the tokens of a frame of `height` x `width` pixels; one row if they form no grid."""
        rows = max(round(math.sqrt(num_tokens * height / width)), 1)
        return (rows, num_tokens // rows) if num_tokens % rows == 0 else (1, num_tokens)

    def _language_parts(self) -> list[torch.nn.Module]:
        language = (self.image_llm.get_decoder(), self.image_llm.get_output_embeddings())
        # A model that does not know its decoder returns itself or its base, which hold the encoder too.
        whole = (None, self.image_llm, self.image_llm.base_model)
        return [module for module in language if all(module is not other for other in whole)]

    def has_trainable_encoder(self) -> bool:
        """Whether a weight outside the language model learns: the vision encoder or the projector."""
        spared = {id(parameter) for module in self._language_parts() for parameter in module.parameters()}
        return any(
            parameter.requires_grad and id(parameter) not in spared for parameter in self.image_llm.parameters()
        )

    def encoder_tensors(self) -> dict[str, torch.Tensor]:
        """Weights and persistent buffers outside the language model: the vision encoder's and the projector's."""
        language = [module.state_dict(keep_vars=True) for module in self._language_parts()]
        spared = {id(tensor) for tensors in language for tensor in tensors.values()}
        tensors = self.image_llm.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in tensors.items() if id(tensor) not in spared}

    def image_input_names(self, inputs: dict) -> set[str]:
        """Names among `inputs` that describe images: those that `get_image_features` takes."""
        return set(inputs) & set(inspect.signature(self.image_llm.get_image_features).parameters)

    def image_features(self, inputs: dict) -> torch.Tensor:
        """Visual tokens of the images in `inputs`, the image-LLM's own way: `(tokens of all images, channels)`."""
        images = {name: inputs[name] for name in self.image_input_names(inputs)}
        features = self.image_llm.get_image_features(**images, return_dict=True).pooler_output
        if isinstance(features, torch.Tensor):
            return features.flatten(0, -2)
        return torch.cat([image.flatten(0, -2) for image in features])

    def position_ids(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        image_mask: torch.Tensor,
        inputs: dict,
    ) -> torch.Tensor | None:
        """
        Positions for a prompt with videos, or `None` where the LLM's own (consecutive) positions are right.

        Args:
            image_mask (`torch.BoolTensor` of shape `(batch, length)`): `True` on the tokens of images, not of videos.
            inputs (`dict`): The other inputs of the image-LLM, such as the sizes of the images.
        """
        return None


class Qwen2VLFamily(ImageLLMFamily):
    """Qwen2-VL: images are sequences of patches, and positions have three axes (M-RoPE)."""

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        vision = self.image_llm.config.vision_config
        patch, merge, depth = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
        num_clips, frames_per_clip, channels, height, width = clips.shape
        if height % (patch * merge) or width % (patch * merge):
            raise ValueError(
                f"Frames are {height} x {width} pixels; Qwen2-VL needs multiples of {patch * merge}. Change `size` of "
                "the video processor."
            )
        if frames_per_clip not in (1, depth):
            raise ValueError(
                f"frames_per_patch is {frames_per_clip}; this Qwen2-VL takes in 1 or {depth} frames as one."
            )
        rows, columns = height // patch, width // patch
        # Patches in the order of the vision encoder: blocks of merge x merge patches, row by row. A still picture
        # fills the whole temporal depth of a patch.
        patches = clips.expand(-1, depth, -1, -1, -1)
        patches = patches.unflatten(4, (columns // merge, merge, patch)).unflatten(3, (rows // merge, merge, patch))
        # (clips, depth, channels, rows, merged rows, y, columns, merged columns, x)
        patches = patches.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
        grid = torch.tensor([[1, rows, columns]], device=clips.device).expand(num_clips, -1)
        features = self.image_llm.get_image_features(
            patches.reshape(num_clips * rows * columns, -1), image_grid_thw=grid, return_dict=True
        ).pooler_output
        return _stack(features)

    def blank_frame_size(self) -> tuple[int, int]:
        vision = self.image_llm.config.vision_config
        return (vision.patch_size * vision.spatial_merge_size,) * 2

    def position_ids(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, image_mask: torch.Tensor, inputs: dict
    ) -> torch.Tensor:
        """Images keep their three axes; video tokens are mixtures without a place, so they count on like text."""
        position_ids, deltas = self.image_llm.model.get_rope_index(
            input_ids,
            mm_token_type_ids=image_mask.int(),
            image_grid_thw=inputs.get("image_grid_thw"),
            attention_mask=attention_mask,
        )
        self.image_llm.model.rope_deltas = deltas  # where the image-LLM looks when it goes on from the cache
        return position_ids


class ProjectorFamily(ImageLLMFamily):
    """Image-LLMs with a `multi_modal_projector` between vision encoder and LLM, as LLaVA has it."""

    def encoder_features(self, clips: torch.Tensor) -> torch.Tensor:
        # Seen on the way, so that choice of layers, class token and merging of patches stay the image-LLM's own.
        seen = []
        hook = self.projector().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.frame_tokens(clips)
        finally:
            hook.remove()
        (features,) = seen
        return features[: len(clips)]

    def projector(self) -> nn.Module:
        return self.image_llm.model.multi_modal_projector

    def fresh_projector(self) -> nn.Module:
        return type(self.projector())(self.image_llm.config)


class LlavaOnevisionFamily(ProjectorFamily):
    """LLaVA-OneVision: a frame is presented as one of several images, which are not split into tiles."""

    def frame_tokens(self, clips: torch.Tensor) -> torch.Tensor:
        frames = self._single_frames(clips)
        num_frames, _, height, width = frames.shape
        # Two images at least: a single one is split at "any resolution", several are taken whole.
        padded = frames if num_frames > 1 else frames.expand(2, -1, -1, -1)
        features = self.image_llm.get_image_features(
            pixel_values=padded,
            image_sizes=torch.tensor([[height, width]], device=frames.device).expand(len(padded), -1),
            batch_num_images=torch.tensor([len(padded)], device=frames.device),
            return_dict=True,
        ).pooler_output
        return _stack(features)[:num_frames, :-1]  # the last token is the newline, no part of the frame


FAMILIES: dict[str, type[ImageLLMFamily]] = {
    "internvl": ProjectorFamily,
    "llava": ProjectorFamily,
    "llava_onevision": LlavaOnevisionFamily,
    "mipha": ProjectorFamily,
    "qwen2_vl": Qwen2VLFamily,
}


def image_llm_family(image_llm: PreTrainedModel) -> ImageLLMFamily:
    """The family of an image-LLM, chosen by `model_type`; the default one if it has none of its own."""
    return FAMILIES.get(image_llm.config.model_type, ImageLLMFamily)(image_llm)


def _stack(features: torch.Tensor | list[torch.Tensor] | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return features if isinstance(features, torch.Tensor) else torch.stack(list(features))


__all__ = ["FAMILIES", "ImageLLMFamily", "image_llm_family"]
