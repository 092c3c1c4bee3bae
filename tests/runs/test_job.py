"""Jobs, methods and their texts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cml_bench import api
from cml_bench.errors import CmlBenchError
from cml_bench.registry import _module_digest
from cml_bench.runs.job import Job, make_jobs, parse_class_orders, parse_seeds, seeds_text
from cml_bench.runs.method import parse_method
from cml_bench.runs.plan import plan


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("1", [0]), ("3", [0, 1, 2]), ("0,4,7", [0, 4, 7]), ("5,", [5]), (" 2 , 1 ", [2, 1]), ("0,", [0])],
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


def test_a_methods_own_setting_wins(small_jobs: Any) -> None:
    """The method's name says it, in every table."""
    (job,) = small_jobs(["naive lr=0.1"], lr=0.5)
    assert plan(job).training.lr == 0.1


@pytest.mark.parametrize("text", ["0", "-1", "", ",", "a", "1,b", "1.5", "3,-1"])
def test_bad_seeds(text: str) -> None:
    with pytest.raises(CmlBenchError, match=f"seeds {text!r}"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("text", "orders"),
    [
        ("1", ["default"]),
        ("3", ["default", "random:1", "random:2"]),
        ("default, frequency,random:5", ["default", "frequency", "random:5"]),
        ("alphabetical", ["alphabetical"]),
    ],
)
def test_class_orders(text: str, orders: list[str]) -> None:
    assert parse_class_orders(text) == orders


@pytest.mark.parametrize("text", ["0", "", ","])
def test_bad_class_orders(text: str) -> None:
    with pytest.raises(CmlBenchError, match="class order"):
        parse_class_orders(text)


def test_jobs_are_the_product_seeds_slowest() -> None:
    jobs = make_jobs(["digits", "split_coco"], ["naive", "er"], ["default", "random:1"], [0, 1], ["y=2", "x=1"])
    expected = [
        (seed, order, benchmark, method)
        for seed in (0, 1)
        for order in ("default", "random:1")
        for benchmark in ("digits", "split_coco")
        for method in ("naive", "er")
    ]
    assert [(job.seed, job.class_order, job.benchmark, job.method) for job in jobs] == expected
    assert all(job.options == (("x", "1"), ("y", "2")) for job in jobs)
    assert len({job.key for job in jobs}) == len({job.slug for job in jobs}) == 16


def test_what_is_listed_twice_is_refused() -> None:
    for seeds, orders, copies in (([1, 1], ["default"], 1), ([0], ["x", "x"], 1), ([0], ["x"], 2)):
        with pytest.raises(
            CmlBenchError, match=r"(seed 1|class order 'x'|benchmark 'digits') is listed twice: list it once"
        ):
            make_jobs(["digits"] * copies, ["naive"], orders, seeds)
    with pytest.raises(CmlBenchError, match="'er head=dlfl memory_size=5' is listed twice"):
        make_jobs(["digits"], ["er memory_size=5 head=dlfl", "er  head=dlfl memory_size=5"], ["default"], [0])


def test_counts_may_be_numbers_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "run_jobs", lambda jobs, *_, **__: jobs)
    plain: Any = api.run("digits", "naive", seeds=2, class_orders=2)
    assert api.run("digits", "naive", seeds=np.int64(2), class_orders=np.int64(2)) == plain
    assert len(plain) == 4
    with pytest.raises(CmlBenchError, match=r"seeds '2\.0' cannot be read"):
        api.run("digits", "naive", seeds=2.0)  # type: ignore[arg-type]


def test_the_key_is_the_identity_of_a_job() -> None:
    job = Job("digits", "naive", "default", 0, (("epochs", "1"),))
    assert job.key == Job("digits", "naive", "default", 0, (("epochs", "1"),)).key
    others = [
        Job("digits", "naive", "default", 1, (("epochs", "1"),)),
        Job("digits", "naive", "random:1", 0, (("epochs", "1"),)),
        Job("digits", "er", "default", 0, (("epochs", "1"),)),
        Job("split_coco", "naive", "default", 0, (("epochs", "1"),)),
        Job("digits", "naive", "default", 0, (("epochs", "2"),)),
        Job("digits", "naive", "default", 0),
    ]
    assert len({job.key, *(other.key for other in others)}) == 7


CODE = "class Mine: ...\n"


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("naive", {"regime": "{file}:Mine"}),
        ("naive", {"regime": "long_tail + {file}:Mine rate=0.4"}),
        ("naive", {"regime": 'missing_positives base="{file}:Mine rate=1"'}),
        ("naive", {"regime": "{module}:Mine"}),
        ("naive loss=assume_negative+{file}:Mine", {}),
        ("naive loss=assume_negative loss.base='asl+{file}:Mine rate=1'", {}),
        ("er rule={file}:Mine", {}),
        ("naive head=linear head.body={module}:Mine", {}),
        ("{module}:Mine", {}),
        ("naive wrap={file}:Mine", {}),
    ],
)
def test_code_that_is_named_anywhere_is_part_of_the_key(
    method: str, options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edited file is another job, wherever in its options the file is named."""
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / f"named_{len(options)}_here.py"
    names = {"file": str(path), "module": path.stem}
    pairs = tuple((key, value.format(**names)) for key, value in options.items())
    job, keys = Job("digits", parse_method(method.format(**names)).spec, options=pairs), []
    for code in (CODE, CODE, CODE + "# edited\n"):
        path.write_text(code)
        # A module is looked at once a process.
        _module_digest.cache_clear()
        keys.append(job.key)
    assert keys[0] == keys[1] != keys[2]
    assert hashlib.sha256(CODE.encode()).hexdigest() not in job.plug_in_files
    assert hashlib.sha256(path.read_bytes()).hexdigest() in job.plug_in_files


def test_what_names_no_code_changes_no_key() -> None:
    """Results of earlier versions keep theirs."""
    pairs = (("class_order", "random:5"), ("device", "cuda:0"), ("regime", "long_tail + missing_positives rate=0.4"))
    job = Job("digits", "er head=dlfl head.text=hash:512 loss=assume_negative+asl memory_size=20/label", options=pairs)
    assert job.plug_in_files == [None, None]


@given(st.text(min_size=1, max_size=200).filter(lambda text: text.split() and "=" not in text and '"' not in text))
def test_slugs_stay_inside_the_results_folder(text: str) -> None:
    job = Job("../" + text, "naive", text, 0)
    path = Path("/results") / job.slug
    assert len(path.parts) == 4
    assert ".." not in path.parts
    assert len(path.name) < 200
    assert path.name.endswith(job.key)


# -- methods ---------------------------------------------------------------------------------------------------------


def test_a_method_is_read_and_written_canonically() -> None:
    method = parse_method("er memory_size=500 loss=asl head.steps=2 lr=0.1 loss.gamma_neg=2 head=dlfl")
    assert (method.strategy, method.head, method.loss) == ("er", "dlfl", "asl")
    assert method.options == (("lr", "0.1"), ("memory_size", "500"))
    assert method.head_options == (("steps", "2"),)
    assert method.loss_options == (("gamma_neg", "2"),)
    assert method.spec == "er head=dlfl loss=asl head.steps=2 loss.gamma_neg=2 lr=0.1 memory_size=500"


def test_hyphens_are_accepted_in_names_and_kept_in_paths() -> None:
    assert parse_method("my-strategy head=my-head loss=assume-negative").spec == (
        "my_strategy head=my_head loss=assume_negative"
    )
    method = parse_method("./my-file.py:Mine head=./my-head.py:Head loss=a-b.c:Loss")
    assert (method.strategy, method.head, method.loss) == ("./my-file.py:Mine", "./my-head.py:Head", "a-b.c:Loss")


@pytest.mark.parametrize("typed", ["mine.py:Mine", "./mine.py:Mine", ".//mine.py:Mine", "././mine.py:Mine"])
def test_a_file_is_one_method_however_its_path_is_typed(typed: str) -> None:
    assert parse_method(typed) == parse_method("./mine.py:Mine")
    assert parse_method(f"er head={typed} loss={typed}") == parse_method("er head=./mine.py:Mine loss=./mine.py:Mine")


@pytest.mark.parametrize("name", ["../mine.py:Mine", "/there/mine.py:Mine", "package.mine:Mine"])
def test_what_is_elsewhere_keeps_its_name(name: str) -> None:
    assert parse_method(name).strategy == name


VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8) | st.just("two words")
KEYS = st.from_regex(r"[a-z][a-z_]{0,6}", fullmatch=True)


@given(st.dictionaries(KEYS | KEYS.map("head.{}".format) | KEYS.map("loss.{}".format), VALUES, max_size=5))
def test_the_canonical_text_reads_back_to_the_same_method(options: dict[str, str]) -> None:
    import shlex

    method = parse_method(" ".join(["er", *(f"{key}={shlex.quote(value)}" for key, value in options.items())]))
    assert parse_method(method.spec) == method
    own = {key: value for key, value in options.items() if "." not in key and key not in ("head", "loss")}
    assert dict(method.options) == own


@pytest.mark.parametrize("text", ["", "   ", "memory_size=5", "er memory_size", "er =5", "er a=1 a=2", "er a='1"])
def test_bad_methods(text: str) -> None:
    with pytest.raises(CmlBenchError):
        parse_method(text)


def test_seeds_of_a_table_with_gaps_are_written_as_numbers() -> None:
    assert seeds_text([1.0, 2.0, 2.0]) == "1,2"  # type: ignore[list-item]
    assert list(parse_seeds(seeds_text([7.0]))) == [7]  # type: ignore[list-item]


def test_the_file_of_a_base_is_part_of_the_key(tmp_path: Path) -> None:
    path, keys = tmp_path / "mine.py", set()
    for text in ("x = 1\n", "x = 2\n"):
        path.write_text(text)
        keys.update(
            Job("digits", f"naive loss=clml{base}").key for base in (f" loss.base={path}:Mine", f"+an+{path}:M")
        )
    assert len(keys) == 4
