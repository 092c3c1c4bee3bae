"""C-Tran's head: what states do, growth, and the encoder against torch's own pieces put together by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.labels import ABSENT, OUT_OF_SCOPE, PRESENT, UNMARKED
from cml_bench.models.heads.ctran import CTranHead
from cml_bench.models.text_vectors import text_vectors

D, B = 16, 3
NAMES = ("cat", "dog", "bus", "car", "cup")


@pytest.fixture(autouse=True)
def seeded() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def grown(**options: Any) -> CTranHead:
    head = CTranHead(D, **options)
    head.grow(NAMES[:3])
    head.grow(NAMES[3:])
    return head.eval()


def label_vectors(head: CTranHead, state: torch.Tensor | None = None) -> torch.Tensor:
    """What the encoder is given of the labels: (B, n, d), before the LayerNorm."""
    seen: list[torch.Tensor] = []
    handle = head.norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    head.states = state
    head(torch.zeros(B, D, 2, 2))
    handle.remove()
    return seen[0][:, 4:]


@pytest.mark.parametrize("options", [{}, {"text": "hash:16"}, {"text": "hash:7", "width": 8}, {"width": 12}])
def test_a_state_adds_its_own_vector(options: dict[str, Any]) -> None:
    """Unknown adds 0, absent the vector of "negative", present that of "positive": the release has them swapped."""
    head = grown(**options)
    states = torch.tensor([PRESENT, ABSENT, UNMARKED, OUT_OF_SCOPE, ABSENT], dtype=torch.int8).expand(B, -1)
    added = label_vectors(head, states) - label_vectors(head)
    negative, positive = text_vectors(options["text"], ("negative", "positive")) if "text" in options else head.known
    for column, vector in enumerate(
        (positive, negative, torch.zeros_like(negative), torch.zeros_like(negative), negative)
    ):
        torch.testing.assert_close(added[:, column], head.project_words(vector).expand(B, -1))
    assert not torch.equal(head.project_words(negative), head.project_words(positive))


def test_text_vectors_are_those_of_the_names_and_frozen() -> None:
    head = grown(text="hash:16")
    torch.testing.assert_close(label_vectors(head), text_vectors("hash:16", NAMES).expand(B, -1, -1))
    assert not [name for name, _ in head.named_parameters() if name.startswith(("words", "known", "project"))]
    learnt = dict(grown().named_parameters())
    assert {"words.0", "words.1", "known"} <= set(learnt)


@pytest.mark.parametrize("attends", ["all", "older"])
def test_the_encoder_is_three_post_norm_layers_over_positions_and_labels(attends: str) -> None:
    """Written out with matrices: attention, residual, LayerNorm, ReLU network, residual, LayerNorm."""
    head = grown(attends=attends, heads=2).double()
    x = torch.randn(B, D, 2, 2, dtype=torch.float64)
    tokens = torch.cat([x.flatten(2).transpose(1, 2), torch.cat(list(head.words)).expand(B, -1, -1)], dim=1)
    tokens = F.layer_norm(tokens, (D,), head.norm.weight, head.norm.bias)
    born = [0, 0, 0, 0, 1, 1, 1, 2, 2]
    for layer in head.encoder.layers:
        weight, bias = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
        q, k, v = (
            part.unflatten(-1, (2, D // 2)).transpose(1, 2) for part in (tokens @ weight.T + bias).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(D // 2)
        if attends == "older":
            for reader, own in enumerate(born):
                for read, other in enumerate(born):
                    if other > own:
                        scores[..., reader, read] = -math.inf
        merged = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        tokens = layer.norm1(tokens + merged @ layer.self_attn.out_proj.weight.T + layer.self_attn.out_proj.bias)
        hidden = (tokens @ layer.linear1.weight.T + layer.linear1.bias).relu()
        tokens = layer.norm2(tokens + hidden @ layer.linear2.weight.T + layer.linear2.bias)
    read = tokens[:, 4:]
    logits = (read * torch.cat(list(head.weights))).sum(dim=-1) + torch.cat(list(head.biases))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            output = head(x)
        torch.testing.assert_close(output.logits, logits)
        torch.testing.assert_close(output.label_features, read)


@pytest.mark.parametrize(("attends", "kept"), [("all", False), ("older", True)])
def test_growth(attends: str, kept: bool) -> None:
    """Old parameters stay as they were; old logits do where labels attend to older ones alone."""
    head = CTranHead(D, attends=attends).eval()
    head.grow(NAMES[:3])
    x = torch.randn(B, D, 2, 2)
    states = torch.tensor([[PRESENT, UNMARKED, ABSENT]], dtype=torch.int8).expand(B, -1)
    head.states = states
    before = {name: value.clone() for name, value in head.state_dict().items()}
    logits = head(x).logits
    head.grow(NAMES[3:])
    assert all(torch.equal(head.state_dict()[name], value) for name, value in before.items())
    # States of a batch annotated before the labels arrived are narrower than the head.
    assert torch.allclose(head(x).logits[:, :3], logits, atol=1e-6) is kept
    assert not head.meta.growth_keeps_logits


def test_labels_hear_of_each_other_and_views_share_their_states() -> None:
    head, x = grown(), torch.randn(B, D, 2, 2)
    nothing = head(x).logits
    states = torch.full((B, 5), UNMARKED, dtype=torch.int8)
    head.states = states
    torch.testing.assert_close(head(x).logits, nothing)
    states[0, 0] = PRESENT
    told = head(x).logits
    assert not torch.allclose(told[0, 1:], nothing[0, 1:])
    torch.testing.assert_close(told[1:], nothing[1:])
    both = head(torch.cat([x, x])).logits
    torch.testing.assert_close(both, torch.cat([told, told]))


def test_labels_can_be_permuted() -> None:
    """The order of arrival within an experience is of no consequence."""
    head, x = CTranHead(D, text="hash").eval(), torch.randn(B, D)
    head.grow(NAMES)
    other = CTranHead(D, text="hash").eval()
    order = [3, 1, 4, 0, 2]
    other.grow([NAMES[i] for i in order])
    state = head.state_dict()
    state.update({name: state[name][order] for name in ("words.0", "weights.0", "biases.0")})
    other.load_state_dict(state)
    torch.testing.assert_close(other(x).logits, head(x).logits[:, order])


def test_bad_options() -> None:
    for options, sentence in (
        ({"layers": 0}, "layers=0 of the ctran head is too small"),
        ({"attends": "odler"}, "attends='odler' of the ctran head is unknown: did you mean 'older'"),
        ({"width": 10}, "width=10 of the ctran head is no multiple of 4"),
        ({"text": "nowhere.txt"}, "nowhere.txt do not exist"),
    ):
        with pytest.raises(CmlBenchError, match=sentence):
            CTranHead(D, **options)
