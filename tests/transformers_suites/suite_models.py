"""Transformers' tests of models and of generation, on LinVT around LLaVA and Qwen2-VL, and on both without it.

Prompts of the wrapped models hold a video, those of the controls an image of as many tokens.
"""

import inspect
import unittest.mock

import torch
from suites import HAS_GENERATION_TESTS, Suite
from tests.generation.test_utils import GenerationTesterMixin
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor
from transformers import (
    GenerationMixin,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from linvt import LinVTConfig, LinVTForConditionalGeneration
from linvt.video_inputs import VideoInputs


IMAGE, FIRST_WORD = 3, 4  # token ids: the image placeholder, and the first that is plain text
TEXT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
VIDEO_TOKENIZER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_layers": 2,
    "num_attention_heads": 2,
    "top_k": 8,
    "num_queries": [2, 1, 1],
}
NUM_VISUAL_TOKENS = sum(VIDEO_TOKENIZER["num_queries"])
NUM_FRAMES = 3


class ImageLLMTester:
    """What the mixins ask about an image-LLM: its configuration, and inputs of three prompts."""

    batch_size, num_text_tokens, is_training = 3, 7, True
    frame_size: int

    def __init__(self, parent: Suite):
        self.parent = parent
        self.seq_length = self.num_text_tokens + NUM_VISUAL_TOKENS
        self.image_token_id, self.pad_token_id = IMAGE, TEXT["pad_token_id"]
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
            setattr(self, name, TEXT[name])

    def get_config(self) -> PreTrainedConfig:
        raise NotImplementedError

    def image_inputs(self) -> dict:
        """One image of `NUM_VISUAL_TOKENS` tokens per prompt."""
        raise NotImplementedError

    def prompts(self) -> dict:
        """Random words with a visual behind the first of them."""
        input_ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size - FIRST_WORD) + FIRST_WORD
        input_ids[:, 1 : 1 + NUM_VISUAL_TOKENS] = IMAGE
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict]:
        return self.get_config(), {**self.prompts(), **self.image_inputs()}


class LlavaTester(ImageLLMTester):
    frame_size = 8

    def get_config(self) -> LlavaConfig:
        vision = {"image_size": 8, "patch_size": 4, "hidden_size": 32, "intermediate_size": 37, "projection_dim": 32}
        return LlavaConfig(
            text_config={"model_type": "llama", **TEXT},
            vision_config={**vision, "num_hidden_layers": 2, "num_attention_heads": 4},
            image_token_index=IMAGE,
            vision_feature_layer=-1,
            image_seq_length=NUM_VISUAL_TOKENS,
        )

    def image_inputs(self) -> dict:
        return {"pixel_values": floats_tensor([self.batch_size, 3, self.frame_size, self.frame_size])}


class Qwen2VLTester(ImageLLMTester):
    frame_size = 56

    def get_config(self) -> Qwen2VLConfig:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
        return Qwen2VLConfig(
            text_config={**TEXT, "rope_parameters": rope},
            vision_config={"depth": 2, "embed_dim": 32, "num_heads": 4, "mlp_ratio": 4, "hidden_size": 32},
            image_token_id=IMAGE,
            video_token_id=TEXT["vocab_size"] - 1,
            vision_start_token_id=TEXT["vocab_size"] - 2,
            vision_end_token_id=TEXT["vocab_size"] - 3,
            tie_word_embeddings=True,
        )

    def image_inputs(self) -> dict:
        patches = (self.frame_size // 14) ** 2
        return {
            "pixel_values": floats_tensor([self.batch_size * patches, 3 * 2 * 14**2]),
            "image_grid_thw": torch.tensor([[1, self.frame_size // 14, self.frame_size // 14]] * self.batch_size),
        }

    def prompts(self) -> dict:
        prompts = super().prompts()
        return {**prompts, "mm_token_type_ids": (prompts["input_ids"] == IMAGE).int()}


def video_inputs(num_videos: int, frame_size: int) -> dict:
    """Videos of `NUM_FRAMES` frames, all in one shot, as the model takes those of a batch."""
    num_frames = num_videos * NUM_FRAMES
    return {
        "pixel_values_videos": floats_tensor([num_frames, 3, frame_size, frame_size]),
        "video_num_frames": torch.full((num_videos,), NUM_FRAMES),
        "video_milliseconds": torch.arange(NUM_FRAMES).repeat(num_videos) * 500,
        "video_shot_ids": torch.zeros(num_frames, dtype=torch.long),
    }


class VideoPrompts(dict):
    """Inputs of which a test that takes away what is in the cache takes all of a video, not its pixels alone."""

    def pop(self, name: str, *default):
        if name == "pixel_values_videos":
            for other in VideoInputs.names():
                super().pop(other, None)
            return None
        return super().pop(name, *default)


class WrappedTester:
    """Mixed into the tester of an image-LLM: a video tokenizer around it, and a video in every prompt."""

    def get_config(self) -> LinVTConfig:
        return LinVTConfig(image_llm_config=super().get_config(), video_tokenizer_config=VIDEO_TOKENIZER)

    def image_inputs(self) -> dict:
        return video_inputs(self.batch_size, self.frame_size)

    def prompts(self) -> dict:
        prompts = super().prompts()
        return {
            **prompts,
            "mm_token_type_ids": 2 * (prompts["input_ids"] == IMAGE).int(),
            "instruction_turns": torch.ones_like(prompts["input_ids"]),
        }

    def prepare_config_and_inputs_for_common(self) -> tuple[LinVTConfig, dict]:
        config, inputs = super().prepare_config_and_inputs_for_common()
        return config, VideoPrompts(inputs)


class WrappedLlavaTester(WrappedTester, LlavaTester):
    pass


class WrappedQwen2VLTester(WrappedTester, Qwen2VLTester):
    pass


class ImageLLMSuite(ModelTesterMixin, GenerationTesterMixin, Suite):
    """The tests of a model that generates text about what it sees."""

    __test__ = False
    _is_composite = True
    model_tester_class: type[ImageLLMTester]

    def setUp(self) -> None:
        self.model_tester = self.model_tester_class(self)


class LlavaSuite(ImageLLMSuite):
    __test__ = True
    all_model_classes = (LlavaForConditionalGeneration,)
    model_tester_class = LlavaTester


class Qwen2VLSuite(ImageLLMSuite):
    __test__ = True
    all_model_classes = (Qwen2VLForConditionalGeneration,)
    model_tester_class = Qwen2VLTester

    def prepare_config_and_inputs_for_generate(self, batch_size: int = 2) -> tuple[PreTrainedConfig, dict]:
        config, inputs = super().prepare_config_and_inputs_for_generate(batch_size)
        patches = inputs["image_grid_thw"].prod(1).sum()
        inputs["pixel_values"] = self.model_tester.image_inputs()["pixel_values"][:patches]
        return config, inputs


def wrapped_class(tester_class: type[ImageLLMTester]) -> type[LinVTForConditionalGeneration]:
    """
    LinVT's class as it is around one image-LLM: the mixins ask the class, where a user asks the model. What a compiled
    `generate` compiles is the image-LLM, whose `generate` it is.
    """
    model = LinVTForConditionalGeneration(tester_class(None).get_config())

    def forward(self, *args, **kwargs):
        return LinVTForConditionalGeneration.forward(self, *args, **kwargs)

    parameters = inspect.signature(model.forward).parameters.values()
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = inspect.Signature([own, *parameters])
    members = {
        "forward": forward,
        "_can_compile_fullgraph": model.image_llm._can_compile_fullgraph,
        "_compiled_call": property(lambda self: self.image_llm._compiled_call),
    }
    return type(LinVTForConditionalGeneration.__name__, (LinVTForConditionalGeneration, GenerationMixin), members)


class WrappedSuite(ImageLLMSuite):
    test_can_init_all_missing_weights_before_2023 = True  # the test looks for a year in the file, and finds none

    def prepare_config_and_inputs_for_generate(self, batch_size: int = 2) -> tuple[PreTrainedConfig, dict]:
        config, inputs = super().prepare_config_and_inputs_for_generate(batch_size)
        return config, {**inputs, **video_inputs(batch_size, self.model_tester.frame_size)}

    def test_left_padding_compatibility(self) -> None:
        """With the marks of instructions padded too: the mixin pads only inputs that Transformers' own models take."""
        if not HAS_GENERATION_TESTS:
            self.skipTest("It is a test of generation.")
        _, inputs = self.prepare_config_and_inputs_for_generate()
        turns = inputs["instruction_turns"]
        padded = torch.cat([turns.new_zeros(len(turns), 32), turns], dim=1)
        super().test_left_padding_compatibility(padded_custom_inputs={"instruction_turns": padded})

    def test_tp_plan_matches_params(self) -> None:
        """Though plans stand one configuration deeper than the mixin looks for them."""
        with unittest.mock.patch.object(LinVTConfig, "base_model_tp_plan", {}):
            super().test_tp_plan_matches_params()

    def test_mismatching_num_image_tokens(self) -> None:
        """As the test of this name of LLaVA and Qwen2-VL, with videos."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        # From merging a video may be any number of tokens, so one place may hold two videos.
        config.video_tokenizer_config.start = "random"
        model = LinVTForConditionalGeneration(config).eval()
        model(**inputs)
        one, two = (dict(inputs) | video_inputs(number, self.model_tester.frame_size) for number in (1, 2))
        with self.assertRaisesRegex(ValueError, "video tokens|num_video_tokens"):
            model(**one)
        for videos, number in ((one, 2), (two, 1)):
            prompts = {name: value[:number] for name, value in inputs.items() if "video" not in name}
            with self.assertRaisesRegex(ValueError, "video tokens|num_video_tokens"):
                model(**{**videos, **prompts})
        model(**{**two, **{name: value[:2] for name, value in inputs.items() if "video" not in name}})


class LinVTOnLlavaSuite(WrappedSuite):
    __test__ = True
    control = LlavaSuite
    model_tester_class = WrappedLlavaTester
    all_model_classes = (wrapped_class(WrappedLlavaTester),)

    def test_vision_feature_layers(self) -> None:
        """As LLaVA's own tests of this name."""
        for layers in (-1, [-1], [-1, -2]):
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            config.image_llm_config.vision_feature_layer = layers
            model = LinVTForConditionalGeneration(config)
            width = 32 if layers == -1 else 32 * len(layers)
            self.assertEqual(model.image_llm.model.multi_modal_projector.linear_1.in_features, width)
            model(**inputs)


class LinVTOnQwen2VLSuite(WrappedSuite):
    __test__ = True
    control = Qwen2VLSuite
    model_tester_class = WrappedQwen2VLTester
    all_model_classes = (wrapped_class(WrappedQwen2VLTester),)
