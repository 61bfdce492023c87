"""Embeds prompts: words, images and video tokens as the `inputs_embeds` that the image-LLM's language model reads."""

from collections.abc import Sequence
from inspect import signature
from itertools import islice
from typing import Any

import torch
from transformers import PreTrainedModel

from linvt.configuration.configuration_linvt import LinVTConfig
from linvt.configuration.input_values import IGNORED_LABEL
from linvt.contrastive_loss import VideoTextContrast, hash_texts
from linvt.late_interaction import LateInteractionContrast
from linvt.model_outputs import LinVTVideoFeatures
from linvt.rank_agreement import ALONE, RankAgreement, blank_image_tokens, pass_without_videos
from linvt.video_encoding import VideoEncodingMixin, pad_texts
from linvt.video_inputs import VideoInputs


VIDEO = 2  # the value of a video token in Transformers' `mm_token_type_ids`; text is 0, images are 1


class LLMInputsMixin(VideoEncodingMixin):
    """The prompt half of [`LinVTForConditionalGeneration`]."""

    config: LinVTConfig
    image_llm: PreTrainedModel
    contrast: VideoTextContrast | LateInteractionContrast

    def get_llm_inputs(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        instruction_turns: torch.LongTensor | None = None,
        mm_token_type_ids: torch.IntTensor | None = None,
        output_token_weights: bool = False,
        ranks: RankAgreement = ALONE,
        **kwargs: Any,
    ) -> tuple[dict, LinVTVideoFeatures | None]:
        """
        Makes the inputs of the image-LLM. Without videos they are passed on as they came. With videos, everything in
        the prompt becomes `inputs_embeds`, with `position_ids` where the image-LLM needs them.

        Args: As for [`~LinVTForConditionalGeneration.forward`].

        Returns:
            The inputs, and the video tokens, `None` without videos.
        """
        videos = VideoInputs.pop_from(kwargs)
        if videos is None and not ranks.sharded:
            pass_without_videos(self, ranks)
            given = {"input_ids": input_ids, "attention_mask": attention_mask}
            if "mm_token_type_ids" in signature(self.image_llm.forward).parameters:
                given["mm_token_type_ids"] = mm_token_type_ids
            return kwargs | {name: value for name, value in given.items() if value is not None}, None
        num_video_tokens = 0
        if videos is not None:
            num_video_tokens = self._check_prompts(videos, input_ids, instruction_turns, mm_token_type_ids, kwargs)
        is_video = mm_token_type_ids == VIDEO if videos is not None else torch.zeros_like(input_ids, dtype=torch.bool)
        is_image = (input_ids == self.family.image_token_id()) & ~is_video
        num_image_tokens = int(is_image.sum())  # known before the encoder's work is queued, so nothing waits for it
        # What stands for an image or a video is replaced below; its id may lie outside the vocabulary.
        replaced = is_video if self.family.inserts_images_itself else is_image | is_video
        embeds = self.family.embed_words(input_ids.masked_fill(replaced, 0))
        is_video, is_image = is_video.to(embeds.device), is_image.to(embeds.device)
        features = None
        if videos is not None:
            instructions = self._instruction_embeds(embeds, instruction_turns, is_video, num_video_tokens)
            features = self.encode_videos(videos, instructions, num_video_tokens, output_token_weights, ranks)
            video_tokens = features.pooler_output.to(embeds.device, embeds.dtype)
            embeds = embeds.masked_scatter(is_video[..., None], video_tokens)
        else:
            pass_without_videos(self, ranks)
            # With a video the gradient passes all layers of the LLM, so it must without one.
            embeds = embeds + ranks.zero.to(embeds.device, embeds.dtype)
        image_inputs = set()
        if num_image_tokens > 0:
            ranks.announce()
            if not self.family.inserts_images_itself:
                embeds = self._put_images(embeds, is_image, num_image_tokens, kwargs)
                # The images are in the embeddings now; the image-LLM shall not look for them again.
                image_inputs = self.family.image_input_names(kwargs)
        ranks.finish(lambda: blank_image_tokens(self))
        inputs = {name: value for name, value in kwargs.items() if name not in image_inputs}
        inputs |= {"inputs_embeds": embeds, "attention_mask": attention_mask}
        inputs |= self.family.llm_inputs(input_ids, attention_mask, is_image, is_video, kwargs)
        return inputs, features

    @torch.compiler.disable  # for the reason that `get_frame_tokens` has
    def _put_images(
        self, embeds: torch.Tensor, is_image: torch.Tensor, num_image_tokens: int, inputs: dict
    ) -> torch.Tensor:
        """Replaces the placeholders of images by their tokens."""
        if not self.family.image_input_names(inputs):
            raise ValueError(
                f"The prompt has {num_image_tokens} image tokens, but no images (pixel_values) are given; make the "
                "inputs with LinVTProcessor."
            )
        with self.encoder_grad():
            images = self.family.image_features(inputs).to(embeds.device, embeds.dtype)
        if len(images) != num_image_tokens:
            raise ValueError(
                f"The prompt has {num_image_tokens} image tokens, but the images give {len(images)}; make the "
                "inputs with LinVTProcessor."
            )
        return embeds.masked_scatter(is_image[..., None], images)

    def _instruction_embeds(
        self,
        embeds: torch.Tensor,
        instruction_turns: torch.Tensor | None,
        is_video: torch.Tensor,
        num_video_tokens: int,
    ) -> list[torch.Tensor] | None:
        """Per video the embeddings of the instruction of its user turn, which no gradient reaches."""
        if not self.config.video_tokenizer_config.text_conditioning:
            return None
        # Looked up on the CPU at once, as the counts of frames are, and gathered in one go.
        turns, is_video = instruction_turns.cpu(), is_video.cpu()
        places = []
        for row, (row_turns, row_video) in enumerate(zip(turns, is_video, strict=True)):
            of_videos = row_turns[row_video].view(-1, num_video_tokens)[:, 0]
            places += [((row_turns == turn) & ~row_video).nonzero()[:, 0] + row * len(row_turns) for turn in of_videos]
        gathered = embeds.detach().flatten(0, 1)[torch.cat(places).to(embeds.device)]
        return list(gathered.split([len(place) for place in places]))

    def contrastive_pairs(
        self,
        features: LinVTVideoFeatures | None,
        embeds: torch.Tensor | None,
        input_ids: torch.LongTensor,
        mm_token_type_ids: torch.Tensor | None,
        instruction_turns: torch.Tensor | None,
        labels: torch.LongTensor,
    ) -> tuple:
        """
        Returns what `contrast` is given: the videos of prompts and their answers; to learn relevance, words of the
        instructions and the answers, and what they are compared with.
        """
        is_video = None if features is None else mm_token_type_ids == VIDEO
        if not isinstance(self.contrast, LateInteractionContrast):
            return None if features is None else embeds, is_video, labels
        device, relevance = self.video_tokenizer_device(labels.device), self.video_tokenizer.aggregator.relevance
        labels = labels.to(device)
        words, keys, text_ids = torch.zeros(0, 1, relevance.size, device=device), [], labels.new_zeros(0)
        if features is not None and embeds is not None and instruction_turns is not None:  # all or none
            is_answer, is_video = labels != IGNORED_LABEL, is_video.to(device)
            is_text = is_answer | ((instruction_turns > 0) & (mm_token_type_ids == 0)).to(device)
            num_videos = (is_video.sum(1) // features.pooler_output.shape[1]).tolist()
            per_row = _in_groups(features.relevance_keys or (), num_videos)
            rows = [row for row, some in enumerate(per_row) if some and bool(is_answer[row].any())]
            if rows:
                texts = [embeds[row].detach().to(device)[is_text[row]] for row in rows]
                words = self.video_tokenizer.aggregator.encode_words(*pad_texts(texts, device))
                keys = [torch.cat(per_row[row]).to(device) for row in rows]
                text_ids = hash_texts(input_ids.to(device)[rows], is_text[rows])
        return keys, words, text_ids

    def _check_prompts(
        self,
        videos: VideoInputs,
        input_ids: torch.LongTensor | None,
        instruction_turns: torch.Tensor | None,
        mm_token_type_ids: torch.Tensor | None,
        others: dict,
    ) -> int:
        """
        Returns how many tokens each video is in the prompts; raises a `ValueError` if they do not say where the
        videos and their instructions stand.
        """
        if others.get("inputs_embeds") is not None:
            raise ValueError(
                "inputs_embeds are given beside a video, which stands in the prompt as ids; give input_ids alone."
            )
        needed = {"input_ids": input_ids, "mm_token_type_ids": mm_token_type_ids}
        if self.config.video_tokenizer_config.text_conditioning:
            needed["instruction_turns"] = instruction_turns
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise ValueError(f"A video is given without {', '.join(missing)}; make the inputs with LinVTProcessor.")
        odd = [name for name, value in needed.items() if value.shape != input_ids.shape]
        if odd:
            raise ValueError(
                f"{odd[0]} has shape {tuple(needed[odd[0]].shape)}, but input_ids {tuple(input_ids.shape)}; expected "
                "the same."
            )
        runs, num_videos = _run_lengths(mm_token_type_ids == VIDEO), len(videos)
        number, rest = divmod(sum(runs), num_videos)
        if number == 0 or rest > 0 or any(run % number for run in runs):
            raise ValueError(
                f"The prompts have {sum(runs)} video tokens for {num_videos} videos, in runs of {runs}; expected "
                "equally many for each video, one after the other. Is every video given that is in the prompts?"
            )
        self.config.video_tokenizer_config.check_num_video_tokens(number)
        return number


def _run_lengths(mask: torch.Tensor) -> list[int]:
    """Lengths of the runs of `True` in the rows of a mask."""
    edges = torch.nn.functional.pad(mask.int(), (1, 1)).diff(dim=1)
    return ((edges < 0).nonzero()[:, 1] - (edges > 0).nonzero()[:, 1]).tolist()


def _in_groups(values: Sequence[torch.Tensor], sizes: list[int]) -> list[list[torch.Tensor]]:
    """The next `size` values for each of `sizes`."""
    left = iter(values)
    return [list(islice(left, size)) for size in sizes]


__all__ = ["VIDEO", "LLMInputsMixin"]
