"""MulCon's head against torch's own attention and against loops; growth with and without isolation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.mulcon import AttentionBlock, MulConHead

B, D, H, W = 3, 8, 2, 3


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        yield


def grown(*sizes: int, **options: Any) -> MulConHead:
    head = MulConHead(D, **options)
    for index, size in enumerate(sizes):
        head.grow([f"label{index}.{i}" for i in range(size)])
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head.eval()


def in_loops(block: AttentionBlock, queries: Tensor, tokens: Tensor) -> Tensor:
    """One image: (n, .) queries read (N, .) tokens, head by head and pair by pair."""
    q, k, v = block.query(queries), block.key(tokens), block.value(tokens)
    width = q.shape[1]
    share = width // block.heads
    rows = []
    for i in range(len(q)):
        parts = []
        for h in range(block.heads):
            cut = slice(h * share, (h + 1) * share)
            scores = [math.exp(float(q[i, cut] @ k[j, cut]) / math.sqrt(width)) for j in range(len(k))]
            read = sum(s / sum(scores) * v[j, cut] for j, s in enumerate(scores))
            parts.append(q[i, cut] + read)
        rows.append(torch.cat(parts))
    seen = block.first_norm(torch.stack(rows))
    return block.second_norm(seen + torch.relu(block.out(seen)))


@torch.no_grad()
def test_forward_against_loops() -> None:
    head, features = grown(2, 1, heads=2, width=6, map_width=4), torch.randn(B, D, H, W)
    output = head(features)
    for image in range(B):
        tokens = features[image].flatten(1).T
        for block in head.map_blocks:
            tokens = in_loops(block, tokens, tokens)
        labels = in_loops(head.read_map, torch.cat(list(head.embeddings)), tokens)
        labels = in_loops(head.read_labels, labels, labels)
        torch.testing.assert_close(output.label_features[image], labels, rtol=1e-4, atol=1e-5)
        logits = (labels * torch.cat(list(head.weights))).sum(1) + torch.cat(list(head.biases))
        torch.testing.assert_close(output.logits[image], logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.pooled, features.mean((2, 3)))


def test_scores_are_divided_by_the_full_width() -> None:
    """With one head there is no difference; with several torch's own attention divides by less."""
    block = AttentionBlock(4, 4, 4, 1)
    queries, tokens = torch.randn(1, 2, 4), torch.randn(1, 5, 4)
    own = nn.MultiheadAttention(4, 1, batch_first=True)
    with torch.no_grad():
        own.in_proj_weight.copy_(torch.cat([block.query.weight, block.key.weight, block.value.weight]))
        own.in_proj_bias.copy_(torch.cat([block.query.bias, block.key.bias, block.value.bias]))
        own.out_proj.weight.copy_(torch.eye(4))
        own.out_proj.bias.zero_()
    seen = block.first_norm(block.query(queries) + own(queries, tokens, tokens)[0])
    expected = block.second_norm(seen + torch.relu(block.out(seen)))
    torch.testing.assert_close(block(queries, tokens), expected)


def test_growth_moves_old_logits_unless_labels_are_isolated() -> None:
    features = torch.randn(B, D, H, W)
    for isolate in (False, True):
        head = grown(2, 2, isolate=isolate)
        before, kept = head(features).logits, {name: (p, p.clone()) for name, p in head.named_parameters()}
        head.grow(["new", "newer"])
        moved = float((head(features).logits[:, :4] - before).abs().max().detach())
        assert (moved < 1e-5) == isolate
        for name, (parameter, value) in kept.items():
            assert head.get_parameter(name) is parameter
            assert torch.equal(parameter, value)
    assert not MulConHead.meta.growth_keeps_logits


def test_isolated_labels_read_those_of_their_own_growth() -> None:
    head, features = grown(2, 2, isolate=True), torch.randn(B, D, H, W)
    before = head(features).logits
    with torch.no_grad():
        head.embeddings[1][1] += 1
    after = head(features).logits
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2], before[:, 2], atol=1e-4)


def test_permuting_labels_permutes_logits() -> None:
    head, features = grown(4), torch.randn(B, D, H, W)
    logits, order = head(features).logits, torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for block in (head.embeddings[0], head.weights[0], head.biases[0]):
            block.copy_(block[order].clone())
    torch.testing.assert_close(head(features).logits, logits[:, order], rtol=1e-4, atol=1e-5)


def test_widths_follow_the_backbone() -> None:
    """The published 2048 and 1024 of a ResNet-101 are the defaults for it."""
    with torch.device("meta"):
        published = MulConHead(2048)
    assert published.width == 1024
    assert [tuple(block.out.weight.shape) for block in published.map_blocks] == [(2048, 2048)] * 2
    odd = MulConHead(6)
    assert (odd.width, odd.map_blocks[0].out.weight.shape[0]) == (4, 8)
    assert [len(block.out.weight) for block in MulConHead(6, map_width=12).map_blocks] == [12, 12]
    odd.grow(["a"])
    assert odd(torch.randn(1, 6)).logits.shape == (1, 1)


def test_new_embeddings_are_drawn_as_in_the_published_table() -> None:
    head = MulConHead(64)
    head.grow([f"label{i}" for i in range(500)])
    table = nn.init.xavier_uniform_(torch.empty(1, 500, 32))
    assert float(head.embeddings[0].abs().max().detach()) == pytest.approx(float(table.abs().max()), rel=0.01)


@pytest.mark.parametrize("options", [{"heads": 0}, {"width": 10, "heads": 4}, {"width": 0}, {"map_width": 6}])
def test_wrong_options_end_in_one_sentence(options: dict[str, int]) -> None:
    with pytest.raises(CmlBenchError, match="mulcon head"):
        MulConHead(D, **options)
