"""Families whose encoder is as usual, but whose language model or projector wants something of its own."""

import torch
from torch import nn

from linvt.configuration.input_values import IGNORED_LABEL
from linvt.image_llms.image_llm_family import ImageLLMFamily


class Llama4Family(ImageLLMFamily):
    """Llama 4: `get_image_features` ends before the projector, which the image-LLM calls itself."""

    def visual_tokens(self, image_inputs: dict) -> torch.Tensor:
        features = self.encoder_owner().get_image_features(**image_inputs, return_dict=True).last_hidden_state
        return self.image_llm.multi_modal_projector(features.flatten(0, -2)).unflatten(0, features.shape[:-1])


class ChameleonFamily(ImageLLMFamily):
    """Chameleon: pictures become words of a code book, and language model and code book are one module."""

    def decoder(self) -> nn.Module:
        return self.image_llm.model.layers

    def image_size(self) -> tuple[int, int] | None:
        return (self.image_llm.config.vq_config.resolution,) * 2


class FuyuFamily(ImageLLMFamily):
    """Fuyu: patches go into the LLM through one linear layer, whose output is not called `pooler_output`."""

    def frame_inputs(self, clips: torch.Tensor) -> dict:
        size = self.image_llm.config.patch_size
        frames = self._single_frames(clips).unflatten(3, (-1, size)).unflatten(2, (-1, size))
        return {"pixel_values": frames.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)}

    def image_input_names(self, inputs: dict) -> set[str]:
        # The second is the name before Transformers 5.21, which its processor still gives in 5.23.
        return set(inputs) & {"pixel_values", "image_patches"}

    def visual_tokens(self, image_inputs: dict) -> torch.Tensor:
        (patches,) = image_inputs.values()
        return self.encoder_owner().get_image_features(patches, return_dict=True).last_hidden_state

    def token_pixels(self) -> int | None:
        return self.image_llm.config.patch_size


class Ovis2Family(ImageLLMFamily):
    """Ovis 2: the words that mark an image, and here a video, have embeddings of their own beside the encoder."""

    def embed_words(self, input_ids: torch.Tensor) -> torch.Tensor:
        model = self.image_llm.model
        last = torch.arange(model.visual_vocab_size, device=input_ids.device)
        marks = model.visual_embeddings_table(last[-len(model.visual_indicator_token_ids) :])
        embeds = super().embed_words(input_ids)
        for token_id, mark in zip(model.visual_indicator_token_ids, marks, strict=True):
            embeds = torch.where((input_ids == token_id)[..., None], mark.to(embeds), embeds)
        return embeds


class PaliGemmaFamily(ImageLLMFamily):
    """PaliGemma: the prompt is read in both directions, the answer from left to right."""

    def llm_inputs(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        is_image: torch.Tensor,
        is_video: torch.Tensor,
        inputs: dict,
    ) -> dict:
        return {"token_type_ids": inputs.get("token_type_ids", torch.zeros_like(input_ids))}

    def answer_inputs(self, labels: torch.Tensor) -> dict:
        return {"token_type_ids": (labels != IGNORED_LABEL).long()}  # else the answer would be seen before it is given


class Gemma3nFamily(ImageLLMFamily):
    """Gemma 3n: each layer of the LLM has embeddings of the words of its own."""

    needs_input_ids = True


class VideoLlavaFamily(ImageLLMFamily):
    """Video-LLaVA: pictures have a name of their own among the inputs of the LLM."""

    def image_input_names(self, inputs: dict) -> set[str]:
        # The second is the name before Transformers 5.21, which its processor still gives in 5.23.
        return set(inputs) & {"pixel_values", "pixel_values_images"}

    def visual_tokens(self, image_inputs: dict) -> torch.Tensor:
        (pixels,) = image_inputs.values()
        return self.encoder_owner().get_image_features(pixels, return_dict=True).pooler_output


__all__ = [
    "ChameleonFamily",
    "FuyuFamily",
    "Gemma3nFamily",
    "Llama4Family",
    "Ovis2Family",
    "PaliGemmaFamily",
    "VideoLlavaFamily",
]
