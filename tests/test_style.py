"""Style is a test like the others, so that one command checks everything."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


ROOT = Path(__file__).parents[1]
FOLDERS = {
    "linvt": "modeling_linvt",
    "linvt.processors": "processors",
    "linvt.configuration": "configuration",
    "linvt.hub_cards": "hub_cards",
}


def _modules() -> dict[str, Path]:
    """Import names of all modules, and their files, at any depth."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            name = ".".join((package, *path.relative_to(ROOT / folder).with_suffix("").parts))
            # The command line is a package of its own: importing a module of `linvt` imports all of `linvt`.
            found[name.removesuffix(".__init__").replace("linvt.cli", "linvt_cli", 1)] = path
    return found


MODULES = _modules()


def imported_modules(path: Path) -> set[str]:
    """The package's own modules that a file imports anywhere in it, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            # What is imported is a module of a package, or a name of a module.
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {module if module in MODULES else node.module for module in modules}
    return {name for name in names if name.split(".")[0] in ("linvt", "linvt_cli")}


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_ruff(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_folder_is_packaged_and_module_names_are_unique():
    """A folder must be named to be installed, and a checkpoint that carries its code holds it flat."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {str(path.parent.relative_to(ROOT)) for path in MODULES.values()}
    assert sorted(setuptools["package-dir"].values()) == sorted(folders)
    assert sorted(setuptools["packages"]) == sorted(setuptools["package-dir"])
    names = [path.name for path in MODULES.values() if path.name != "__init__.py"]
    assert len(names) == len(set(names))


def test_every_folder_says_what_it_is_for():
    for name, path in MODULES.items():
        if path.name == "__init__.py":
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert text.splitlines()[0:1] and text.splitlines()[0].endswith("."), name


# What each folder may import, besides itself; whatever is named here it may import indirectly too. The rows run from
# the ground up, so that no arrow can run back.
MAY_IMPORT = {
    "configuration": set(),
    "hub_cards": set(),
    "modeling_linvt/checkpoints": {"configuration"},
    "modeling_linvt/image_llms": {"configuration", "modeling_linvt/checkpoints"},
    "modeling_linvt/video_tokenizer": {
        "configuration",
        "modeling_linvt/checkpoints",
        "modeling_linvt/image_llms",
    },
    "processors/video": {"configuration", "modeling_linvt/video_tokenizer"},  # a memory stands for a video
    "processors/shots": {"configuration", "processors/video"},
    "processors/prompts": set(),
    "processors/port_processors": {"configuration"},
    "processors": {
        "configuration",
        "modeling_linvt/video_tokenizer",
        "processors/video",
        "processors/shots",
        "processors/prompts",
    },
    "modeling_linvt": {
        "configuration",
        "modeling_linvt/checkpoints",
        "modeling_linvt/image_llms",
        "modeling_linvt/video_tokenizer",
    },
    "modeling_linvt/ports": {"configuration", "processors/port_processors", "modeling_linvt"},
    "modeling_linvt/training": {
        "configuration",
        "processors",
        "processors/prompts",
        "processors/shots",
        "processors/video",
        "modeling_linvt",
        "modeling_linvt/checkpoints",
        "modeling_linvt/image_llms",
        "modeling_linvt/video_tokenizer",
    },
    "modeling_linvt/conversion": {
        "configuration",
        "processors/port_processors",
        "processors/shots",
        "modeling_linvt",
        "modeling_linvt/checkpoints",
        "modeling_linvt/ports",
    },
    "modeling_linvt/hub": {
        "configuration",
        "hub_cards",
        "processors",
        "processors/shots",
        "modeling_linvt",
        "modeling_linvt/checkpoints",
        "modeling_linvt/ports",
        "modeling_linvt/video_tokenizer",
    },
}
MAY_IMPORT["modeling_linvt/cli"] = set(MAY_IMPORT)  # the command line is on top


def test_the_import_rules_have_no_way_back():
    below = []
    for folder, others in MAY_IMPORT.items():
        assert others <= set(below), folder
        below.append(folder)
    assert set(MAY_IMPORT) == {str(path.parent.relative_to(ROOT)) for path in MODULES.values()}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_go_one_way(folder):
    """The package's own `__init__` alone knows everything: it registers the classes."""
    for name, path in MODULES.items():
        if name == "linvt" or str(path.parent.relative_to(ROOT)) != folder:
            continue
        others = {str(MODULES[module].parent.relative_to(ROOT)) for module in imported_modules(path)}
        assert others <= MAY_IMPORT[folder] | {folder}, f"{name} imports {others - MAY_IMPORT[folder] - {folder}}"


def test_no_module_imports_itself_by_way_of_others():
    imports = {name: imported_modules(path) for name, path in MODULES.items() if name != "linvt"}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for module in imports.get(name, ()):
                visit(module, (*way, name))
            done.add(name)

    for name in imports:
        visit(name, ())
