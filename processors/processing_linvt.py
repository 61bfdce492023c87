"""Prompts, images and videos to model inputs, on top of the image-LLM's own processor.

A prompt without videos goes through the image-LLM's processor and nothing else. In a prompt with videos, each video is
presented the way the image-LLM presents one image, with `num_video_tokens` placeholders instead of the image's.
"""

import os
from typing import Any, Protocol

from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.utils.chat_template_utils import render_jinja_template
from transformers.video_processing_utils import BaseVideoProcessor

from linvt.configuration.configuration_linvt import LinVTConfig
from linvt.processors.call_arguments import ArgumentSorter, CallArguments, LinVTProcessorKwargs
from linvt.processors.image_llm_processor import build_image_llm_processor, place_of_images, settings_of
from linvt.processors.prompts.chat_visuals import chat_visuals, may_name_video, read_conversations
from linvt.processors.prompts.instruction_turns import TurnHeaders
from linvt.processors.prompts.presented_image import PresentedImage, process_images
from linvt.processors.prompts.prompt_marks import VIDEO, answer_mask, mark_tokens, mark_videos
from linvt.processors.video.frame_selection import check_at_least_one
from linvt.processors.video.video_sources import flatten_videos, resolve_video
from linvt.processors.video_processing_linvt import LinVTVideoProcessor


class WrappedModel(Protocol):
    """Describes the model that a processor is for, as far as it asks."""

    config: LinVTConfig

    def frame_size(self) -> dict[str, int] | None: ...


class LinVTProcessor(ProcessorMixin):
    r"""
    Wraps the processor of an image-LLM.

    Args:
        image_processor, tokenizer: Those of the image-LLM.
        video_processor ([`LinVTVideoProcessor`]): Reads videos.
        image_llm_processor (`dict`): Class and settings of the image-LLM's processor, as its `to_dict` gives them.
        num_video_tokens (`int`, *optional*, defaults to 112): Tokens of one video, unless a call asks for another
            number; that of the model's configuration.
        chat_template (`str`, *optional*): That of the image-LLM.

    Example:

    ```python
    >>> from linvt import LinVTForConditionalGeneration, LinVTProcessor
    >>> from transformers import AutoProcessor

    >>> name = "llava-hf/llava-1.5-7b-hf"
    >>> model = LinVTForConditionalGeneration.from_image_llm(name)
    >>> processor = LinVTProcessor.from_image_llm_processor(AutoProcessor.from_pretrained(name), model=model)
    ```
    """

    valid_processor_kwargs = LinVTProcessorKwargs

    def __init__(
        self,
        image_processor: BaseImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        video_processor: BaseVideoProcessor | None = None,
        image_llm_processor: dict | None = None,
        num_video_tokens: int = 112,
        chat_template: str | dict | None = None,
    ):
        check_at_least_one("num_video_tokens", num_video_tokens)
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template)
        self.image_llm_processor = image_llm_processor
        self.num_video_tokens = num_video_tokens
        self._processor = build_image_llm_processor(self, image_llm_processor)
        self.image_token = place_of_images(self._processor)
        self.video_token = getattr(self._processor, "video_token", None) or "<video>"
        self._headers_of_template: dict[str, TurnHeaders] = {}
        self._presented_images: dict[tuple[str | None, int, int], PresentedImage] = {}

    @classmethod
    def from_image_llm_processor(
        cls,
        image_llm_processor: ProcessorMixin,
        num_video_tokens: int | None = None,
        frame_size: dict[str, int] | None = None,
        *,
        model: WrappedModel | None = None,
        **video_kwargs: Any,
    ) -> "LinVTProcessor":
        """
        Wraps the processor of an image-LLM.

        Args:
            image_llm_processor (`ProcessorMixin`): The processor of the image-LLM, with an image processor.
            num_video_tokens (`int`, *optional*): Tokens of one video. By default those of `model`, or 112.
            frame_size (`dict[str, int]`, *optional*): Height and width of a frame in pixels. By default what `model`
                says, or else the image processor.
            model ([`LinVTForConditionalGeneration`], *optional*): The model that the processor is for.
            video_kwargs: Settings of [`LinVTVideoProcessor`], such as `num_frames`.

        Raises:
            `ValueError`: If `model` has another `num_video_tokens` or is of another image-LLM, if nothing says the
                size of a frame, or if the processor has no token for the place of an image.
        """
        if model is not None:
            known = model.config.num_video_tokens
            if num_video_tokens not in (None, known):
                raise ValueError(
                    f"num_video_tokens is {num_video_tokens}, but a video is {known} tokens in the model; leave "
                    "it out: calls can ask for another number."
                )
            num_video_tokens, frame_size = known, frame_size or model.frame_size()
        video_processor = LinVTVideoProcessor.from_image_processor(
            image_llm_processor.image_processor, frame_size, **video_kwargs
        )
        processor = cls(
            image_processor=image_llm_processor.image_processor,
            tokenizer=image_llm_processor.tokenizer,
            video_processor=video_processor,
            image_llm_processor=settings_of(image_llm_processor),
            num_video_tokens=112 if num_video_tokens is None else num_video_tokens,
            chat_template=image_llm_processor.chat_template,
        )
        if model is not None and processor.chat_template is not None:
            presented, replaced = processor._presented_image(), model.config.image_llm_config.image_token_id
            if presented.token_id != replaced:
                raise ValueError(
                    f"{type(image_llm_processor).__name__} fills {presented.token} ({presented.token_id}) into "
                    f"prompts for an image, but the model replaces token {replaced}. Is it of the same image-LLM?"
                )
        return processor

    def __call__(
        self, images: Any = None, text: str | list[str] | None = None, videos: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """
        Args:
            images: Images, as the image-LLM's processor takes them.
            text (`str` or `list[str]`): Prompts, with `image_token` and `video_token` where images and videos stand.
            videos: Videos of all prompts in their order; see [`LinVTVideoProcessor.preprocess`].
            kwargs: Arguments of the tokenizer, the image processor and the video processor, by themselves or in
                `text_kwargs`, `images_kwargs` and `videos_kwargs`. Which there are depends on the image-LLM.
                `num_video_tokens`, one of `videos_kwargs`, is the number of tokens of each video of this call.
                `audio` can only be `None`, as pipelines of Transformers give it.

        Returns:
            `BatchFeature`: What the image-LLM's processor returns. With videos also what [`LinVTVideoProcessor`]
            returns, `mm_token_type_ids` (2 on video tokens, 1 on images), and `instruction_turns` (`i` on the i-th
            user turn that holds a video, 0 elsewhere).

        Raises:
            `TypeError`: If an argument is unknown.
            `ValueError`: If one is given twice, if a prompt has more or fewer places than videos, or for an `audio`.
        """
        if kwargs.pop("audio", None) is not None:
            raise ValueError("LinVT takes no audio; leave it out, or give audio=None.")
        if text is not None and not isinstance(text, list):
            text = [text] if isinstance(text, str) else list(text)
        prompts = text or []
        num_videos = sum(prompt.count(self.video_token) for prompt in prompts)
        given = [] if videos is None else flatten_videos(videos)
        if num_videos != len(given):
            raise ValueError(
                f"The prompts have {num_videos} videos ({self.video_token}), but {len(given)} videos were given; "
                "every video needs its place in a prompt."
            )
        if not given:
            return self._processor(images=images, text=text, **self._argument_sorter.without_videos(kwargs))
        arguments = self.split_kwargs(kwargs)
        features, _ = self._process(prompts, images, given, self.resolve_template(), arguments)
        return features.convert_to_tensors(arguments.return_tensors)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> list[str]:
        """As `ProcessorMixin.save_pretrained`; weights of AutoShot that came with the checkpoint go along."""
        self.video_processor.save_autoshot(save_directory)
        return super().save_pretrained(save_directory, *args, **kwargs)

    def replace_video_token(
        self,
        video_inputs: dict,
        video_idx: int,
        template: str | None = None,
        num_video_tokens: int | None = None,
        **kwargs: Any,
    ) -> str:
        """Returns what a video becomes in the prompt: `num_video_tokens` tokens between the markers of an image."""
        presented = self._presented_image(template)
        number = self.num_video_tokens if num_video_tokens is None else num_video_tokens
        return presented.start + presented.token * number + presented.end

    def apply_chat_template(
        self,
        conversation: list,
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        return_assistant_tokens_mask: bool = False,
        processor_kwargs: dict | None = None,
        **kwargs: Any,
    ) -> str | list[str] | list[list[int]] | BatchFeature:
        """
        `ProcessorMixin.apply_chat_template`, with parts such as `{"type": "video", "video": path}` (also `url`,
        `path`). The image-LLM's own template is rendered with an image in place of each video.

        Args:
            processor_kwargs (`dict`, *optional*): Arguments of [`~LinVTProcessor.__call__`], such as `num_frames` and
                `num_video_tokens`.
            kwargs: Variables of the template, the other arguments of `ProcessorMixin.apply_chat_template`, such as
                `tools` and `add_generation_prompt`, and those of `processor_kwargs` by themselves.
                `load_audio_from_video` has no effect, since LinVT takes no audio.

        Raises:
            `TypeError`: If an argument is known to neither the template nor the processor.
            `ValueError`: If one is given twice, or is impossible with videos.
        """
        conversations, is_batch = read_conversations(conversation)
        template = self.resolve_template(chat_template)
        chats = []
        if any(may_name_video(messages, template) for messages in conversations):
            chats = [chat_visuals(messages) for messages in conversations]
        if return_tensors not in (None, "auto"):
            kwargs["return_tensors"] = return_tensors
        variables, arguments = self._argument_sorter.split_chat(template, kwargs, processor_kwargs)
        if not any("video" in chat.kinds for chat in chats):
            arguments = self._argument_sorter.without_videos(arguments)
            if "return_tensors" in arguments:
                variables["return_tensors"] = arguments.pop("return_tensors")
            return self._processor.apply_chat_template(
                conversations if is_batch else conversations[0],
                chat_template=template,
                tokenize=tokenize,
                return_dict=return_dict,
                return_assistant_tokens_mask=return_assistant_tokens_mask,
                processor_kwargs=arguments,
                **variables,
            )
        variables.pop("load_audio_from_video", None)
        if variables.pop("sanitize_control_tokens", False):
            raise ValueError("sanitize_control_tokens cannot be used in a chat with videos; leave it out.")
        if variables.get("continue_final_message"):
            if variables.get("add_generation_prompt") or return_assistant_tokens_mask:
                raise ValueError(
                    "continue_final_message cannot be used with add_generation_prompt or return_assistant_tokens_mask."
                )
        rendered, answers = self.render_chats(
            template,
            [chat.messages for chat in chats],
            return_answers=return_assistant_tokens_mask,
            variables=variables,
        )
        marked = [
            mark_videos(prompt, chat.kinds, self.image_token, self.video_token)
            for prompt, chat in zip(rendered, chats, strict=True)
        ]
        prompts = [prompt for prompt, _ in marked]
        if not tokenize:
            return prompts if is_batch else prompts[0]

        split = self.split_kwargs(arguments)
        bos = self.tokenizer.bos_token
        if bos is not None and prompts[0].startswith(bos):
            split.text["add_special_tokens"] = False  # the template has written it
        images = [image for chat in chats for image in chat.images]
        videos = [video for chat in chats for video in chat.videos]
        features, alignments = self._process(prompts, images, videos, template, split)
        if return_assistant_tokens_mask:
            features["assistant_masks"] = [
                answer_mask(spans, [(shift(start), shift(end)) for start, end in answer], replaced)
                for (spans, replaced), answer, (_, shift) in zip(alignments, answers, marked, strict=True)
            ]
        features.convert_to_tensors(split.return_tensors)
        return features if return_dict else features["input_ids"]

    def _process(
        self, text: list[str], images: Any, videos: list, template: str, arguments: CallArguments
    ) -> tuple[BatchFeature, list[tuple[list, list]]]:
        """[`~LinVTProcessor.fill_prompts`] with videos that have to be read first."""
        video_inputs = self.video_processor([resolve_video(video) for video in videos], **arguments.videos)
        features, alignments = self.fill_prompts(
            text, images, video_inputs, template, arguments.text, arguments.images, arguments.num_video_tokens
        )
        if arguments.return_text_replacement_offsets:
            features["text_replacement_offsets"] = [replaced for _, replaced in alignments]
        return features, alignments

    def fill_prompts(
        self,
        text: list[str],
        images: Any,
        video_inputs: dict,
        template: str,
        text_kwargs: dict,
        image_kwargs: dict,
        num_video_tokens: int | None = None,
    ) -> tuple[BatchFeature, list[tuple[list, list]]]:
        """
        Model inputs of prompts, some or none of which have videos, whose frames are known already.

        Args:
            text (`list[str]`): Prompts of `template`, with `image_token` and `video_token` for images and videos.
            video_inputs (`dict`): What the model takes for the videos of all prompts; passed on as it is.
            template (`str`): As [`~LinVTProcessor.resolve_template`] gives it.
            text_kwargs (`dict`), image_kwargs (`dict`): As [`~LinVTProcessor.split_kwargs`] gives them.
            num_video_tokens (`int`, *optional*): Tokens of each video; by default those of this processor.

        Returns:
            The inputs, not yet tensors, and per prompt the places of its tokens and what was filled in.
        """
        presented = self._presented_image(template)
        at_start = presented.prompt_start if text_kwargs.get("add_special_tokens", True) else ""
        text = [prompt.removeprefix(at_start) for prompt in text]
        flat = [] if images is None else _flatten(self.image_processor.fetch_images(images))
        without_videos = [prompt.replace(self.video_token, "") for prompt in text]
        data, image_replacements = process_images(
            self._processor, flat, without_videos, self.image_token, image_kwargs
        )
        data |= video_inputs
        num_videos = sum(prompt.count(self.video_token) for prompt in text)
        per_video = self.num_video_tokens if num_video_tokens is None else num_video_tokens
        video_replacements = [
            self.replace_video_token(data, index, template, per_video) for index in range(num_videos)
        ]
        filled, replacements = self.get_text_with_replacements(text, image_replacements, video_replacements)

        keep_offsets = text_kwargs.get("return_offsets_mapping", False)
        encoding = self.tokenizer(
            [at_start + prompt + presented.prompt_end for prompt in filled],
            **{**text_kwargs, "return_offsets_mapping": True},
        )
        offsets = encoding["offset_mapping"] if keep_offsets else encoding.pop("offset_mapping")
        data |= encoding
        # Places of tokens are those in the prompt that the chat template wrote.
        offsets = [[(start - len(at_start), end - len(at_start)) for start, end in spans] for spans in offsets]
        headers, special = self.turn_headers(template), set(self.tokenizer.all_special_ids)
        marks = [
            mark_tokens(prompt, ids, spans, replaced, headers, presented.token_id, special)
            for prompt, ids, spans, replaced in zip(filled, encoding["input_ids"], offsets, replacements, strict=True)
        ]
        data["mm_token_type_ids"] = [types for types, _ in marks]
        data["instruction_turns"] = [turns for _, turns in marks]
        num_tokens = sum(types.count(VIDEO) for types, _ in marks)
        if num_tokens != num_videos * per_video:
            raise ValueError(
                f"{num_videos} videos need {num_videos * per_video} video tokens, but {num_tokens} are "
                "left after truncation; raise max_length or switch truncation off."
            )
        features = BatchFeature(data, skip_tensor_conversion=[*self.skip_tensor_conversion, "video_memories"])
        return features, list(zip(offsets, replacements, strict=True))

    def _presented_image(self, template: str | None = None) -> PresentedImage:
        """Reads off how the image-LLM's processor writes an image of the size of a frame into a prompt, once."""
        if template is None and self.chat_template is not None:
            template = self.resolve_template()
        height, width = self.video_processor.size["height"], self.video_processor.size["width"]
        if (template, height, width) not in self._presented_images:
            prompt = self.image_token
            if template is not None:
                chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
                (prompt,), _ = self.render_chats(template, [chat])
            blank = Image.new("RGB", (width, height))
            presented = PresentedImage.of_processor(self._processor, prompt, self.image_token, blank)
            self._presented_images[template, height, width] = presented
        return self._presented_images[template, height, width]

    @property
    def image_token_id(self) -> int:
        """Returns the id of the token that stands for a visual token of an image or a video."""
        return self._presented_image().token_id

    def resolve_template(self, chat_template: str | None = None) -> str:
        """The chat template itself, from a name or by default; a `ValueError` where there is none."""
        template = chat_template or self.chat_template
        if isinstance(self.chat_template, dict):
            template = self.chat_template.get(chat_template or "default", chat_template)
        if template is None:
            raise ValueError(
                "This processor has no chat template, which LinVT needs to tell the instruction of a video from the "
                "rest of the prompt; set processor.chat_template to that of the image-LLM."
            )
        return template

    def render_chats(
        self, template: str, chats: list, *, return_answers: bool = False, variables: dict | None = None
    ) -> tuple[list[str], list[list[tuple[int, int]]]]:
        """Prompts, and per prompt the characters of the answers (what stands in `{% generation %}`)."""
        return render_jinja_template(
            conversations=chats,
            chat_template=template,
            return_assistant_tokens_mask=return_answers,
            **{**self.tokenizer.special_tokens_map, **(variables or {})},
        )

    def turn_headers(self, template: str) -> TurnHeaders:
        """Returns the headers that this template writes between turns, read off it once."""
        if template not in self._headers_of_template:
            self._headers_of_template[template] = TurnHeaders.of_template(
                lambda chat, **variables: self.render_chats(template, [chat], variables=variables)[0][0],
                self.image_token,
            )
        return self._headers_of_template[template]

    def split_kwargs(self, kwargs: dict) -> CallArguments:
        """Sorts the arguments of a call with videos; see [`ArgumentSorter.with_videos`]."""
        return self._argument_sorter.with_videos(kwargs)

    @property
    def _argument_sorter(self) -> ArgumentSorter:
        return ArgumentSorter(self._processor)

    def _get_num_multimodal_tokens(
        self,
        image_sizes: list | None = None,
        video_sizes: list | None = None,
        num_video_tokens: int | None = None,
        **kwargs: Any,
    ) -> MultiModalData:
        """Counts the tokens of images and videos of these sizes; vLLM asks for it under this name."""
        data = self._processor._get_num_multimodal_tokens(image_sizes=image_sizes, **kwargs)
        if video_sizes is not None:
            per_video = self.num_video_tokens if num_video_tokens is None else num_video_tokens
            data.num_video_tokens = [per_video] * len(video_sizes)
        return data

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "mm_token_type_ids", "instruction_turns"]


def _flatten(images: Any) -> list:
    """Images of all prompts in their order, from one image, a list, or a list per prompt."""
    if not isinstance(images, (list, tuple)):
        return [images]
    return [image for item in images for image in _flatten(item)]


__all__ = ["LinVTProcessor"]
