"""Both heads: growth, shapes, permutation, the angle law."""

import math

import numpy as np
import pytest
import torch
from avalanche.models.dynamic_optimizers import update_optimizer
from torch import nn

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.dlfl import DLFLHead
from cml_bench.models.heads.linear import LinearHead

D, B, H, W = 24, 5, 3, 4
NAMES = ("cat", "dog", "traffic light", "bus", "car")


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


@pytest.fixture
def vectors(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "vectors.npz"
    np.savez(path, names=np.array(NAMES), vectors=rng.normal(size=(len(NAMES), 7)).astype(np.float32))
    return path


OPTIONS = {
    "linear": (LinearHead, {}),
    "linear dropout": (LinearHead, {"dropout": 0.5}),
    "dlfl": (DLFLHead, {}),
    "dlfl heads dropout": (DLFLHead, {"heads": 4, "dropout": 0.5}),
    "dlfl words": (DLFLHead, {"query_init": "vectors"}),
    "dlfl frozen queries": (DLFLHead, {"freeze_old_queries": True}),
    "dlfl cascade": (DLFLHead, {"width": 16, "steps": 3, "heads": 2, "dropout": 0.1}),
    "dlfl cascade words": (DLFLHead, {"width": 16, "query_init": "vectors", "freeze_old_queries": True}),
}


@pytest.fixture(params=OPTIONS)
def make(request, vectors):
    head_class, options = OPTIONS[request.param]
    options = {**options, **({"query_init": vectors} if "query_init" in options else {})}
    return lambda: head_class(D, **options)


def step(head, optimizer, features):
    optimizer.zero_grad()
    head(features).logits.square().sum().backward()
    optimizer.step()


def test_growth_leaves_old_parameters_and_logits(make):
    head = make()
    head.grow(NAMES[:2])
    step(head, torch.optim.AdamW(head.parameters()), torch.randn(B, D, H, W))
    head.eval()
    features = torch.randn(B, D, H, W)
    before, old = head(features), {name: value.clone() for name, value in head.named_parameters()}
    identity = {name: id(value) for name, value in head.named_parameters()}
    head.grow(NAMES[2:])
    after = head(features)
    for name, value in old.items():
        assert torch.equal(head.get_parameter(name), value)
        assert id(head.get_parameter(name)) == identity[name]
    assert after.logits.shape == (B, 5)
    assert torch.allclose(after.logits[:, :2], before.logits, atol=1e-6, rtol=0)
    assert torch.equal(after.pooled, before.pooled)
    if before.label_features is not None:
        assert torch.allclose(after.label_features[:, :2], before.label_features, atol=1e-6, rtol=0)


def test_growth_costs_the_same_for_every_label(make):
    head = make()
    sizes = []
    for name in NAMES:
        head.grow([name])
        sizes.append(sum(parameter.numel() for parameter in head.parameters()))
    assert len(set(np.diff(sizes))) == 1


def test_optimizer_keeps_its_state(make):
    head = make()
    head.grow(NAMES[:2])
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    features = torch.randn(B, D, H, W)
    step(head, optimizer, features)
    parameters = dict(head.named_parameters())
    kept = {name: optimizer.state[value]["exp_avg"].clone() for name, value in parameters.items()}
    head.grow(NAMES[2:])
    optimizer.zero_grad()  # as a training loop does; the first step's gradients are still there
    update_optimizer(optimizer, dict(head.named_parameters()), parameters)
    for name, moment in kept.items():
        assert torch.equal(optimizer.state[parameters[name]]["exp_avg"], moment)
    optimised = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(optimised) == len(set(map(id, optimised)))
    assert set(map(id, head.parameters())) == set(map(id, optimised))
    new = head.weights[1].clone()
    step(head, optimizer, features)
    assert not torch.equal(head.weights[1], new)


def test_frozen_queries_stay_while_new_ones_learn():
    head = DLFLHead(D, freeze_old_queries=True)
    head.grow(NAMES[:2])
    head.grow(NAMES[2:])
    old, new = head.queries[0].clone(), head.queries[1].clone()
    step(head, torch.optim.AdamW(head.parameters(), lr=0.1, weight_decay=0.5), torch.randn(B, D, H, W))
    assert torch.equal(head.queries[0], old)
    assert not torch.equal(head.queries[1], new)


def test_a_name_comes_once(make):
    head = make()
    head.grow(NAMES[:2])
    with pytest.raises(ValueError, match="'dog'"):
        head.grow(["dog"])
    assert head.label_names == NAMES[:2]


def test_map_tokens_and_vector_agree(make):
    head = make().eval()
    head.grow(NAMES)
    features = torch.randn(B, D, H, W)
    on_map, on_tokens = head(features), head(features.flatten(2).transpose(1, 2))
    assert torch.allclose(on_map.logits, on_tokens.logits, atol=1e-5)
    assert torch.allclose(on_map.pooled, features.mean((2, 3)), atol=1e-6)
    vector = features.mean((2, 3))
    one_position = head(vector[:, :, None, None])
    assert torch.allclose(head(vector).logits, one_position.logits, atol=1e-5)


def test_linear_head_is_a_linear_layer():
    head = LinearHead(D)
    head.grow(NAMES[:3])
    head.grow(NAMES[3:])
    layer = nn.Linear(D, 5)
    layer.load_state_dict({"weight": torch.cat(list(head.weights)), "bias": torch.cat(list(head.biases))})
    features = torch.randn(B, D, H, W)
    assert torch.allclose(head(features).logits, layer(features.mean((2, 3))), atol=1e-6)
    assert all(float(block.detach().abs().max()) <= D**-0.5 for block in head.weights)
    assert all(not bool(block.detach().any()) for block in head.biases)


def test_dropout_acts_in_training_only(make):
    head = make()
    head.grow(NAMES)
    features = torch.randn(B, D, H, W)
    head.train()
    same = torch.equal(head(features).logits, head(features).logits)
    assert same == (head.dropout == 0)
    head.eval()
    assert torch.equal(head(features).logits, head(features).logits)


@pytest.mark.parametrize("options", [{}, {"heads": 3}, {"width": 16, "steps": 2, "heads": 4}])
def test_attention_rows_sum_to_one(options):
    head = DLFLHead(D, **options).eval()
    head.grow(NAMES)
    features = 5 * torch.randn(B, D, H, W)
    quiet = head(features)
    assert quiet.attention is None
    head.need_attention = True
    loud = head(features)
    assert loud.attention.shape == (B, options.get("heads", 1), 5, H, W)
    assert bool((loud.attention >= 0).all())
    assert torch.allclose(loud.attention.sum((3, 4)), torch.ones(B, options.get("heads", 1), 5), atol=1e-5)
    assert torch.allclose(quiet.logits, loud.logits, atol=1e-5)
    assert loud.label_features.shape == (B, 5, options.get("width", D))


@pytest.mark.parametrize("options", [{}, {"heads": 3}, {"width": 16, "steps": 2, "heads": 4}])
def test_permuting_queries_permutes_logits(options):
    head = DLFLHead(D, **options).eval()
    head.grow(NAMES)
    features = torch.randn(B, D, H, W)
    logits = head(features).logits
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        for block in (head.queries[0], head.weights[0], head.biases[0]):
            block.copy_(block[order].clone())
    assert torch.allclose(head(features).logits, logits[:, order], atol=1e-6)


def test_default_step_against_a_loop():
    head = DLFLHead(D, heads=2)
    head.grow(NAMES)
    features = torch.randn(B, D, H, W)
    expected = torch.empty(B, 5, D)
    queries = head.queries[0].detach()
    for image in range(B):
        positions = [features[image, :, row, column] for row in range(H) for column in range(W)]
        pooled = sum(positions) / len(positions)
        for label in range(5):
            for part in (slice(0, D // 2), slice(D // 2, D)):
                scores = [math.exp(float(queries[label, part] @ x[part]) / math.sqrt(D / 2)) for x in positions]
                attended = sum(s / sum(scores) * x[part] for s, x in zip(scores, positions, strict=True))
                expected[image, label, part] = (pooled[part] + attended) / 2
    output = head(features)
    assert torch.allclose(output.label_features, expected, atol=1e-5)
    scores = (expected * head.weights[0]).sum(-1) + head.biases[0]
    assert torch.allclose(output.logits, scores, atol=1e-5)


def test_cascade_step_against_torch_attention():
    head = DLFLHead(D, width=16, heads=4).eval()
    head.grow(NAMES)
    one = head.cascade[0]
    reference = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([one.query.weight, one.key.weight, one.value.weight]))
        reference.in_proj_bias.copy_(torch.cat([one.query.bias, one.key.bias, one.value.bias]))
        reference.out_proj.weight.copy_(torch.eye(16))
        reference.out_proj.bias.zero_()
    features = torch.randn(B, D, H, W)
    tokens = head.project(features.flatten(2).transpose(1, 2))
    queries = head.queries[0].expand(B, -1, -1)
    read, _ = reference(queries, tokens, tokens)
    assert torch.allclose(head(features).label_features, one.norm(queries + read), atol=1e-5)


def test_untrained_dlfl_head_scores_like_the_pooled_linear_head():
    head = DLFLHead(256)
    head.grow(NAMES)
    linear = LinearHead(256)
    linear.grow(NAMES)
    linear.load_state_dict({name: value for name, value in head.state_dict().items() if "queries" not in name})
    features = torch.rand(64, 256, 7, 7)
    with torch.no_grad():
        ours, theirs = head(features).logits, linear(features).logits
    assert float((ours - theirs).abs().max()) < 0.05 * float(theirs.std(0).mean() + theirs.abs().mean())


def test_word_queries_keep_the_angles_of_the_words(vectors):
    head = DLFLHead(D, query_init=vectors)
    head.grow(NAMES[:2])
    head.grow(NAMES[2:])
    queries = torch.cat(list(head.queries)).detach()
    words = torch.from_numpy(np.load(vectors)["vectors"])
    unit, unit_words = nn.functional.normalize(queries, dim=1), nn.functional.normalize(words, dim=1)
    assert torch.allclose(unit @ unit.T, unit_words @ unit_words.T, atol=1e-5)
    random = DLFLHead(4096)
    random.grow(NAMES)
    assert torch.allclose(queries.norm(dim=1), random.queries[0].norm(dim=1).mean().expand(5), rtol=0.05)


@pytest.mark.parametrize(
    ("make_head", "match"),
    [
        (lambda: DLFLHead(D, steps=2), "steps=2"),
        (lambda: DLFLHead(D, steps=0, width=8), "steps=0"),
        (lambda: DLFLHead(D, width=0), "width=0"),
        (lambda: DLFLHead(D, heads=5), "heads=5"),
        (lambda: DLFLHead(D, width=10, heads=4), "heads=4"),
        (lambda: DLFLHead(D, dropout=1.0), "dropout=1.0"),
        (lambda: LinearHead(D, dropout=-0.1), "dropout=-0.1"),
    ],
)
def test_wrong_options_end_in_one_sentence(make_head, match):
    with pytest.raises(CmlBenchError, match=match) as caught:
        make_head()
    assert "\n" not in str(caught.value)


LAW = {2: 45.00, 3: 54.74, 20: 77.08, 80: 83.58}  # arccos(1 / sqrt(M)) in degrees
NORM = 10.0


def orthonormal(head, labels):
    head.grow([str(label) for label in range(labels)])
    with torch.no_grad():
        head.weights[0].copy_(torch.eye(labels, head.in_features))
    return head


def on_sphere(x):
    return NORM * nn.functional.normalize(x, dim=-1)


def degrees(features, weights):
    return torch.rad2deg(torch.acos(nn.functional.cosine_similarity(features, weights, dim=-1).clamp(-1, 1)))


def descend(variables, loss, steps):
    optimizer = torch.optim.Adam(variables, lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


@pytest.mark.parametrize("labels", LAW)
def test_one_shared_feature_obeys_the_angle_law(labels):
    head = orthonormal(LinearHead(96), labels)
    free = torch.randn(1, 96, requires_grad=True)
    descend([free], lambda: nn.functional.softplus(-head(on_sphere(free)).logits).sum(), 800)
    angles = degrees(on_sphere(free), head.weights[0])
    assert torch.allclose(angles, torch.full((labels,), LAW[labels]), atol=0.1)


@pytest.mark.parametrize("labels", [2, 20, *(pytest.param(labels, marks=pytest.mark.slow) for labels in (3, 80))])
def test_label_specific_features_escape_the_angle_law(labels):
    head = orthonormal(DLFLHead(96), labels)
    free = torch.randn(1, 81, 96, requires_grad=True)
    descend(
        [free, head.queries[0]],
        lambda: nn.functional.softplus(-head(on_sphere(free)).logits).sum(),
        800,
    )
    angles = degrees(head(on_sphere(free)).label_features[0], head.weights[0])
    assert float(angles.detach().mean()) < 0.6 * LAW[labels]
    assert float(angles.detach().max()) < 0.8 * LAW[labels]
