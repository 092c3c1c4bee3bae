"""ARFF, the text format of Weka, dense or sparse, as one array of numbers."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cml_bench.data.vetting import refuse_large
from cml_bench.errors import CmlBenchError

Numbers = npt.NDArray[np.float32]

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_ATTRIBUTE = re.compile(rf"@attribute\s+({_QUOTED}|[^\s{{]+)(?:\s*\{{(.*)\}}|\s+(\w+))$", re.IGNORECASE)
_VALUE = re.compile(rf"\s*(?:({_QUOTED})\s*|([^,]*)),")
_ENTRY = re.compile(rf"\s*(\d{{1,9}})\s+({_QUOTED}|[^\s,]+)\s*,")
_SPECIAL = re.compile(r"""['"\\]""")
_ENTRIES = re.compile(rf"(?:\s*\d{{1,9}}\s+(?:{_QUOTED}|[^\s,]+)\s*,)*")


@dataclass(frozen=True)
class Attribute:
    """A column.

    Attributes:
        name: Its name.
        values: What it may say, in the order of the file; None for a number.
    """

    name: str
    values: tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class Arff:
    """What an ARFF file says.

    Attributes:
        relation: The name after ``@relation``.
        attributes: A columns.
        data: (N, A) float32: a number, or the place of a value among ``Attribute.values``. NaN stands for ``?``.
        lines: (N,) int64 line of the file that each row stands on, from 1.
    """

    relation: str
    attributes: tuple[Attribute, ...]
    data: Numbers
    lines: npt.NDArray[np.int64]


def read_arff(path: Path) -> Arff:
    """Parse a file.

    What a sparse row ``{3 1, 7 0.5}`` leaves out is 0; for an attribute with listed values that is the first of them,
    as in Weka. Quotes, comments and blank lines are understood; string, date and relational attributes and weights
    of rows are not.

    Raises:
        CmlBenchError: If the file is no such ARFF; the sentence names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise CmlBenchError(f"{path} is no UTF-8 text (byte {error.start}): convert it to UTF-8") from None
    for number in (number for number, line in enumerate(lines, start=1) if "\0" in line):
        raise CmlBenchError(f"line {number} of {path} holds a zero byte, no UTF-8 text: convert the file to UTF-8")
    told = [
        (number, text)
        for number, line in enumerate(lines, start=1)
        if (text := line.strip()) and not text.startswith("%")
    ]
    relation, attributes = "", []
    header = iter(told)
    for number, text in header:
        word = text.split(maxsplit=1)[0].lower()
        if word == "@data":
            break
        if word == "@relation":
            relation = _unquote(text[len(word) :].strip())
        elif word == "@attribute":
            attributes.append(_attribute(text, path, number))
        else:
            raise CmlBenchError(f"line {number} of {path} is {text[:40]!r}, neither @attribute nor @data: correct it")
    else:
        raise CmlBenchError(f"{path} has no line @data: it is no ARFF file, or cut short; fetch it again")
    rows = _Rows(path, tuple(attributes), list(header))
    is_sparse = bool(rows.told) and rows.told[0][1].startswith("{")
    return Arff(relation, rows.attributes, rows.sparse() if is_sparse else rows.dense(), rows.lines)


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows below ``@data`` with their line numbers."""

    path: Path
    attributes: tuple[Attribute, ...]
    told: list[tuple[int, str]]

    @property
    def lines(self) -> npt.NDArray[np.int64]:
        return np.array([number for number, _ in self.told], dtype=np.int64)

    def wrong(self, row: int, what: str) -> CmlBenchError:
        return CmlBenchError(f"line {self.told[row][0]} of {self.path} {what}: correct it, or fetch the file again")

    def dense(self) -> Numbers:
        """Return the data of rows that say every value."""
        width = len(self.attributes)
        text = "\n".join(text for _, text in self.told)
        # A quote may hold commas, and one that nobody closes would swallow lines: pandas reads what has none.
        split = [_split(text) for _, text in self.told] if _SPECIAL.search(text) else None
        for row, (_, line) in enumerate(self.told):
            # pandas would fill up a short row in silence.
            count = line.count(",") + 1 if split is None else len(split[row])
            if count != width:
                raise self.wrong(row, f"has {count} values for {width} attributes")
        data = np.empty((len(self.told), width), dtype=np.float32)
        frame = pd.DataFrame(split, dtype="category") if split is not None else self._read_csv(text)
        for column, attribute in self._numbered():
            values = frame[column]
            if values.dtype == np.float32:
                data[:, column] = values
            else:
                texts = np.array([_unquote(str(text).strip()) for text in values.cat.categories], dtype=object)
                data[:, column] = self._decode(attribute, texts, values.cat.codes.to_numpy(), np.arange(len(data)))
        return data

    def _read_csv(self, text: str) -> pd.DataFrame:
        if not text:
            return pd.DataFrame({column: pd.Series(dtype="float32") for column, _ in self._numbered()})
        try:
            with np.errstate(over="ignore"):
                frame = _read_csv(text, {i: "float32" if a.values is None else "category" for i, a in self._numbered()})
            if not np.isinf(frame.select_dtypes("float32").to_numpy()).any():
                return frame
        except ValueError:
            pass
        # Some number is none, or too large; as categories it is found, and named.
        return _read_csv(text, dict.fromkeys(range(len(self.attributes)), "category"))

    def sparse(self) -> Numbers:
        """Return the data of rows that say only what is not 0."""
        entries: list[list[tuple[str, str]]] = []
        for row, (_, text) in enumerate(self.told):
            inner = text[1:-1].strip()
            inner += "," * bool(inner)
            if (text[0], text[-1]) != ("{", "}") or not _ENTRIES.fullmatch(inner):
                raise self.wrong(row, f"is {text[:40]!r}, no sparse row like {{3 1, 7 0.5}}")
            entries.append(_ENTRY.findall(inner))
        rows = np.repeat(np.arange(len(entries)), [len(found) for found in entries])
        columns = np.array([int(index) for found in entries for index, _ in found], dtype=np.int64)
        codes, values = pd.factorize(np.array([value for found in entries for _, value in found], dtype=object))
        texts = np.array([_unquote(value) for value in values], dtype=object)
        for at in np.flatnonzero(columns >= len(self.attributes)):
            raise self.wrong(rows[at], f"names attribute {columns[at]}; there are {len(self.attributes)}, from 0")
        refuse_large(self.path, len(entries), len(self.attributes), 4)
        data = np.zeros((len(entries), len(self.attributes)), dtype=np.float32)
        order = np.argsort(columns, kind="stable")
        starts = np.searchsorted(columns[order], np.arange(len(self.attributes) + 1))
        for column, attribute in self._numbered():
            own = order[starts[column] : starts[column + 1]]
            used, places = np.unique(codes[own], return_inverse=True)
            data[rows[own], column] = self._decode(attribute, texts[used], places, rows[own])
        return data

    def _numbered(self) -> list[tuple[int, Attribute]]:
        return list(enumerate(self.attributes))

    def _decode(
        self, attribute: Attribute, texts: npt.NDArray[np.object_], codes: npt.NDArray[Any], rows: npt.NDArray[np.intp]
    ) -> Numbers:
        """Return the numbers behind coded texts; code -1 is missing. ``rows`` are those the codes belong to."""
        if attribute.values is None:
            numbers = np.asarray(pd.to_numeric(texts, errors="coerce"), dtype=np.float64)
            # Infinity and what float32 cannot hold are no features either.
            unknown = ~(np.abs(numbers) <= np.finfo(np.float32).max)
            meaning = np.where(unknown, np.nan, numbers).astype(np.float32)
        else:
            places = pd.Index(attribute.values, dtype=object).get_indexer(pd.Index(texts))
            unknown = places < 0
            meaning = np.where(unknown, np.nan, places).astype(np.float32)
        unknown &= texts != "?"
        for at in np.flatnonzero(np.append(unknown, False)[codes]):
            kind = "no number" if attribute.values is None else f"none of its values ({_some(attribute.values)})"
            raise self.wrong(rows[at], f"says {texts[codes[at]]!r:.60} for attribute {attribute.name!r:.60}, {kind}")
        result: Numbers = np.append(meaning, np.float32(np.nan))[codes]
        return result


def _read_csv(text: str, dtype: dict[int, Any]) -> pd.DataFrame:
    return pd.read_csv(
        StringIO(text),
        header=None,
        names=list(dtype),
        dtype=dtype,
        quoting=csv.QUOTE_NONE,
        skipinitialspace=True,
        na_values="?",
        keep_default_na=False,
    )


def _attribute(text: str, path: Path, number: int) -> Attribute:
    found = _ATTRIBUTE.match(text)
    if found is None:
        raise CmlBenchError(f"line {number} of {path} is {text[:40]!r}, no '@attribute NAME TYPE': correct it")
    name, values, kind = found.groups()
    if values is not None:
        listed = tuple(map(_unquote, _split(values)))
        if len(set(listed)) < len(listed):
            raise CmlBenchError(f"line {number} of {path} lists a value of {_unquote(name)!r:.60} twice: correct it")
        return Attribute(_unquote(name), listed)
    if kind.lower() not in ("numeric", "real", "integer"):
        raise CmlBenchError(
            f"line {number} of {path} declares {_unquote(name)!r:.60} as {kind:.40}, no feature: take the attribute out"
        )
    return Attribute(_unquote(name), None)


def _split(text: str) -> list[str]:
    return [quoted or plain.rstrip() for quoted, plain in _VALUE.findall(text + ",")]


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[:1] in ("'", '"') and text[-1:] == text[:1] else text


def _some(values: tuple[str, ...]) -> str:
    return f"{', '.join(values[:4]):.80}" + (", ..." if len(values) > 4 else "")
