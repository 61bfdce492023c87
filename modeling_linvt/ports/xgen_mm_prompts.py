"""What the Perceiver of xGen-MM reads of a prompt, in the design whose visual tokens depend on it (r-v1)."""

import torch


def image_prompts(
    input_ids: torch.LongTensor,
    attention_mask: torch.Tensor | None,
    image_token_id: int,
    tokens_per_image: list[int],
) -> list[torch.LongTensor]:
    """
    Per image the ids of the prompt that it stands in, with a single placeholder for each image, as the published
    tokenizer wrote it, and without padding, so that a prompt in a batch gives what it gives alone.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch, length)`): With a placeholder for each token of an image.
        attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): 0 on padding.
        tokens_per_image (`list[int]`): Of the images of all prompts, in their order.

    Raises:
        `ValueError`: If the placeholders are not those of these images.
    """
    prompts: list[torch.Tensor] = []
    for row, ids in enumerate(input_ids):
        if attention_mask is not None:
            ids = ids[attention_mask[row, -len(ids) :].bool()]  # with a cache the mask also covers what it holds
        keep = ids != image_token_id
        places = (~keep).nonzero()[:, 0].tolist()
        num_seen, num_images = 0, 0
        while num_seen < len(places) and len(prompts) + num_images < len(tokens_per_image):
            keep[places[num_seen]] = True
            num_seen += tokens_per_image[len(prompts) + num_images]
            num_images += 1
        if num_seen != len(places):
            raise ValueError(
                f"Prompt {row} has {len(places)} image tokens, which are not those of whole images of "
                f"{tokens_per_image} tokens; make the inputs with XGenMMProcessor."
            )
        prompts += [ids[keep]] * num_images
    return prompts


__all__ = ["image_prompts"]
