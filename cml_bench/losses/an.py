"""AN: what nobody marked is absent; the baseline of single positive labels."""

from __future__ import annotations

from cml_bench.losses.assume_negative import AssumeNegative
from cml_bench.losses.criterion import CriterionMeta

__all__ = ["AN"]


class AN(AssumeNegative):
    """Binary cross-entropy with open labels as absent: the mean over the labels asked for.

    ``assume_negative`` as it stands by default, under the name that the literature gives it; fully annotated it is BCE.
    The literature's IU, which ignores open labels, is ``bce`` (a mean over the known labels alone).

    Source: Cole et al. 2021, arXiv 2106.09708.
    """

    meta = CriterionMeta(name="an", title="AN", reference="arXiv:2106.09708", open=True)

    def __init__(self) -> None:
        super().__init__()
