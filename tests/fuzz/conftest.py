"""A mutation fuzzer: valid files are damaged, and a reader may refuse them in one sentence or read something sound."""

from __future__ import annotations

import io
import os
import random
import re
import resource
import signal
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cml_bench.data.table import LabelTable
from cml_bench.errors import CmlBenchError

Mutator = Callable[[bytes, random.Random], bytes]
Fuzz = Callable[..., Counter[str]]

SECONDS = 20
"""A reader that takes longer for a file of a few kB hangs. Wall-clock, on a machine that may be busy."""
MEMORY = 2**30
"""Bytes that a reader may ask for beyond what the process has; what is declared but not there asks for more."""
LONGEST = 3000
"""Characters of a sentence."""

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
QUOTED = re.compile(rb'"[^"\n]*"' + rb"|'[^'\n]*'")
WORD = re.compile(rb"[A-Za-z_][\w.]*")
NUMBERS = [
    *(b"-1", b"0", b"1", b"2", b"255", b"256", b"-129", b"65536", b"2147483647", b"2147483648", b"-2147483649"),
    *(b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"1e400", b"-1e400", b"1e39", b"1e-400"),
    *(b"NaN", b"nan", b"inf", b"-Infinity", b"Infinity", b"0.5", b"-0.0", b"0x10", b"1_000", b"007", b"", b"\xd9\xa3"),
    b"9" * 5000,
]
VALUES = [
    *(b"null", b"true", b"false", b"[]", b"{}", b'""', b"[1]", b'{"a": 1}', b'"1"', b"1.5", b"'", b'"', b"~", b"?"),
    *(b'"\\ud800"', b'"\\u0000"', b'"a\\u001b[31mb"', b"[[[[]]]]", b"!!python/object/apply:os.system ['true']"),
    *(b"2020-13-45", b"*x", b"&x [*x]", b"<<", b"@data", b"-C 2", b"<!DOCTYPE a>", b"&lt;", b"&#0;", b"<a>", b"0:0"),
]
NAMES = [
    *(b"../../etc/passwd", b"/etc/passwd", b"..", b".", b"a/../../b", b"C:\\x", b"a\\..\\..\\b", b"a" * 5000, b"con"),
    *(b"caf\xc3\xa9", b"caf\xe9", b"=1+1", b"<script>", b"\xe2\x80\xae", b"\xef\xbb\xbf", b"\x00", b"a\x00b", b" "),
]
BITS = [
    b"\x00",
    b"\xff",
    b"\n",
    b"\r",
    b"\n\n",
    b"\t",
    b",",
    b";",
    b":",
    b"{",
    b"}",
    b"[",
    b"]",
    b"#",
    b"%",
    b"-",
    b" ",
]


def _span(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 2, 4, 8, 16, 64, 256, 1024)))


def flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8)) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return rng.choice((content[:start], content[start:], content[:start] + content[end:]))


def double(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:end] + content[start:end] * rng.choice((1, 1, 2, 50)) + content[end:]


def move(content: bytes, rng: random.Random) -> bytes:
    """Put a span somewhere else."""
    (start, end), place = _span(content, rng), rng.randrange(len(content) + 1)
    return content[:place] + content[start:end] + content[place:]


def insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.choice(rng.choice((BITS, BITS, VALUES, NAMES, NUMBERS))) + content[place:]


def nest(content: bytes, rng: random.Random) -> bytes:
    """Open brackets that nobody closes, by the thousand."""
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.choice((b"[", b"{", b'{"a":', b"<a>", b"(", b"- ", b"'")) * 20_000 + content[place:]


def _swap(pattern: re.Pattern[bytes], others: Sequence[bytes]) -> Mutator:
    def swap(content: bytes, rng: random.Random) -> bytes:
        found = list(pattern.finditer(content))
        if not found:
            return flip(content, rng)
        old = rng.choice(found)
        # Another word of the same file makes duplicates and references to what is not there.
        new = rng.choice(found).group() if rng.random() < 0.3 else rng.choice(others)
        return content[: old.start()] + new + content[old.end() :]

    return swap


def swap_lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    if rng.random() < 0.5:
        lines[one] = lines[other]
    else:
        lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def recode(content: bytes, rng: random.Random) -> bytes:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return flip(content, rng)
    return text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "cp500")), "replace")


def overwrite(content: bytes, rng: random.Random) -> bytes:
    """Put a boundary of binary formats over what is there."""
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1, 2 ** (4 * width)))
    place = rng.randrange(max(1, len(content) - width))
    return content[:place] + value.to_bytes(width, rng.choice(("little", "big"))) + content[place + width :]


TEXT: tuple[Mutator, ...] = (
    *(flip, cut, double, move, insert, swap_lines),
    *(_swap(NUMBER, NUMBERS), _swap(NUMBER, NUMBERS), _swap(NUMBER, VALUES)),
    *(_swap(QUOTED, VALUES), _swap(QUOTED, [b'"' + name + b'"' for name in NAMES]), _swap(WORD, NAMES)),
    _swap(WORD, VALUES),
)
RARE: tuple[Mutator, ...] = (recode, nest)
"""What makes text that is alike whatever it was: seldom, and alone."""
BINARY: tuple[Mutator, ...] = (flip, flip, cut, double, move, overwrite, overwrite, _swap(NUMBER, NUMBERS))


def in_zip(inner: Sequence[Mutator] = BINARY) -> Mutator:
    """Damage a member of a zip archive and pack it again: the checksums are right."""

    def repack(content: bytes, rng: random.Random) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = [(name, archive.read(name)) for name in archive.namelist()]
        except Exception:
            return flip(content, rng)  # damaged before
        if not members:
            return flip(content, rng)
        at = rng.randrange(len(members))
        name, inside = members[at]
        action = rng.random()
        if action < 0.1:
            del members[at]
        elif action < 0.2:
            members[at] = (rng.choice(members)[0], inside)
        else:
            members[at] = (name, rng.choice(inner)(inside, rng))
        packed = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            warnings.simplefilter("ignore")  # a name twice
            for name, inside in members:
                archive.writestr(name, inside)
        return packed.getvalue()

    return repack


def mutations(seeds: Sequence[bytes], mutators: Sequence[Mutator], rng: random.Random) -> Iterator[bytes]:
    """Yield damaged files without end."""
    while True:
        content = rng.choice(seeds)
        if mutators is TEXT and rng.random() < 0.02:
            yield rng.choice(RARE)(content, rng)
            continue
        for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
            content = rng.choice(mutators)(content, rng)
        yield content


class _TooSlow(BaseException):
    """A reader did not come back in time."""


def _stop(*_: object) -> None:
    raise _TooSlow


@contextmanager
def _limits() -> Iterator[None]:
    """Bound the memory that may be asked for."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    old = signal.signal(signal.SIGALRM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _flaw(error: BaseException, path: Path) -> str | None:
    """Return what is wrong with how a file was refused."""
    if not isinstance(error, CmlBenchError):
        return f"{type(error).__name__}: {error}"
    said, cause = str(error), error.__context__
    if path.name not in said:
        return f"no file named: {said}"
    if len(said) > LONGEST or any(letter in said for letter in "\n\r\x00\x1b"):
        return f"not one plain sentence: {said[:200]!r}"
    while cause is not None:
        if isinstance(cause, (MemoryError, AssertionError)):
            return f"refused for {type(cause).__name__}: {said}"
        cause = cause.__context__
    return None


def fuzz(
    path: Path,
    seeds: Sequence[bytes],
    read: Callable[[], Any],
    sound: Callable[[Any], object],
    count: int,
    mutators: Sequence[Mutator] = TEXT,
    seed: int = 0,
) -> Counter[str]:
    """Damage files, read them and see what comes out.

    Args:
        path: Where the damaged file is put.
        seeds: Contents that are read without complaint.
        read: Reads the file.
        sound: Asserts that what was read is as it must be.
        count: Number of damaged files.
        mutators: How to damage.
        seed: Of all draws.

    Returns:
        How many files were ``accepted`` and ``refused``; anything else fails the test.
    """
    outcomes: Counter[str] = Counter()
    unexplained: dict[tuple[Any, ...], str] = {}
    draws = mutations(seeds, mutators, random.Random(seed))
    with _limits(), warnings.catch_warnings():
        # Casts of what is no number, and columns of mixed types: signs of something taken for what it is not.
        warnings.simplefilter("error", RuntimeWarning)
        for content in seeds:
            path.write_bytes(content)
            sound(read())
        for _ in range(count):
            content = next(draws)
            path.write_bytes(content)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                made = read()
                signal.setitimer(signal.ITIMER_REAL, 0)
                sound(made)
                outcomes["accepted"] += 1
            except (Exception, _TooSlow) as error:
                signal.setitimer(signal.ITIMER_REAL, 0)
                flaw = _flaw(error, path)
                outcomes["refused" if flaw is None else "unexplained"] += 1
                if flaw is not None:
                    last = traceback.extract_tb(error.__traceback__)[-1]
                    where = (type(error), last.filename, last.lineno, flaw[:25])
                    calls = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
                    shown = f"{flaw[:300]}\n    {' > '.join(calls[-5:])}\n    {content[:1500]!r}"
                    if len(unexplained.get(where, shown + " ")) > len(shown):
                        unexplained[where] = shown
    outcomes["inputs"] = count
    assert not unexplained, f"{dict(outcomes)}; {len(unexplained)} kinds:\n" + "\n".join(unexplained.values())
    assert outcomes["refused"], "nothing was refused: the damage does not reach the reader"
    print(f"{os.environ.get('PYTEST_CURRENT_TEST', path.name)}: {dict(outcomes)}")  # noqa: T201
    return outcomes


def sound_table(table: LabelTable) -> None:
    """Assert what every label table promises."""
    n = len(table.ids)
    assert table.labels.shape == (n, len(table.label_names))
    assert table.labels.dtype == np.int8
    assert set(np.unique(table.labels).tolist()) <= {-2, 0, 1}
    assert table.ids.dtype.kind in "iU"
    assert len(set(table.ids.tolist())) == n
    assert len(set(table.label_names)) == len(table.label_names)
    texts = [*table.label_names, *(str(i) for i in table.ids), *(() if table.files is None else table.files.tolist())]
    assert not any(re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text) for text in texts)
    assert all(text.strip() for text in texts)
    for file in () if table.files is None else table.files.tolist():
        assert os.path.normpath(os.path.join("/r", file)).startswith("/r/"), file  # noqa: PTH118
        assert ".." not in re.split(r"[/\\]", file)
    if table.sizes is not None:
        assert table.sizes.shape == (n, 2)
        assert (table.sizes >= 0).all()
    if table.boxes is not None:
        boxes = table.boxes
        assert boxes.xywh.shape == (len(boxes), 4)
        assert len(boxes.rows) == len(boxes.columns) == len(boxes.areas)
        assert np.isfinite(boxes.xywh).all()
        assert np.isfinite(boxes.areas).all()
        assert (boxes.xywh[:, 2:] >= 0).all()
        assert (boxes.areas >= 0).all()
        assert ((boxes.rows >= 0) & (boxes.rows < n)).all()
        assert ((boxes.columns >= 0) & (boxes.columns < len(table.label_names))).all()
    assert all(type(value) is int and value >= 0 for value in table.counts.values())
    assert len(table.fingerprint) == 64


@pytest.fixture(name="fuzz")
def _fuzz() -> Fuzz:
    return fuzz


@pytest.fixture(name="sound_table")
def _sound_table() -> Callable[[LabelTable], None]:
    return sound_table


@pytest.fixture(params=[100, pytest.param(20_000, marks=pytest.mark.slow)], ids=["some", "many"])
def count(request: pytest.FixtureRequest) -> int:
    """Number of damaged files."""
    return int(request.param)


@pytest.fixture
def zip_members() -> tuple[Mutator, ...]:
    return (in_zip(), in_zip(), in_zip((_swap(NUMBER, NUMBERS), overwrite)), *BINARY[:4])


@pytest.fixture
def binary() -> tuple[Mutator, ...]:
    return BINARY


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CML_BENCH_CACHE", str(tmp_path / "cache"))
