"""Transformers' tests of configurations. `ConfigTester` has them as methods, here each is a test."""

import json

from suite_models import VIDEO_TOKENIZER, ImageLLMTester, LlavaTester, WrappedLlavaTester
from suites import Suite
from tests.test_configuration_common import ConfigTester
from transformers import LlavaConfig

from linvt import AutoShotConfig, LinVTConfig, LinVTVideoConfig
from linvt.configuration.configuration_red_villm import RedVillmVideoConfig


class ConfigurationSuite(Suite):
    """One test per method of `ConfigTester`."""

    __test__ = False
    config_class: type
    settings: dict = {}
    common_properties: list[str] | None = None
    model_tester_class: type[ImageLLMTester] | None = None

    def setUp(self) -> None:
        self.tester = ConfigTester(
            self,
            config_class=self.config_class,
            has_text_modality=False,
            common_properties=self.common_properties,
            **self.settings,
        )
        if self.model_tester_class is not None:
            self.model_tester = self.model_tester_class(self)


def _as_test(method: str):
    def test(self: ConfigurationSuite) -> None:
        getattr(self.tester, method)()

    return test


for _method in dir(ConfigTester):
    if _method.startswith(("create_and_test_", "check_")):
        setattr(ConfigurationSuite, f"test_{_method.split('_', 1)[1].removeprefix('and_test_')}", _as_test(_method))


class LlavaConfigSuite(ConfigurationSuite):
    __test__ = True
    config_class = LlavaConfig
    settings = {"image_token_index": 3}
    model_tester_class = LlavaTester


class LinVTConfigSuite(ConfigurationSuite):
    __test__ = True
    control = LlavaConfigSuite
    config_class = LinVTConfig
    # All fields of the image-LLM's configuration, since the tests look for what was given in what is saved.
    settings = {
        "image_llm_config": json.loads(WrappedLlavaTester(None).get_config().to_json_string())["image_llm_config"]
    }
    model_tester_class = WrappedLlavaTester
    common_properties = ["text_config", "vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers"]


class LinVTVideoConfigSuite(ConfigurationSuite):
    __test__ = True
    config_class = LinVTVideoConfig
    common_properties = ["hidden_size", "num_attention_heads"]
    settings = {"embedding_size": 24, **VIDEO_TOKENIZER}


class RedVillmVideoConfigSuite(ConfigurationSuite):
    __test__ = True
    config_class = RedVillmVideoConfig
    common_properties = []
    settings = {"embedding_size": 24, "num_frames": 4}


class AutoShotConfigSuite(ConfigurationSuite):
    __test__ = True
    config_class = AutoShotConfig
    common_properties = ["hidden_size"]
    settings = {"threshold": 0.4, "min_shot_frames": 3}
