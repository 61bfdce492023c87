"""Runs a LinVT model without its head: what `model.base_model` is to trainers that apply the head themselves."""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import ModelOutput


class LinVTBackbone:
    """
    Gives the last hidden states of prompts with text, images and videos, as the model without a head does for other
    models of Transformers. TRL's trainers call it and apply `get_output_embeddings()` to the answers alone.

    It has no weights of its own and is no module; everything but the call is the model's.

    Args:
        model ([`LinVTForConditionalGeneration`]): The model, with its head.
    """

    def __init__(self, model: PreTrainedModel):
        self._model = model

    def __call__(self, input_ids: torch.LongTensor | None = None, **kwargs: Any) -> ModelOutput:
        """
        Takes the inputs of [`~LinVTForConditionalGeneration.forward`] but `labels`.

        Returns:
            `ModelOutput`: That of the image-LLM's base model, with `last_hidden_state`.

        Raises:
            `ValueError`: If the image-LLM has no base model, or must know the answers to read a prompt, or if a prompt
                has places of images or videos and none are given.
        """
        model = self._model
        ranks = model.rank_agreement(input_ids, trains=True)
        inputs, features = model.get_llm_inputs(input_ids, ranks=ranks, **kwargs)
        if features is None and not model.family.image_input_names(kwargs):
            self._check_text_alone(input_ids)
        if features is not None and model.family.answer_inputs(torch.full_like(input_ids, -100)):
            raise ValueError(
                f"{type(model.image_llm).__name__} reads a prompt otherwise than an answer, so it must be given the "
                "labels; train it with linvt's VideoSFTTrainer."
            )
        with model.embedded_prompt(input_ids, inputs):
            outputs = model.image_llm.base_model(**{**inputs, "return_dict": True})
        if "last_hidden_state" not in outputs:
            raise ValueError(
                f"{type(model.image_llm).__name__} has no model without a head; train it with linvt's VideoSFTTrainer."
            )
        outputs.last_hidden_state = outputs.last_hidden_state + ranks.zero.to(outputs.last_hidden_state)
        return outputs

    def _check_text_alone(self, input_ids: torch.LongTensor | None) -> None:
        """TRL tokenizes the rows that it prepares itself, and leaves their videos out."""
        if input_ids is not None and bool((input_ids == self._model.family.image_token_id()).any()):
            raise ValueError(
                "The prompts have places of videos or images, but none are given, so nothing could be learnt of them. "
                "Train with linvt.training.VideoSFTTrainer; or give TRL's SFTTrainer "
                "data_collator=VideoChatCollator(processor), and in its settings remove_unused_columns=False and "
                "dataset_kwargs={'skip_prepare_dataset': True}."
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


__all__ = ["LinVTBackbone"]
