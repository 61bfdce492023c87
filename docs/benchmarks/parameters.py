"""Parameters of the video tokenizer for every image-LLM of the paper, against its limit of 267 M (Sec. 6).

They depend on the channels C of the LLM's embeddings alone. Nothing is allocated; exit code 1 if one is larger.

    python docs/benchmarks/parameters.py
"""

import sys

import torch

from linvt import LinVTVideoConfig, LinVTVideoModel


AT_MOST = 267_000_000
IMAGE_LLMS: dict[int, str] = {
    896: "InternVL2-1B",
    1536: "Qwen2-VL-2B, Aquila-VL-2B",
    2048: "InternVL2-2B, Mipha-1.6B",
    2560: "Mipha-3B",
    3072: "InternVL2-4B, xGen-MM (BLIP-3)",
    3584: "Qwen2-VL-7B, Molmo-7B-D",
    4096: "LLaVA-1.5-7B, InternVL2-8B, Qwen-VL-Chat",
    5120: "LLaVA-1.5-13B",
}
"""Image-LLMs of LinVT and of RED-VILLM by C."""


def count_parameters(channels: int) -> int:
    with torch.device("meta"):
        model = LinVTVideoModel(LinVTVideoConfig(embedding_size=channels))
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> int:
    counts = {channels: count_parameters(channels) for channels in IMAGE_LLMS}
    print("| C | image-LLMs | parameters of the video tokenizer | at most 267 M (the paper) |\n|---|---|---|---|")
    for channels, count in counts.items():
        print(f"| {channels} | {IMAGE_LLMS[channels]} | {count / 1e6:.1f} M | {'yes' if count <= AT_MOST else 'NO'} |")
    return int(max(counts.values()) > AT_MOST)


if __name__ == "__main__":
    sys.exit(main())
