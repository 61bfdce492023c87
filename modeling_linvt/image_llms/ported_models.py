"""The families of the image-LLMs in `ports/` that the default does not fit."""

import torch

from linvt.image_llms.image_llm_family import ImageLLMFamily


class MolmoFamily(ImageLLMFamily):
    """
    Molmo adds visual tokens to the embedding of their placeholder, and its `get_image_features` returns the sum, which
    LinVT can put into the prompt. Video tokens are averages of such sums, so they hold the embedding once, like the
    tokens of an image. A frame is the view of a whole image: no crops, and nothing in it counts as padding.
    """

    def encoder_tensors(self) -> dict[str, torch.Tensor]:
        embedding = self.image_llm.get_input_embeddings().weight
        return super().encoder_tensors() | {"placeholder_embedding": embedding[self.image_llm.config.image_token_id]}


class XGenMMFamily(ImageLLMFamily):
    """
    xGen-MM: a Perceiver makes the tokens of a frame, so they form no grid.

    Where it reads the prompt (r-v1), frames are encoded with `config.default_prompt_ids` in place of it, and so are
    images beside a video: V must not depend on a question, or it could not be computed once and kept.
    """

    def token_grid(self, num_tokens: int, height: int, width: int) -> tuple[int, int]:
        return 1, num_tokens

    def encoder_tensors(self) -> dict[str, torch.Tensor]:
        tensors = super().encoder_tensors()
        config = self.image_llm.config
        if config.reads_prompt and config.default_prompt_ids:
            rows = self.image_llm.get_input_embeddings().weight[config.default_prompt_ids]
            tensors["default_prompt_embeds"] = rows  # part of what V depends on, though the LLM's
        return tensors
