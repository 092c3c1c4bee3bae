"""JSON files that are read as a whole."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from cml_bench.errors import CmlBenchError
from cml_bench.files import read_plain


def read_json(path: Path, kind: type[list[Any]] | type[dict[str, Any]], mend: str = "fetch it again") -> Any:
    """Return the list or object that a JSON file holds.

    Args:
        path: The file.
        kind: What it should hold.
        mend: What to do about a file that does not, for the error.

    Raises:
        CmlBenchError: If the file cannot be read, is no JSON, is nested too deeply, holds something else, or a number
            that is none (``NaN``, ``Infinity``, which JSON does not know, and numbers beyond a float's range).
    """
    try:
        content = parse_json(read_plain(path))
    except OSError as error:
        raise CmlBenchError(f"{path} cannot be read ({error.strerror}): give a file that can") from None
    except ValueError as error:
        raise CmlBenchError(f"{path} is no JSON, or cut short ({error}): {mend}") from None
    except RecursionError:
        raise CmlBenchError(f"{path} is nested too deeply for what it should hold: {mend}") from None
    if not isinstance(content, kind):
        raise CmlBenchError(f"{path} holds no JSON {'object' if kind is dict else 'list'}: {mend}")
    return content


def parse_json(text: bytes) -> Any:
    """Return what JSON text says.

    Raises:
        ValueError: If it is no JSON, an object in it has a key twice (of which readers take the first or the last), or
            a number is none.
        RecursionError: If it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it holds the key {twice!r:.60} twice")
    return made


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if value - value == 0 else _refuse(f"{digits:.40}")
