"""A CLIP model small enough for a test, with random weights on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file

TINY_CLIP = "tiny-clip"


class TinyCLIP(NamedTuple):
    """The model, its weights and how to ask for its text tower."""

    model: Any
    weights: Path
    source: str


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> TinyCLIP:
    """Make a real ``open_clip.CLIP``: images of 32 px in patches of 8, tokens of 24, text of 20, 16 in common."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed (extra vision_language)")
    folder = tmp_path_factory.mktemp("clip")
    config = folder / f"{TINY_CLIP}.json"
    vision = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "head_width": 12}
    text = {"context_length": 77, "vocab_size": 49408, "width": 20, "heads": 2, "layers": 2}
    config.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(TINY_CLIP).eval()
        # The released initialisation is so small that names hardly differ.
        for parameter in model.transformer.parameters():
            parameter.data.mul_(5)
    weights = folder / "weights.safetensors"
    save_file(model.state_dict(), weights)
    return TinyCLIP(model, weights, f"open_clip:{TINY_CLIP}:{weights}")
