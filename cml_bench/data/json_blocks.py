"""Reading a large JSON object piece by piece: its long arrays are never in memory as a whole."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

BYTES = 2**23
"""Bytes that are read at a time."""
ELEMENTS = 250
"""Array elements that are handed out together, or a few more."""
AHEAD = 2**15
"""Characters that are decoded together."""
WHITE = " \t\n\r"
AFTER_VALUE = {*WHITE, *",:]}"}
_decode = json.JSONDecoder().raw_decode


class DamagedJsonError(ValueError):
    """The text is no JSON object; says what was expected and where."""


def members(
    path: Path, shorten: Callable[[str], str] | None = None, size: int = BYTES
) -> Iterator[tuple[str, Iterator[list[Any]] | None]]:
    """Yield the keys of the JSON object in a file with their values, in the order of the file.

    Args:
        path: A JSON file in UTF-8 whose top level is an object.
        shorten: Takes out of the text what nobody needs, before it is decoded. It is given text that starts where a
            value or a mark starts and that may end anywhere, and must leave every text of that kind as good as before.
        size: Bytes to read at a time.

    Yields:
        The key, and its array as lists of decoded elements, at least one; None in place of any other value. What is
        not taken of an array before the next key is asked for is passed over.

    Raises:
        DamagedJsonError: If the text is no JSON object. Places are characters of the shortened text.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        window = _Window(file, shorten, size)
        window.step("{")
        mark = window.step("}") if window.peek() == "}" else ","
        while mark == ",":
            if window.peek() != '"':
                raise window.damaged("a key was expected")
            key = window.value()
            window.step(":")
            if window.peek() == "[":
                blocks = window.elements()
                yield key, blocks
                for _ in blocks:
                    pass
            else:
                window.value()
                yield key, None
            mark = window.step(",}")
        if window.peek():
            raise window.damaged("the end was expected")


class _Window:
    """The part of the text that is in memory; it only moves forward.

    Attributes:
        text: What is in memory.
        place: Where in ``text`` reading goes on: always the start of a value, a mark or white space.
        before: Characters that came before ``text``.
    """

    def __init__(self, file: IO[bytes], shorten: Callable[[str], str] | None, size: int) -> None:
        self._file = file
        self._shorten = shorten
        self._size = size
        self._ahead = AHEAD
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self.text = ""
        self.place = 0
        self.before = 0

    def more(self) -> bool:
        """Read on and forget what lies behind; return False at the end of the file."""
        # A value that does not fit doubles the window, so that it is not tried again for every few bytes.
        read = self._file.read(max(self._size, len(self.text) - self.place))
        try:
            new = self._utf8.decode(read, final=not read)
        except UnicodeDecodeError as error:
            byte = self._file.tell() - len(error.object) + error.start
            raise DamagedJsonError(f"byte {byte} is no UTF-8") from None
        if not read:
            return False
        self.before += self.place
        self.text = self.text[self.place :] + new
        self.place = 0
        if self._shorten is not None:
            self.text = self._shorten(self.text)
        return True

    def peek(self) -> str:
        """Return the next character that is no white space, without stepping over it; empty at the end."""
        while True:
            if self.place == len(self.text):
                if not self.more():
                    return ""
            elif self.text[self.place] in WHITE:
                self.place += 1
            else:
                return self.text[self.place]

    def step(self, marks: str) -> str:
        """Step over one of these marks and return it."""
        mark = self.peek()
        if not mark or mark not in marks:
            raise self.damaged(f"{' or '.join(marks)} was expected")
        self.place += 1
        return mark

    def value(self) -> Any:
        """Decode the value that comes next and step over it."""
        self.peek()
        while True:
            failure = None
            start = self.place
            try:
                value, end = _decode(self.text, start)
            except json.JSONDecodeError as error:
                failure, end = error.msg, error.pos
            except RecursionError:
                raise self.damaged("the nesting is too deep") from None
            # A value may go on where the window ends, as 0. does, and text that is none may be one cut short.
            whole = failure is None and self.text[end : end + 1] in AFTER_VALUE
            if whole or not self.more():
                break
        if failure is not None:
            raise self.damaged(failure, end - start)
        self.place += end - start
        return value

    def several(self) -> list[Any]:
        """Decode some elements of an array, at least one, and step over them.

        One call for many saves a fifth of a whole file's time. Up to which brace, is a guess: what turns out to be an
        array between two brackets is one, and ends where an element ends. A wrong guess costs what it looked at, so
        the next ones look less far ahead.
        """
        end = self.text.rfind("}", self.place, self.place + self._ahead) + 1
        if end:
            try:
                found: list[Any] = json.loads(f"[{self.text[self.place : end]}]")
            except (ValueError, RecursionError):
                self._ahead //= 8
                return [self.value()]
            self.place = end
        self._ahead = min(2 * self._ahead + 1, AHEAD)
        return found if end else [self.value()]

    def elements(self) -> Iterator[list[Any]]:
        """Yield the elements of the array that comes next, some hundreds at a time, and step over it."""
        self.step("[")
        block: list[Any] = []
        mark = self.step("]") if self.peek() == "]" else ","
        while mark == ",":
            block += self.several()
            mark = self.step(",]")
            if len(block) >= ELEMENTS and mark == ",":
                yield block
                block = []
        yield block

    def damaged(self, what: str, offset: int = 0) -> DamagedJsonError:
        """Return the error for what was expected some characters after the place."""
        return DamagedJsonError(f"{what} at character {self.before + self.place + offset}")
