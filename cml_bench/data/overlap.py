"""Images that are both trained on and tested: what is known of them by heart says nothing of others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from cml_bench.data.image_files import ImageFiles
from cml_bench.data.source import Source
from cml_bench.data.table import Ids, Texts
from cml_bench.errors import some


def identities(ids: Ids, files: Texts | None, folder: Path) -> dict[str, str]:
    """Return what tells the images of a split from those of any other, and how people call each.

    An image that is a file is that file; folders that are linked are followed, files are not, as that takes minutes on
    a network disk. Another is its id, unless ids count rows: then both splits have a row 0.
    """
    if files is not None:
        parts = [(file.rpartition("/"), file) for file in files.tolist()]
        real = {below: os.path.realpath(folder / below) for below in {part[0] for part, _ in parts}}
        return {f"{real[below]}/{name}": file for (below, _, name), file in parts}
    if ids.dtype.kind == "i" and np.array_equal(ids, np.arange(len(ids)) + ids[:1].sum()):
        return {}
    return {str(each): str(each) for each in ids.tolist()}


def both_in(train: Source, test: Source) -> str:
    """Return a sentence on the images that two sources share; empty for none."""
    one, other = (
        identities(source.ids, source.files, source.folder)
        if isinstance(source, ImageFiles)
        else identities(source.ids, None, Path())
        for source in (train, test)
    )
    return shared(one, other, "the training data", "the test data")


def shared(one: dict[str, str], other: dict[str, str], here: str, there: str) -> str:
    """Return a sentence on the images that two splits share; empty for none.

    Args:
        one: ``identities`` of the one.
        other: Those of the other.
        here: What the one is called.
        there: What the other is called.
    """
    names = [name for key, name in one.items() if key in other]
    if not names:
        return ""
    images = f"1 image ({names[0]}) is" if len(names) == 1 else f"{len(names):,} images ({some(names)}) are"
    mend = "keep each in one alone, or what is known by heart counts as recognised"
    return f"{images} both in {here} and in {there}: {mend}"
