"""Class orders and their division into experiences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cml_bench.data.source import Source
from cml_bench.errors import CmlBenchError, suggest
from cml_bench.labels import PRESENT, row_blocks


def class_order(order: str | Sequence[str], source: Source) -> tuple[str, ...]:
    """Return all label names of a source in arrival order.

    Args:
        order: ``"published"`` (the source's own order), ``"alphabetical"``, ``"frequency"`` (most positives in the
            training images first, ties alphabetical), ``"random:SEED"``, or the names themselves.
        source: Training source.

    Raises:
        CmlBenchError: If the order is unknown or oddly written, or the names are not a permutation of the source's.
    """
    names = source.label_names
    if not isinstance(order, str):
        return _check_permutation(order, names)
    kind, _, argument = order.partition(":")
    if kind == "published" and not argument:
        return names
    if kind == "alphabetical" and not argument:
        return tuple(sorted(names))
    if kind == "frequency" and not argument:
        blocks = row_blocks(*source.labels.shape)
        positives = np.sum([np.count_nonzero(source.labels[rows] == PRESENT, axis=0) for rows in blocks], axis=0)
        return tuple(sorted(names, key=lambda name: (-positives[names.index(name)], name)))
    if kind == "random" and argument.isdecimal():
        if argument != str(int(argument)):
            # It would be a run of its own beside the same order.
            raise CmlBenchError(f"class_order {order!r:.60} is random:{int(argument)}: write it so")
        shuffled = np.random.default_rng(int(argument)).permutation(len(names))
        return tuple(names[i] for i in shuffled)
    known = ("published", "alphabetical", "frequency", "random:SEED")
    raise CmlBenchError(
        f"class_order {order!r:.60} is unknown: {suggest(order, known)}; --class-orders takes default, too"
    )


def _check_permutation(order: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    repeated = sorted({name for name in order if list(order).count(name) > 1})
    if repeated:
        raise CmlBenchError(f"label {repeated[0]!r} occurs twice in the label lists: each label must arrive once")
    unknown = sorted(set(order) - set(names))
    if unknown:
        raise CmlBenchError(f"label {unknown[0]!r} is not a label of the data: {suggest(unknown[0], names)}")
    absent = sorted(set(names) - set(order))
    if absent:
        raise CmlBenchError(
            f"the label lists leave out {len(absent)} of {len(names)} labels (first: {', '.join(absent[:3])}): "
            "the experiences must cover the whole vocabulary"
        )
    return tuple(order)


def refuse_beside_lists(given: Mapping[str, object]) -> None:
    """Refuse options that say how labels are divided where lists say so: they would do nothing, and stand in results.

    Args:
        given: Options of ``class_order``, ``base`` and ``increment`` that are not the default ones.

    Raises:
        CmlBenchError: If there is one.
    """
    if given:
        told = ", ".join(f"{name}={value!r:.60}" for name, value in given.items())
        verb = "contradicts" if len(given) == 1 else "contradict"
        raise CmlBenchError(f"{told} {verb} the explicit label lists: give one of the two")


def divide(n_labels: int, base: int, increment: int) -> tuple[int, ...]:
    """Return the number of labels of each experience in the Bi-Cj scheme.

    ``base`` labels first (0: none apart), then ``increment`` labels an experience; a last experience that would be
    short keeps what is left, so no label is ever dropped.

    Raises:
        CmlBenchError: If the numbers do not fit the vocabulary.
    """
    if increment < 1 or base < 0 or base > n_labels:
        raise CmlBenchError(
            f"base={base}, increment={increment} do not fit {n_labels} labels: "
            f"give a base from 0 to {n_labels} and an increment of at least 1"
        )
    sizes = [base] if base else []
    while sum(sizes) < n_labels:
        sizes.append(min(increment, n_labels - sum(sizes)))
    return tuple(sizes)


def protocol_name(sizes: Sequence[int], increment: int | None = None) -> str:
    """Return the field's name of a division: ``B0-C10``, ``B40-C10``, or the sizes joined by ``+``.

    Args:
        sizes: Labels of each experience.
        increment: Labels asked for in each later experience, of which the last may have fewer; None to go by the sizes.
    """
    later = sizes[1:]
    if not later:
        return f"B{sizes[0]}"
    increment = increment or later[0]
    regular = all(size == increment for size in later[:-1]) and later[-1] <= increment
    if regular and sizes[0] == increment:
        return f"B0-C{increment}"
    if regular:
        return f"B{sizes[0]}-C{increment}"
    return "+".join(map(str, sizes))
