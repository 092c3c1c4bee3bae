"""Ridge: scikit-learn label by label, streams against all annotations at once, and which labels share sums."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge
from torch import nn

from cml_bench.data.inputs import TensorInputs
from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.ctran import CTranHead
from cml_bench.models.heads.dlfl import DLFLHead
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.heads.mulcon import MulConHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.registry import load
from cml_bench.streams.dataset import LabelMatrix, MultiLabelDataset

Ridge = load("strategies", "ridge")
RidgePlugin, choose_penalty, write = (
    load("strategies", f"cml_bench.strategies.ridge:{name}") for name in ("RidgePlugin", "choose_penalty", "write")
)

D = 3


def feed(features: Any, parts: list[tuple[Any, Any]], penalty: float = 0.5, head: Any = LinearHead) -> Any:
    """Show a plugin (rows, labels) parts one after the other; return it and the model it wrote into."""
    torch.manual_seed(0)
    table = TensorInputs(torch.as_tensor(features, dtype=torch.float32))
    model, plugin = MultiLabelModel(None, head(D)), RidgePlugin(penalty)
    for rows, labels in parts:
        states = torch.as_tensor(labels, dtype=torch.int8)
        names = tuple(f"label{i}" for i in range(states.shape[1]))
        data = MultiLabelDataset.from_rows(table, torch.as_tensor(rows), LabelMatrix(states, names, 0))
        model.head.grow(names[model.head.n_labels :])
        experience = SimpleNamespace(dataset=data)
        strategy = SimpleNamespace(model=model, experience=experience, device="cpu", eval_mb_size=4)
        plugin.before_training_exp(strategy)
        assert strategy.dataloader == []
    return plugin, model


def by_sklearn(features: Any, labels: Any, penalty: float) -> Any:
    """Solve each column on the rows that know it; an intercept alone where nothing else is left to fit."""
    solution = np.zeros((labels.shape[1], D + 1))
    for column in range(labels.shape[1]):
        known = labels[:, column] >= 0
        if known.any():
            found = SklearnRidge(alpha=penalty, solver="cholesky").fit(features[known], 2.0 * labels[known, column] - 1)
            solution[column] = [*found.coef_, found.intercept_]
    return solution


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 12), widths=st.lists(st.integers(1, 3), min_size=1, max_size=3), seed=st.integers(0, 999))
def test_any_stream_is_the_solution_of_all_its_annotations(n: int, widths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n * len(widths), D)).astype(np.float32)
    total, width, parts, stacked = sum(widths), 0, [], []
    for t, new in enumerate(widths):
        width += new
        states = rng.integers(-2, 2, (n, width))
        rows = np.arange(n * t, n * (t + 1))
        parts.append((rows, states))
        stacked.append(np.pad(states, ((0, 0), (0, total - width)), constant_values=-2))
    everything = np.concatenate(stacked)
    expected = by_sklearn(features.astype(np.float64), everything, 0.5)
    stream, model = feed(features, parts)
    at_once, _ = feed(features, [(np.arange(len(features)), everything)])
    assert np.abs(stream.solution().numpy() - at_once.solution().numpy()).max() < 1e-8
    assert np.allclose(stream.solution().numpy(), expected, atol=1e-8)
    written = torch.cat([torch.cat(list(model.head.weights)), torch.cat(list(model.head.biases))[:, None]], dim=1)
    assert np.allclose(written.detach().numpy(), expected, atol=1e-5)


def test_labels_known_together_share_one_matrix() -> None:
    features = np.random.default_rng(0).normal(size=(12, D))
    first = np.ones((4, 2), dtype=int)
    second = np.concatenate([np.full((4, 2), -2), np.zeros((4, 3), dtype=int)], axis=1)
    third = np.zeros((4, 5), dtype=int)
    third[0, 4] = -1
    plugin, _ = feed(features, [(range(4), first)])
    assert plugin.group == [0, 0]
    plugin, _ = feed(features, [(range(4), first), (range(4, 8), second)])
    assert plugin.group == [0, 0, 1, 1, 1]
    plugin, _ = feed(features, [(range(4), first), (range(4, 8), second), (range(8, 12), third)])
    assert plugin.group == [0, 0, 1, 1, 2]
    assert plugin.gram[:, -1, -1].tolist() == [8.0, 8.0, 7.0]


def test_old_labels_stay_to_the_bit_where_nobody_annotates_them(tiny_scenario: Any, learn: Any) -> None:
    scenario = tiny_scenario()
    early, late = (learn(Ridge(), scenario, stop_after=n).state() for n in (1, 3))
    assert set(late) - set(early) == {f"head.{kind}.{t}" for kind in ("weights", "biases") for t in (1, 2)}
    assert all(torch.equal(value, late[name]) for name, value in early.items())


@pytest.mark.parametrize("chunk", [3, 7])
def test_an_online_stream_is_the_offline_one(tiny_scenario: Any, learn: Any, chunk: int) -> None:
    offline, online = learn(Ridge(), tiny_scenario()), learn(Ridge(), tiny_scenario(online_chunk=chunk), epochs=1)
    found = [learnt.plugins[0].solution() for learnt in (offline, online)]
    assert float((found[0] - found[1]).abs().max()) < 1e-8


def test_a_head_with_a_feature_a_label_is_solved_on_it() -> None:
    rng = np.random.default_rng(1)
    maps, labels = rng.normal(size=(20, D, 2, 2)), rng.integers(0, 2, (20, 2))
    _, model = feed(maps, [(range(20), labels)], head=DLFLHead)
    with torch.no_grad():
        output = model.head_output(torch.tensor(maps, dtype=torch.float32))
    features = output.label_features.double().numpy()
    for label in range(2):
        expected = SklearnRidge(alpha=0.5).fit(features[:, label], 2.0 * labels[:, label] - 1)
        assert np.allclose(output.logits[:, label], expected.predict(features[:, label]), atol=1e-4)


def test_a_label_that_was_never_annotated_says_nothing() -> None:
    _, model = feed(np.eye(D), [(range(D), [[1, -2], [0, -1], [1, -2]])])
    with torch.no_grad():
        assert model(torch.ones(2, D))[:, 1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("images", [[[0.3, -2.0, 1.0]], [[0.3, -2.0, 1.0]] * 3, [[0.0, 0.0, 0.0]] * 2])
def test_a_label_whose_images_are_all_alike_says_what_they_say(images: list[list[float]]) -> None:
    """Nothing varies, so there is no penalty to choose; the intercept alone tells: present."""
    gram, moment = (torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64))
    for image in images:
        row = torch.tensor([*image, 1.0], dtype=torch.float64)
        gram, moment = gram + torch.outer(row, row), moment + row[:, None]
    unit = torch.eye(4, dtype=torch.float64)
    unit[-1, -1] = 0
    found = torch.linalg.solve(gram + choose_penalty(gram, moment) * unit, moment)
    assert torch.allclose(found[:, 0], torch.tensor([0.0, 0, 0, 1], dtype=torch.float64), atol=1e-5)


def test_a_head_without_rows_is_refused() -> None:
    with pytest.raises(CmlBenchError, match="one weight vector and one bias a label"):
        write(nn.Linear(2, 2), torch.zeros(2, 3))


@pytest.mark.parametrize("kind", [CTranHead, MulConHead])
def test_a_head_whose_old_features_change_is_refused_before_anything_runs(kind: Any) -> None:
    """What is stored of old images would be of features that nobody reads any more."""
    with pytest.raises(
        CmlBenchError, match=r"new labels change what head=\w+ reads for the old ones: take head=linear"
    ):
        Ridge().build_model(None, kind(8))


def test_a_head_whose_options_keep_old_features_is_taken() -> None:
    assert Ridge().build_model(None, MulConHead(8, isolate=True)).head.isolate


def test_no_gradient_step_is_made(tiny_scenario: Any, learn: Any, on_backbone: Any) -> None:
    learnt = learn(on_backbone(Ridge()), tiny_scenario(), schedule="one_cycle")
    assert learnt.template.clock.train_iterations == 0
    assert int(learnt.model.backbone[1].num_batches_tracked) == 0
    assert all(torch.isfinite(logits).all() for logits in learnt.logits)
