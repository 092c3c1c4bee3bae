"""BiC: the fit against scikit-learn, what is kept out of training, the loss, and that no label's AP moves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from cml_bench.memory.budget import split_size
from cml_bench.metrics.ranking import average_precision
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.reading import read_logits
from cml_bench.registry import load

BiC, Naive = load("strategies", "bic"), load("strategies", "naive")
fit_correction, CorrectedModel = (
    load("strategies", f"cml_bench.strategies.bic:{name}") for name in ("fit_correction", "CorrectedModel")
)


def same(one: Any, other: Any) -> bool:
    first, second = one.state(), other.state()
    shared = [name for name in second if not name.startswith("corrections")]
    return all(torch.equal(first[name], second[name]) for name in shared)


# -- the fit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_the_fit_is_a_logistic_regression(seed: int) -> None:
    """Of the known entries alone, on one input, their logit."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(200, 3)) * 2
    truth = rng.random((200, 3)) < 1 / (1 + np.exp(-(0.7 * logits - 0.8)))
    labels = np.where(rng.random((200, 3)) < 0.3, rng.integers(-2, 0, (200, 3)), truth)
    known = labels >= 0
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[known][:, None], labels[known])
    alpha, beta = fit_correction(torch.tensor(logits), torch.tensor(labels, dtype=torch.int8))
    assert alpha == pytest.approx(float(model.coef_[0, 0]), rel=1e-4)
    assert beta == pytest.approx(float(model.intercept_[0]), rel=1e-4)
    assert 0.4 < alpha < 1.1


def test_nothing_to_fit() -> None:
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    for state in (1, 0, -1, -2):
        assert fit_correction(logits, torch.full((4, 2), state, dtype=torch.int8)) == (1.0, 0.0)
    assert fit_correction(logits[:0], torch.empty(0, 2, dtype=torch.int8)) == (1.0, 0.0)


def test_separable_labels_have_a_finite_correction() -> None:
    alpha, beta = fit_correction(torch.tensor([[-1.0], [1.0], [2.0]]), torch.tensor([[0], [1], [1]], dtype=torch.int8))
    assert alpha == 10.0
    assert math.isfinite(beta)


@settings(max_examples=60)
@given(
    alpha=st.floats(0.1, 10),
    beta=st.floats(-20, 20),
    seed=st.integers(0, 999),
    ties=st.booleans(),
    n=st.integers(2, 40),
)
def test_no_positive_alpha_changes_an_average_precision(
    alpha: float, beta: float, seed: int, ties: bool, n: int
) -> None:
    rng = np.random.default_rng(seed)
    # In steps that rounding does not close: on paper no two logits come together.
    logits = rng.normal(size=(n, 3)).round(1 if ties else 6)
    truth = np.concatenate([np.ones((1, 3)), rng.random((n - 1, 3)) < 0.4]).astype(np.int8)
    moved = alpha * logits + beta
    assert np.array_equal(average_precision(logits, truth), average_precision(moved, truth))
    for label in range(3):
        expected = average_precision_score(truth[:, label], logits[:, label])
        assert average_precision_score(truth[:, label], moved[:, label]) == pytest.approx(expected, abs=1e-12)


def test_what_it_does_change() -> None:
    """Decisions of a threshold, and precision over all entries of several labels at once (overall AP)."""
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(size=(60, 4)), (rng.random((60, 4)) < 0.3).astype(np.int8)
    moved = logits.copy()
    moved[:, 2:] = 0.5 * moved[:, 2:] - 1.0
    assert (moved > 0).sum() < (logits > 0).sum()
    overall = [average_precision_score(truth.ravel(), scores.ravel()) for scores in (logits, moved)]
    assert abs(overall[0] - overall[1]) > 1e-3
    assert np.array_equal(average_precision(logits, truth), average_precision(moved, truth))


# -- whole runs ------------------------------------------------------------------------------------------------------


class Trained(SupervisedPlugin):
    """Notes the images that are trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[int] = set()

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.ids.update(strategy.mb_sample_id.tolist())


@pytest.mark.parametrize("chunk", [None, 6])
def test_what_is_fitted_to_is_never_trained_on(tiny_scenario: Any, learn: Any, chunk: int | None) -> None:
    trained, options = Trained(), {"online_chunk": chunk} if chunk else {}
    learnt = learn(BiC(held_out=0.3, memory_size=20), tiny_scenario(n=80, **options), extra=[trained], epochs=1)
    replay, correction = learnt.plugins
    kept_out = set(correction.held_out.buffer.sample_ids.data.tolist())
    assert kept_out
    assert not kept_out & trained.ids
    assert set(replay.buffer.buffer.sample_ids.data.tolist()) <= trained.ids
    assert len(kept_out) <= 6
    assert len(replay.buffer.buffer) <= 14
    everything = {i for e in tiny_scenario(n=80).train_stream for i in e.dataset.sample_ids.data.tolist()}
    assert 0.15 < 1 - len(trained.ids) / len(everything) < 0.45
    assert 3 <= len(learnt.model.corrections) == len(learnt.model.sizes)


def test_the_correction_is_the_fit_on_held_out_images(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario(n=120)
    learnt = learn(BiC(held_out=0.4, memory_size=200), scenario)
    alpha, beta = learnt.model.corrections[-1].tolist()
    assert (alpha, beta) != (1.0, 0.0)
    assert learnt.model.corrections[0].tolist() == [1.0, 0.0]
    stored = learnt.plugins[1].held_out.buffer
    with torch.no_grad():
        learnt.model.corrections[-1].copy_(torch.tensor([1.0, 0.0]))
        raw = read_logits(learnt.model, stored, 64, "cpu")[:, 4:]
        known = stored.labels.data[:, 4:] >= 0
        z, y = raw[known].numpy()[:, None], (stored.labels.data[:, 4:][known] == 1).numpy()
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(z, y)
    # Outside, the labels can be separated, and the fit has no end.
    assert 0.1 < float(model.coef_[0, 0]) < 10
    assert alpha == pytest.approx(float(model.coef_[0, 0]), rel=1e-3)
    assert beta == pytest.approx(float(model.intercept_[0]), rel=1e-2, abs=1e-3)


class Entries(SupervisedPlugin):
    """Works out the loss entry by entry, with the old model's probabilities from a copy of its own."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.old: Any = None
        self.steps = 0

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        labels, logits = strategy.mb_y.tolist(), strategy.mb_output.tolist()
        known, taught = [], []
        for row, states, x in zip(logits, labels, strategy.mb_x, strict=True):
            for c, z in enumerate(row):
                if states[c] >= 0:
                    known.append(math.log1p(math.exp(-z if states[c] == 1 else z)))
                if self.old is not None and c < len(self.old[1]):
                    weight, bias, alpha, beta = (part[c] for part in self.old)
                    q = float((alpha * (weight @ x.mean(dim=(1, 2)) + bias) + beta) / self.temperature)
                    q, s = 1 / (1 + math.exp(-q)), z / self.temperature
                    entropy = -q * math.log(q) - (1 - q) * math.log(1 - q)
                    taught.append(q * math.log1p(math.exp(-s)) + (1 - q) * math.log1p(math.exp(s)) - entropy)
        share = 0 if self.old is None else len(self.old[1]) / len(logits[0])
        expected = (1 - share) * sum(known) / max(1, len(known)) + share * sum(taught) / max(1, len(taught))
        assert strategy.loss.item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
        self.steps += bool(taught)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        head, model = strategy.model.head, strategy.model
        rows = [torch.cat([p.detach().clone() for p in parts]) for parts in (head.weights, head.biases)]
        numbers = torch.cat([c.repeat(n, 1) for c, n in zip(model.corrections, model.sizes, strict=True)])
        self.old = (*rows, *numbers.unbind(dim=1))


def test_the_loss(tiny_scenario: Any, learn: Any) -> None:
    entries = Entries(3.0)
    learn(BiC(temperature=3.0, held_out=0.3, memory_size=60), tiny_scenario(n=80), extra=[entries])
    assert entries.steps > 10


def test_old_logits_do_not_jump(tiny_scenario: Any, learn: Any) -> None:
    """A new experience starts where the last one ended, correction included."""

    class Starts(SupervisedPlugin):
        differences: list[float] = []

        def after_forward(self, strategy: Any, **kwargs: Any) -> None:
            teacher = strategy.plugins[1].teacher
            if teacher is not None and strategy.clock.train_exp_iterations == 0:
                old = teacher(strategy.mb_x)
                self.differences.append(float((strategy.mb_output[:, : old.shape[1]] - old).abs().max().detach()))

    starts = Starts()
    learn(BiC(held_out=0.4, memory_size=200), tiny_scenario(n=120), extra=[starts])
    assert len(starts.differences) == 2
    assert max(starts.differences) < 1e-6


def test_without_a_memory_nothing_is_kept_out(tiny_scenario: Any, learn: Any) -> None:
    whole, parts = tiny_scenario(base=6), tiny_scenario()
    assert same(learn(BiC(memory_size=0), whole), learn(Naive(), whole))
    learnt = learn(BiC(memory_size=0), parts)
    assert not same(learnt, learn(Naive(), parts))
    assert [c.tolist() for c in learnt.model.corrections] == [[1.0, 0.0]] * 3


def test_corrected_model() -> None:
    model = CorrectedModel(None, LinearHead(2))
    model.head.grow(["a", "b", "c"])
    model.sizes = [1, 2]
    model.corrections.extend([torch.nn.Parameter(torch.tensor(pair)) for pair in ([1.0, 0.0], [2.0, -3.0])])
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    raw = model.head(x).logits
    assert torch.equal(model(x)[:, 0], raw[:, 0])
    assert torch.allclose(model(x)[:, 1:], 2 * raw[:, 1:] - 3)


@pytest.mark.parametrize(
    ("size", "share", "parts"),
    [
        (2000, 0.1, (1800, 200)),
        (10, 0.1, (9, 1)),
        (1, 0.1, (0, 1)),
        (0, 0.1, (0, 0)),
        ("20/label", 0.1, ("18/label", "2/label")),
    ],
)
def test_parts_of_a_size(size: Any, share: float, parts: Any) -> None:
    assert split_size(size, share) == parts
