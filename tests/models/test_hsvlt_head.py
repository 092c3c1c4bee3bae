"""HSVLT-lite: one reading of a level in plain torch, levels in turn, and what labels do not do to each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cml_bench.models.heads.hsvlt import HSVLTHead
from cml_bench.models.ivla import IVLA
from cml_bench.models.text_vectors import text_vectors

B = 3
NAMES = ("cat", "dog", "bus", "car", "kite")
SHAPES = ((4, 6, 5), (6, 3, 3), (10, 2, 2))


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def pyramid():
    return tuple(torch.randn(B, *shape) for shape in SHAPES)


def grown(*growths, **options):
    head = HSVLTHead(tuple(shape[0] for shape in SHAPES), **options)
    for names in growths or (NAMES[:2], NAMES[2:]):
        head.grow(names)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return head.eval()


def test_ivla_written_out():
    read, labels, positions = IVLA(6).eval(), torch.randn(B, 4, 6), torch.randn(B, 9, 6)
    moved, taken, attention = read(labels, positions, need_attention=True)
    for image in range(B):
        for label in range(4):
            t = labels[image, label]
            query = read.query.weight @ t
            scores = [float((query @ (read.key.weight @ x)).detach()) / math.sqrt(6) for x in positions[image]]
            weights = torch.tensor(scores).softmax(0)
            assert torch.allclose(attention[image, 0, label], weights, atol=1e-5)
            seen = sum(w * (read.value.weight @ x) for w, x in zip(weights, positions[image], strict=True))
            seen = read.project.weight @ seen + read.project.bias
            met = F.gelu(read.text.weight @ t + read.text.bias) * seen
            m = F.gelu(read.meet.weight @ met + read.meet.bias)
            after = t + m
            gate = torch.tanh(read.gate[2].weight @ F.relu(read.gate[0].weight @ after))
            assert torch.allclose(taken[image, label], m, atol=1e-5)
            assert torch.allclose(moved[image, label], after + gate * after, atol=1e-5)
    fused, took, none = read(labels, positions)
    assert none is None
    assert torch.allclose(fused, moved, atol=1e-5)
    assert torch.allclose(took, taken, atol=1e-5)


def test_a_zero_gate_leaves_the_vector_and_what_was_taken():
    read, labels, positions = IVLA(6).eval(), torch.randn(1, 4, 6), torch.randn(B, 9, 6)
    with torch.no_grad():
        read.gate[2].weight.zero_()
    moved, taken, _ = read(labels, positions)
    assert torch.equal(moved, labels + taken)


def test_levels_are_read_in_turn():
    head, levels = grown(), pyramid()
    vectors = text_vectors("hash", NAMES)
    labels, taken = head.enter(vectors * math.sqrt(vectors.shape[1])).expand(B, -1, -1), []
    for depth, (level, read) in enumerate(zip(levels, head.read, strict=True)):
        labels, took, _ = read(labels, level.flatten(2).transpose(1, 2))
        taken.append(took)
        if depth < 2:
            labels = head.bring[depth](labels)
    output = head(levels)
    features = torch.cat(taken, dim=2)
    assert torch.allclose(output.label_features, features, atol=1e-5)
    logits = (features * torch.cat(list(head.weights))).sum(-1) + torch.cat(list(head.biases))
    assert torch.allclose(output.logits, logits, atol=1e-5)
    assert torch.allclose(output.pooled, levels[-1].mean((2, 3)), atol=1e-6)
    head.need_attention = True
    attention = head(levels).attention
    assert attention.shape == (B, 1, 5, 2, 2)
    assert torch.allclose(attention.sum((3, 4)), torch.ones(B, 1, 5), atol=1e-5)


def test_permuting_labels_permutes_logits():
    head, levels, order = grown(NAMES), pyramid(), [3, 0, 4, 1, 2]
    other = grown(tuple(NAMES[place] for place in order))
    state = head.state_dict()
    other.load_state_dict(
        {
            key: value[order] if key.split(".")[0] in ("weights", "biases", "vectors") else value
            for key, value in state.items()
        }
    )
    assert torch.allclose(other(levels).logits, head(levels).logits[:, order], atol=1e-5)


def test_a_logit_depends_on_no_other_label():
    levels = pyramid()
    alone, together = grown(("dog",)), grown(("dog",))
    together.load_state_dict(alone.state_dict())
    together.grow(("cat", "bus"))
    assert torch.allclose(together(levels).logits[:, :1], alone(levels).logits, atol=1e-6)
    with torch.no_grad():
        together.weights[1].add_(1.0)
        getattr(together.vectors, "1").add_(1.0)
    assert torch.allclose(together(levels).logits[:, :1], alone(levels).logits, atol=1e-6)


def test_growth_is_bit_identical():
    head, levels = grown(NAMES[:2]), pyramid()
    before, state = head(levels).logits, {key: value.clone() for key, value in head.state_dict().items()}
    head.grow(NAMES[2:])
    assert all(torch.equal(head.state_dict()[key], value) for key, value in state.items())
    assert torch.allclose(head(levels).logits[:, :2], before, atol=1e-6)
    own = [name for name, _ in head.named_parameters() if name.startswith(("weights", "biases"))]
    assert len(own) == 4


def test_vectors_are_fixed_and_of_any_width(tmp_path):
    path = tmp_path / "words.npz"
    words = np.random.default_rng(0).normal(size=(len(NAMES), 7)).astype(np.float32)
    np.savez(path, names=np.array(NAMES), vectors=words)
    head = grown(text=str(path))
    unit = words / np.linalg.norm(words, axis=1, keepdims=True)
    assert np.allclose(head.vectors.rows().numpy(), unit * math.sqrt(7), atol=1e-5)
    assert head.enter.weight.shape == (4, 7)
    head(pyramid()).logits.sum().backward()
    assert not any("vectors" in name for name, _ in head.named_parameters())


def test_one_map_is_a_pyramid_of_one_level():
    head = HSVLTHead(8)
    head.grow(NAMES)
    features = torch.randn(B, 8, 3, 2)
    assert torch.equal(head(features).logits, head((features,)).logits)
