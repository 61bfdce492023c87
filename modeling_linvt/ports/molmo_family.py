"""What LinVT has to know of Molmo that the default family does not."""

import torch

from linvt.image_llm_families import ImageLLMFamily


class MolmoFamily(ImageLLMFamily):
    """
    Molmo adds visual tokens to the embedding of their placeholder, and its `get_image_features` returns the sum, which
    LinVT can put into the prompt. Video tokens are averages of such sums, so they hold the embedding once, like the
    tokens of an image. A frame is the view of a whole image: no crops, and nothing in it counts as padding.
    """

    def encoder_tensors(self) -> dict[str, torch.Tensor]:
        embedding = self.image_llm.get_input_embeddings().weight
        return super().encoder_tensors() | {"placeholder_embedding": embedding[self.image_llm.config.image_token_id]}


__all__ = ["MolmoFamily"]
