import copy
import json

import pytest
from tiny_families import FAMILIES
from transformers import AutoConfig, BertConfig, LlavaConfig

from linvt import AutoShotConfig, LinVTConfig, LinVTVideoConfig, RedVillmVideoConfig
from linvt.configuration.known_settings import own_settings
from linvt_cli.cli_models import SMALL_MODEL


def test_defaults_are_the_papers():
    config = LinVTConfig(image_llm_config=LlavaConfig())
    assert config.num_video_tokens == 64 + 32 + 16
    video = config.video_tokenizer_config
    assert (video.num_layers, video.num_attention_heads, video.top_k) == (4, 8, 2048)
    assert video.embedding_size == config.get_text_config().hidden_size == 4096


def test_round_trip(tmp_path):
    config = LinVTConfig(
        image_llm_config=LlavaConfig(), video_tokenizer_config={"num_queries": [8, 4, 2], "top_k": 99}
    )
    config.save_pretrained(tmp_path)
    loaded = LinVTConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert type(loaded.image_llm_config) is LlavaConfig
    assert loaded.num_video_tokens == 14


def test_wrapping_leaves_the_configuration_of_a_live_image_llm_alone():
    live = LlavaConfig(attn_implementation={"": "sdpa", "text_config": "eager", "vision_config": "sdpa"})
    before = [
        live._attn_implementation,
        live.text_config._attn_implementation,
        live.vision_config._attn_implementation,
    ]
    LinVTConfig(image_llm_config=live)
    after = [live._attn_implementation, live.text_config._attn_implementation, live.vision_config._attn_implementation]
    assert before == after == ["sdpa", "eager", "sdpa"]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_trainers_read_is_that_of_the_llm(make_linvt, family):
    model, _ = make_linvt(family)
    config, words = model.config, model.get_input_embeddings()
    assert config.text_config is config.get_text_config()
    assert (config.vocab_size, config.hidden_size) == tuple(words.weight.shape)
    assert config.num_hidden_layers == len(model.get_decoder().layers)
    attention = model.get_decoder().layers[0].self_attn
    assert (
        attention.k_proj.out_features * config.num_attention_heads == config.num_key_value_heads * config.hidden_size
    )
    assert config.max_position_embeddings == 4096
    number = config.vocab_size
    model.resize_token_embeddings(number + 3)
    assert config.vocab_size == number + 3 == LinVTConfig.from_dict(config.to_dict()).vocab_size
    config.max_position_embeddings = 8192
    assert (
        config.text_config.max_position_embeddings
        == 8192
        == config.to_dict()["image_llm_config"]["text_config"]["max_position_embeddings"]
    )
    assert "max_position_embeddings" not in config.to_dict()  # there is one place that says it


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0; it must be at least 1"),
        ({"hidden_size": 1020}, "hidden_size 1020 must be a multiple of 8.* and of num_attention_heads 8"),
        ({"hidden_size": 12, "num_attention_heads": 3}, "hidden_size 12 must be a multiple of 8"),
        ({"hidden_size": 1024, "num_attention_heads": 3}, "of num_attention_heads 3"),
        ({"num_queries": []}, "give at least one scale"),
        ({"num_queries": [64, 0, 16]}, "one query per scale"),
        ({"num_queries": [64, 32]}, "must have one entry per scale"),
        ({"pooling_windows": [4, 1, 16]}, "from the finest scale"),
        ({"top_k": 100}, "top_k 100 keeps fewer frame tokens than the 112 video tokens"),
        ({"use_svr": False, "use_tta": False, "multi_scale": "single"}, "set text_conditioning=False"),
        ({"use_svr": False, "use_tta": False, "text_conditioning": False}, "set multi_scale='single'"),
        ({"use_svr": False}, "set multi_scale='single'"),
        ({"use_svr": False, "multi_scale": "single", "temporal_attention": "shot"}, "only SVR attends over time"),
        ({"use_tta": False, "multi_scale": "multi_b"}, "set multi_scale='multi_c' or 'single'"),
        ({"use_tta": False}, "set text_conditioning=False"),
        ({"multi_scale": "multi_a", "num_queries": [16, 32, 64]}, "put the largest first"),
    ],
)
def test_combinations_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LinVTVideoConfig(**settings)


def test_wrong_types_are_refused():
    with pytest.raises(Exception, match="top_k.*expected int"):
        LinVTVideoConfig(top_k="many")
    with pytest.raises(Exception, match="expected one of.*multi_c"):
        LinVTVideoConfig(multi_scale="multi_d")


def test_image_llm_config_is_checked():
    with pytest.raises(ValueError, match="needs image_llm_config"):
        LinVTConfig()
    with pytest.raises(ValueError, match="model_type 'no_such_model'"):
        LinVTConfig(image_llm_config={"model_type": "no_such_model"})
    with pytest.raises(ValueError, match="is a BertConfig; give a LinVTVideoConfig"):
        LinVTConfig(image_llm_config=LlavaConfig(), video_tokenizer_config=BertConfig())
    with pytest.raises(ValueError, match="frames_per_batch is 0"):
        LinVTConfig(image_llm_config=LlavaConfig(), frames_per_batch=0)
    with pytest.raises(ValueError, match="embeddings of 77 channels.*have 4096"):
        LinVTConfig(image_llm_config=LlavaConfig(), video_tokenizer_config={"embedding_size": 77})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LinVTVideoConfig(hiden_size=64),
            "LinVTVideoConfig has no setting 'hiden_size'; did you mean hidden_size",
        ),
        (
            lambda: LinVTVideoConfig(temperature=0.5),
            "has no setting 'temperature'; it has start, embedding_size, .*top_k",
        ),
        (lambda: RedVillmVideoConfig(num_frame=5), "RedVillmVideoConfig has .*'num_frame'; did you mean num_frames"),
        (lambda: AutoShotConfig(treshold=0.5), "AutoShotConfig has .*'treshold'; did you mean threshold"),
        (lambda: LinVTConfig(image_llm_config=LlavaConfig(), frames_per_path=2), "did you mean frames_per_patch"),
        (lambda: with_video_tokenizer({"num_querys": [8, 4, 2]}), "did you mean num_queries"),
        (lambda: with_video_tokenizer({"model_type": "red_villm_video", "pool": "both"}), "did you mean pooling"),
        (lambda: with_video_tokenizer({"model_type": "red_villm_video", "top_k": 64}), "RedVillm.* has no .*'top_k'"),
    ],
)
def test_settings_that_do_not_exist_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def with_video_tokenizer(settings: dict) -> LinVTConfig:
    return LinVTConfig(image_llm_config=LlavaConfig(), video_tokenizer_config=settings)


@pytest.mark.parametrize("settings", [{"top_k": 99, "num_queries": [8, 4, 2]}, {"model_type": "red_villm_video"}])
def test_settings_of_a_saved_configuration_are_all_taken(settings, tmp_path):
    """Of this version, of another one, and such as trainers and Transformers add."""
    config = with_video_tokenizer(settings)
    config.added_by_a_trainer = 1
    config.video_tokenizer_config.setting_of_another_version = 3
    config.save_pretrained(tmp_path)
    as_json = json.loads((tmp_path / "config.json").read_text())
    assert as_json["video_tokenizer_config"]["setting_of_another_version"] == 3
    for loaded in (
        LinVTConfig.from_pretrained(tmp_path),
        AutoConfig.from_pretrained(tmp_path),
        LinVTConfig.from_json_file(tmp_path / "config.json"),
        LinVTConfig.from_dict(as_json),
        LinVTConfig(**config.to_dict()),
        copy.deepcopy(config),
    ):
        assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
    video = type(config.video_tokenizer_config)
    config.video_tokenizer_config.save_pretrained(tmp_path)
    assert video.from_pretrained(tmp_path).to_dict() == config.video_tokenizer_config.to_dict()
    assert with_video_tokenizer(config.video_tokenizer_config.to_dict()).num_video_tokens == config.num_video_tokens


def starts_of(folder) -> set[str]:
    """Of a saved model, as a whole and of the video tokenizer alone, by every way to load its configuration."""
    as_json = json.loads((folder / "config.json").read_text())
    whole = [
        LinVTConfig.from_pretrained(folder),
        AutoConfig.from_pretrained(folder),
        LinVTConfig.from_json_file(folder / "config.json"),
        LinVTConfig.from_dict(as_json),
        LinVTConfig(**as_json),
        LinVTConfig.from_pretrained(folder, video_tokenizer_config={"top_k": 999}),
        AutoConfig.from_pretrained(folder, video_tokenizer_config={"text_conditioning": False}),
    ]
    whole += [copy.deepcopy(config) for config in whole]
    parts = [LinVTVideoConfig(**config.video_tokenizer_config.to_dict()) for config in whole]
    parts += [LinVTVideoConfig.from_pretrained(folder), LinVTVideoConfig.from_pretrained(folder, top_k=999)]
    return {config.start for config in [*parts, *(config.video_tokenizer_config for config in whole)]}


@pytest.mark.parametrize("start", [None, "merge", "random"])
def test_a_saved_video_tokenizer_starts_where_it_did(start, tmp_path):
    config = with_video_tokenizer({"num_queries": [8, 4, 2]} | ({"start": start} if start else {}))
    config.save_pretrained(tmp_path)
    assert starts_of(tmp_path) == {start or "merge"}
    (alone := tmp_path / "alone").mkdir()
    config.video_tokenizer_config.save_pretrained(alone)
    assert (
        LinVTVideoConfig.from_pretrained(alone).start == AutoConfig.from_pretrained(alone).start == (start or "merge")
    )


def test_what_was_saved_before_there_was_a_choice_starts_at_random(tmp_path):
    with_video_tokenizer({"num_queries": [8, 4, 2]}).save_pretrained(tmp_path)
    as_json = json.loads((tmp_path / "config.json").read_text())
    del as_json["video_tokenizer_config"]["start"], as_json["video_tokenizer_config"]["max_shot_frames"]
    (tmp_path / "config.json").write_text(json.dumps(as_json))
    assert starts_of(tmp_path) == starts_of(SMALL_MODEL) == {"random"}
    LinVTConfig.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["video_tokenizer_config"]["start"] == "random"
    former = {**as_json["video_tokenizer_config"], "transformers_version": "5.17.0"}  # of a video tokenizer alone
    (tmp_path / "config.json").write_text(json.dumps(former))
    for load in (LinVTVideoConfig.from_pretrained, AutoConfig.from_pretrained):
        assert load(tmp_path).start == "random"


def test_attention_over_time_stays_in_the_shot_only_where_svr_starts_from_merging():
    assert LinVTVideoConfig().temporal_attention == "shot"
    for settings in ({"start": "random"}, {"use_svr": False, "multi_scale": "single"}):
        assert LinVTVideoConfig(**settings).temporal_attention == "video"
    for given in ("shot", "video"):
        assert LinVTVideoConfig(temporal_attention=given).temporal_attention == given


@pytest.mark.parametrize("attention", ["shot", "video"])
def test_saved_attention_over_time_comes_back(attention, tmp_path):
    with_video_tokenizer({"temporal_attention": attention}).save_pretrained(tmp_path)
    as_json = json.loads((tmp_path / "config.json").read_text())
    assert as_json["video_tokenizer_config"]["temporal_attention"] == attention
    assert LinVTConfig.from_pretrained(tmp_path).video_tokenizer_config.temporal_attention == attention
    # Before there was this default, it was left out where it was "video".
    del as_json["video_tokenizer_config"]["temporal_attention"]
    (tmp_path / "config.json").write_text(json.dumps(as_json))
    assert LinVTConfig.from_pretrained(tmp_path).video_tokenizer_config.temporal_attention == "video"


def test_other_starts_are_refused():
    with pytest.raises(Exception, match="start"):
        LinVTVideoConfig(start="kmeans")


def test_changes_of_a_saved_configuration_are_checked(tmp_path):
    with_video_tokenizer({"num_queries": [8, 4, 2]}).save_pretrained(tmp_path)
    for load in (LinVTConfig, AutoConfig):
        changed = load.from_pretrained(tmp_path, video_tokenizer_config={"top_k": 99})
        assert changed.video_tokenizer_config.top_k == 99 and changed.num_video_tokens == 14
        with pytest.raises(ValueError, match="no setting 'topk'; did you mean top_k?"):
            load.from_pretrained(tmp_path, video_tokenizer_config={"topk": 99})


def test_settings_of_every_configuration_can_be_given():
    settings = {"dtype": "float16", "attn_implementation": "eager", "num_labels": 3, "return_dict": False}
    assert LinVTVideoConfig(**settings).num_labels == 3
    assert with_video_tokenizer(settings).video_tokenizer_config.return_dict is False


def test_own_settings_are_those_of_the_class():
    assert own_settings(RedVillmVideoConfig(num_frames=7)) == {
        "embedding_size": None,
        "num_frames": 7,
        "num_frame_tokens": 256,
        "pooling": "both",
        "temporal_module": True,
        "temporal_module_init": "projector",
        "additional_mlp": False,
        "initializer_range": 0.02,
    }
