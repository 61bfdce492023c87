"""Converts a `.tiktoken` file, the vocabulary of Qwen's first generation, to a tokenizer of Transformers."""

import base64
from pathlib import Path

from tokenizers import AddedToken
from transformers import Qwen2Tokenizer


def qwen_tokenizer(path: Path, special_tokens: list[str]) -> Qwen2Tokenizer:
    """
    Splits texts as Qwen2's tokenizer does, which has the same rules, with the vocabulary of the file.

    Args:
        path (`Path`): Lines of a token in base 64 and its rank, which is its id.
        special_tokens (`list[str]`): Take the ids after the vocabulary, in this order.

    Raises:
        `ValueError`: If the file is no such vocabulary.
    """
    ranks = _ranks(path)
    as_text = _characters_of_bytes()
    vocabulary = {"".join(as_text[byte] for byte in token): rank for token, rank in ranks.items()}
    merges = [
        tuple("".join(as_text[byte] for byte in part) for part in _parts(token, rank, ranks))
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if len(token) > 1
    ]
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        eos_token=special_tokens[0],
        pad_token=special_tokens[0],
        padding_side="left",  # as generation needs it
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    return tokenizer


def _ranks(path: Path) -> dict[bytes, int]:
    try:
        lines = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except ValueError as error:
        raise ValueError(f"{path} is no tiktoken vocabulary, lines of a token in base 64 and its rank.") from error
    if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([byte]) not in ranks for byte in range(256)):
        raise ValueError(f"{path} is damaged: it must have every byte as a token, and ranks without gaps from 0.")
    return ranks


def _parts(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """The two tokens that were merged into this one: what is left of its bytes if only lower ranks are merged."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        merged = [ranks.get(left + right, rank) for left, right in zip(parts, parts[1:], strict=False)]
        place = min(range(len(merged)), key=merged.__getitem__)
        if merged[place] >= rank:
            raise ValueError(f"The vocabulary has {token!r}, but not the tokens that it would be merged of.")
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _characters_of_bytes() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary: itself, or another if it cannot be seen."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(hidden)) for byte in range(256)]


__all__ = ["qwen_tokenizer"]
