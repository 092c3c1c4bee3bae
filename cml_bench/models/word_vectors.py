"""Word vectors of label names, for semantic queries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cml_bench.errors import CmlBenchError
from cml_bench.npz import read_npz

Vector = npt.NDArray[np.float32]


def load_word_vectors(path: Path, names: Sequence[str]) -> Tensor:
    """Return one vector per label name.

    A name that the file holds as it is (lower case, words joined by a space, ``_`` or ``-``) gets that vector; else a
    name of several words gets the mean of their vectors.

    Args:
        path: GloVe or word2vec text (``word x1 ... xd`` a line, word2vec's after a line ``count d``), or ``.npz`` with
            the arrays ``names`` (strings) and ``vectors`` (n, d).
        names: Label names.

    Returns:
        (len(names), d) float32.

    Raises:
        CmlBenchError: If the file cannot be read, or lacks words of the names (all are listed).
    """
    wanted = {word for name in names for word in (*_spellings(name), *_words(name))}
    try:
        known = _read_npz(path, wanted) if path.suffix == ".npz" else _read_text(path, wanted)
    except FileNotFoundError:
        raise CmlBenchError(f"word vectors {path} do not exist; check the path") from None
    except (OSError, ValueError, KeyError) as error:
        raise CmlBenchError(f"word vectors {path} cannot be read ({error}); give GloVe text or an .npz file") from None
    for word, vector in known.items():
        if not len(vector) or not np.isfinite(vector).all():
            raise CmlBenchError(f"word vectors {path} say no numbers, or none that are, for {word!r}; fetch it again")
    vectors = [_vector(name, known) for name in names]
    missing = [name for name, vector in zip(names, vectors, strict=True) if vector is None]
    if missing:
        raise CmlBenchError(f"word vectors {path} have none for {', '.join(missing)}; add them or rename the labels")
    return torch.from_numpy(np.stack([vector for vector in vectors if vector is not None]))


def project_queries(vectors: Tensor, width: int, norm: float) -> Tensor:
    """Map word vectors into the query space by a fixed random matrix with orthonormal rows or columns.

    Angles between words survive where ``width`` is at least the vectors' own; each query has length ``norm``, so that
    words start no louder than random queries would. The matrix depends on the shapes alone: labels that arrive later
    land in the same space.

    Args:
        vectors: (n, d).
        width: Query width.
        norm: Length of each query.

    Returns:
        (n, width).
    """
    generator = torch.Generator().manual_seed(0)
    small, large = sorted((vectors.shape[1], width))
    basis, _ = torch.linalg.qr(torch.randn(large, small, generator=generator))
    projected = vectors @ (basis.T if width == large else basis)
    return norm * torch.nn.functional.normalize(projected, dim=1)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\s_\-/]+", name.lower()) if word]


def _spellings(name: str) -> list[str]:
    words = _words(name)
    return [name.lower(), *(joint.join(words) for joint in (" ", "_", "-"))]


def _vector(name: str, known: Mapping[str, Vector]) -> Vector | None:
    for spelling in _spellings(name):
        if spelling in known:
            return known[spelling]
    words = _words(name)
    if not words or any(word not in known for word in words):
        return None
    mean: Vector = np.mean([known[word] for word in words], axis=0, dtype=np.float32)
    return mean


def _read_npz(path: Path, wanted: set[str]) -> dict[str, Vector]:
    stored = read_npz(path)
    vectors = stored["vectors"].astype(np.float32)
    if vectors.ndim != 2:
        raise ValueError(f"its vectors are {vectors.shape}, not (n, d)")
    return {
        str(name).lower(): vector
        for name, vector in zip(stored["names"], vectors, strict=True)
        if str(name).lower() in wanted
    }


def _read_text(path: Path, wanted: set[str]) -> dict[str, Vector]:
    """Read line by line, keeping the wanted words alone: such files hold gigabytes."""
    known: dict[str, Vector] = {}
    width = None
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.rstrip().split(" ")
            if number == 1 and len(fields) == 2:
                continue  # word2vec's header
            if fields[0].lower() not in wanted or fields[0].lower() in known:
                continue
            vector = np.array(fields[1:], dtype=np.float32)
            if width not in (None, len(vector)):
                raise ValueError(f"line {number} holds {len(vector)} numbers where others hold {width}")
            width = len(vector)
            known[fields[0].lower()] = vector
    return known
