"""The state of a learner survives being written and read: values, generators, references, memory."""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
import threading
from collections import OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.training.state_memory import MemoryReader
from cml_bench.training.state_nodes import UnknownStateError, Walk
from cml_bench.training.state_rebuild import Rebuild


class Holder:
    """An object with any attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def method(self) -> Holder:
        return self


class Pair(NamedTuple):
    one: Any
    two: Any


class Named(dict[str, Any]):
    """A dict with an attribute."""

    mark = 0


def carried(learnt: Holder, fresh: Holder, *, built: Holder | None = None, given: Any = None) -> Holder:
    """Return a fresh holder after it took over what another one had learnt.

    Args:
        learnt: Holds the state.
        fresh: As built.
        built: What ``learnt`` was when it was built, if it had anything then.
        given: Name to objects outside.
    """
    given = given or {}
    before = Walk({"root": learnt if built is None else built}, given)
    if built is not None:
        vars(built).update(vars(learnt))
        learnt = built
    walk = Walk({"root": learnt}, given, before)
    blocks, places = walk.memory.blocks()
    nodes = json.loads(json.dumps(walk.nodes, allow_nan=False))
    rebuilt = Rebuild(nodes, MemoryReader(blocks, json.loads(json.dumps(places))), given, Walk({"root": fresh}, given))
    assert rebuilt.value(walk.roots["root"]) is fresh
    return fresh


def through(value: Any) -> Any:
    """Return a value that came after a learner was built, as a fresh learner gets it."""
    return carried(Holder(value=value), Holder(), built=Holder()).value


def same(one: Any, two: Any) -> bool:
    """Compare by type and content, the last bit and the sign of zero included."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return math.isnan(one) == math.isnan(two) and (math.isnan(one) or one.hex() == two.hex())
    if isinstance(one, dict):
        pairs = zip(one.items(), two.items(), strict=True)
        return len(one) == len(two) and all(same(a, c) and same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, Tensor):
        equal = one.dtype == two.dtype and one.shape == two.shape and one.stride() == two.stride()
        return equal and one.requires_grad == two.requires_grad and torch.equal(one, two)
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and one.shape == two.shape and bool((one == two).all())
    return bool(one == two)


TENSORS = st.builds(
    lambda shape, dtype, seed: torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool]),
    st.integers(0, 99),
)
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.complex_numbers(allow_nan=False)
)
KEYS = st.one_of(st.text(), st.integers(), st.tuples(st.integers(), st.text()))
NESTED = st.recursive(
    st.one_of(PLAIN, TENSORS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=3),
        st.lists(inner, max_size=3).map(lambda items: deque(items, maxlen=5)),
        st.builds(Pair, inner, inner),
        st.sets(KEYS, max_size=3),
        st.frozensets(KEYS, max_size=3),
    ),
    max_leaves=12,
)


@given(NESTED)
def test_nested_data_come_back_as_they_were(value: Any) -> None:
    assert same(through(value), value)


@given(NESTED, NESTED)
def test_what_a_fresh_learner_has_already_is_filled_in_place(before: Any, after: Any) -> None:
    """The object stays, whoever else refers to it, and only its content changes."""
    learnt, fresh = Holder(part=Holder(value=before), kept=[before]), Holder(part=Holder(value=before), kept=[before])
    part, kept = fresh.part, fresh.kept
    state = Walk({"root": learnt}, {})
    learnt.part.value, learnt.kept[:] = after, [after, after]
    walk = Walk({"root": learnt}, {}, state)
    blocks, places = walk.memory.blocks()
    Rebuild(walk.nodes, MemoryReader(blocks, places), {}, Walk({"root": fresh}, {}))
    assert fresh.part is part
    assert fresh.kept is kept
    assert same(fresh.part.value, after)
    assert same(kept, [after, after])


@pytest.mark.parametrize(
    "value",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4)[::-1, ::2],
        np.array(["a", "längeres"]),
        np.empty((0, 3), dtype=np.int8),
        np.array(3.5),
        np.float64(0.1),
        np.int8(-3),
        torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
        torch.zeros(3).expand(4, 3),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.float16,
        torch.device("cpu"),
        torch.Size([2, 3]),
        Path("a/b"),
        OrderedDict(b=1, a=2),
        dict,
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_come_back_as_they_were(value: Any) -> None:
    assert same(through(value), value)


def test_containers_keep_their_class_and_attributes() -> None:
    named = Named(a=[1])
    named.mark = 3
    made = through(named)
    assert (type(made), made, made.mark) == (Named, {"a": [1]}, 3)
    counts = defaultdict(list, {"a": [1]})
    found = through(counts)
    assert (type(found), found, found.default_factory) == (defaultdict, counts, list)


def test_a_long_chain_of_objects_is_no_recursion() -> None:
    chain: Any = None
    for _ in range(5000):
        chain = [chain]
    depth, made = 0, through(chain)
    while made is not None:
        depth, made = depth + 1, made[0]
    assert depth == 5000


# -- references ------------------------------------------------------------------------------------------------------


def test_shared_and_circular_references_stay_so() -> None:
    model, ring = nn.Linear(2, 2), Holder()
    ring.itself = ring
    made = through({"model": model, "again": [model], "weight": model.weight, "ring": ring, "pair": (ring, ring)})
    assert made["again"][0] is made["model"]
    assert made["weight"] is made["model"].weight
    assert isinstance(made["weight"], nn.Parameter)
    assert made["ring"].itself is made["ring"]
    assert made["pair"] == (made["ring"], made["ring"])


def test_views_of_the_same_memory_stay_views() -> None:
    table = np.arange(6.0)
    whole = torch.zeros(4, 3)
    apart = torch.ones(5)
    made = through([whole, whole[1], whole.detach(), table, torch.from_numpy(table), apart[:2], apart[3:]])
    made[0][1, 2] = 7
    assert made[1].tolist() == [0, 0, 7]
    assert made[2][1, 2] == 7
    made[3][4] = -1
    assert made[4][4] == -1
    # Two parts of a table are stored as two parts, without what lies between them.
    assert made[5].untyped_storage().data_ptr() != made[6].untyped_storage().data_ptr()


def test_parameters_keep_identity_gradient_and_optimiser() -> None:
    def build() -> Holder:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        return Holder(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=0.1))

    def step(holder: Holder, seed: int) -> None:
        holder.optimizer.zero_grad()
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
        holder.model(x).square().mean().backward()
        holder.optimizer.step()

    learnt, fresh = build(), build()
    before = Walk({"root": learnt}, {})
    step(learnt, 1)
    learnt.model[2].weight.requires_grad_(False)
    walk = Walk({"root": learnt}, {}, before)
    blocks, places = walk.memory.blocks()
    weight = fresh.model[0].weight
    Rebuild(walk.nodes, MemoryReader(blocks, places), {}, Walk({"root": fresh}, {}))
    assert fresh.model[0].weight is weight
    assert fresh.optimizer.param_groups[0]["params"][0] is weight
    assert torch.equal(weight.grad, learnt.model[0].weight.grad)
    assert not fresh.model[2].weight.requires_grad
    for seed in (2, 3):
        step(learnt, seed)
        step(fresh, seed)
    assert all(map(torch.equal, learnt.model.state_dict().values(), fresh.model.state_dict().values()))


def test_a_copy_of_the_model_is_a_model_of_its_own() -> None:
    import copy

    def build() -> Holder:
        return Holder(model=nn.Sequential(nn.Linear(2, 2), nn.ReLU()), teacher=None)

    learnt, fresh = build(), build()
    before = Walk({"root": learnt}, {})
    learnt.teacher = copy.deepcopy(learnt.model).eval().requires_grad_(False)
    learnt.model.append(nn.Linear(2, 3))
    walk = Walk({"root": learnt}, {}, before)
    blocks, places = walk.memory.blocks()
    Rebuild(walk.nodes, MemoryReader(blocks, places), {}, Walk({"root": fresh}, {}))
    assert fresh.teacher is not fresh.model
    assert (len(fresh.teacher), len(fresh.model)) == (2, 3)
    assert not fresh.teacher.training
    x = torch.ones(1, 2)
    assert torch.equal(fresh.teacher(x), learnt.teacher(x))
    assert torch.equal(fresh.model(x), learnt.model(x))


def test_functions_are_those_of_the_fresh_learner() -> None:
    def build() -> Holder:
        count = [0]

        def counting() -> int:
            count[0] += 1
            return count[0]

        holder = Holder(function=counting, measure=torch.relu, half=functools.partial(pow, 2))
        holder.bound = holder.method
        return holder

    learnt, fresh = build(), build()
    before = Walk({"root": learnt}, {})
    learnt.function()
    learnt.later = learnt.method
    walk = Walk({"root": learnt}, {}, before)
    blocks, places = walk.memory.blocks()
    own = fresh.function
    Rebuild(walk.nodes, MemoryReader(blocks, places), {}, Walk({"root": fresh}, {}))
    assert fresh.function is own
    # What a function closes over is state.
    assert fresh.function() == 2
    assert fresh.measure is torch.relu
    assert fresh.bound() is fresh
    assert fresh.later() is fresh
    assert fresh.half(3) == 8


def test_what_is_given_is_neither_stored_nor_touched() -> None:
    table = torch.randn(100)
    learnt = carried(Holder(table=table), Holder(table=table), given={"table": table})
    assert learnt.table is table


# -- generators ------------------------------------------------------------------------------------------------------


def drawn(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return torch.randn(5, generator=generator).tolist()
    return (
        [generator.gauss(0, 1) for _ in range(5)]
        if isinstance(generator, random.Random)
        else (generator.normal(size=5).tolist())
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.Generator().manual_seed(3),
        lambda: np.random.default_rng(3),
        lambda: np.random.Generator(np.random.MT19937(3)),
        lambda: np.random.RandomState(3),
        lambda: random.Random(3),
    ],
)
def test_generators_go_on_where_they_were(make: Any) -> None:
    there, new = make(), make()
    learnt, fresh = Holder(generator=there), Holder(generator=make())
    before = Walk({"root": learnt}, {})
    own = fresh.generator
    drawn(there)
    drawn(new)
    learnt.new = new
    walk = Walk({"root": learnt}, {}, before)
    blocks, places = walk.memory.blocks()
    Rebuild(walk.nodes, MemoryReader(blocks, places), {}, Walk({"root": fresh}, {}))
    assert fresh.generator is own
    assert drawn(fresh.generator) == drawn(there)
    assert drawn(fresh.new) == drawn(new)


# -- what cannot be stored -------------------------------------------------------------------------------------------


class Slots:
    __slots__ = ("a",)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (itertools.count(), r"root\.value\[1\]\['a'\] is of the kind itertools:count, which a checkpoint cannot hold"),
        ((x for x in "ab"), "builtins:generator"),
        (threading.Lock(), "_thread:lock"),
        (Slots(), "Slots"),
        (np.array([{}]), "numpy:ndarray"),
        (torch.ones(2, requires_grad=True) * 2, r"is a tensor with a graph.*keep it detached"),
        (torch.eye(2).to_sparse(), "torch:Tensor"),
        (torch.empty(2, device="meta"), "torch:Tensor"),
        (lambda: None, "came after the learner was built"),
        (json, "came after the learner was built"),
        (threading.Thread(), "class threading:Thread, which a freshly built learner does not know"),
    ],
)
def test_what_is_not_known_is_refused_by_name(value: Any, sentence: str) -> None:
    with pytest.raises(UnknownStateError, match=sentence):
        through([0, {"a": value}])


def test_a_stateful_thing_is_refused_even_if_a_fresh_learner_has_one() -> None:
    counter = Holder(count=itertools.count())
    with pytest.raises(UnknownStateError, match=r"root\.count"):
        carried(counter, Holder(count=itertools.count()))


def test_another_learner_is_refused() -> None:
    learnt = Holder(part=Holder(a=1))
    walk = Walk({"root": learnt}, {}, Walk({"root": learnt}, {}))
    for fresh in (Holder(), Holder(part=nn.Linear(1, 1))):
        with pytest.raises(CmlBenchError, match=r"root\.part"):
            Rebuild(walk.nodes, MemoryReader({}, []), {}, Walk({"root": fresh}, {}))
