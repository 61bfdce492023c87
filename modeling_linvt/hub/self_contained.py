"""Saves self-contained checkpoints: the code lies flat beside the weights, for where `linvt` is not installed.

One file, `linvt_classes.py`, has all classes that Transformers' Auto classes look for (`auto_map`), so that they come
from one copy of the code: of a folder, Transformers makes a copy for each file that it is asked for. Files are copied
and `auto_map` is written here and not through `register_for_auto_class`, which would change every later
`save_pretrained` of the process, and which copies files of one folder only.
"""

import ast
import copy
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from linvt.configuration.configuration_linvt import LinVTConfig
from linvt.modeling_linvt import LinVTForConditionalGeneration
from linvt.pipeline_linvt import VideoTextToTextPipeline
from linvt.ports.auto_classes import PORTS
from linvt.ports.port_registration import register_port
from linvt.processors.processing_linvt import LinVTProcessor
from linvt.processors.video_processing_linvt import LinVTVideoProcessor


CLASSES_FILE = "linvt_classes.py"
_CLASSES = (
    LinVTConfig,
    LinVTForConditionalGeneration,
    LinVTProcessor,
    LinVTVideoProcessor,
    VideoTextToTextPipeline,
)
_AUTO_CLASSES_OF_CONFIG: dict[str, type] = {
    "AutoConfig": LinVTConfig,
    "AutoModel": LinVTForConditionalGeneration,
    "AutoModelForImageTextToText": LinVTForConditionalGeneration,
    "AutoModelForMultimodalLM": LinVTForConditionalGeneration,
}

# What comes with transformers, torch, torchvision and av. Transformers refuses to load code that asks for more.
_PACKAGES = {
    "PIL",
    "av",
    "huggingface_hub",
    "jinja2",
    "numpy",
    "safetensors",
    "torch",
    "torchvision",
    "tqdm",
    "transformers",
}

_ACROSS_FOLDERS = re.compile(r"^([ \t]*)from (linvt(?:\.\w+)*\.(\w+)) import\b", re.MULTILINE)
_BESIDE = re.compile(r"^\s*from\s+\.(\S+)\s+import\b", re.MULTILINE)  # how Transformers looks for files to copy

_HEADER = '''"""The classes of this checkpoint, for `trust_remote_code=True`.

The Python files beside the weights are a copy of linvt {version} (Apache-2.0), as far as this model needs it.
"""

from transformers import AutoModelForImageTextToText
from transformers.pipelines import PIPELINE_REGISTRY

'''
_REGISTRATION = """

# When a model is saved again, Transformers copies the file that its class says it is from, with all that it imports.
for _class in ({classes}):
    _class.__module__ = __name__

if "video-text-to-text" not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline(
        "video-text-to-text",
        pipeline_class=VideoTextToTextPipeline,
        pt_model=AutoModelForImageTextToText,
        type="multimodal",
    )
"""


def save_self_contained(
    model: LinVTForConditionalGeneration, processor: LinVTProcessor, folder: str | os.PathLike
) -> None:
    """
    Saves weights, configurations and code, so that all Auto classes and `pipeline("video-text-to-text")` load the
    folder with `trust_remote_code=True` where only Transformers, torch, torchvision and av are installed. Where
    `linvt` is imported, its own classes load it as any other checkpoint.

    Raises:
        `ValueError`: If the code would not work there; the message names what it is. Nothing has been written then.
    """
    port = _check_classes(model, processor)
    sources = carried_code(port)
    check_code(sources)
    folder = Path(folder)
    processor = copy.deepcopy(processor)
    processor.video_processor.bundle_autoshot()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for name, source in sources.items():
        (folder / name).write_text(source, encoding="utf-8")
    _add_auto_map(folder / "processor_config.json", {"AutoProcessor": LinVTProcessor})
    _add_auto_map(
        folder / "processor_config.json", {"AutoVideoProcessor": LinVTVideoProcessor}, inside="video_processor"
    )
    _add_auto_map(folder / "config.json", _AUTO_CLASSES_OF_CONFIG)


def carried_code(port: tuple[type, ...] = ()) -> dict[str, str]:
    """
    Collects the modules that the classes need, flattened: file name to source.

    Args:
        port (`tuple[type, ...]`, *optional*): The classes of an image-LLM that `linvt` brings, a row of `PORTS`.

    Raises:
        `ValueError`: If an import does not name a module that can lie beside the others.
    """
    named: list[type | Callable] = [*_CLASSES, *port, *([register_port] if port else [])]
    classes = sorted(named, key=lambda item: item.__module__)
    imports = "\n".join(f"from .{item.__module__.rpartition('.')[2]} import {item.__name__}" for item in classes)
    registration = _REGISTRATION.format(classes=", ".join(item.__name__ for item in _CLASSES))
    if port:
        registration += f"\nregister_port({', '.join(item.__name__ for item in port)})\n"
    sources = {CLASSES_FILE: _HEADER.format(version=version("linvt")) + imports + "\n" + registration}
    pending = [item.__module__ for item in classes]
    while pending:
        module = pending.pop()
        name = f"{module.rpartition('.')[2]}.py"
        if name not in sources:
            source = _read_module(module)
            pending += [match[2] for match in _ACROSS_FOLDERS.finditer(source)]
            sources[name] = _ACROSS_FOLDERS.sub(r"\1from .\3 import", source)
    return dict(sorted(sources.items()))


def check_code(sources: dict[str, str]) -> None:
    """Raises a `ValueError` that names file and line if these files, flat in one folder, cannot be loaded from it."""
    for name, source in sources.items():
        for sibling in _BESIDE.findall(source):  # as Transformers looks for them, in docstrings too
            if f"{sibling}.py" not in sources:
                raise ValueError(f"{name} imports {sibling}.py, which would not be saved beside it.")
        for package, line, needed in _imports(ast.parse(source)):
            if package == "linvt":
                raise ValueError(
                    f"Line {line} of {name} still imports linvt, so it would not load without it; write `from "
                    "linvt.<folder>.<module> import <name>` at the start of a line."
                )
            if needed and package not in _PACKAGES and package not in sys.stdlib_module_names:
                raise ValueError(
                    f"Line {line} of {name} imports {package}, without which Transformers would not load the "
                    f"checkpoint; import it in `if is_{package}_available():`."
                )


def _imports(node: ast.AST, needed: bool = True) -> Iterator[tuple[str, int, bool]]:
    """Yields imported packages, their lines, and whether Transformers asks for them before it loads a file."""
    if isinstance(node, ast.Try):
        needed = False
    if isinstance(node, ast.If) and isinstance(node.test, ast.Call) and isinstance(node.test.func, ast.Name):
        needed = needed and not node.test.func.id.endswith("_available")
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name.split(".")[0], node.lineno, needed
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        yield node.module.split(".")[0], node.lineno, needed
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, needed)


def _read_module(name: str) -> str:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or spec.submodule_search_locations is not None:
        raise ValueError(f"{name} is imported, but it is no module that could lie beside the weights.")
    return Path(spec.origin).read_text(encoding="utf-8")


def _check_classes(model: LinVTForConditionalGeneration, processor: LinVTProcessor) -> tuple[type, ...]:
    """Returns the row of `PORTS` that this model needs, `()` if none; raises if its code cannot be carried."""
    for given, expected in ((model, LinVTForConditionalGeneration), (processor, LinVTProcessor)):
        if type(given) is not expected:
            raise ValueError(
                f"A {type(given).__module__}.{type(given).__name__} was given; a self-contained checkpoint carries "
                f"the code of linvt's {expected.__name__}. Load it with linvt imported, with LoRA merged in."
            )
    image_llm_config = type(model.config.image_llm_config)
    port = next((row for row in PORTS if row[0] is image_llm_config), ())
    parts = (image_llm_config, type(model.image_llm), type(processor.image_processor), type(processor.tokenizer))
    for part in parts:
        if part not in port and not part.__module__.startswith("transformers."):
            raise ValueError(
                f"{part.__name__} comes from {part.__module__}, neither from Transformers nor from linvt, so its code "
                "cannot be carried along; export this model as full or light."
            )
    return port


def _add_auto_map(path: Path, classes: dict[str, type], inside: str | None = None) -> None:
    fields = json.loads(path.read_text(encoding="utf-8"))
    part = fields if inside is None else fields[inside]
    module = CLASSES_FILE.removesuffix(".py")
    part["auto_map"] = {auto_class: f"{module}.{item.__name__}" for auto_class, item in classes.items()}
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


__all__ = ["CLASSES_FILE", "carried_code", "check_code", "save_self_contained"]
