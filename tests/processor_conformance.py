"""The contracts of a processor around that of one tiny image-LLM: from a chat with a video and an image to logits."""

import re

import numpy as np
import pytest
import torch
from conformance import FRAMES, VIDEO_TOKENS, Conformance
from family_processors import CALLS, NO_IMAGE_BESIDE_VIDEO, tiny_processor
from PIL import Image
from tiny_image_llms import IMAGE_TOKEN
from tiny_pictures import KEPT, picture_processor, picture_side

from linvt import LinVTProcessor
from linvt.image_llms.patch_batches import MiniCpmFamily
from linvt.processors.video_processing_linvt import LinVTVideoProcessor


class ProcessorConformance:
    """The processors of a tiny image-LLM and around it, a picture, and a video whose first frame is the picture."""

    def __init__(self, case: Conformance):
        self.case = case
        self.call = CALLS.get(case.model_type, {})
        self.own = tiny_processor(
            case.model_type, case.image_llm.config, picture_processor(case.model_type), len(case.picture_tokens)
        )
        side = picture_side(case.model_type)
        self.processor = LinVTProcessor.from_image_llm_processor(
            self.own, frame_size={"height": side, "width": side}, model=case.model, num_frames=FRAMES
        )
        self.video = np.random.default_rng(0).integers(0, 256, (FRAMES, side, side, 3), dtype=np.uint8)
        self.picture = Image.fromarray(self.video[0])

    def inputs(self, processor, *parts: str | tuple[str, ...], **call) -> dict:
        """Model inputs of a user turn of the parts `video`, `image` and texts, or of a batch of such turns."""
        is_batch = isinstance(parts[0], tuple)
        rows = parts if is_batch else [parts]
        if any("image" in row for row in rows):
            call |= self.call
        num_videos = sum(row.count("video") for row in rows)
        if num_videos:
            call |= {"video_metadata": [{"fps": 2.0, "total_num_frames": FRAMES}] * num_videos}
        given = {"video": self.video, "image": self.picture}
        chats = [
            [{"type": part, part: given[part]} if part in given else {"type": "text", "text": part} for part in row]
            for row in rows
        ]
        chats = [[{"role": "user", "content": content}] for content in chats]
        return processor.apply_chat_template(
            chats if is_batch else chats[0],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs=call,
        )

    @torch.no_grad()
    def check_frame_size(self) -> None:
        """By default frames have the size that the model says, or else the image processor; the encoder takes it."""
        model, family = self.case.model, self.case.model.family
        processor = LinVTProcessor.from_image_llm_processor(self.own, model=model)
        size = dict(processor.video_processor.size)
        assert processor.num_video_tokens == self.processor.num_video_tokens == VIDEO_TOKENS
        assert size == (model.frame_size() or LinVTVideoProcessor.from_image_processor(self.own.image_processor).size)
        num_tokens = model.get_frame_tokens(torch.zeros(1, 3, size["height"], size["width"])).shape[1]
        rows, columns = family.token_grid(num_tokens, size["height"], size["width"])
        assert rows * columns == num_tokens
        side = family.token_pixels()
        if side is not None and not isinstance(family, MiniCpmFamily):
            assert size["height"] == size["width"] == side * family.tokens_per_side and rows == family.tokens_per_side

    @torch.no_grad()
    def check_frames(self) -> None:
        """V of a frame is what the image-LLM makes of the same picture by way of its own processor."""
        case, inputs = self.case, self.inputs(self.own, "image", "What?")
        frames = self.inputs(self.processor, "video", "What?")["pixel_values_videos"]
        expected = case.own_tokens({name: inputs[name] for name in case.picture})
        expected = KEPT.get(case.model_type, lambda tokens: tokens)(expected)
        (frame_tokens,) = case.model.get_frame_tokens(frames[:1])
        if case.model_type == "molmo2":
            expected = expected + case.image_llm.get_input_embeddings()(torch.tensor(IMAGE_TOKEN))
        torch.testing.assert_close(frame_tokens, expected[: len(frame_tokens)], rtol=1e-3, atol=1e-3)

    def check_presentation(self) -> None:
        """A prompt with a video is that with an image, but for the number of visual tokens and what separates them."""
        rests = []
        for processor, part in ((self.own, "image"), (self.processor, "video")):
            ids = self.inputs(processor, part, "What?")["input_ids"][0].tolist()
            last = len(ids) - ids[::-1].index(IMAGE_TOKEN)
            rests.append((ids[: ids.index(IMAGE_TOKEN)], ids[last:]))
        (start, end), (video_start, video_end) = rests
        # What ends the row of an image's last visual tokens is part of its end.
        assert video_start == start and video_end == end

    @torch.no_grad()
    def check_images_and_text(self) -> None:
        """Without a video, inputs and logits are those of the image-LLM's own processor and model."""
        for parts in (("image", "What?"), ("What?",)):
            try:
                expected = self.inputs(self.own, *parts)
            except ValueError as error:  # some need an image
                with pytest.raises(ValueError, match=re.escape(str(error))):
                    self.inputs(self.processor, *parts)
                continue
            inputs = self.inputs(self.processor, *parts)
            assert inputs.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(inputs[name], value, rtol=0, atol=0)
            assert torch.equal(self.case.model(**inputs).logits, self.case.image_llm(**expected).logits)

    def check_batch(self) -> None:
        """Prompts of a batch are what they are alone, however long, and with however many videos and images."""
        kinds = ("video", "image") if self.case.model_type not in NO_IMAGE_BESIDE_VIDEO else ("video",)
        rows = [(*kinds, "What?"), (*kinds, "Who, and with whom?"), ("video", "When?"), ("How?",)]
        batch = self.inputs(self.processor, *rows, padding=True)
        for row, ids, mask in zip(rows[:3], batch["input_ids"], batch["attention_mask"], strict=False):
            assert torch.equal(ids[mask.bool()], self.inputs(self.processor, *row)["input_ids"][0])

    @torch.no_grad()
    def check_video(self, folder) -> None:
        """From a chat with a video, and an image, to logits that depend on both; also after saving and loading."""
        beside = self.case.model_type not in NO_IMAGE_BESIDE_VIDEO
        parts = ("video", "image", "What?") if beside else ("video", "What?")
        inputs = self.inputs(self.processor, *parts)
        logits = self.case.model(**inputs).logits
        assert logits.isfinite().all()
        ids = inputs["input_ids"][0].tolist()
        behind = len(ids) - ids[::-1].index(IMAGE_TOKEN)  # the last word does not see it in a sparse attention
        for name in ("pixel_values_videos", *([next(iter(self.case.picture))] if beside else [])):
            other = self.case.model(**inputs | {name: inputs[name].flip(-1)}).logits
            assert not torch.allclose(other[:, behind:], logits[:, behind:], atol=1e-5), name
        self.processor.save_pretrained(folder)
        loaded = self.inputs(LinVTProcessor.from_pretrained(folder), *parts)
        assert loaded.keys() == inputs.keys()
        for name, value in inputs.items():
            # Transformers 5.17 may load another backend of an image processor, with other rounding and other types.
            torch.testing.assert_close(loaded[name], value, rtol=0, atol=1e-6, check_dtype=False)
