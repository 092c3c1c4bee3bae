"""Frozen features: one pass of a backbone over a source, kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cml_bench.data.cache import cached_rows, lookup
from cml_bench.data.reading import read_ahead
from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError
from cml_bench.models.backbones import Backbone
from cml_bench.models.evaluating import evaluating
from cml_bench.models.layout import FeatureKind, pool
from cml_bench.models.preprocess import EvalTransform
from cml_bench.models.pyramid import pack


def extract_features(
    backbone: Backbone,
    source: Source,
    *,
    kind: FeatureKind,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    cache_dir: Path,
    progress: Callable[[int], object] | None = None,
    workers: int = 2,
) -> Tensor:
    """Return the frozen features of every image of a source, from the cache if they are there.

    The backbone runs in evaluation mode (its own mode is restored afterwards) on squashed images. ``pooled`` is the
    mean of the float16 map, so it is the same to the bit whether the images are read for it or only a cached map.

    Args:
        backbone: The model; its weights and options are part of the cache key.
        source: The images.
        kind: ``"pooled"`` for (N, D), ``"map"`` for (N, D, H, W), ``"tokens"`` for (N, 1 + P, D) with the class token
            first, or the map of a backbone without one, ``"pyramid"`` for (N, total) with one map after the other (see
            ``PackedPyramid``).
        batch_size: Images a forward pass.
        device: Where the backbone runs. Its type is part of the key: CPU and GPU differ in the last bits.
        cache_dir: Folder of the cache.
        progress: Called with the number of images done after each batch.
        workers: Threads that read and decode images.

    Returns:
        float16 features in the source's row order, memory-mapped.

    Raises:
        CmlBenchError: If positions are asked of a backbone without any, an image cannot be read, or the cache cannot be
            written.
    """
    device = torch.device(device)
    key = _key(backbone, source, device)
    n = len(source)

    def blocks(of: FeatureKind, start: int) -> Iterator[Tensor]:
        return _forward_all(backbone, source, of, batch_size, device, progress, workers, start)

    def vectors(start: int) -> Iterator[Tensor]:
        stored = lookup(cache_dir, {**key, "kind": "map"}, n) if backbone.spatial else None
        maps = blocks("map", start) if stored is None else iter(torch.split(stored[start:], batch_size))
        return (pool(block.float()) for block in maps)

    if kind == "pooled":
        return cached_rows(cache_dir, {**key, "kind": kind}, n, vectors)
    if kind == "pyramid":
        # Which maps there are is timm's business, and versions of it may differ.
        key = {**key, "levels": str([level.shape for level in backbone.levels])}
    elif not backbone.spatial:
        raise CmlBenchError(f"backbone {backbone.name!r} has no spatial map; ask for pooled features")
    return cached_rows(cache_dir, {**key, "kind": kind}, n, lambda start: blocks(kind, start))


def weights_digest(module: nn.Module) -> str:
    """Return the sha256 of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@torch.inference_mode()
def read_frozen(
    backbone: Backbone, images: Tensor, kind: FeatureKind, ids: npt.NDArray[np.uint64] | None = None
) -> Tensor:
    """Return the float16 features of (B, 3, H, W) images as the cache holds them; see ``Backbone.read``."""
    images = images.contiguous(memory_format=torch.channels_last)
    return pack(backbone.read(images, kind, ids)).half().contiguous()


def _key(backbone: Backbone, source: Source, device: torch.device) -> dict[str, str | int | None]:
    """Return what features depend on. The weights themselves are hashed: a fine-tuned backbone is another backbone."""
    return {
        **source.cache_key,
        "backbone": backbone.name,
        "options": json.dumps(backbone.record["options"], sort_keys=True, default=str),
        "weights": weights_digest(backbone),
        "image_size": backbone.image_size,
        "normalisation": f"{backbone.mean} {backbone.std}",
        "device": device.type,
    }


def _forward_all(
    backbone: Backbone,
    source: Source,
    kind: FeatureKind,
    batch_size: int,
    device: torch.device,
    progress: Callable[[int], object] | None,
    workers: int,
    done: int,
) -> Iterator[Tensor]:
    """Yield float16 features batch by batch, from row ``done`` on.

    Threads decode the next batch while the backbone works on this one.
    """
    transform = EvalTransform(backbone.image_size, backbone.mean, backbone.std)

    def load(row: int) -> Tensor:
        return transform(source.load(row))

    # Channels last halves the time of depthwise convolutions on a CPU; it changes strides, not values.
    backbone.to(device).to(memory_format=torch.channels_last)
    with evaluating(backbone):
        for batch in read_ahead(load, len(source), batch_size, workers, start=done):
            ids = source.id_keys[done : done + len(batch)]
            yield read_frozen(backbone, torch.stack(batch).to(device), kind, ids)
            done += len(batch)
            if progress is not None:
                progress(done)
