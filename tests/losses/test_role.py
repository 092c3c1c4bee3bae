"""ROLE: the published loss with its gradients, and estimates that belong to images and labels for good."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED, widen
from cml_bench.losses.entry_store import EntryStore, keys_of
from cml_bench.losses.role import ROLE
from cml_bench.models.heads.head import HeadOutput
from cml_bench.registry import load


def prepared(labels: Tensor, tiny_dataset: Any, k: float | None = 1.5, seed: int = 0) -> ROLE:
    torch.manual_seed(seed)
    criterion = ROLE(k)
    criterion.start_experience(tiny_dataset(range(len(labels)), labels))
    return criterion


def estimates(criterion: ROLE, ids: list[int], width: int) -> Tensor:
    """Estimated logits, NaN where there is none, looked up without the criterion's own way."""
    everything = torch.cat([block.detach() for block in criterion.blocks])
    place = dict(zip(criterion.places.keys.tolist(), criterion.places.numbers.tolist(), strict=True))
    keys = keys_of(torch.tensor(ids), width).tolist()
    return torch.tensor([[float(everything[place[key]]) if key in place else math.nan for key in row] for row in keys])


def judge(criterion: ROLE, logits: Tensor, labels: Tensor, ids: list[int] | None = None) -> Tensor:
    loss: Tensor = criterion(HeadOutput(logits, logits), labels, torch.tensor(ids or list(range(len(logits)))))
    return loss


# -- where numbers are found -----------------------------------------------------------------------------------------


@given(
    data=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6), st.integers(0, 99)), max_size=30),
    ids=st.lists(st.integers(0, 45), min_size=1, max_size=6),
)
def test_entries_are_found_as_in_a_dict(data: list[tuple[int, int, int]], ids: list[int]) -> None:
    store, expected = EntryStore(-1), {}
    for start in range(0, len(data), 7):
        new = {(i, c): n for i, c, n in data[start : start + 7] if (i, c) not in expected}
        expected.update(new)
        keys = [int(keys_of(torch.tensor([i]), c + 1)[0, c]) for i, c in new]
        store.put(torch.tensor(keys, dtype=torch.int64), torch.tensor(list(new.values()), dtype=torch.int64))
    found = store.find(keys_of(torch.tensor(ids), 7))
    assert found.tolist() == [[expected.get((i, c), -1) for c in range(7)] for i in ids]
    assert len(store) == len(expected)
    assert store.sample_ids.tolist() == sorted({i for i, _ in expected})


# -- the loss --------------------------------------------------------------------------------------------------------

SINGLE = torch.tensor([[1, -1, -1, -1], [-1, -1, 1, -1], [-1, 1, -1, -1]], dtype=torch.int8)


def test_single_positives_cost_what_is_published(tiny_dataset: Any) -> None:
    """In NumPy, with the epsilon of the published logarithm."""
    criterion = prepared(SINGLE, tiny_dataset)
    z = 2 * torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p, g = z.sigmoid().numpy(), estimates(criterion, [0, 1, 2], 4).double().sigmoid().numpy()
    s = SINGLE.numpy()

    def nl(x: Any) -> Any:
        return -np.log(x + 1e-5)

    marked = np.where(s == 1, nl(p) + nl(g), 0)
    mutual = g * nl(p) + (1 - g) * nl(1 - p) + p * nl(g) + (1 - p) * nl(1 - g)
    counts = sum((x.sum(axis=1).mean() - 1.5) ** 2 for x in (p, g)) / 4**2
    assert float(judge(criterion, z, SINGLE).detach()) == pytest.approx(
        0.5 * ((marked + mutual).mean() + counts), rel=1e-3
    )


def test_neither_side_moves_the_other(tiny_dataset: Any) -> None:
    """Gradients of classifier and estimates by autograd on each side's own loss, the other a constant."""
    labels = torch.tensor([[1, -1, -1, -2], [-1, 0, 1, -1], [-2, -1, 0, -1]], dtype=torch.int8)
    criterion = prepared(labels, tiny_dataset)
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    judge(criterion, z, labels).backward()
    theta = estimates(criterion, [0, 1, 2], 4).nan_to_num().requires_grad_()
    asked, known = labels != OUT_OF_SCOPE, labels >= 0
    for mine, other, gradient in ((z, theta, z.grad), (theta, z, None)):
        q, target = mine.sigmoid(), other.detach().sigmoid()
        own = -torch.where(labels == PRESENT, q.log(), (1 - q).log())[known].sum()
        mutual = -(target * q.log() + (1 - target) * (1 - q).log())[asked].sum()
        excess = (q[asked].sum() - 1.5 * 3) / asked.sum()
        (expected,) = torch.autograd.grad(((own + mutual) / asked.sum() + excess**2) / 2, mine)
        if gradient is None:
            (block,) = criterion.blocks
            assert block.grad is not None
            gradient = torch.zeros(3, 4)
            gradient[asked] = block.grad  # row by row, as they were added
        torch.testing.assert_close(gradient, expected)


def test_first_estimates(tiny_dataset: Any) -> None:
    labels = torch.full((150, 40), UNMARKED, dtype=torch.int8)
    labels[:, 0], labels[:, 1], labels[:, 2] = PRESENT, ABSENT, OUT_OF_SCOPE
    theta = estimates(prepared(labels, tiny_dataset), list(range(150)), 40)
    torch.testing.assert_close(theta[:, 0].sigmoid(), torch.full((150,), 0.995))
    torch.testing.assert_close(theta[:, 1].sigmoid(), torch.full((150,), 0.005))
    assert theta[:, 2].isnan().all()
    bound = math.log(0.6 / 0.4)
    assert stats.kstest(theta[:, 3:].flatten().numpy(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
    other = estimates(prepared(labels, tiny_dataset, seed=1), list(range(150)), 40)
    assert not torch.equal(theta.nan_to_num(), other.nan_to_num())


# -- in a stream -----------------------------------------------------------------------------------------------------


def test_estimates_stay_with_image_and_label(tiny_dataset: Any) -> None:
    first = torch.tensor([[1, -1], [-1, 1], [-1, 1]], dtype=torch.int8)
    criterion = prepared(first, tiny_dataset)
    (old,) = criterion.blocks
    before, theta = old.detach().clone(), estimates(criterion, [0, 1, 2], 2)
    # Images 2 and 7 with two more labels; image 2 is asked about label 0 once again.
    second = torch.tensor([[-1, -2, 1, -1], [-2, -2, -1, 1]], dtype=torch.int8)
    criterion.start_experience(tiny_dataset([2, 7], second, first_new=2))
    assert criterion.blocks[0] is old
    assert torch.equal(old, before)
    assert [len(block) for block in criterion.blocks] == [6, 4]
    now = estimates(criterion, [0, 1, 2, 7], 4)
    assert torch.equal(now[:3, :2], theta)
    assert now.isnan().tolist() == [[False, False, True, True]] * 2 + [[False] * 4, [True, True, False, False]]
    # The same experience again, a later chunk of it say, adds nothing.
    criterion.start_experience(tiny_dataset([7, 2], second.flip(0), first_new=2))
    assert len(criterion.blocks) == 2
    # A replayed row finds its own, and a block that the batch needs nothing of gets no gradient.
    z = torch.zeros(1, 4)
    judge(criterion, z, widen(first[1:2], 4), [1]).backward()
    assert criterion.blocks[0].grad is not None
    assert criterion.blocks[0].grad.nonzero().flatten().tolist() == [2, 3]
    assert criterion.blocks[1].grad is None


def test_where_there_is_no_estimate_a_known_label_counts_by_itself(tiny_dataset: Any) -> None:
    criterion = prepared(SINGLE, tiny_dataset, k=None)
    z = torch.zeros(1, 2)
    # Half of log 2 for each known one of the two labels asked for, and the classifier's half of ((1 - marked) / 2)^2.
    for labels, expected in (([1, -1], math.log(2) / 2), ([1, 1], math.log(2) + 0.25)):
        stranger = torch.tensor([labels], dtype=torch.int8)
        assert float(judge(criterion, z, stranger, [50]).detach()) == pytest.approx(expected / 2)


class Watch(SupervisedPlugin):
    """Keeps the blocks at the end of each experience, and what the optimiser does with them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[list[Tensor]] = []
        self.groups: list[tuple[float, float]] = []

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        blocks = list(strategy._criterion.blocks)
        self.blocks.append([block.detach().clone() for block in blocks])
        own = {id(block) for block in blocks}
        groups = [group for group in strategy.optimizer.param_groups if own & {id(p) for p in group["params"]}]
        assert sum(len(group["params"]) for group in groups) == len(own)
        self.groups = [(group["lr"], group["weight_decay"]) for group in groups]


@pytest.mark.parametrize(("method", "options"), [("naive", {}), ("er", {"memory_size": 20})])
def test_estimates_are_trained_while_their_images_are(
    tiny_scenario: Any, learn: Any, method: str, options: dict[str, int]
) -> None:
    watch = Watch()
    scenario = tiny_scenario(regime="single_positive")
    criterion = ROLE(k=1.5)
    settings: dict[str, Any] = {"epochs": 3, "lr": 0.01, "weight_decay": 0.1}
    learn(load("strategies", method)(**options), scenario, criterion=criterion, extra=[watch], **settings)
    sizes = [2 * len(experience.dataset) for experience in scenario.train_stream]
    assert [len(block) for block in criterion.blocks] == sizes
    assert watch.groups == [(pytest.approx(0.1), 0.0)]
    for t in range(1, 3):
        for old, new in zip(watch.blocks[t - 1], watch.blocks[t][:t], strict=True):
            # Images come back, but are not asked about old labels again.
            assert torch.equal(old, new) == (method == "naive")


def test_later_labels_of_earlier_images_get_estimates_where_they_are_annotated(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario(regime="single_positive", annotation="all")
    criterion = ROLE(k=1.5)
    learn(load("strategies", "er")(memory_size=20), scenario, criterion=criterion)
    seen: set[int] = set()
    for experience in scenario.train_stream:
        seen |= set(experience.dataset.sample_ids.data.tolist())
    theta = estimates(criterion, sorted(seen), 6)
    assert theta.shape == (len(seen), 6)
    assert not theta.isnan().any()
    assert len(criterion.places) == theta.numel()


def test_classifier_and_estimates_come_to_agree(tiny_scenario: Any, learn: Any) -> None:
    """Whatever is open: both sides are drawn to each other, and to the expected count together."""
    scenario = tiny_scenario(n=120, increment=6, regime="single_positive")
    criterion = ROLE(k=2.0)
    learnt = learn(load("strategies", "naive")(), scenario, epochs=60, lr=0.02, optimizer="adam", criterion=criterion)
    dataset = scenario.train_stream[0].dataset
    p = learnt.model(dataset.batch(torch.arange(len(dataset)))[0]).detach().sigmoid()
    g = estimates(criterion, dataset.sample_ids.data.tolist(), 6).sigmoid()
    open_ = dataset.labels.data == UNMARKED
    assert float((p - g)[open_].abs().mean()) < 0.1
    assert float(g.sum(dim=1).mean()) == pytest.approx(2.0, abs=0.3)
