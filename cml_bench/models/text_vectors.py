"""What a label's name says, as a vector: from a word-vector file, a text encoder, or its spelling alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.models.open_clip_text import load_text_tower, parse_text_tower
from cml_bench.models.word_vectors import load_word_vectors

HASH_WIDTH = 300


def text_vectors(source: str, names: Sequence[str]) -> Tensor:
    """Return one unit vector per label name.

    The vector of a name depends on the name and the source alone, so labels that arrive later land in the same space.

    Args:
        source: ``hash`` or ``hash:512`` for a random direction drawn from the name itself, which says that labels
            differ and nothing of how they are related; ``open_clip:MODEL:WEIGHTS_FILE`` for what a text encoder makes
            of "a photo of a {name}.", or of another prompt that is appended after a colon (see ``TextTower``); or a
            file of word vectors (see ``load_word_vectors``).
        names: n label names.

    Returns:
        (n, d) float32, rows of length 1.

    Raises:
        CmlBenchError: If the source is unknown or has no vector for a name.
    """
    kind, _, rest = source.partition(":")
    if kind == "hash":
        return _hashed(names, _width(source, rest))
    if kind == "open_clip":
        written = parse_text_tower(source)
        return load_text_tower(written).encode(written.prompts(names))
    return torch.nn.functional.normalize(load_word_vectors(Path(source), names), dim=1)


def _width(source: str, text: str) -> int:
    if not text:
        return HASH_WIDTH
    if not text.isdecimal() or int(text) < 1:
        raise CmlBenchError(f"text vectors {source!r} name no width: write hash:{HASH_WIDTH}, say")
    return int(text)


def _hashed(names: Sequence[str], width: int) -> Tensor:
    """Return the directions of normal draws, each from a generator seeded by the hash of its name."""
    rows = []
    for name in names:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
        rows.append(torch.randn(width, generator=torch.Generator().manual_seed(seed)))
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)
