"""Transformers' tests of models, on the video tokenizer and on AutoShot, each on its own."""

import torch
from suite_models import VIDEO_TOKENIZER
from suites import Suite
from tests.test_modeling_common import ModelTesterMixin, floats_tensor

from linvt import AutoShotConfig, AutoShotModel, LinVTVideoConfig, LinVTVideoModel


class VideoTokenizerTester:
    """Videos of three frames of 2 x 2 tokens, with an instruction of five words."""

    batch_size, is_training, seq_length = 3, False, 4
    num_hidden_layers, hidden_size, num_attention_heads = 2, 16, 2

    def __init__(self, parent: Suite):
        self.parent = parent

    def get_config(self) -> LinVTVideoConfig:
        return LinVTVideoConfig(embedding_size=24, **VIDEO_TOKENIZER)

    def prepare_config_and_inputs_for_common(self) -> tuple[LinVTVideoConfig, dict]:
        inputs = {
            "frame_tokens": floats_tensor([self.batch_size, 3, 4, 24]),
            "grid": (2, 2),
            "frame_seconds": torch.arange(3.0).expand(self.batch_size, 3).contiguous(),
            "instruction_embeds": floats_tensor([self.batch_size, 5, 24]),
        }
        return self.get_config(), inputs


class AutoShotTester:
    """Windows of ten frames."""

    batch_size, is_training, seq_length = 3, False, 10

    def __init__(self, parent: Suite):
        self.parent = parent

    def get_config(self) -> AutoShotConfig:
        return AutoShotConfig(
            window_frames=10,
            kept_frames=4,
            stage_channels=[8, 8, 8],
            similarity_channels=8,
            lookup_frames=5,
            hidden_size=16,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[AutoShotConfig, dict]:
        frames = torch.randint(0, 256, (self.batch_size, self.seq_length, 27, 48, 3), dtype=torch.uint8)
        return self.get_config(), {"frames": frames}


class PartSuite(ModelTesterMixin, Suite):
    """The tests of a model that has no words."""

    __test__ = False
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True  # the test looks for a year in the file, and finds none
    has_attentions = False  # the attentions over frame tokens are the weights W, which the model returns itself


class VideoTokenizerSuite(PartSuite):
    __test__ = True
    all_model_classes = (LinVTVideoModel,)

    def setUp(self) -> None:
        self.model_tester = VideoTokenizerTester(self)


class AutoShotSuite(PartSuite):
    __test__ = True
    all_model_classes = (AutoShotModel,)

    def setUp(self) -> None:
        self.model_tester = AutoShotTester(self)
