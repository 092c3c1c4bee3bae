"""PAT and PAT-I: patches as a loop would cut them, readings brought together as the paper says, growth, strategies."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.losses.asl import ASL
from cml_bench.losses.bce import BCE
from cml_bench.models.heads.dlfl import DLFLHead
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.model import MultiLabelModel
from cml_bench.models.wrappers.pat import PAT
from cml_bench.models.wrappers.pat_inference import PATInference
from cml_bench.models.wrappers.patches import cut, weigh
from cml_bench.models.wrappers.wrapper import Wrapper
from cml_bench.registry import load
from cml_bench.runs.check import check_jobs
from cml_bench.runs.job import Job, make_jobs
from cml_bench.runs.method import parse_method
from cml_bench.runs.plan import plan
from cml_bench.runs.run import run_job
from cml_bench.runs.setup import make_model
from cml_bench.testing import check_strategy
from cml_bench.testing.strategies import StrategyCase
from cml_bench.testing.trial import try_out

NAMES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def _seeded() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        yield


def model_with(wrapper: Wrapper | None, head: type[Any] = LinearHead, labels: int = 3) -> MultiLabelModel:
    """A convolution with batch norm on 8 x 8 images, in a wrapper, with labels."""
    backbone = nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), nn.BatchNorm2d(6), nn.ReLU())
    model = MultiLabelModel(backbone, head(6))
    if wrapper is not None:
        model.wrap(wrapper, lambda: head(6))
    grow(model, NAMES[:labels])
    return model


def grow(model: MultiLabelModel, names: tuple[str, ...]) -> None:
    labels = SimpleNamespace(names=names)
    model.train()
    model.adaptation(SimpleNamespace(dataset=SimpleNamespace(labels=labels)))


def images(size: int = 8) -> Tensor:
    return torch.randn(4, 3, size, size)


# -- patches -----------------------------------------------------------------------------------------------------------


def test_patches_are_the_quarters_resized() -> None:
    batch = images()
    halves = (slice(0, 4), slice(4, 8))
    expected = [batch[:, :, rows, columns] for rows in halves for columns in halves]
    for found, part in zip(cut(batch, 2), expected, strict=True):
        assert torch.allclose(found, F.interpolate(part, size=(8, 8), mode="bilinear"), atol=1e-6)


@pytest.mark.parametrize(("size", "grid"), [(8, 3), (7, 2), (5, 5)])
def test_every_pixel_is_in_one_patch(size: int, grid: int) -> None:
    """Patches of an image of which one pixel is lit: it shows in exactly one of them."""
    for pixel in range(size * size):
        image = torch.zeros(1, 3, size, size)
        image[0, :, pixel // size, pixel % size] = 1
        patches = cut(image, grid)
        assert len(patches) == grid**2
        assert all(patch.shape == image.shape for patch in patches)
        assert sum(bool(patch.any()) for patch in patches) == 1


def test_one_patch_is_the_image() -> None:
    batch = images()
    (patch,) = cut(batch, 1)
    assert torch.equal(patch, batch)


def test_too_small_an_image_is_one_sentence() -> None:
    with pytest.raises(CmlBenchError, match=r"images of 2 x 2 pixels cannot be cut into 3 x 3 patches"):
        cut(images(2), 3)


@given(seed=st.integers(0, 2**31), patches=st.integers(1, 6))
def test_weighing(seed: int, patches: int) -> None:
    """Within the patches' scores; the mean where weights are equal; the same in any order; as a loop computes it."""
    generator = torch.Generator().manual_seed(seed)
    u, v = (3 * torch.randn(patches, 2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    found = weigh(u, v)
    assert (found >= v.amin(dim=0) - 1e-9).all()
    assert (found <= v.amax(dim=0) + 1e-9).all()
    torch.testing.assert_close(weigh(u[:1].expand_as(u), v), v.mean(dim=0))
    order = torch.randperm(patches, generator=generator)
    torch.testing.assert_close(weigh(u[order], v[order]), found)
    for image in range(2):
        for label in range(3):
            shares = [float(x.exp()) for x in u[:, image, label]]
            looped = sum(s / sum(shares) * float(x) for s, x in zip(shares, v[:, image, label], strict=True))
            assert float(found[image, label]) == pytest.approx(looped)


# -- PAT-I -------------------------------------------------------------------------------------------------------------


def test_inference_with_the_whole_image_as_patch_is_plain() -> None:
    model = model_with(PATInference(grid=1)).eval()
    batch = images()
    torch.testing.assert_close(model(batch), model.read(batch).logits)


def test_inference_by_hand() -> None:
    model = model_with(PATInference()).eval()
    batch = images()
    z = torch.stack([model.read(patch).logits for patch in cut(batch, 2)])
    expected = (model.read(batch).logits + (z.softmax(dim=0) * z).sum(dim=0)) / 2
    torch.testing.assert_close(model(batch), expected)


def test_inference_leaves_training_alone() -> None:
    batch, labels = images(), torch.tensor([[1, 0, 1]] * 4, dtype=torch.int8)
    plain = model_with(None)
    wrapped = copy.deepcopy(plain)
    wrapped.wrap(PATInference(), lambda: LinearHead(6))
    for model in (plain, wrapped):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            BCE()(model.train().head_output(batch), labels).backward()
            optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(plain.parameters(), wrapped.parameters(), strict=True))
    assert not torch.allclose(plain.eval()(batch), wrapped.eval()(batch))


@pytest.mark.parametrize(
    "method",
    [
        *("lwf", "ewc", "mas", "rwalk", "pseudo_label", "mile", "label_mask head=ctran", "ridge head=dlfl"),
        *(f"{name} memory_size=20" for name in ("der", "mir", "bic", "gem", "kar", "er relabel=pseudo>0.5")),
    ],
)
def test_inference_leaves_every_strategy_its_weights(method: str) -> None:
    """Those that look at images between steps, or have a teacher; predictions are another thing."""
    plain, wrapped = (try_out(StrategyCase(spec).plan) for spec in (method, f"{method} wrap=pat_inference"))
    first, second = plain.learner.model.state_dict(), wrapped.learner.model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert wrapped.learner.model.wrapper is not None
    assert plain.differs_from(wrapped) == 0


# -- PAT ---------------------------------------------------------------------------------------------------------------


def parts(model: MultiLabelModel) -> tuple[Any, Any, Any]:
    wrapper: Any = model.wrapper
    return model.head, wrapper.weight, wrapper.score


@pytest.mark.parametrize("classifiers", ["cross", "self"])
def test_training_reads_whole_and_patches(classifiers: Any) -> None:
    """One pass over the view-major batch, batch norm over all of it; two readings, by hand."""
    model = model_with(PAT(classifiers=classifiers))
    batch = images()
    views = torch.cat([batch, *cut(batch, 2)])
    reference = copy.deepcopy(model)
    features = reference.backbone(views).unflatten(0, (5, 4))
    whole, weight, score = parts(reference)
    v = torch.stack([score(f).logits for f in features[1:]])
    u = v if weight is None else torch.stack([weight(f).logits for f in features[1:]])
    assert (weight is None) == (classifiers == "self")
    output = model.head_output(batch)
    torch.testing.assert_close(output.logits, whole(features[0]).logits)
    assert output.companion is not None
    torch.testing.assert_close(output.companion.logits, (u.softmax(dim=0) * v).sum(dim=0))
    torch.testing.assert_close(output.companion.pooled, features[1:].mean(dim=(3, 4)).mean(dim=0))
    running = [module.running_mean for module in (model.backbone[1], reference.backbone[1])]  # type: ignore[index]
    torch.testing.assert_close(*running)


def test_evaluation_is_the_mean_of_both_readings() -> None:
    model = model_with(PAT()).eval()
    batch = images()
    whole, weight, score = parts(model)
    features = [model.backbone(view) for view in cut(batch, 2)]
    u, v = (torch.stack([head(f).logits for f in features]) for head in (weight, score))
    expected = (whole(model.backbone(batch)).logits + (u.softmax(dim=0) * v).sum(dim=0)) / 2
    torch.testing.assert_close(model(batch), expected)
    assert model.head_output(batch).companion is None


def test_the_criterion_judges_both_readings_and_masks_both() -> None:
    model = model_with(PAT())
    labels = torch.tensor([[1, 0, -2], [0, -1, -2], [1, 1, -2], [-2, 0, -2]], dtype=torch.int8)
    output = model.head_output(images())
    assert output.companion is not None
    loss = ASL()(output, labels)
    torch.testing.assert_close(loss, ASL()(output.logits, labels) + ASL()(output.companion.logits, labels))
    loss.backward()
    for head in parts(model):
        gradient = head.weights[0].grad
        assert gradient[:2].any(dim=1).all()
        assert not gradient[2].any(), "a label that nobody was asked for is trained"


def test_three_heads_grow_together_and_disturb_nothing() -> None:
    model = model_with(PAT(), labels=2).eval()
    batch = images()
    before, old = model(batch), {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    grow(model, NAMES)
    assert [head.label_names for head in parts(model)] == [NAMES] * 3
    for name, (parameter, value) in old.items():
        assert model.get_parameter(name) is parameter
        assert torch.equal(parameter, value)
    torch.testing.assert_close(model.eval()(batch)[:, :2], before, atol=1e-6, rtol=0)
    grow(model.eval(), NAMES)
    assert [head.n_labels for head in parts(model)] == [3] * 3


def test_heads_begin_differently() -> None:
    heads = parts(model_with(PAT()))
    blocks = [head.weights[0] for head in heads]
    assert not torch.equal(blocks[0], blocks[1])
    assert not torch.equal(blocks[1], blocks[2])


def test_features_of_labels_are_weighed_alike() -> None:
    model = model_with(PAT(), DLFLHead)
    batch = images()
    reference = copy.deepcopy(model)
    _, weight, score = parts(reference)
    patches = reference.backbone(torch.cat([batch, *cut(batch, 2)])).unflatten(0, (5, 4))[1:]
    shares = torch.stack([weight(f).logits for f in patches]).softmax(dim=0)
    own = torch.stack([score(f).label_features for f in patches])
    companion = model.head_output(batch).companion
    assert companion is not None
    assert companion.label_features is not None
    torch.testing.assert_close(companion.label_features, (shares[..., None] * own).sum(dim=0))


# -- as a part of methods ----------------------------------------------------------------------------------------------


def test_method_text() -> None:
    method = parse_method("naive wrap.grid=3 wrap=pat lr=0.1 wrap.classifiers=self")
    assert method.spec == "naive wrap=pat wrap.classifiers=self wrap.grid=3 lr=0.1"
    assert parse_method(method.spec) == method
    assert parse_method("er head=dlfl loss=asl memory_size=5").spec == "er head=dlfl loss=asl memory_size=5"


def test_keys_of_methods_without_a_wrapper_are_what_they_were() -> None:
    """The key of a job written down before there were wrappers; versions and files are part of it."""
    import hashlib
    import json

    import cml_bench

    job = Job("digits", "er memory_size=200", options=(("n_train", "40"),))
    plain = job.determinants
    identity = {"job": plain, "version": cml_bench.__version__, "files": [None, None]}
    assert job.key == hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def test_the_file_of_a_wrapper_is_part_of_the_key(tmp_path: Any) -> None:
    path = tmp_path / "mine.py"
    keys = set()
    for text in ("x = 1\n", "x = 2\n"):
        path.write_text(text)
        keys.add(Job("digits", f"naive wrap={path}:Mine").key)
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("naive wrap=patt", r"there is no wrapper 'patt': did you mean 'pat'\?"),
        ("naive wrap.grid=2", "wrap.grid=2 is an option of no wrapper: say which one, as in wrap=pat"),
        ("naive wrap=pat wrap.grid=0", "wrap=pat: grid=0 cuts nothing"),
        ("naive wrap=pat wrap.gird=2", "wrapper pat has no option 'gird': did you mean 'grid'"),
        ("naive wrap=pat wrap.classifiers=three", "option classifiers='three' of wrapper pat cannot be used"),
        ("naive wrap=pat frozen=true", "wrap=pat cuts images, and here the model reads features: set frozen=false"),
        ("avalanche.training.supervised:Naive wrap=pat", "tells it of logits alone: take wrap=pat_inference"),
        ("lwf wrap=pat", "trains two readings apart and evaluates their mean, and lwf would hold the one to the other"),
        ("derpp wrap=pat", "derpp would hold the one to the other: take wrap=pat_inference, or another strategy"),
        ("naive wrap=pat head=c_gmvae loss=c_gmvae", "brings heads of its own, and loss=c_gmvae is about the model's"),
        ("l3a wrap=pat", "l3a solves for the model's own head: take wrap=pat_inference, or another strategy"),
        ("bic wrap=pat", "CorrectedModel of this strategy is more than backbone and head: take wrap=pat_inference"),
    ],
)
def test_what_cannot_be_is_one_sentence(small_jobs: Any, method: str, sentence: str) -> None:
    with pytest.raises(CmlBenchError, match=sentence) as caught:
        check_jobs(small_jobs([method]))
    assert "\n" not in str(caught.value)


def test_heads_for_patches_learn_where_a_loss_freezes_all_but_heads() -> None:
    """ProbMCL's second phase. Oracle: what nobody trains is the same whatever the learning rate."""
    ends = []
    for lr in (0.01, 0.1):
        spec = f"naive loss=probmcl wrap=pat epochs=2 lr={lr} optimizer=sgd weight_decay=0"
        model = try_out(StrategyCase(spec).plan).learner.model
        ends.append([parameter.detach().clone() for parameter in model.wrapper.parameters()])
    assert ends[0]
    assert not any(torch.equal(*pair) for pair in zip(*ends, strict=True))


def test_vectors_have_no_patches(small_jobs: Any) -> None:
    from cml_bench.runs.given_features import GivenFeatures

    (job,) = small_jobs(["naive wrap=pat_inference"])
    with pytest.raises(CmlBenchError, match="the model reads features: take a data set of images"):
        make_model(plan(job), GivenFeatures(4))


def test_a_result_says_what_was_wrapped(small_jobs: Any) -> None:
    made = {job.method: run_job(job) for job in small_jobs(["naive", "naive wrap=pat_inference", "naive wrap=pat"])}
    described = [made[method].result["method"] for method in made]
    assert [each["wrap"] for each in described] == [None, "pat_inference", "pat"]
    assert described[2]["wrap_options"] == {}
    sizes = [run.result["cost"]["parameters"]["total"] for run in made.values()]
    # 64 features and a bias, for ten labels, in two more heads.
    assert sizes[1] == sizes[0]
    assert sizes[2] == sizes[0] + 2 * 10 * (64 + 1)


def test_names_are_looked_up_before_anything_runs() -> None:
    with pytest.raises(CmlBenchError, match="there is no wrapper 'pta'"):
        make_jobs(["digits"], ["naive wrap=pta"], ["default"], [0])


@pytest.mark.parametrize(
    "method",
    [
        "naive wrap=pat",
        pytest.param("naive wrap=pat wrap.classifiers=self head=dlfl loss=asl", marks=pytest.mark.slow),
        "er wrap=pat memory_size=20",
        "gdumb wrap=pat_inference memory_size=20",
        pytest.param("pseudo_label wrap=pat", marks=pytest.mark.slow),
        pytest.param("l2p wrap=pat_inference", marks=pytest.mark.slow),
    ],
)
def test_strategies_keep_their_rules_in_a_wrapper(method: str) -> None:
    check_strategy(method)


def test_it_is_found_by_name() -> None:
    assert load("wrappers", "pat") is PAT
    assert load("wrappers", "pat-inference") is PATInference


def test_patches_that_nothing_judges_are_refused(small_jobs: Any) -> None:
    """ER-ACE replaces the loss by one of logits; MIR asks about logits for its choice alone."""
    refused, allowed = small_jobs(["er_ace wrap=pat memory_size=20", "mir wrap=pat memory_size=20"])
    with pytest.raises(CmlBenchError, match="er_ace tells it of logits alone: take wrap=pat_inference"):
        run_job(refused)
    run_job(allowed)


def test_frozen_rows_are_frozen_in_the_heads_for_patches_too() -> None:
    model = try_out(StrategyCase("freeze_old_rows wrap=pat epochs=1").plan).learner.model
    assert not any(parameter.requires_grad for parameter in model.wrapper.parameters())
