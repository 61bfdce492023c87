"""`pipeline("video-text-to-text")`: videos and questions in, text out."""

from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import AnyToAnyPipeline, GenerationConfig, GenerationMixin
from transformers.pipelines.any_to_any import ReturnType

from linvt.pipeline_inputs import VideoPrompt, is_streamed, video_prompts


# Arguments of `generate`, which takes the tokenizers among its `kwargs`.
_GENERATION_NAMES = {
    *signature(GenerationMixin.generate).parameters,
    *GenerationConfig().to_dict(),
    "assistant_tokenizer",
    "tokenizer",
} - {"self", "inputs", "kwargs", "transformers_version"}


class VideoTextToTextPipeline(AnyToAnyPipeline):
    """
    Answers questions about videos. Conversations, their answers and everything else are those of
    [`AnyToAnyPipeline`]; what is added is the plain form, a video and a question.

    The prompts of a batch (`batch_size`) are padded on the left, whichever side the tokenizer pads, so that no answer
    depends on the other prompts.

    Example:

    ```python
    >>> import linvt
    >>> from transformers import pipeline

    >>> pipe = pipeline("video-text-to-text", model="qwen2-vl-2b-linvt")
    >>> pipe("holiday.mp4", text="Who swims first?", num_frames=64, max_new_tokens=20)
    [{'input_text': 'Who swims first?', 'generated_text': 'The dog.'}]
    ```
    """

    def _sanitize_parameters(self, generate_kwargs: dict | None = None, **kwargs: Any) -> tuple[dict, dict, dict]:
        generate_kwargs = dict(generate_kwargs or {})
        for name in _GENERATION_NAMES & kwargs.keys():
            if name in generate_kwargs:
                raise ValueError(f"{name} is given twice, by itself and in generate_kwargs; give it once.")
            generate_kwargs[name] = kwargs.pop(name)
        # As in the other pipelines that generate.
        if self.assistant_model is not None:
            generate_kwargs.setdefault("assistant_model", self.assistant_model)
        if self.assistant_tokenizer is not None:
            generate_kwargs.setdefault("assistant_tokenizer", self.assistant_tokenizer)
        if generate_kwargs.keys() & {"stop_strings", "assistant_tokenizer"}:
            generate_kwargs.setdefault("tokenizer", self.processor.tokenizer)
        number = {**(kwargs.get("processor_kwargs") or {}), **kwargs}.get("num_video_tokens")
        if number is not None:  # the processor does not know which numbers its model allows, and reads the video first
            self.model.config.video_tokenizer_config.check_num_video_tokens(number)
        preprocess, forward, postprocess = super()._sanitize_parameters(generate_kwargs=generate_kwargs, **kwargs)
        at_construction = getattr(self, "_forward_params", {}).get("generate_kwargs", {})
        forward["generate_kwargs"] = {**at_construction, **forward["generate_kwargs"]}
        if all(kwargs.get(name) is None for name in ("return_full_text", "return_tensors", "return_type")):
            postprocess.pop("return_type", None)  # its default depends on the form of the input
        return preprocess, forward, postprocess

    def __call__(
        self, videos: Any = None, text: Any = None, **kwargs: Any
    ) -> list[dict[str, Any]] | Iterable[list[dict[str, Any]]]:
        """
        Answers a question about a video, or one about each of several.

        Args:
            videos: A video (path, URL, bytes, frames as an array, a tensor or a list of pictures), or several, which
                are asked one by one: a list, an array of names, a column of a data set, a `Series`, a `KeyDataset`, a
                generator.
            text: The question, one for all videos or as many as there are videos. Or, without `videos`, a conversation
                with `{"type": "video"}` parts, a `{"videos": ..., "text": ...}`, or several of those.
            kwargs: Arguments of `generate`, such as `max_new_tokens`, `do_sample` or `streamer`, by themselves or in
                `generate_kwargs`; of the processor, such as `num_frames` and `num_video_tokens`, by themselves or in
                `processor_kwargs`; and of [`AnyToAnyPipeline`], such as `return_full_text`. `max_length` is that of
                `generate`.

        Returns:
            `list[dict]`, or for several inputs a list of those: `input_text` and `generated_text`. For a generator, a
            source without length or a data set of PyTorch, such as `KeyDataset`, an iterator of those, which reads an
            input when its answer is asked for. For a video and a question `generated_text` is the answer; for a
            conversation, or with `return_full_text=True`, it is the conversation with the answer.

        Raises:
            `ValueError`: If there is no question, or not one for each video.
            `TypeError`: If an argument is known to neither `generate` nor the processor nor the chat template.
        """
        if videos is None and (text is None or isinstance(text, str)):
            raise ValueError("Give a video and a question, or a conversation with a video part.")
        prompts = video_prompts(text) if videos is None else video_prompts(videos, text)
        answers = super().__call__(text=prompts, **kwargs)
        return answers if isinstance(prompts, VideoPrompt) or is_streamed(videos, text) else list(answers)

    def preprocess(self, inputs: VideoPrompt, **kwargs: Any) -> dict[str, Any]:
        """Reads one prompt. Its model inputs stay together, where the padding of pipelines does not reach them."""
        model_inputs = super().preprocess(inputs, **kwargs)
        return {"text": model_inputs.pop("text"), "model_inputs": model_inputs}

    def _forward(self, model_inputs: Mapping[str, Any], **kwargs: Any) -> dict:
        inputs = model_inputs["model_inputs"]
        if isinstance(inputs, list):
            inputs = self._batch(inputs)
        outputs = super()._forward({**inputs, "text": model_inputs["text"]}, **kwargs)
        sequences = outputs["generated_sequence"]
        if not isinstance(sequences, torch.Tensor):
            raise ValueError("The pipeline returns texts or ids; for return_dict_in_generate call model.generate.")
        # Keeps several answers to one prompt together, which Transformers 5.17 does not.
        outputs["generated_sequence"] = sequences.reshape(len(inputs["input_ids"]), -1, sequences.shape[-1])
        return outputs

    def _batch(self, prompts: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns the inputs of several prompts as one batch, padded on the left."""
        per_token = {*self.tokenizer.model_input_names, "mm_token_type_ids", "instruction_turns"}
        length = max(prompt["input_ids"].shape[1] for prompt in prompts)
        batch: dict[str, Any] = {}
        for name in dict.fromkeys(name for prompt in prompts for name in prompt):
            if name in per_token:
                # What only prompts with videos have is 0 in the others.
                rows = [prompt.get(name, torch.zeros_like(prompt["input_ids"])) for prompt in prompts]
                value = self.tokenizer.pad_token_id if name == "input_ids" else 0
                rows = [pad(row, (length - row.shape[1], 0), value=value) for row in rows]
            elif name == "video_memories":
                videos = [prompt for prompt in prompts if "video_num_frames" in prompt]
                nothing = [[None] * len(prompt["video_num_frames"]) for prompt in videos]
                batch[name] = sum((prompt.get(name, none) for prompt, none in zip(videos, nothing, strict=True)), [])
                continue
            else:
                rows = [prompt[name] for prompt in prompts if name in prompt]
                shapes = {tuple(row.shape[1:]) for row in rows}
                if len(shapes) > 1:
                    raise ValueError(
                        f"{name} has the shapes {sorted(shapes)}, which do not fit in one batch; use batch_size=1."
                    )
            batch[name] = torch.cat(rows)
        return batch

    def postprocess(self, model_outputs: dict, return_type: ReturnType | None = None, **kwargs: Any) -> list[dict]:
        """Returns a record for each answer to one prompt."""
        question = model_outputs["prompt_text"].question
        if return_type is None:
            return_type = ReturnType.FULL_TEXT if question is None else ReturnType.NEW_TEXT
        records = []
        for sequence in model_outputs["generated_sequence"].flatten(0, 1):
            outputs = {**model_outputs, "generated_sequence": sequence[None]}
            records += super().postprocess(outputs, return_type=return_type, **kwargs)
        if question is None:
            return records
        for record in records:
            record["input_text"] = question
            # The prompt was cut off a text that was decoded as a whole, which leaves the space before the answer.
            if return_type == ReturnType.NEW_TEXT:
                record["generated_text"] = record["generated_text"].removeprefix(" ")
            elif return_type == ReturnType.FULL_TEXT and isinstance(record["generated_text"][-1].get("content"), str):
                record["generated_text"][-1]["content"] = record["generated_text"][-1]["content"].removeprefix(" ")
        return records


__all__ = ["VideoTextToTextPipeline"]
