"""
Trains the small LinVT model that comes with the package.

    python examples/train_small_image_llm.py --output_dir small-image-llm
    python examples/train_small_world.py --image_llm small-image-llm --output small-world

OUTPUT/model is then a folder for `linvt ask --model`, and OUTPUT/result.json says how right its answers are.
"""

import json
from pathlib import Path

from small_world.training import Options, Run
from small_world.variants import VARIANTS
from transformers import HfArgumentParser


def main(options: Options) -> None:
    run = Run(VARIANTS["LinVT"], seed=0, options=options)
    result = run.result()
    run.save(str(Path(options.output) / "model"))
    (Path(options.output) / "result.json").write_text(json.dumps(result, indent=1))
    for asked, shares in result["tuned"].items():
        print(asked, {about: round(share, 1) for about, share in shares.items()})


if __name__ == "__main__":
    main(HfArgumentParser(Options).parse_args_into_dataclasses()[0])
