"""The public conformance kit for heads: does a head grow without disturbing, and say what it declares?"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cml_bench.labels import PRESENT
from cml_bench.losses.bce import BCE
from cml_bench.metrics.ranking import average_precision
from cml_bench.models.heads.head import Head, HeadMeta, HeadOutput
from cml_bench.options import arguments
from cml_bench.registry import load_class
from cml_bench.runs.isolation import isolated
from cml_bench.testing.case import PartCase
from cml_bench.testing.outcome import (
    CheckOutcome,
    NotApplicableError,
    declared,
    named,
    require,
    require_above_chance,
    require_docstring,
    require_exemptions,
    require_literals,
    run_checks,
)
from cml_bench.testing.toy import ToySource

WIDTH = 24
NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")
_OLD = 2
_BATCH = 5
_ROUNDING = 1e-5
_STEPS = 60

_LAYOUTS = {"map": (WIDTH, 2, 3), "tokens": (6, WIDTH), "vector": (WIDTH,)}
"""Shapes of features after the batch; see ``Head.forward``."""


def check_head(head: str | type[Head], *, raise_on_failure: bool = True) -> list[CheckOutcome]:
    """Check that a head keeps the rules of the suite, on random features and on those of a toy problem.

    Args:
        head: A name with options, as ``"dlfl width=16 steps=2"`` or ``"./my_head.py:MyHead"``, or a class.
        raise_on_failure: Raise if a check fails, instead of only returning what was found.

    Returns:
        One outcome for each of ``HEAD_CHECKS``.

    Raises:
        CmlBenchError: If nothing bears the name, an option is wrong, or a check fails.
    """
    return run_checks(HEAD_CHECKS, HeadCase(head), raise_on_failure=raise_on_failure)


class HeadCase(PartCase):
    """A head under test."""

    noun = "head"
    place = "head"
    skipped = ("self", "in_features")

    def look_up(self, name: str) -> type[Head]:
        """Return the class of a head."""
        return load_class("heads", name, Head)  # type: ignore[type-abstract]

    def make(self, *growths: tuple[str, ...], width: int = WIDTH, seed: int = 0) -> Any:
        """Return a fresh head with labels, its parameters drawn from a seed."""
        with isolated(seed, 1):
            head = self.kind(width, **self.options)
            for names in growths:
                head.grow(names)
        return head

    @cached_property
    def old_and_new(self) -> Any:
        """A head that has grown once, in evaluation mode."""
        return self.make(NAMES[:_OLD], NAMES[_OLD:]).eval()


def _features(layout: tuple[int, ...] = (WIDTH, 2, 3), batch: int = _BATCH) -> Tensor:
    return torch.randn(batch, *layout, generator=torch.Generator().manual_seed(0))


def _distance(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the scale of the values."""
    return float(((one - other).abs().max() / other.abs().max().clamp(min=1.0)).detach())


def _metadata(case: HeadCase) -> str:
    """Name, title, literals that lists can show, an own docstring that describes the options, real exemptions."""
    meta = declared(case.kind, HeadMeta, case.listed_name, "name=..., title=..., features=..., ...")
    require(bool(meta.title), "meta.title is empty")
    require_literals(case.kind)
    require_exemptions(meta, HEAD_CHECKS)
    return require_docstring(case.kind, arguments(case.kind, case.skipped), "Args")


def _config_round_trip(case: HeadCase) -> str:
    """Options written into a method and read again are the same options."""
    return case.require_round_trip()


def _runs(case: HeadCase) -> str:
    """Every layout of features is read, in training and in evaluation, and gives finite logits (B, n)."""
    head = case.old_and_new
    for name, layout in _LAYOUTS.items():
        for training in (True, False):
            output = head.train(training)(_features(layout))
            require(isinstance(output, HeadOutput), f"forward returns {type(output).__name__}, not a HeadOutput")
            expected, found = (_BATCH, len(NAMES)), tuple(output.logits.shape)
            require(found == expected, f"logits of a {name} have the shape {found}, not {expected}")
            require(bool(output.logits.isfinite().all()), f"logits of a {name} are not finite")
            pooled = tuple(output.pooled.shape)
            require(len(pooled) == 2 and pooled[0] == _BATCH, f"pooled of a {name} has the shape {pooled}, not (B, D)")
    return f"reads {', '.join(_LAYOUTS)}"


def _label_features_as_declared(case: HeadCase) -> str:
    """Features (B, n, d) read from the image are there if ``meta.label_features`` says so, and only then."""
    says, output = case.kind.meta.label_features, case.old_and_new(_features())
    given = output.label_features
    if given is None:
        require(not says, "meta.label_features=True, but there are none")
        return "one feature for all labels"
    shape = tuple(given.shape)
    fits = len(shape) == 3 and shape[:2] == (_BATCH, len(NAMES))
    require(fits, f"label_features have the shape {shape}, not (B, n, d)")
    differ = _distance(given[1:], given[:1]) > _ROUNDING
    found = f"features of labels {'depend' if differ else 'do not depend'} on the image"
    require(differ == says, f"meta.label_features={says}, but {found}")
    return f"label features {shape}" + ("" if differ else ", the same for every image")


def _attention_sums_to_one(case: HeadCase) -> str:
    """Where labels looked, (B, heads, n, H, W), is said if it is asked for and declared; rows sum to 1."""
    head = copy.deepcopy(case.old_and_new)
    silent = head(_features())
    head.need_attention = True
    output = head(_features())
    says = case.kind.meta.attention
    given = output.attention is not None
    require(given == says, f"meta.attention={says}, but when asked for it is {'there' if given else 'missing'}")
    if not given:
        raise NotApplicableError("has no attention to show")
    require(silent.attention is None, "attention is there without being asked for: training has no use for it")
    shape = tuple(output.attention.shape)
    ends = shape[0] == _BATCH and shape[2:] == (len(NAMES), 2, 3)
    require(len(shape) == 5 and ends, f"attention has the shape {shape}, not (B, heads, n, H, W)")
    sums = output.attention.sum(dim=(3, 4))
    require(bool((output.attention >= 0).all()), "attention has negative entries")
    ones = torch.ones_like(sums)
    require(_distance(sums, ones) < _ROUNDING, f"rows of the attention sum to {float(sums.detach().min()):.3f}")
    return f"rows of {shape} sum to 1"


def _growth_leaves_old_parameters(case: HeadCase) -> str:
    """After growth every old parameter is the same object with the same bits, and new ones have its type."""
    head = case.make(NAMES[:_OLD]).double()
    _step(head, _features().double())
    before = {name: (parameter, parameter.detach().clone()) for name, parameter in head.named_parameters()}
    with isolated(1, 1):
        head.grow(NAMES[_OLD:])
    after = dict(head.named_parameters())
    require(head.label_names == NAMES, f"after growth the head has the labels {head.label_names}, not {NAMES}")
    for name, (parameter, value) in before.items():
        require(after.get(name) is parameter, f"growth replaces parameter {name}: append a block instead")
        require(torch.equal(parameter, value), f"growth changes parameter {name}")
    for name, tensor in (*after.items(), *head.named_buffers()):
        other = tensor.is_floating_point() and tensor.dtype is not torch.float64
        require(not other, f"{name} is made as {tensor.dtype} in a float64 head: new blocks go where the old ones are")
    return f"{len(before)} old parameters stand, {len(after) - len(before)} are new"


def _growth_keeps_logits(case: HeadCase) -> str:
    """Growth leaves old logits equal, to rounding, if the head says so; else it is told how far they move."""
    head = case.make(NAMES[:_OLD])
    _step(head, _features())
    before = head.eval()(_features()).logits
    with isolated(1, 1):
        head.grow(NAMES[_OLD:])
    moved = _distance(head(_features()).logits[:, :_OLD], before)
    found = f"old logits move by {moved:.2g} as the head grows"
    says, usual = head.keeps_logits, case.kind.meta.growth_keeps_logits
    require(
        moved < _ROUNDING or not says, f"{found}, but {'meta.growth_keeps_logits' if usual else 'keeps_logits'}=True"
    )
    require(bool(case.options) or says == usual, f"keeps_logits={says}, but meta.growth_keeps_logits={usual}")
    return found if says else f"{found}, as declared"


def _step(head: nn.Module, features: Tensor) -> None:
    """Train one step, so that nothing stands at what it starts from."""
    with isolated(0, 1):
        head.train()(features).logits.square().mean().backward()
    for parameter in head.parameters():
        if parameter.grad is not None:
            parameter.data -= 0.1 * parameter.grad
            parameter.grad = None


def _evaluation_is_deterministic(case: HeadCase) -> str:
    """Evaluated twice, the same bits; nothing changes, and an image's logits do not depend on its batch."""
    head, features = case.make(NAMES).eval(), _features()
    state = {name: value.clone() for name, value in head.state_dict().items()}
    once, again = head(features).logits, head(features).logits
    require(torch.equal(once, again), "two evaluations of the same features differ")
    changed = [name for name, value in head.state_dict().items() if not torch.equal(value, state[name])]
    require(not changed, f"evaluation changes {', '.join(changed)}")
    alone = torch.cat([head(features[i : i + 1]).logits for i in range(_BATCH)])
    require(_distance(alone, once) < _ROUNDING, "in evaluation, logits of an image depend on the others in its batch")
    return "evaluation repeats, changes nothing and looks at each image alone"


def _one_image_batch(case: HeadCase) -> str:
    """A training batch of one image gives finite logits and gradients."""
    head = case.make(NAMES)
    head.train()(_features(batch=1)).logits.square().sum().backward()
    for name, parameter in head.named_parameters():
        finite = parameter.grad is None or bool(parameter.grad.isfinite().all())
        require(finite, f"a batch of one image gives {name} a gradient that is not finite")
    return "a batch of one image trains"


def _copies_agree(case: HeadCase) -> str:
    """A deep copy, and a fresh head that is given the state, say the same: teachers and checkpoints rely on it."""
    head = case.make(NAMES[:_OLD], NAMES[_OLD:])
    _step(head, _features())
    logits = head.eval()(_features()).logits
    require(torch.equal(copy.deepcopy(head)(_features()).logits, logits), "a deep copy says something else")
    fresh = case.make(NAMES[:_OLD], NAMES[_OLD:], seed=1).eval()
    fresh.load_state_dict(head.state_dict())
    require(torch.equal(fresh(_features()).logits, logits), "what is learnt is not all in the state_dict")
    return "a deep copy and a restored head agree"


def _learns(case: HeadCase) -> str:
    """Trained on toy features in two growths, all labels are ranked clearly better than by chance."""
    (maps, labels), (test_maps, test_labels) = (_toy_maps(split) for split in ("train", "test"))
    head, loss = case.make(width=WIDTH), BCE()
    with isolated(0, 1):
        for names in (NAMES[:3], NAMES[3:]):
            head.grow(names)
            optimizer = torch.optim.AdamW(filter(lambda p: p.requires_grad, head.parameters()), lr=0.01)
            for _ in range(_STEPS):
                optimizer.zero_grad()
                loss(head.train()(maps), labels).backward()
                optimizer.step()
        scores = head.eval()(test_maps).logits.detach().numpy()
    reached = float(np.mean(average_precision(scores, test_labels.numpy())))
    chance = float((test_labels == PRESENT).float().mean())
    return require_above_chance("mAP", reached, chance)


def _toy_maps(split: str) -> tuple[Tensor, Tensor]:
    """Return (N, WIDTH, 2, 2) maps of toy images, in which each label is a direction at one position, and labels."""
    source = ToySource(split, 96, int(split == "test"), len(NAMES))
    patches = source.inputs().table.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 1, 4, 5, 2, 3).flatten(1, 3)
    spread = torch.from_numpy(np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, patches.shape[1])))[0])
    return torch.einsum("dp,nphw->ndhw", spread.to(patches), patches), torch.from_numpy(source.labels)


HEAD_CHECKS = named(
    *(_metadata, _config_round_trip, _runs, _label_features_as_declared, _attention_sums_to_one),
    *(_growth_leaves_old_parameters, _growth_keeps_logits, _evaluation_is_deterministic, _one_image_batch),
    *(_copies_agree, _learns),
)
"""Name of each check of a head to the function that makes it; the docstring says what it demands."""
