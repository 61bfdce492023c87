"""Image-LLMs with a `multi_modal_projector` between vision encoder and LLM, as LLaVA has it."""

import torch
from torch import nn

from linvt.families.image_llm_family import ImageLLMFamily


class ProjectorFamily(ImageLLMFamily):
    """The projector can be seen, so RED-VILLM, which copies it, works too."""

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


__all__ = ["ProjectorFamily"]
