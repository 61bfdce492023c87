"""Style is a test like the others, so that one command checks everything."""

import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_ruff(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_folder_is_packaged_and_module_names_are_unique():
    """A folder must be named to be installed, and a checkpoint that carries its code holds it flat."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    folders = {
        path.parent.relative_to(ROOT)
        for name in ("modeling_linvt", "configuration", "hub_cards", "processors")
        for path in (ROOT / name).rglob("*.py")
    }
    inside = [f"modeling_linvt/{name}" for name in ("conversion", "families", "hub", "ports")]
    assert sorted(map(str, folders)) == ["configuration", "hub_cards", "modeling_linvt", *inside, "processors"]
    assert all(f'= "{folder}"' in pyproject for folder in folders)
    names = [path.name for folder in folders for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("folder", "forbidden"), [("processors", "modeling_linvt"), ("configuration", "processors")])
def test_imports_go_one_way(folder, forbidden):
    """Configuration knows nobody, and processors do not know the model: its modules are the root of the package."""
    folders = {"conversion", "families", "hub", "ports"}
    others = {path.stem for path in (ROOT / "modeling_linvt").rglob("*.py")} - {"__init__"} | folders
    for path in (ROOT / folder).glob("*.py"):
        for line in path.read_text().splitlines():
            if line.startswith(("from linvt", "import linvt")):
                module = line.split()[1].removeprefix("linvt").removeprefix(".").split(".")[0]
                assert module and module not in others and module != forbidden, f"{path.name}: {line}"


def test_the_model_does_not_import_processors():
    both = {"__init__.py", "cli.py", "cli_hub.py", "cli_output.py", "cli_shots.py", "auto_classes.py"}
    model = [path for path in (ROOT / "modeling_linvt").rglob("*.py") if path.parent.name not in ("conversion", "hub")]
    for path in model:
        assert path.name in both or "linvt.processors" not in path.read_text(), path.name
