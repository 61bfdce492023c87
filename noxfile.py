"""The tests on the oldest and on the newest dependencies that pyproject.toml allows: `nox -s oldest`, `nox -s newest`.

And `nox -s self_contained`: checkpoints that carry their code, where nothing but Transformers and its like is
installed. And `nox -s transformers_suites`: Transformers' own tests on our classes. Arguments behind `--` go to
pytest. The environments are under .nox/, some 6 GB each.
"""

import json
import os
import shutil
from pathlib import Path

import nox
from packaging.requirements import Requirement
from packaging.version import Version


nox.options.default_venv_backend = "uv"  # pip cannot look for the oldest versions


@nox.session
def oldest(session: nox.Session) -> None:
    """Every dependency at its lower bound. What would run the same code twice is left to the newest."""
    session.install("--resolution=lowest-direct", "-e", ".[test]")
    check_lower_bounds(session)
    run_tests(session, "--ignore=tests/test_style.py", "--ignore=tests/test_types.py")


@nox.session
def newest(session: nox.Session) -> None:
    session.install("--upgrade", "-e", ".[test]")
    run_tests(session)


@nox.session
@nox.parametrize("version", ["newest", "oldest"])
def self_contained(session: nox.Session, version: str) -> None:
    """What `linvt` writes with the newest Transformers loads without `linvt`, and on the oldest Transformers too."""
    cases = Path(session.create_tmp()) / "cases"
    shutil.rmtree(cases, ignore_errors=True)
    command = ("uv", "run", "--no-project", "--isolated", "--with-editable", ".", "python")
    session.run(*command, "tests/self_contained_cases.py", str(cases), external=True)
    requirement = "transformers"
    if version == "oldest":
        lines = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
        (bounds,) = (line.specifier for line in map(Requirement, lines) if line.name == "transformers")
        requirement += "".join(f"=={bound.version}" for bound in bounds if bound.operator == ">=")
    session.install(requirement, "torch", "torchvision", "av")
    session.run("python", "tests/load_self_contained.py", *map(str, sorted(cases.iterdir())))


# What modules in Transformers' source distribution import from ones that it lacks.
STAND_INS = {
    "tests/__init__.py": "",
    "tests/exporters/test_export.py": "class ExportTesterMixin: pass",
    "tests/generation/test_utils.py": "class GenerationTesterMixin: pass",
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {'output_hidden_states': True}",
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url, return_url_if_not_found=True): return url",
}


@nox.session
def transformers_suites(session: nox.Session) -> None:
    """
    Transformers' own tests on our classes, beside the same tests on its classes: `tests/transformers_suites/`.

    They come with the source distribution of the installed version, without those of generation. With a checkout of
    that version these run too: `TRANSFORMERS_CHECKOUT=FOLDER nox -s transformers_suites`.
    """
    session.install("-e", ".[test]", "parameterized", "httpx", "pip", "setuptools", "wheel")
    checkout = os.environ.get("TRANSFORMERS_CHECKOUT")
    source = Path(checkout).resolve() if checkout else unpacked_transformers(session)
    options = ("-q", "--disable-warnings", "-W", "default", "-p", "suite_report", "-o", "python_files=suite_*.py")
    suites = Path("tests/transformers_suites").resolve()
    session.run(
        *("python", "-m", "pytest", "--import-mode=prepend", *options, str(suites), *session.posargs),
        env={"PYTHONPATH": os.pathsep.join(map(str, (source, suites))), "HF_HUB_OFFLINE": "1"},
    )


def unpacked_transformers(session: nox.Session) -> Path:
    """The source distribution of the installed Transformers, with stand-ins for what its tests import and it lacks."""
    code = "import importlib.metadata as m; print(m.version('transformers'))"
    version = session.run("python", "-c", code, silent=True).strip()
    folder = Path(session.create_tmp()) / f"transformers-{version}"
    if not folder.exists():
        options = ("-q", "--no-deps", "--no-binary=transformers", "--no-build-isolation", "-d", str(folder.parent))
        session.run("python", "-m", "pip", "download", *options, f"transformers=={version}")
        shutil.unpack_archive(f"{folder}.tar.gz", folder.parent)
        for path, text in STAND_INS.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    return folder.resolve()


def run_tests(session: nox.Session, *options: str) -> None:
    session.run("python", "-m", "pytest", "-q", "-n2", *options, *session.posargs)


def check_lower_bounds(session: nox.Session) -> None:
    """A lower bound that is not what is installed, since another dependency needs more, would be a claim untested."""
    listing = session.run_install("uv", "pip", "list", "-q", "--format=json", silent=True, external=True)
    installed = {package["name"]: package["version"] for package in json.loads(listing)}
    project = nox.project.load_toml("pyproject.toml")["project"]
    lines = sum(project["optional-dependencies"].values(), project["dependencies"])
    for requirement in map(Requirement, lines):
        if requirement.name == project["name"] or (requirement.marker and not requirement.marker.evaluate()):
            continue
        bounds = [Version(bound.version) for bound in requirement.specifier if bound.operator in (">=", "==")]
        if [Version(Version(installed[requirement.name]).public)] != bounds:
            version = installed[requirement.name]
            session.error(f"{requirement} is tested with {version}; make that its lower bound in pyproject.toml.")
