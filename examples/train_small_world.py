"""
Trains the small model that comes with the package: the row "LinVT" of the tables.

    python examples/train_small_world.py --image_llm docs/small_world_runs/image_llm --output small-world

OUTPUT/model is then a folder for `linvt ask --model`, with training.json and evaluation.json for its card, and
OUTPUT/result.json has the course of the losses too.
"""

import json
from pathlib import Path

from small_world.records import records
from small_world.training import Options, Run
from small_world.world_rows import VARIANTS
from transformers import HfArgumentParser

from linvt.hub.model_records import write_records


def main(options: Options) -> None:
    run = Run(VARIANTS["LinVT"], seed=0, options=options)
    result = run.result()
    run.save(str(Path(options.output) / "model"))
    for kind in records(result, options):
        write_records(Path(options.output) / "model", kind)
    (Path(options.output) / "result.json").write_text(json.dumps(result, indent=1))
    for asked, shares in result["tuned"].items():
        print(asked, {about: round(share, 1) for about, share in shares.items()})


if __name__ == "__main__":
    main(HfArgumentParser(Options).parse_args_into_dataclasses()[0])
