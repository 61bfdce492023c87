"""Saves the state of a long encoding beside its output, so that another process can go on where one was killed."""

import json
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from linvt_cli.cli_choices import MEMORY_SUFFIX


if TYPE_CHECKING:
    from linvt.streaming_encoder import ClosedPart

_ABOUT, _CLOSED = "about.json", f"closed{MEMORY_SUFFIX}"


class PartFile:
    """
    Saves and loads the [`ClosedPart`] of a video that is being seen.

    Args:
        output (`Path`): Where the memory will be; the part is `OUTPUT.part`.
        made_of (`dict[str, str]`): All that the result depends on, by the names that errors shall call it.
    """

    def __init__(self, output: Path, made_of: dict[str, str]):
        self.path, self.made_of = output.with_name(f"{output.name}.part"), made_of

    def load(self) -> "ClosedPart | None":
        """
        Loads what another process has left; `None` if there is nothing.

        Raises:
            `ValueError`: If it was made of something else, or is damaged.
        """
        from linvt.streaming_encoder import ClosedPart
        from linvt.video_tokenizer.video_memory import VideoMemory

        if not self.path.exists():
            return None
        way_out = f"remove {self.path} to begin anew"
        try:
            with zipfile.ZipFile(self.path) as file, tempfile.TemporaryDirectory() as folder:
                about = json.loads(file.read(_ABOUT))
                for name, value in self.made_of.items():
                    if about["made_of"].get(name) != value:
                        found = about["made_of"].get(name)
                        raise ValueError(
                            f"{self.path} was begun with another {name} ({found}, now {value}); give the same as "
                            f"then, or {way_out}."
                        )
                memory = VideoMemory.load(file.extract(_CLOSED, folder))
                return ClosedPart(memory, about["next_frame"], about["num_skipped"])
        except (zipfile.BadZipFile, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged ({error}); {way_out}.") from error

    def save(self, closed: "ClosedPart") -> None:
        """Saves the shots that are over, if any is; the file is there whole or as it was."""
        from linvt.checkpoints.atomic_file import new_file

        if closed.memory is None:
            return
        about = {"made_of": self.made_of, "next_frame": closed.next_frame, "num_skipped": closed.num_skipped}
        with new_file(self.path) as part, tempfile.TemporaryDirectory() as folder:
            closed.memory.save(Path(folder) / _CLOSED)
            with zipfile.ZipFile(part, "w") as file:
                file.writestr(_ABOUT, json.dumps(about))
                file.write(Path(folder) / _CLOSED, _CLOSED)

    def remove(self) -> None:
        """Removes the file, once the video was seen to its end."""
        self.path.unlink(missing_ok=True)
