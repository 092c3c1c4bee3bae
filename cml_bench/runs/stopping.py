"""SIGTERM, which batch systems and containers send, and Ctrl-C stop jobs; a job that trains is stored first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

SECONDS = 5.0
"""How long a signal waits for a job to come to where it can be stored."""

STORING = 30.0
"""Seconds that another process has to store its job before it is killed; SLURM waits as long."""

ONE_REQUEST = 1.0
"""Seconds within which a second SIGTERM is the first one's: timeout sends one to its command and one to the group."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""SIGUSR2 is what submitit sends before the time of a SLURM task is over."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end."""


def end_with_parent() -> None:
    """End this process, whatever it is doing, with the one that started it: if that is killed, it can tell nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int = parent.sentinel) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def terminable() -> Iterator[None]:
    """Raise ``Terminated`` in the main thread at the first SIGTERM; a second request ends the process at once."""
    asked: float | None = None

    def stop(*_: Any) -> None:
        nonlocal asked
        if asked is None:
            asked = time.monotonic()
            raise Terminated
        if time.monotonic() - asked > ONE_REQUEST:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        # Ray makes a KeyboardInterrupt of whatever a handler raises while it waits.
        if asked is not None and not isinstance(error, Terminated):
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class Postponed:
    """From ``listen`` on, signals that would end the process wait until ``deliver`` is called.

    They then do what they would have done, in the order in which they came. So they do, in the middle of whatever runs
    then, if that takes longer than ``SECONDS``. Signals that nobody listens to, or that are ignored, are left alone,
    and so are all in a thread that is not the main one: only that is told of signals.

    Attributes:
        waiting: The signals that wait, each once.
    """

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None
        self._late = self._held = False

    def listen(self) -> None:
        """Let signals wait from now on."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
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
        """Listen no longer, and let the signals that wait do what they would have done."""
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        waiting, self.waiting, self._before = self.waiting, [], {}
        self._timer, self._late = None, False
        for number in waiting:
            signal.raise_signal(number)

    def _note(self, number: int, frame: object) -> None:
        if number not in self.waiting:
            # A second one is not lost: who is told of the first may go on, as submitit does after SIGTERM.
            self.waiting.append(number)
        if self._timer is None:
            self._timer = threading.Timer(SECONDS, self._hurry, (number,))
            self._timer.daemon = True
            self._timer.start()
        elif self._late and not self._held:
            self.deliver()
            self.listen()

    def _hurry(self, number: int) -> None:
        # Not if it has been delivered since this thread was woken up.
        if number in self.waiting:
            self._late = True
            # Wakes the main thread up if it waits for something.
            signal.pthread_kill(threading.main_thread().ident or 0, number)
