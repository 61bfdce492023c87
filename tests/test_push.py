import os

import pytest

from linvt.hub.push import files_to_send, push_folder


@pytest.fixture
def folder(tmp_path):
    """Something like a model: small text files, two small weights and a larger one."""
    folder = tmp_path / "model"
    (folder / "adapter").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: mit\n---\nA model.\n")
    for name, size in {"adapter/adapter_model": 60_000, "contrast": 50_000, "model": 3_000_000}.items():
        (folder / f"{name}.safetensors").write_bytes(os.urandom(size))
    return folder


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def writes(hub) -> list[str]:
    """Requests that change something."""
    harmless = ("/api/validate-yaml",)
    return [path for method, path in hub.requests if method not in ("GET", "HEAD") and path not in harmless]


# What arrives


def test_a_folder_arrives_in_one_commit(hub, folder):
    pushed = push_folder(folder, "org/model")
    assert hub.files("org/model") == contents(folder)
    assert hub.commits("org/model") == ["Add the model", "initial commit"]
    assert pushed.files == {path: len(data) for path, data in contents(folder).items()}
    assert (pushed.repo_id, pushed.revision, pushed.removed) == ("org/model", "main", ())
    assert pushed.commit == hub.repositories["org/model"].branches["main"]
    assert pushed.url == f"{hub.url}/org/model"
    assert not hub.repositories["org/model"].private and hub.unknown_requests == []


def test_a_name_without_namespace_is_that_of_the_account(hub, folder):
    assert push_folder(folder, "model", private=True).repo_id == "me/model"
    assert hub.repositories["me/model"].private


def test_a_branch_is_made_and_main_stays(hub, folder):
    push_folder(folder, "me/model")
    before = hub.files("me/model")
    (folder / "config.json").write_text('{"new": true}')
    pushed = push_folder(folder, "me/model", revision="v2")
    assert pushed.url == f"{hub.url}/me/model/tree/v2"
    assert hub.files("me/model", "v2") == contents(folder) != before == hub.files("me/model")


def test_a_branch_of_a_new_repository(hub, folder):
    push_folder(folder, "me/model", revision="v2")
    assert hub.files("me/model") == {} and hub.files("me/model", "v2") == contents(folder)


def test_files_that_loading_would_mix_with_the_new_ones_go(hub, folder, tmp_path):
    """Of an earlier commit in another format: its shards go in the same commit, a picture for the card stays."""
    old = tmp_path / "old"
    (old / "adapter").mkdir(parents=True)
    stale = ["adapter/adapter_config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    for name in (*stale, "model.safetensors", "plot.png", "notes/data.json"):
        (old / name).parent.mkdir(exist_ok=True)
        (old / name).write_text(name)
    hub.add_model("me/model", old)
    pushed = push_folder(folder, "me/model", revision="main")
    assert list(pushed.removed) == stale
    kept = {name: name.encode() for name in ("plot.png", "notes/data.json")}
    assert hub.files("me/model") == contents(folder) | kept
    assert hub.commits("me/model") == ["Update the model", "Add model", "initial commit"]


def test_stale_files_are_those_of_the_branch(hub, folder, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "model-00001-of-00001.safetensors").write_bytes(b"old")
    push_folder(folder, "me/model")
    hub.add_model("me/model", tmp_path / "old", revision="v2")
    assert push_folder(folder, "me/model", revision="v2").removed == ("model-00001-of-00001.safetensors",)
    assert hub.files("me/model", "v2") == contents(folder)


def test_large_files_in_several_parts(hub, folder):
    hub.multipart_bytes = 700_000
    push_folder(folder, "me/model")
    assert hub.files("me/model") == contents(folder)
    assert len([path for method, path in hub.requests if method == "PUT"]) == 2 + 5


# What breaks off


def test_a_second_try_sends_only_what_has_not_arrived(hub, folder):
    hub.cut_after(2_500_000)
    with pytest.raises(ConnectionError, match="cannot be reached .* same command goes on") as caught:
        push_folder(folder, "me/model")
    assert "\n" not in str(caught.value)
    assert hub.files("me/model") == {}, "a commit that is not whole was made"
    arrived = set(hub.large_files)
    assert arrived, "the small files were to arrive before the large one breaks off"

    hub.restore()
    hub.requests.clear()
    hub.uploaded_bytes = 0
    push_folder(folder, "me/model")  # the empty repository is no taken name
    assert hub.files("me/model") == contents(folder)
    sent = {path.removeprefix("/lfs/") for method, path in hub.requests if method == "PUT"}
    assert sent == set(hub.large_files) - arrived
    assert hub.uploaded_bytes == sum(len(hub.large_files[oid]) for oid in sent)


def test_the_client_goes_on_by_itself_after_a_short_break(hub, folder):
    hub.cut_after(1_000_000, stays_down=False)
    push_folder(folder, "me/model")
    assert hub.files("me/model") == contents(folder)


def test_a_hub_that_is_not_there(hub, folder):
    hub.is_down = True
    with pytest.raises(ConnectionError, match="cannot be reached"):
        push_folder(folder, "me/model")


# What is refused


@pytest.mark.parametrize(
    ("repo_id", "token", "error", "message"),
    [
        ("me/model", None, ValueError, r"needs a token: `hf auth login`, or set HF_TOKEN"),
        ("me/model", "hf_wrong", PermissionError, r"does not accept the token \(.*\). Log in"),
        ("me/model", "hf_may_read", PermissionError, "the token of the account me may only read"),
        (
            "you/model",
            "hf_may_write",
            PermissionError,
            "the account me of the token cannot write to you, only to me",
        ),
        ("me/taken", "hf_may_write", ValueError, r"me/taken is taken: .* holds config.json already.*--revision main"),
        ("me/../model", "hf_may_write", ValueError, "Repo id must"),
        ("me/mo del", "hf_may_write", ValueError, "Repo id must"),
    ],
)
def test_it_is_said_what_is_wrong_before_anything_is_written(
    hub, folder, tmp_path, monkeypatch, repo_id, token, error, message
):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    hub.add_model("me/taken", tmp_path / "other")
    monkeypatch.delenv("HF_TOKEN")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(error, match=message):
        push_folder(folder, repo_id)
    assert writes(hub) == []


def test_a_token_without_the_right_for_one_repository(hub, folder, monkeypatch):
    """Rights that only the Hub knows, such as those of a fine-grained token: it says no when asked to make it."""
    monkeypatch.setattr(hub, "writable", ("org",))
    with pytest.raises(PermissionError, match="the token may not write to me/model: You don't have the rights"):
        push_folder(folder, "me/model")
    assert hub.repositories == {}


def test_a_public_repository_does_not_take_what_is_to_be_private(hub, folder):
    hub.create("me/model")
    with pytest.raises(ValueError, match="me/model is there already and is public: make it private on http"):
        push_folder(folder, "me/model", private=True)
    assert writes(hub) == []


def test_a_card_that_the_hub_would_refuse_is_found_before_weights_are_sent(hub, folder):
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(ValueError, match="Invalid metadata in README.md"):
        push_folder(folder, "me/model")
    assert hub.uploaded_bytes == 0


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin", "optimizer.PT", "adapter/x.pkl"])
def test_pickles_are_not_sent(hub, folder, name):
    (folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{name} in .*pickles are not pushed"):
        push_folder(folder, "me/model")
    assert hub.requests == []


def test_an_empty_folder_is_nothing_to_push(tmp_path):
    with pytest.raises(ValueError, match="holds no files to push"):
        files_to_send(tmp_path)
    with pytest.raises(ValueError, match="holds no files to push"):
        files_to_send(tmp_path / "missing")


@pytest.mark.parametrize(
    ("said", "expected", "message"),
    [
        ("Network error: Request middleware error: error sending request", ConnectionError, "same command goes on"),
        ("Network error: HTTP status client error (403 Forbidden)", PermissionError, "refuses to take org/model"),
    ],
)
def test_what_xet_says_is_said_plainly(hub, folder, monkeypatch, said, expected, message):
    """Large files go by hf_xet where a Hub has it, which this one has not; it raises errors of Python's own."""

    def create_commit(*_, **__):
        raise ConnectionError(said)

    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", create_commit)
    with pytest.raises(expected, match=message):
        push_folder(folder, "org/model")
