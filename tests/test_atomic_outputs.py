"""Outputs are there whole or not at all, whatever ends the process."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from linvt.checkpoints.atomic_file import new_file
from linvt.checkpoints.atomic_folder import new_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def end_of_another_process(work: Callable[[], None]) -> str:
    """What `work` raises in another process, which then ends without any clean-up, as by `kill -9`."""
    answers, answer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            os.write(answer, repr(error).encode())
        os._exit(0)
    os.close(answer)
    os.waitpid(child, 0)
    with open(answers) as file:
        return file.read()


def killed_while_writing(context: AbstractContextManager[Path], name: str) -> None:
    def work() -> None:
        part = context.__enter__()
        (part / name if part.is_dir() else part).write_text("half")
        os._exit(0)

    assert end_of_another_process(work) == ""


def test_a_folder_appears_when_it_is_whole(tmp_path):
    goal = tmp_path / "made" / "too" / "goal"
    with new_folder(goal) as folder:
        assert folder.name == "goal" and names(folder) == []
        (folder / "file").write_text("whole")
        assert not goal.exists()
    assert (goal / "file").read_text() == "whole" and names(goal.parent) == ["goal"]


def test_an_empty_folder_is_filled_and_the_present_one_too(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with new_folder(".") as folder:
        (folder / "file").touch()
    assert names(tmp_path / "here") == ["file"] and names(tmp_path) == ["here"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_nothing(tmp_path, error):
    (tmp_path / "file").write_text("before")
    for make in (new_folder, new_file):
        with pytest.raises(error), make(tmp_path / ("goal" if make is new_folder else "file")) as part:
            (part / "half" if part.is_dir() else part).write_text("half")
            raise error
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "before"


@pytest.mark.parametrize("is_file", [True, False])
def test_a_folder_that_holds_something_is_left_alone(tmp_path, is_file):
    goal = tmp_path / "goal"
    (goal if is_file else goal / "mine").parent.mkdir(exist_ok=True)
    (goal if is_file else goal / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="goal exists already"), new_folder(goal):
        raise AssertionError("the block began")
    assert (goal if is_file else goal / "mine").read_text() == "mine" and names(tmp_path) == ["goal"]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    killed_while_writing(new_folder(tmp_path / "goal"), "stale")
    assert names(tmp_path) != [] and not (tmp_path / "goal").exists()
    with new_folder(tmp_path / "goal") as folder:
        (folder / "file").touch()
    assert names(tmp_path) == ["goal"] and names(tmp_path / "goal") == ["file"]


def test_a_killed_process_leaves_the_file_before(tmp_path):
    (tmp_path / "file").write_text("before")
    killed_while_writing(new_file(tmp_path / "file"), "half")
    assert (tmp_path / "file").read_text() == "before"
    with new_file(tmp_path / "file") as part:
        part.write_text("after")
    assert (tmp_path / "file").read_text() == "after"


def test_two_processes_do_not_mix_their_files(tmp_path):
    """The second is refused while the first writes, and does not remove what the first has written."""
    goal = tmp_path / "goal"
    with new_folder(goal) as folder:
        (folder / "file").touch()
        error = end_of_another_process(lambda: new_folder(goal).__enter__())
        assert error.startswith("FileExistsError") and f"another process is writing {goal}" in error
        with pytest.raises(FileExistsError, match="another process is writing"), new_folder(goal):
            raise AssertionError("the block began")
    assert names(tmp_path) == ["goal"] and names(goal) == ["file"]


def test_a_file_keeps_its_suffix_and_has_the_usual_rights(tmp_path):
    (tmp_path / "usual").touch()
    with new_file(tmp_path / "sheet.tar.gz") as part:
        assert part.name.endswith(".tar.gz") and part.parent == tmp_path and not part.exists()
        part.touch()
    assert (tmp_path / "sheet.tar.gz").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_full_disk_is_an_error_of_the_system_that_names_the_file(tmp_path):
    """Also where safetensors writes, which has an error of its own."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # for a process as a disk of 4 kB
    try:
        with (
            pytest.raises(OSError, match=r"tokens\.safetensors cannot be written"),
            new_file(tmp_path / "tokens.safetensors") as part,
        ):
            save_file({"tokens": torch.zeros(4096)}, part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []
