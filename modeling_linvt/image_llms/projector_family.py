"""Image-LLMs with a `multi_modal_projector` between vision encoder and LLM, as LLaVA has it."""

import torch
from torch import nn

from linvt.image_llms.image_llm_family import ImageLLMFamily


class ProjectorFamily(ImageLLMFamily):
    """The projector can be told apart from the encoder, so RED-VILLM, which copies it, works too."""

    def encoder_features(self, clips: torch.Tensor) -> torch.Tensor:
        """
        Encodes frames as far as the projector, for video tokenizers that have a projector of their own.

        Args:
            clips: As for [`~ImageLLMFamily.frame_tokens`].

        Returns:
            `torch.Tensor` of shape `(clips, tokens per clip, channels of the encoder)`.
        """
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
        """Returns the image-LLM's projector, which takes `encoder_features`."""
        return self.image_llm.model.multi_modal_projector

    def fresh_projector(self) -> nn.Module:
        """Makes a module like `projector`, with weights of its own."""
        return type(self.projector())(self.image_llm.config)


__all__ = ["ProjectorFamily"]
