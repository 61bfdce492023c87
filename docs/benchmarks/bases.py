"""What each image-LLM of the LinVT paper, and of RED-VILLM's, needs with LinVT: memory, tokens per frame, parameters.

Models are built in their published sizes on the meta device, so nothing is downloaded or allocated. GB are 10^9 bytes
of weights in bfloat16; `wrapped` is the image-LLM and its video tokenizer. Exit code 1 if a video tokenizer has more
than the 267 M parameters of the paper.

    python docs/benchmarks/bases.py
    python docs/benchmarks/bases.py --write      # into docs/bases.md, between its marks
"""

import argparse
import sys
from pathlib import Path

import torch
from parameters import AT_MOST, count_parameters
from published_shapes import published_bases


PAGE = Path(__file__).parents[1] / "bases.md"
BEGIN, END = "<!-- bases: begin -->\n", "<!-- bases: end -->\n"
HEAD = (
    "| image-LLM | parameters | GB | wrapped GB | frame | tokens per frame N | channels C | video tokenizer "
    "| at most 267 M |\n|---|---|---|---|---|---|---|---|---|\n"
)


def measure() -> list[dict]:
    """One row per base."""
    rows = []
    with torch.device("meta"):
        for name, base in published_bases().items():
            image_llm = sum(parameter.numel() for parameter in base.build(base.config).parameters())
            rows.append(
                {
                    "name": name,
                    "parameters": image_llm,
                    "frame_pixels": base.frame_pixels,
                    "tokens_per_frame": base.tokens_per_frame,
                    "channels": base.channels,
                    "video_tokenizer": count_parameters(base.channels),
                }
            )
    return rows


def table(rows: list[dict]) -> str:
    """Rows as Markdown."""
    lines = []
    for row in rows:
        gigabytes = [2 * count / 1e9 for count in (row["parameters"], row["parameters"] + row["video_tokenizer"])]
        lines.append(
            f"| {row['name']} | {row['parameters'] / 1e6:,.0f} M | {gigabytes[0]:.1f} | {gigabytes[1]:.1f} "
            f"| {row['frame_pixels']} x {row['frame_pixels']} | {row['tokens_per_frame']} | {row['channels']} "
            f"| {row['video_tokenizer'] / 1e6:.1f} M | {'yes' if row['video_tokenizer'] <= AT_MOST else 'NO'} |\n"
        )
    return HEAD + "".join(lines)


def with_table(page: str, text: str) -> str:
    """The page with `text` between its marks; a `ValueError` if they are not there once each."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"{PAGE} needs one line {BEGIN.strip()} and one line {END.strip()}.")
    before, rest = page.split(BEGIN)
    return before + BEGIN + text + END + rest.split(END)[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name} instead of printing it")
    options = parser.parse_args()
    rows = measure()
    if options.write:
        PAGE.write_text(with_table(PAGE.read_text(), table(rows)))
    else:
        print(table(rows), end="")
    return int(max(row["video_tokenizer"] for row in rows) > AT_MOST)


if __name__ == "__main__":
    sys.exit(main())
