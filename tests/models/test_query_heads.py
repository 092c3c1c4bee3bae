"""Query2Label, ML-Decoder and CSRA against torch's own layers, brute force and each other's rules."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.models import attention as attention_module
from cml_bench.models.attention import AttentionLayer, attention_width, sine_positions
from cml_bench.models.heads import query2label
from cml_bench.models.heads.csra import CSRAHead
from cml_bench.models.heads.ctran import CTranHead
from cml_bench.models.heads.hsvlt import HSVLTHead
from cml_bench.models.heads.ml_decoder import MLDecoderHead
from cml_bench.models.heads.query2label import Query2LabelHead

D, B, H, W = 24, 3, 3, 4
NAMES = ("cat", "dog", "traffic light", "bus", "car")


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def grown(kind, *growths, **options):
    """A head with labels, every parameter away from where it starts, in evaluation mode."""
    head = kind(D, **options)
    for names in growths or (NAMES[:2], NAMES[2:]):
        head.grow(names)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head.eval()


def copy_attention(reference: nn.MultiheadAttention, ours: nn.MultiheadAttention) -> None:
    reference.load_state_dict(ours.state_dict())


def copy_layer(reference, ours: AttentionLayer, attention: str, norms: tuple[str, str]) -> None:
    copy_attention(getattr(reference, attention), ours.attention)
    reference.linear1.load_state_dict(ours.network[0].state_dict())
    reference.linear2.load_state_dict(ours.network[3].state_dict())
    getattr(reference, norms[0]).load_state_dict(ours.attention_norm.state_dict())
    getattr(reference, norms[1]).load_state_dict(ours.network_norm.state_dict())


def test_a_layer_is_torchs_encoder_layer():
    ours = AttentionLayer(16, 4, 40, 0.1).eval()
    reference = nn.TransformerEncoderLayer(16, 4, 40, batch_first=True).eval()
    copy_layer(reference, ours, "self_attn", ("norm1", "norm2"))
    x = torch.randn(B, 7, 16)
    assert torch.allclose(ours(x, x, x, x)[0], reference(x), atol=1e-5)


def reference_decoder(ours: AttentionLayer, exchange=None) -> nn.TransformerDecoderLayer:
    """Torch's decoder layer with our weights; without an exchange its self-attention adds nothing."""
    width, hidden = ours.network[0].weight.shape[1], ours.network[0].weight.shape[0]
    reference = nn.TransformerDecoderLayer(width, ours.attention.num_heads, hidden, batch_first=True).eval()
    copy_layer(reference, ours, "multihead_attn", ("norm2", "norm3"))
    if exchange is None:
        with torch.no_grad():
            reference.self_attn.out_proj.weight.zero_()
            reference.self_attn.out_proj.bias.zero_()
    else:
        copy_attention(reference.self_attn, exchange.attention)
        reference.norm1.load_state_dict(exchange.norm.state_dict())
    return reference


def test_query2label_is_torchs_transformer(monkeypatch):
    """Torch's layers know no positions, so here they are zero; they have a test of their own."""
    monkeypatch.setattr(query2label, "sine_positions", lambda h, w, d: torch.zeros(h * w, d))
    head = grown(Query2LabelHead, width=16, hidden=20, heads=2, encoder_layers=2, self_attention=True)
    features = torch.randn(B, D, H, W)
    tokens = F.linear(features.flatten(2).transpose(1, 2), head.project.weight, head.project.bias)
    for layer in head.encoder:
        encoder = nn.TransformerEncoderLayer(16, 2, 20, batch_first=True).eval()
        copy_layer(encoder, layer, "self_attn", ("norm1", "norm2"))
        tokens = encoder(tokens)
    labels = torch.cat(list(head.queries)).expand(B, -1, -1)
    for layer, exchange in zip(head.decoder, head.exchange, strict=True):
        labels = reference_decoder(layer, exchange)(labels, tokens)
    output = head(features)
    assert torch.allclose(output.label_features, labels, atol=1e-5)
    expected = (labels * torch.cat(list(head.weights))).sum(-1) + torch.cat(list(head.biases))
    assert torch.allclose(output.logits, expected, atol=1e-5)


def test_ml_decoder_is_torchs_decoder_layer():
    """Its doubled query stands where torch's layer adds self-attention, which adds nothing here."""
    head = grown(MLDecoderHead, width=16, hidden=20, heads=2)
    features = torch.randn(B, D, H, W)
    tokens = F.relu(head.project(features.flatten(2).transpose(1, 2)))
    reference = reference_decoder(head.decoder)
    reference.norm1.load_state_dict(head.norm.state_dict())
    labels = reference(2 * head.queries.rows().expand(B, -1, -1), tokens)
    assert torch.allclose(head(features).label_features, labels, atol=1e-5)
    assert "queries" not in " ".join(name for name, _ in head.named_parameters())


def test_sine_positions_in_plain_numbers():
    height, width, channels = 3, 5, 8
    found = sine_positions(height, width, channels)
    for row in range(height):
        for column in range(width):
            expected = []
            for place, side in ((row, height), (column, width)):
                for pair in range(channels // 4):
                    angle = 2 * math.pi * (place + 1) / side / 10000 ** (2 * pair / (channels / 2))
                    expected += [math.sin(angle), math.cos(angle)]
            assert torch.allclose(found[row * width + column], torch.tensor(expected), atol=1e-6)


def test_positions_are_in_queries_and_keys_and_never_in_what_is_read():
    """Where all positions hold the same, it makes no difference how one looks at them."""
    head = grown(Query2LabelHead, width=16, encoder_layers=2)
    same = torch.randn(B, D)
    spread = same[:, :, None, None].expand(-1, -1, H, W)
    assert torch.allclose(head(spread).logits, head(same).logits, atol=1e-5)


def test_query2label_knows_where_things_are():
    head = grown(Query2LabelHead, width=16)
    features = torch.randn(B, D, H, W)
    assert not torch.allclose(head(features.flip(3)).logits, head(features).logits, atol=1e-3)
    blind = grown(MLDecoderHead, width=16)
    assert torch.allclose(blind(features.flip(3)).logits, blind(features).logits, atol=1e-5)


@pytest.mark.parametrize("temperatures", [(1.0,), (2.5,), (math.inf,), (1.0, 2.0, math.inf)])
def test_csra_by_brute_force(temperatures):
    head = grown(CSRAHead, lam=0.3, temperatures=temperatures)
    features = torch.randn(B, D, H, W)
    positions = features.flatten(2)
    output = head(features)
    blocks = torch.cat(list(head.weights)).detach()
    for image in range(B):
        for label in range(len(NAMES)):
            logit = 0.0
            for m, temperature in zip(blocks[label], temperatures, strict=True):
                scores = [float(m @ x / m.norm()) for x in positions[image].T]
                if temperature == math.inf:
                    attended = max(scores)
                else:
                    weights = [math.exp(temperature * score) for score in scores]
                    attended = sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)
                logit += sum(scores) / len(scores) + 0.3 * attended
            assert float(output.logits[image, label].detach()) == pytest.approx(logit, abs=1e-4)


def test_csra_limits():
    features = torch.randn(B, D, H, W)
    plain = grown(CSRAHead, lam=0.0)
    rows = F.normalize(torch.cat(list(plain.weights))[:, 0], dim=1)
    assert torch.allclose(plain(features).logits, features.mean((2, 3)) @ rows.T, atol=1e-5)
    sharp, best = (CSRAHead(D, temperatures=(t,)) for t in (1e4, math.inf))
    for head in (sharp, best):
        head.grow(NAMES)
    best.load_state_dict(sharp.state_dict())
    assert torch.allclose(sharp(features).logits, best(features).logits, atol=1e-4)


HEADS = {
    "query2label": (Query2LabelHead, {"width": 16}),
    "ml_decoder": (MLDecoderHead, {"width": 16}),
    "csra": (CSRAHead, {"temperatures": (1.0, 3.0), "lam": 0.5}),
}


def own_tensors(head):
    """What belongs to labels, a row each: for each kind of tensor, one block a growth."""
    parts = [getattr(head, name) for name in ("weights", "biases", "queries") if hasattr(head, name)]
    return [[*part.parameters(), *part.buffers()] for part in parts]


@pytest.mark.parametrize("name", HEADS)
def test_permuting_labels_permutes_what_is_said(name):
    kind, options = HEADS[name]
    head = grown(kind, NAMES, **options)
    head.need_attention = True
    features, order = torch.randn(B, D, H, W), torch.tensor([3, 0, 4, 1, 2])
    before = head(features)
    with torch.no_grad():
        for (block,) in own_tensors(head):
            block.copy_(block[order].clone())
    after = head(features)
    assert torch.allclose(after.logits, before.logits[:, order], atol=1e-5)
    assert torch.allclose(after.label_features, before.label_features[:, order], atol=1e-5)
    assert torch.allclose(after.attention, before.attention[:, :, order], atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_a_logit_depends_on_no_other_label(name):
    kind, options = HEADS[name]
    head = grown(kind, **options)
    features = torch.randn(B, D, H, W)
    before = head(features).logits
    with torch.no_grad():
        for blocks in own_tensors(head):
            blocks[1][0].add_(torch.randn_like(blocks[1][0]))
    after = head(features).logits
    others = [0, 1, 3, 4]
    assert torch.allclose(after[:, others], before[:, others], atol=1e-6)
    assert not torch.allclose(after[:, 2], before[:, 2], atol=1e-2)


def test_labels_that_exchange_do_depend_on_each_other():
    head = grown(Query2LabelHead, width=16, self_attention=True)
    features = torch.randn(B, D, H, W)
    before = head(features).logits
    with torch.no_grad():
        head.queries[1].add_(torch.randn_like(head.queries[1]))
    assert not torch.allclose(head(features).logits[:, :2], before[:, :2], atol=1e-3)


@pytest.mark.parametrize("name", HEADS)
def test_growth_is_bit_identical(name):
    kind, options = HEADS[name]
    head = grown(kind, NAMES[:2], **options)
    features = torch.randn(B, D, H, W)
    before, state = head(features), {key: value.clone() for key, value in head.state_dict().items()}
    identity = {key: id(value) for key, value in head.named_parameters()}
    head.grow(NAMES[2:])
    after = head(features)
    assert all(torch.equal(head.state_dict()[key], value) for key, value in state.items())
    assert all(id(head.get_parameter(key)) == value for key, value in identity.items())
    assert torch.allclose(after.logits[:, :2], before.logits, atol=1e-6)
    assert (head.growth, head.label_names) == ((2, 3), NAMES)


@pytest.mark.parametrize("name", HEADS)
def test_attention_rows_sum_to_one(name):
    kind, options = HEADS[name]
    head = grown(kind, **options)
    features = torch.randn(B, D, H, W)
    silent = head(features)
    head.need_attention = True
    loud = head(features)
    assert silent.attention is None
    assert torch.allclose(loud.attention.sum((3, 4)), torch.ones(loud.attention.shape[:3]), atol=1e-5)
    assert torch.allclose(loud.logits, silent.logits, atol=1e-5)
    assert loud.attention.shape[3:] == (H, W)


def test_published_widths():
    assert Query2LabelHead(2048).project.weight.shape == (2048, 2048)
    assert Query2LabelHead(64).decoder[0].network[0].weight.shape == (256, 64)
    assert (Query2LabelHead(64).decoder[0].attention.num_heads, len(Query2LabelHead(64).decoder)) == (4, 2)
    decoder = MLDecoderHead(2048)
    assert decoder.project.weight.shape == (768, 2048)
    assert (decoder.decoder.network[0].weight.shape[0], decoder.decoder.attention.num_heads) == (2048, 8)
    assert attention_module.attention_width("any", None, 30, 1.0, 4, multiple=8) == 32


@pytest.mark.parametrize(
    ("make_head", "match"),
    [
        (lambda: Query2LabelHead(D, width=10), "width=10 of the query2label head is no multiple of 4"),
        (lambda: Query2LabelHead(D, heads=0), "heads=0"),
        (lambda: Query2LabelHead(D, decoder_layers=0), "decoder_layers=0"),
        (lambda: Query2LabelHead(D, hidden=0), "hidden=0"),
        (lambda: Query2LabelHead(D, dropout=1.0), "dropout=1.0"),
        (lambda: MLDecoderHead(D, width=12), "width=12"),
        (lambda: MLDecoderHead(D, hidden=0), "hidden=0"),
        (lambda: CSRAHead(D, temperatures=()), r"temperatures=\[\]"),
        (lambda: CSRAHead(D, temperatures=(1.0, 0.0)), r"temperatures=\[1.0, 0.0\]"),
        (lambda: attention_width("some", -4, D, 1.0, 2), "width=-4 of the some head"),
    ],
)
def test_wrong_options_end_in_one_sentence(make_head, match):
    with pytest.raises(CmlBenchError, match=match) as caught:
        make_head()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [Query2LabelHead, MLDecoderHead, CTranHead, HSVLTHead])
def test_dropout_acts_in_training_only(kind):
    head = kind(D, dropout=0.3)
    assert {part.p for part in head.modules() if isinstance(part, nn.Dropout)} <= {0.3}
    assert {part.dropout for part in head.modules() if isinstance(part, nn.MultiheadAttention)} <= {0.3}
    features = torch.randn(2, D, 3, 3)
    for share in (0.0, 0.5):
        head = kind(D, dropout=share)
        head.grow(NAMES)
        head.train()
        assert torch.equal(head(features).logits, head(features).logits) == (share == 0)
        head.eval()
        assert torch.equal(head(features).logits, head(features).logits)
