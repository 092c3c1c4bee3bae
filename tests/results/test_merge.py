"""Folders of several machines become one: all of them or none."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cml_bench.errors import CmlBenchError
from cml_bench.report.stored.collect import collect, without_conflicts
from cml_bench.report.stored.verify import verify_results
from cml_bench.runs.merge import Merged, merge_results


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_everything_is_there_once(store: Any, tmp_path: Path) -> None:
    a, b, into = tmp_path / "a", tmp_path / "b", tmp_path / "deep" / "all"
    for seed in (0, 1):
        store(a, seed=seed)
    for seed in (1, 2):
        store(b, seed=seed)
    models = store(b, seed=3).with_suffix(".models")
    models.mkdir()
    (models / "experience_01.safetensors").write_bytes(b"weights")
    failed = store(b, seed=4, status="failed", error="NaN loss", metrics=None)
    failed.with_suffix(".npz").unlink()
    (b / "digits" / "half.ckpt").mkdir()
    done = merge_results([a, b], into)
    assert done == Merged(5, 1, (b / "digits" / "half.ckpt",))
    assert content(into) == content(a) | content(b)
    assert sorted(collect(into)["seed"]) == [0, 1, 2, 3, 4]
    before = content(into)
    assert merge_results([a, b], into) == Merged(0, 6, done.unfinished)
    assert merge_results([store(tmp_path / "one", seed=5)], into).added == 1
    assert content(into).keys() > before.keys()
    assert not list(into.rglob("*.part"))


@pytest.mark.parametrize("where", ["beside", "inside"])
def test_a_job_with_two_results_is_refused(store: Any, change: Any, tmp_path: Path, where: str) -> None:
    a, b, into = tmp_path / "a", tmp_path / "b", tmp_path / "all"
    one = store(a)
    if where == "inside":
        merge_results([a], into)
        one = into / one.relative_to(a)
    other = store(b)
    store(b, seed=1)
    change(other, "metrics", "summary", "last_map", to=0.25)
    before = content(tmp_path)
    with pytest.raises(CmlBenchError) as caught:
        merge_results([b] if where == "inside" else [a, b], into)
    for part in (str(one), str(other), "metrics.summary.last_map: 0.", "against 0.25", "nothing was merged"):
        assert part in str(caught.value)
    assert content(tmp_path) == before
    assert into.exists() == (where == "inside")


def test_equal_results_with_other_predictions_are_two(
    store: Any, predictions: Any, change: Any, tmp_path: Path
) -> None:
    one, other = store(tmp_path / "a"), store(tmp_path / "b")
    predictions("seen_images", 7).save(other.with_suffix(".npz"))
    for path in (one, other):
        change(path, "predictions", to=None)
    with pytest.raises(CmlBenchError, match="the predictions differ"):
        merge_results([tmp_path / "a", tmp_path / "b"], tmp_path / "all")


def test_what_is_not_whole_is_refused(store: Any, tmp_path: Path) -> None:
    path = store(tmp_path / "a")
    npz = path.with_suffix(".npz")
    whole = npz.read_bytes()
    npz.write_bytes(whole[:-1])
    with pytest.raises(CmlBenchError, match="another checksum than the stored one"):
        merge_results([tmp_path / "a"], tmp_path / "all")
    npz.write_bytes(whole)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(CmlBenchError, match="it breaks off"):
        merge_results([tmp_path / "a"], tmp_path / "all")
    with pytest.raises(CmlBenchError, match="does not exist"):
        merge_results([tmp_path / "nowhere"], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_result_without_predictions_gets_them_from_a_folder_that_has_them(store: Any, tmp_path: Path) -> None:
    whole, into = tmp_path / "whole", tmp_path / "all"
    for seed in range(3):
        store(whole, seed=seed)
    bare = shutil.copytree(whole, tmp_path / "bare", ignore=shutil.ignore_patterns("*.npz"))
    assert merge_results([bare], into) == Merged(3, 0, (), without_predictions=3)
    assert content(into) == content(bare)
    one = store(tmp_path / "part", seed=1).with_suffix(".npz")
    assert merge_results([tmp_path / "part"], into) == Merged(0, 1, (), supplied=1)
    assert content(into) == content(bare) | {str(one.relative_to(tmp_path / "part")): one.read_bytes()}
    assert merge_results([bare, whole], into) == Merged(0, 6, (), supplied=2)
    assert content(into) == content(whole)
    assert merge_results([bare, whole], tmp_path / "at once") == Merged(3, 3, ())
    assert content(tmp_path / "at once") == content(whole)


def test_nothing_is_overwritten(store: Any, tmp_path: Path) -> None:
    path = store(tmp_path / "a")
    place = tmp_path / "all" / path.relative_to(tmp_path / "a")
    place.parent.mkdir(parents=True)
    shutil.copy(store(tmp_path / "b", seed=1), place)
    shutil.copy(store(tmp_path / "b", seed=1).with_suffix(".npz"), place.with_suffix(".npz"))
    before = content(tmp_path)
    with pytest.raises(CmlBenchError, match="where another job lies: rename one of the two"):
        merge_results([tmp_path / "a"], tmp_path / "all")
    with pytest.raises(CmlBenchError, match="already: merge other folders into it"):
        merge_results([tmp_path / "all"], tmp_path / "all")
    assert content(tmp_path) == before


def test_two_runs_of_a_job_are_one(store: Any, change: Any, tmp_path: Path) -> None:
    """They differ in when and where they ran, in what they took, and in what an older version did not keep."""
    one, other = store(tmp_path / "a"), store(tmp_path / "b")
    change(other, "finished", to="2026-02-01T12:00:00Z")
    change(other, "cost", "seconds", "training", to=99.0)
    device = {"kind": "cpu", "name": "another"}
    about = {"code_version": "0.1.0+1234567", "python": "3.12", "device": device, "platform": "elsewhere"}
    change(other, "environment", to=about)
    change(other, "job", "files", to={"glove.txt": "0a"})
    change(other, "data", "train", "content", to="0b")
    assert merge_results([tmp_path / "a", tmp_path / "b"], tmp_path / "all") == Merged(1, 1, ())
    assert content(tmp_path / "all") == content(tmp_path / "a")
    assert verify_results([tmp_path / "a", tmp_path / "b"]).problems == ()
    change(one, "metrics", "summary", "last_map", to=0.25)
    assert verify_results([tmp_path / "a", tmp_path / "b"]).problems


def fail(path: Path, change: Any, error: str = "out of memory") -> None:
    for name, value in (("status", "failed"), ("error", error), ("metrics", None), ("predictions", None)):
        change(path, name, to=value)
    path.with_suffix(".npz").unlink()


@pytest.mark.parametrize("order", ["failed first", "failed last", "failed there", "done there"])
def test_a_result_wins_over_a_failure(store: Any, change: Any, tmp_path: Path, order: str) -> None:
    failed, good, into = store(tmp_path / "failed"), store(tmp_path / "good"), tmp_path / "all"
    fail(failed, change)
    (failed.with_suffix(".log")).mkdir()
    (failed.with_suffix(".log") / "events").write_text("of the failure")
    (good.with_suffix(".log")).mkdir()
    (good.with_suffix(".log") / "events").write_text("of the result")
    sources = [tmp_path / "failed", tmp_path / "good"]
    if "there" in order:
        first, second = sources if order == "failed there" else sources[::-1]
        merge_results([first], into)
        done = merge_results([second], into)
        assert done == Merged(0, 1, (), mended=int(order == "failed there"))
    else:
        assert merge_results(sources if order == "failed first" else sources[::-1], into) == Merged(1, 1, ())
    assert content(into) == content(tmp_path / "good")


def test_two_failures_are_one(store: Any, change: Any, tmp_path: Path) -> None:
    for name in "ab":
        fail(store(tmp_path / name), change, error=f"of {name}")
    assert merge_results([tmp_path / "a", tmp_path / "b"], tmp_path / "all") == Merged(1, 1, ())
    assert content(tmp_path / "all") == content(tmp_path / "a")


def test_all_conflicts_are_named(store: Any, change: Any, tmp_path: Path) -> None:
    for seed in range(3):
        store(tmp_path / "a", seed=seed)
        other = store(tmp_path / "b", seed=seed)
        if seed:
            change(other, "metrics", "summary", "last_map", to=0.25)
    with pytest.raises(CmlBenchError, match=r"another content: .*; .* \(.*\): delete one of each") as caught:
        merge_results([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert [f"seed{seed}" in str(caught.value) for seed in range(3)] == [False, True, True]
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("call", range(1, 7))
def test_a_failure_stays_where_its_result_cannot_be_copied(
    store: Any, change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    failed, into = store(tmp_path / "failed"), tmp_path / "all"
    fail(failed, change)
    for folder in ("failed", "good"):
        log = (failed if folder == "failed" else store(tmp_path / "good")).with_suffix(".log")
        log.mkdir()
        (log / "events").write_text(folder)
    merge_results([tmp_path / "failed"], into)
    before, works, calls = content(into), Path.rename, []

    def fails(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))
        return works(*args)

    monkeypatch.setattr(Path, "rename", fails)
    if call <= 5:
        with pytest.raises(CmlBenchError, match="nothing was merged"):
            merge_results([tmp_path / "good"], into)
        assert content(into) == before
    else:
        assert merge_results([tmp_path / "good"], into).mended == 1
        assert content(into) == content(tmp_path / "good")


@pytest.mark.parametrize("step", ["copy2", "rename"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_full_disk_leaves_everything_as_it_was(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, existing: bool
) -> None:
    for seed in range(3):
        store(tmp_path / "a", seed=seed)
    into = tmp_path / "new" / "all"
    if existing:
        merge_results([store(tmp_path / "b", seed=9)], into)
    before = content(tmp_path)
    owner = shutil if step == "copy2" else Path
    works = getattr(owner, step)
    calls = []

    def fails_late(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))
        return works(*args)

    monkeypatch.setattr(owner, step, fails_late)
    with pytest.raises(CmlBenchError, match=r"No space left on device.*nothing was merged"):
        merge_results([tmp_path / "a"], into)
    monkeypatch.undo()
    assert content(tmp_path) == before
    assert into.exists() == existing
    assert into.parent.exists() == existing
    assert merge_results([tmp_path / "a"], into).added == 3


def test_of_three_results_of_a_job_those_are_named_that_differ(store: Any, change: Any, tmp_path: Path) -> None:
    paths = [store(tmp_path / name) for name in "abc"]
    change(paths[2], "metrics", "summary", "last_map", to=0.25)
    frame = without_conflicts(collect([tmp_path / name for name in "abc"]))
    told = dict(zip(frame["path"], frame["error"], strict=True))
    for one in paths[:2]:
        assert str(paths[2]) in told[str(one)]
    assert "0.25 against" in told[str(paths[2])]
