"""Writes the table of `docs/image_llms.md` from a run of the contracts on every image-LLM of Transformers.

    python docs/image_llm_table.py

Needs what the tests need (`pip install -e ".[test]"`), and a minute.
"""

import sys
import tempfile
from pathlib import Path

import transformers


DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent / name) for name in ("tests", "examples")]

from conformance import MODEL_TYPES, reason_of_refusal  # noqa: E402
from conformance_table import conform, refusal_row  # noqa: E402


MARK = "<!-- written by docs/image_llm_table.py -->\n"


def main() -> None:
    page = DOCS / "image_llms.md"
    before = page.read_text().partition(MARK)[0]
    rows = []
    for model_type in MODEL_TYPES:
        if reason_of_refusal(model_type):
            rows.append(refusal_row(model_type))
        else:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(conform(model_type, Path(folder)))
        print(rows[-1], flush=True)
    supported = sum("| no |" not in row for row in rows)
    page.write_text(
        f"{before}{MARK}\nOf the image-text-to-text classes of Transformers {transformers.__version__} and "
        f"`linvt.ports`, {supported} of {len(rows)} are supported. Each of these keeps the contracts of "
        "[design.md](design.md) on a tiny random model (`tests/test_conformance.py`): frames become what the "
        "image-LLM makes of pictures; images and text stay bit for bit, and beside a video images are read as without "
        "it; generation with the cache equals that without; saving; a step of both stages. A chat with a video and an "
        "image goes through its own processor classes: frames become what they make of pictures, and a video is "
        "written into the prompt as an image is. The others are refused, with the reason given. An older Transformers "
        "lacks the youngest of them; where it has a model that cannot be wrapped there, the table names the version "
        "that is needed, as does the error.\n\n"
        "| model type | class | wrapped | frame by default | why not, or the linear layers for LoRA |\n"
        "|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    main()
