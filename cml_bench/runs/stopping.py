"""SIGTERM, which batch systems and containers send, and Ctrl-C stop jobs; a job that trains is stored first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

SECONDS = 5.0
"""How long a signal waits for a job to come to where it can be stored."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""SIGUSR2 is what submitit sends before the time of a SLURM task is over."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise ``Terminated`` in the main thread at the first SIGTERM; a second one ends the process at once."""
    asked = False

    def stop(*_: Any) -> NoReturn:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        # Ray makes a KeyboardInterrupt of whatever a handler raises while it waits.
        if asked and not isinstance(error, Terminated):
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class Postponed:
    """From ``listen`` on, a signal that would end the process waits until ``deliver`` is called.

    It then does what it would have done. So it does, in the middle of whatever runs then, if that takes longer than
    ``SECONDS``. Signals that nobody listens to, or that are ignored, are left alone, and
    so are all in a thread that is not the main one: only that is told of signals.

    Attributes:
        number: The signal that waits.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None
        self._late = self._held = False

    def listen(self) -> None:
        """Let signals wait from now on."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler) or (handler is signal.SIG_DFL and number != signal.SIGUSR2):
                    self._before[number] = signal.signal(number, self._note)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let signals wait however long this takes."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def deliver(self) -> None:
        """Listen no longer, and let a signal that waits do what it would have done."""
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        waiting, self.number, self._before = self.number, None, {}
        if waiting is not None:
            signal.raise_signal(waiting)

    def _note(self, number: int, frame: object) -> None:
        if self.number is None:
            self.number = number
            self._timer = threading.Timer(SECONDS, self._hurry)
            self._timer.daemon = True
            self._timer.start()
        elif self._late and not self._held:
            self.deliver()

    def _hurry(self) -> None:
        assert self.number is not None
        self._late = True
        # Wakes the main thread up if it waits for something.
        signal.pthread_kill(threading.main_thread().ident or 0, self.number)
