"""Progress of a sweep where the output is no terminal: plain lines, few of them."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable, Sequence

from rich.console import Console

from cml_bench.progress import SweepProgress
from cml_bench.runs.events import Event
from cml_bench.runs.job import Job

JOBS = [Job("digits", "naive"), Job("digits", "er", seed=1)]


def printed(events: list[Event], clock: Callable[[], float] = time.monotonic, jobs: Sequence[Job] = JOBS) -> list[str]:
    stream = io.StringIO()
    with SweepProgress(jobs, Console(file=stream, width=200), clock) as progress:
        for event in events:
            progress(event)
    return stream.getvalue().splitlines()


EVENTS = [
    Event(0, "start"),
    Event(0, "epoch", experience=0, epoch=1, loss=0.5, fraction=0.5),
    Event(0, "experience", experience=0, epoch=1, fraction=0.5, metrics={"map": 0.613}),
    Event(0, "done", fraction=1.0),
    Event(1, "start"),
    Event(1, "failed", "the loss became nan"),
]


def test_short_jobs_take_a_line_each() -> None:
    assert printed(EVENTS) == [
        "done 1/2: naive  default order, seed 0",
        "failed: er  default order, seed 1: the loss became nan",
    ]


def test_jobs_that_differ_in_settings_or_benchmark_say_so() -> None:
    """Two tables of a suite with vary have the same methods, class orders and seeds."""
    jobs = [Job("digits", "naive", options=(("epochs", "1"), ("increment", size))) for size in ("2", "5")]
    events = [Event(index, kind) for index in (0, 1, 2) for kind in ("start", "done")]
    assert printed(events[:4], jobs=jobs) == [
        "done 1/2: naive  default order, seed 0, increment=2",
        "done 2/2: naive  default order, seed 0, increment=5",
    ]
    assert printed(events, jobs=[*jobs, Job("flowers", "naive", options=jobs[1].options)]) == [
        "done 1/3: naive  digits, default order, seed 0, increment=2",
        "done 2/3: naive  digits, default order, seed 0, increment=5",
        "done 3/3: naive  flowers, default order, seed 0, increment=5",
    ]


def test_what_is_wrong_with_a_sweep_is_of_no_job() -> None:
    assert printed([Event(0, "warning", "no label is marked absent")]) == ["warning: no label is marked absent"]


def test_what_many_jobs_warn_of_is_told_once() -> None:
    events = [Event(0, "warning", "no label is marked absent"), Event(1, "warning", "no label is marked absent")]
    assert printed(events) == ["warning: no label is marked absent"]


def test_what_had_been_learnt_before_took_none_of_the_time() -> None:
    """One job of one, half of it done before: a tenth took two minutes, so four tenths take eight."""
    minutes = itertools.count(step=60.0)
    events = [
        Event(0, "start"),
        Event(0, "resumed", fraction=0.5),
        Event(0, "experience", experience=2, epoch=1, fraction=0.6, metrics={"map": 0.613}),
    ]
    (line,) = printed(events, lambda: next(minutes), jobs=JOBS[:1])
    assert line.endswith("(0:08:00 left)")


def test_long_jobs_tell_how_far_they_are() -> None:
    minutes = itertools.count(step=60.0)
    # A quarter of all is done: the line is looked for after one minute and printed after two, which leaves six.
    first = printed(EVENTS[:4], lambda: next(minutes))[0]
    assert first == "naive  default order, seed 0: experience 1 learnt, mAP 61.3 (0:06:00 left)"


def test_features_that_all_jobs_share_are_told_of_and_take_none_of_the_time() -> None:
    """After the last of extraction, half of all is done in one minute, which leaves one."""
    minutes = itertools.count(step=60.0)
    lines = printed(
        [
            Event(0, "start"),
            Event(0, "phase", "features of train images 64/6500, 32 images/s"),
            Event(0, "epoch", experience=0, epoch=1, loss=0.5, fraction=0.5),
            Event(0, "done", fraction=1.0),
        ],
        lambda: next(minutes),
    )
    assert lines == [
        "naive  default order, seed 0: features of train images 64/6500, 32 images/s",
        "done 1/2: naive  default order, seed 0 (0:01:00 left)",
    ]
