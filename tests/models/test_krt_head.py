"""KRT's head: one pass over the map against one attention an experience, growth, and what is frozen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.krt import KRTHead

B, D, H, W = 3, 10, 4, 5


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        yield


def grown(*sizes: int, **options: int) -> KRTHead:
    head = KRTHead(D, **{"width": 12, "heads": 3, "grid": 4, **options})
    for index, size in enumerate(sizes):
        head.grow([f"label{index}.{i}" for i in range(size)])
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head.eval()


def one_experience(head: KRTHead, features: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """Logits and e_s of one experience, by torch's own attention over {g, r_s, patches}, written out."""
    size, width = (H, W), head.transfer.shape[1]
    position = nn.functional.interpolate(head.position, size=size, mode="bilinear", align_corners=False)
    patches = head.project((features).flatten(2).transpose(1, 2)) + position.flatten(2).transpose(1, 2)
    every = torch.cat([head.transfer.expand(B, 1, -1), head.retention[index].expand(B, 1, -1), patches], dim=1)
    normal = head.norm(every)
    attention = nn.MultiheadAttention(width, head.heads, batch_first=True)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([head.query.weight, head.key.weight, head.value.weight]))
        attention.in_proj_bias.zero_()
        attention.out_proj.weight.copy_(head.out.weight)
        attention.out_proj.bias.copy_(head.out.bias)
    read, _ = attention(normal[:, :1], normal, normal)
    e = (head.transfer + read)[:, 0]
    e = e + head.mlp(e)
    return head.classifiers[index](e), e


def test_one_pass_is_one_attention_an_experience() -> None:
    head, features = grown(2, 1, 3), torch.randn(B, D, H, W)
    output = head(features)
    parts = [one_experience(head, features, index) for index in range(3)]
    assert torch.allclose(output.logits, torch.cat([logits for logits, _ in parts], dim=1), atol=1e-5)
    owner = [0, 0, 1, 2, 2, 2]
    assert torch.allclose(output.label_features, torch.stack([parts[s][1] for s in owner], dim=1), atol=1e-5)
    assert torch.allclose(output.pooled, features.mean((2, 3)))


def test_growth_leaves_old_logits_and_freezes_what_they_own() -> None:
    head, features = grown(2, 3), torch.randn(B, D, H, W)
    before, kept = head(features).logits, {name: id(value) for name, value in head.named_parameters()}
    head.grow(["new"])
    # To rounding: a wider matrix product may add up in another order.
    assert torch.allclose(head(features).logits[:, :5], before, atol=1e-6)
    assert all(id(head.get_parameter(name)) == identity for name, identity in kept.items())
    frozen = {name.rsplit(".", 1)[0] for name, value in head.named_parameters() if not value.requires_grad}
    assert frozen == {"retention", "classifiers.0.0", "classifiers.0.1", "classifiers.1.0", "classifiers.1.1"}
    assert [token.requires_grad for token in head.retention] == [False, False, True]


def test_experiences_do_not_read_each_other() -> None:
    head, features = grown(2, 3), torch.randn(B, D, H, W)
    before = head(features).logits
    with torch.no_grad():
        head.retention[0].add_(torch.randn(12))
    after = head(features).logits
    assert torch.equal(after[:, 2:], before[:, 2:])
    assert not torch.allclose(after[:, :2], before[:, :2], atol=1e-3)


def test_every_layout_is_read() -> None:
    head = grown(2, grid=1)
    vector = torch.randn(B, D)
    assert torch.allclose(head(vector).logits, head(vector[:, :, None, None]).logits)
    assert torch.allclose(head(vector).logits, head(vector[:, None]).logits)
    own = grown(1, grid=4)
    assert own(torch.randn(B, D, 4, 4)).logits.shape == (B, 1)


def test_default_width() -> None:
    assert KRTHead(2048).transfer.shape == (1, 384)
    assert KRTHead(512).transfer.shape == (1, 96)
    assert KRTHead(8, heads=3).transfer.shape == (1, 66)
    for options in ({"width": 10, "heads": 3}, {"heads": 0}, {"grid": 0}):
        with pytest.raises(CmlBenchError, match="krt head"):
            KRTHead(D, **options)


def test_the_mlp_is_that_of_a_transformer() -> None:
    """LayerNorm, four times the width, GELU, and back."""
    head, tokens = grown(2), torch.randn(2, 12)
    norm, up, _, down = head.mlp
    expected = down(nn.functional.gelu(up(nn.functional.layer_norm(tokens, (12,), norm.weight, norm.bias))))
    torch.testing.assert_close(head.mlp(tokens), expected)
    assert up.out_features == 48
