"""Every built-in head passes the kit for heads, and each broken rule is caught by the check that is meant for it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cml_bench.errors import CmlBenchError
from cml_bench.models.heads.head import Head, HeadMeta, HeadOutput
from cml_bench.models.heads.linear import LinearHead
from cml_bench.models.layout import as_tokens, pool
from cml_bench.registry import entries
from cml_bench.testing import HEAD_CHECKS, CheckOutcome, check, check_head

MORE = ("linear dropout=0.3", "query2label self_attention=true", "mulcon isolate=true", "ctran attends=older")
METHODS = (
    *entries("heads"),
    "dlfl width=16 steps=2 heads=4",
    *(pytest.param(head, marks=pytest.mark.slow) for head in MORE),
)


@functools.cache
def outcomes(head: str) -> dict[str, CheckOutcome]:
    return {outcome.name: outcome for outcome in check_head(head, raise_on_failure=False)}


@pytest.mark.parametrize("check_name", HEAD_CHECKS)
@pytest.mark.parametrize("head", METHODS)
def test_conforms(head: str, check_name: str) -> None:
    outcome = outcomes(head)[check_name]
    if outcome.status == "skipped":
        assert check_name == "attention_sums_to_one"
        pytest.skip(outcome.detail)
    assert outcome.status == "passed", outcome.detail
    assert outcome.detail


def test_what_growth_does_to_old_logits_is_told() -> None:
    assert outcomes("csc")["growth_keeps_logits"].detail.endswith("as the head grows, as declared")
    moved = float(outcomes("csc")["growth_keeps_logits"].detail.split()[4])
    assert moved > 1e-3
    assert float(outcomes("linear")["growth_keeps_logits"].detail.split()[4]) < 1e-6


# -- broken heads ------------------------------------------------------------------------------------------------------


class Replaces(LinearHead):
    """Make one big weight anew whenever labels come."""

    meta = HeadMeta(name="broken", title="Broken", features="pooled", growth_keeps_logits=True, reference="")

    def add_labels(self, names: tuple[str, ...]) -> None:
        super().add_labels(names)
        if len(self.weights) > 1:
            weights, biases = torch.cat(list(self.weights)), torch.cat(list(self.biases))
            self.weights, self.biases = (nn.ParameterList([nn.Parameter(p.detach())]) for p in (weights, biases))


class Float32(LinearHead):
    """Make new blocks in float32, wherever the old ones are."""

    meta = HeadMeta(name="broken", title="Broken", features="pooled", growth_keeps_logits=True, reference="")

    def add_labels(self, names: tuple[str, ...]) -> None:
        self.weights.append(nn.Parameter(torch.randn(len(names), self.in_features)))
        self.biases.append(nn.Parameter(torch.zeros(len(names))))


class Competes(LinearHead):
    """Compare labels with each other, and deny it."""

    meta = HeadMeta(name="broken", title="Broken", features="pooled", growth_keeps_logits=True, reference="")

    def forward(self, features: Tensor) -> HeadOutput:
        output = super().forward(features)
        return output._replace(logits=output.logits - output.logits.mean(dim=1, keepdim=True))


class AlwaysDrops(LinearHead):
    """Drop features in evaluation, too."""

    meta = HeadMeta(name="broken", title="Broken", features="pooled", growth_keeps_logits=True, reference="")

    def forward(self, features: Tensor) -> HeadOutput:
        return super().forward(F.dropout(pool(features), 0.3, training=True))


class LooksAround(LinearHead):
    """Centre features by their batch, in evaluation, too."""

    meta = HeadMeta(name="broken", title="Broken", features="pooled", growth_keeps_logits=True, reference="")

    def forward(self, features: Tensor) -> HeadOutput:
        pooled = pool(features)
        return super().forward(pooled - pooled.mean(dim=0))


class Turned(LinearHead):
    """Return logits (n, B)."""

    meta = HeadMeta(name="broken", title="Broken", features="pooled", growth_keeps_logits=True, reference="")

    def forward(self, features: Tensor) -> HeadOutput:
        output = super().forward(features)
        return output._replace(logits=output.logits.T)


class MapOnly(LinearHead):
    """Read nothing but a map."""

    meta = HeadMeta(name="broken", title="Broken", features="map", growth_keeps_logits=True, reference="")

    def forward(self, features: Tensor) -> HeadOutput:
        return super().forward(features.mean(dim=(2, 3)))


class Boasts(LinearHead):
    """Declare features of labels, and give those of the image."""

    meta = HeadMeta(
        name="broken", title="Broken", features="map", growth_keeps_logits=True, reference="", label_features=True
    )


class Silent(LinearHead):
    """Give features of labels without saying so."""

    meta = HeadMeta(name="broken", title="Broken", features="map", growth_keeps_logits=True, reference="")

    def forward(self, features: Tensor) -> HeadOutput:
        output = super().forward(features)
        return output._replace(label_features=output.pooled[:, None] * torch.cat(list(self.weights)))


class Overlooks(LinearHead):
    """Show where labels looked, without a softmax."""

    meta = HeadMeta(
        name="broken", title="Broken", features="map", growth_keeps_logits=True, reference="", attention=True
    )

    def forward(self, features: Tensor) -> HeadOutput:
        tokens, grid = as_tokens(features)
        looks = (tokens @ torch.cat(list(self.weights)).T).sigmoid().transpose(1, 2)
        shown = looks.unflatten(2, grid)[:, None] if self.need_attention else None
        return super().forward(features)._replace(attention=shown)


class Normalises(LinearHead):
    """Ask of a training batch what one image cannot give."""

    meta = HeadMeta(name="broken", title="Broken", features="pooled", growth_keeps_logits=True, reference="")

    def __init__(self, in_features: int) -> None:
        super().__init__(in_features)
        self.norm = nn.BatchNorm1d(in_features)

    def forward(self, features: Tensor) -> HeadOutput:
        return super().forward(self.norm(pool(features)))


class Hides(Head):
    """Keep classifiers where neither an optimiser nor a checkpoint finds them."""

    meta = HeadMeta(name="broken", title="Broken", features="pooled", growth_keeps_logits=True, reference="")

    def __init__(self, in_features: int) -> None:
        super().__init__(in_features)
        self.scale = nn.Parameter(torch.ones(()))
        self.layers: list[nn.Linear] = []

    def add_labels(self, names: tuple[str, ...]) -> None:
        self.layers.append(nn.Linear(self.in_features, len(names)).to(self.scale))

    def forward(self, features: Tensor) -> HeadOutput:
        pooled = pool(features)
        return HeadOutput(self.scale * torch.cat([layer(pooled) for layer in self.layers], dim=1), pooled)


class Stands(LinearHead):
    """Let no gradient through."""

    meta = HeadMeta(name="broken", title="Broken", features="pooled", growth_keeps_logits=True, reference="")

    def forward(self, features: Tensor) -> HeadOutput:
        output = super().forward(features)
        return output._replace(logits=output.logits.detach() + 0 * output.logits)


class Misread(LinearHead):
    """Have a default that nobody can type.

    Args:
        in_features: Width.
        depth: A number.
    """

    meta = HeadMeta(name="broken", title="Broken", features="pooled", growth_keeps_logits=True, reference="")

    def __init__(self, in_features: int, depth: int = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
        super().__init__(in_features)


BROKEN = {
    Replaces: {"growth_leaves_old_parameters"},
    Float32: {"growth_leaves_old_parameters"},
    Competes: {"growth_keeps_logits"},
    AlwaysDrops: {"evaluation_is_deterministic", "growth_keeps_logits", "copies_agree"},
    LooksAround: {"evaluation_is_deterministic"},
    Turned: {"runs"},
    MapOnly: {"runs"},
    Boasts: {"label_features_as_declared"},
    Silent: {"label_features_as_declared"},
    Overlooks: {"attention_sums_to_one"},
    Normalises: {"one_image_batch"},
    Hides: {"growth_leaves_old_parameters", "copies_agree", "learns"},
    Stands: {"learns"},
    Misread: {"config_round_trip"},
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_rule_is_caught(kind: type[Head]) -> None:
    found = check_head(kind, raise_on_failure=False)
    failed = {outcome.name: outcome.detail for outcome in found if outcome.status == "failed"}
    assert set(failed) - {"metadata"} == BROKEN[kind], failed


def test_one_that_does_not_run_is_not_looked_at_further() -> None:
    found = {outcome.name: outcome for outcome in check_head(Turned, raise_on_failure=False)}
    assert found["runs"].detail == "logits of a map have the shape (6, 5), not (5, 6)"
    later = list(HEAD_CHECKS)[list(HEAD_CHECKS).index("runs") + 1 :]
    assert {(found[name].status, found[name].detail) for name in later} == {("skipped", "it does not run")}


NAME = "broken"


class Computed(LinearHead):
    """Compute its name.

    Args:
        dropout: As before.
    """

    meta = HeadMeta(name=NAME, title="Broken", features="pooled", growth_keeps_logits=True, reference="")


class Unexplained(LinearHead):
    """Have an option that the docstring does not name."""

    meta = HeadMeta(name="broken", title="Broken", features="pooled", growth_keeps_logits=True, reference="")

    def __init__(self, in_features: int, *, depth: int = 1) -> None:
        super().__init__(in_features)


class Exempt(Competes):
    """Be excused."""

    meta = HeadMeta(
        name="broken",
        title="Broken",
        features="pooled",
        growth_keeps_logits=True,
        reference="",
        exemptions={"growth_keeps_logits": "labels compete"},
    )


class WronglyExempt(Competes):
    """Be excused from what nobody asks."""

    meta = HeadMeta(
        name="broken",
        title="Broken",
        features="pooled",
        growth_keeps_logits=False,
        reference="",
        exemptions={"growth_keeps_logit": "no reason"},
    )


class Inherits(LinearHead):
    """Have the meta of another."""


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Computed, "meta.name is no literal: lists show it without importing it"),
        (Unexplained, "option 'depth' is not described under 'Args:' in the docstring"),
        (WronglyExempt, "meta.exemptions names 'growth_keeps_logit', which is no check: did you mean"),
        (Inherits, "Inherits has no meta of its own, written with names: meta = ...Meta(name=...)"),
    ],
)
def test_metadata_says_what_is_missing(kind: type[Head], sentence: str) -> None:
    found = {outcome.name: outcome for outcome in check_head(kind, raise_on_failure=False)}
    assert found["metadata"].status == "failed"
    assert found["metadata"].detail.startswith(sentence)


def test_an_exemption_is_reported_with_its_reason() -> None:
    found = {outcome.name: outcome for outcome in check_head(Exempt)}
    assert (found["growth_keeps_logits"].status, found["growth_keeps_logits"].detail) == ("exempt", "labels compete")


def test_a_failure_raises_and_says_why() -> None:
    with pytest.raises(CmlBenchError, match=r"Competes fails 1 of \d+ checks \(growth_keeps_logits: old logits move"):
        check_head(Competes)


def test_a_head_is_checked_from_its_file(tmp_path: Any) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from cml_bench.models.heads.head import HeadMeta\nfrom cml_bench.models.heads.linear import LinearHead\n\n\n"
        'class Mine(LinearHead):\n    """Be linear.\n\n    Args:\n        dropout: As there.\n    """\n\n'
        '    meta = HeadMeta(name="mine", title="Mine", features="pooled", growth_keeps_logits=True, reference="")\n'
    )
    assert {o.status for o in check(f"head:{path}:Mine dropout=0.2")} == {"passed", "skipped"}
    with pytest.raises(CmlBenchError, match=r"head .*:Mine has no option 'drpout': did you mean 'dropout'"):
        check(f"head:{path}:Mine drpout=0.2")
    with pytest.raises(CmlBenchError, match="there is no head 'linaer': did you mean 'linear'"):
        check("head:linaer")
