"""Seeds are private: a run leaves the process as it found it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated(seed: int, threads: int) -> Iterator[None]:
    """Seed the global generators and set torch's thread count; put both back on the way out.

    Our own code draws from private generators; the global ones are seeded for what we do not control (initialisation
    of layers, dropout, upstream strategies).
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - saving the global state is the point
    before = torch.get_num_threads()
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
