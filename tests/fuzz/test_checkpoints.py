"""Checkpoints from elsewhere, damaged behind the back of their checksum."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from cml_bench.errors import CmlBenchError
from cml_bench.runs.checkpoint import Checkpoints
from cml_bench.runs.cost import CostMeter
from cml_bench.runs.job import Job
from cml_bench.runs.run import run_job

Fuzz = Callable[..., Counter[str]]


class _Course:
    """Takes any state."""

    def resume(self, stored: Any, done: int) -> str:
        assert type(done) is int
        self.stored = stored
        return "experience"


def content() -> bytes:
    tree = {
        "identity": {"job": "0123", "code": "abc def", "packages": "torch 2", "data": "train 00"},
        "done": 2,
        "cost": {
            "seconds": {"training": 1.5},
            "peak_memory_mb": {"training": 90.0},
            "peak_gpu_memory_mb": {},
            "epochs": 4,
            "tested": 4,
            "images": 40,
            "footprint": {},
        },
        "state": {"nodes": [], "roots": {}, "places": []},
    }
    text = np.frombuffer(json.dumps(tree).encode(), dtype=np.uint8)
    logits = {f"logits{t}": np.zeros((3, t + 1), dtype=np.float16) for t in range(2)}
    return save({"tree": text, **logits, "block0": np.arange(64, dtype=np.uint8)})


def in_tree(whole: bytes, rng: random.Random) -> bytes:
    """Damage what the checkpoint says of itself."""
    try:
        tensors = load(whole)
        tree = json.loads(tensors["tree"].tobytes())
    except Exception:
        return whole[: len(whole) // 2]
    place = rng.choice(sorted(tree))
    odd = rng.choice([None, True, -1, 10**30, 3, 1e400, "x", [], {}, {"job": "0123"}, [[]], {"seconds": {"a": "b"}}])
    tensors["tree"] = np.frombuffer(json.dumps({**tree, place: odd}).encode(), dtype=np.uint8)
    if rng.random() < 0.3:
        tensors["logits1"] = np.zeros(rng.choice([(3,), (3, 2), (0, 0)]), dtype=rng.choice(["f2", "f4", "i8"]))
    return save(tensors)


def test_checkpoint(tmp_path: Path, fuzz: Fuzz, binary: Sequence[Any], count: int) -> None:
    identity = {"job": "0123", "code": "abc def", "packages": "torch 2", "data": "train 00"}
    aside, said = tmp_path / "0002", []

    def read() -> tuple[list[Any], CostMeter]:
        said.clear()
        data, folder = aside.read_bytes(), tmp_path / "0002.ckpt"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        (folder / f"0002-{hashlib.sha256(data).hexdigest()[:32]}.safetensors").write_bytes(data)
        meter = CostMeter()
        logits = Checkpoints(folder, identity, said.append).resume(_Course(), meter)  # type: ignore[arg-type]
        return logits, meter

    def sound(found: tuple[list[Any], CostMeter]) -> None:
        logits, meter = found
        assert len(said) == 1, "whatever is not used is told"
        assert all(block.ndim == 2 and block.dtype == np.float16 for block in logits)
        assert all(np.isfinite([*meter.seconds.values()]))

    fuzz(aside, [content()], read, sound, min(count, 5000), (in_tree, in_tree, *binary))


class _Stopped(BaseException):
    pass


ODD: list[Any] = [
    *(None, True, -1, 0, 7, 2**63, 10**30, 0.5, "", "x", "../x", "os", "builtins:eval", [], {}, [0]),
    *({"#": 0}, {"#": 10**6}, {"named": "os.system"}, {"path": "/etc"}, {"dtype": "load"}, {"bytes": "zz"}),
    *({"given": "run"}, {"device": "x:9"}),
]


def _damage(tree: Any, rng: random.Random) -> None:
    """Put something else in a random place of nested lists and objects."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = rng.choice(keys)
        if isinstance(tree[key], (dict, list)) and tree[key] and rng.random() < 0.85:
            tree = tree[key]
        else:
            tree[key] = rng.choice(ODD)
            return


@pytest.mark.parametrize("rounds", [25, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_state_that_is_none_is_refused_or_harmless(
    small_jobs: Callable[..., list[Job]], tmp_path: Path, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round damages one place in the state of a learner and lets the job go on.

    A few say nothing that is wrong in itself (another key in the state of an optimiser) and fail in training, where
    whatever a job fails of is its failed result.
    """
    (job,) = small_jobs(["er memory_size=10"], n_train=20, n_test=10, increment=5)

    def stop(event: Any) -> None:
        if event.kind == "epoch" and event.experience == 1:
            raise _Stopped

    with pytest.raises(_Stopped):
        run_job(job, checkpoints=tmp_path / "seed.ckpt", report=stop)
    (seed,) = (tmp_path / "seed.ckpt").iterdir()
    tensors = load(seed.read_bytes())
    text = tensors["tree"].tobytes()
    outcomes: Counter[str] = Counter()
    rng = random.Random(0)
    folder = tmp_path / "damaged.ckpt"
    folder.mkdir()
    for _ in range(rounds):
        tree = json.loads(text)
        _damage(tree["state"], rng)
        tensors["tree"] = np.frombuffer(json.dumps(tree).encode(), dtype=np.uint8)
        data = save(tensors)
        for old in folder.iterdir():
            old.unlink()
        (folder / f"0001-{hashlib.sha256(data).hexdigest()[:32]}.safetensors").write_bytes(data)
        try:
            run_job(job, checkpoints=folder, report=stop)
        except _Stopped:
            outcomes["accepted"] += 1
        except CmlBenchError as error:
            outcomes["refused" if "damaged.ckpt" in str(error) else "no file named"] += 1
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
            outcomes["failed in training"] += 1
    print(f"state: {dict(outcomes)}")  # noqa: T201
    assert outcomes["refused"] > rounds / 4
    assert not outcomes["no file named"]
    assert outcomes["failed in training"] <= rounds / 50
