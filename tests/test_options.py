"""Options: text to typed arguments and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cml_bench.errors import CmlBenchError
from cml_bench.options import arguments, as_text, convert, fold, parse_pairs, split_words


@dataclass(frozen=True)
class Target:
    """Every kind of argument that plug-ins declare."""

    count: int = 1
    rate: float = 0.5
    flag: bool = False
    name: str = ""
    size: int | None = None
    mode: Literal["fast", "slow"] = "fast"
    path: Path | None = None
    groups: tuple[tuple[str, ...], ...] | None = None
    pairs: tuple[tuple[str, str | int | float | bool | tuple[int, ...]], ...] = ()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("count=3", 3),
        ("rate=1e-3", 1e-3),
        ("rate=2", 2.0),
        ("flag=true", True),
        ("flag=False", False),
        ("name=a=b", "a=b"),
        ("name=", ""),
        ("name=none", "none"),
        ("size=none", None),
        ("size=4", 4),
        ("mode=slow", "slow"),
        ("path=a/b", Path("a/b")),
        ("path=None", None),
        ('groups=[["a","b"],["c"]]', (("a", "b"), ("c",))),
        ('pairs=[["width",3],["sizes",[1,2]]]', (("width", 3), ("sizes", (1, 2)))),
    ],
)
def test_values_become_what_the_class_declares(option: str, value: Any) -> None:
    typed = convert(Target, dict(parse_pairs([option])), owner="target")
    name = option.partition("=")[0]
    assert typed == {name: value}
    assert type(typed[name]) is type(value)
    assert getattr(Target(**typed), name) == value


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("cuont=3", "target has no option 'cuont': did you mean 'count'?"),
        ("count=3.5", "option count='3.5' of target cannot be used"),
        ("count=many", "option count='many' of target cannot be used"),
        ("count=", "option count='' of target cannot be used"),
        ("count=none", "option count='none' of target cannot be used"),
        ("flag=maybe", "option flag='maybe' of target cannot be used"),
        ("mode=medium", "option mode='medium' of target cannot be used"),
        ("groups=[[", "option groups='[[' of target is no JSON list or object"),
        ("groups=[[a,b],[c]]", 'names are quoted, as in [["a", "b"], ["c"]]'),
        ("rate=fast", "option rate='fast' of target cannot be used: input should be a valid number"),
    ],
)
def test_values_of_another_type_end_in_one_sentence(option: str, sentence: str) -> None:
    with pytest.raises(CmlBenchError) as caught:
        convert(Target, dict(parse_pairs([option])), owner="target")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_functions_and_classes_without_annotations() -> None:
    def factory(model: object, size: int, rate: float = 0.1, **rest: object) -> None: ...

    class Plain:
        def __init__(self, alpha, beta=2):  # type: ignore[no-untyped-def]
            pass

    assert set(arguments(factory, skip=("model",))) == {"size", "rate"}
    assert convert(factory, {"size": "3"}, owner="f", skip=("model",)) == {"size": 3}
    assert convert(Plain, {"alpha": "0.5", "beta": "word"}, owner="p", skip=("self",)) == {"alpha": 0.5, "beta": "word"}
    with pytest.raises(CmlBenchError, match="f needs option 'size': add size=VALUE"):
        convert(factory, {}, owner="f", skip=("model",))
    with pytest.raises(CmlBenchError, match="f has no option 'model'"):
        convert(factory, {"model": "x", "size": "1"}, owner="f", skip=("model",))


def test_pairs_are_sorted_and_unique() -> None:
    assert parse_pairs(["b=1", "a=x=y"]) == (("a", "x=y"), ("b", "1"))
    for words, sentence in (
        (["a"], "'a' is no option: write key=value"),
        (["=1"], "'=1' is no option"),
        (["a=1", "a=2"], "option 'a' is given twice ('1' and '2')"),
    ):
        with pytest.raises(CmlBenchError) as caught:
            parse_pairs(words)
        assert sentence in str(caught.value)


def test_words_keep_quoted_blanks() -> None:
    assert split_words("er  a='b c' d=\"e f\"") == ["er", "a=b c", "d=e f"]
    with pytest.raises(CmlBenchError, match="close the quotes"):
        split_words("er a='b")


VALUES = {
    "count": st.integers(-(10**9), 10**9),
    "rate": st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.booleans(),
    "size": st.none() | st.integers(0, 99),
    "mode": st.sampled_from(["fast", "slow"]),
    "groups": st.none() | st.lists(st.lists(st.text(max_size=3), max_size=2).map(tuple), max_size=3).map(tuple),
}


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_text_is_the_inverse_of_typing(values: dict[str, Any]) -> None:
    texts = {name: as_text(value) for name, value in values.items()}
    assert convert(Target, texts, owner="target") == values


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("bce", ["bce"]),
        ("clml+asl", ["clml", "asl"]),
        ("clml+an+bce", ["clml", "an", "bce"]),
        ("an+./x.py:C", ["an", "./x.py:C"]),
        ("./x.py:C+bce", ["./x.py:C", "bce"]),
        ("./x.py:C+/y.py:D+an+mine.losses:E", ["./x.py:C", "/y.py:D", "an", "mine.losses:E"]),
        ("./a+b/x.py:C+/c+d/y.py:D", ["./a+b/x.py:C", "/c+d/y.py:D"]),
        ("./a+b/x.py:C", ["./a+b/x.py:C"]),
    ],
)
def test_what_is_put_on_another_is_cut_off_behind_its_name(text: str, parts: list[str]) -> None:
    found, rest = [], text
    while rest:
        name, options = fold(rest, {})
        found.append(name)
        rest = options.get("base", "")
    assert found == parts
