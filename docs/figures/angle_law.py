"""Draw ``angle_law.svg``: what one shared feature can do, and one feature a label. Run it as a script."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import torch
from torch.nn import functional as F

from cml_bench import angle_law, label_angles

LABELS = (2, 3, 5, 8, 12, 20, 35, 51, 80)
LENGTH = 5.0
"""Length of every feature, as normalisation and weight decay keep it."""


def learnt_angle(labels: int, shared: bool, steps: int = 3000) -> float:
    """Return the mean angle to the row of each of ``labels`` present labels, after gradient descent on the feature.

    Args:
        labels: Number M of labels that are all present; their classifier rows are orthonormal.
        shared: Whether one feature serves all labels, or each label has one.
        steps: Steps of gradient descent on the logistic loss.
    """
    generator = torch.Generator().manual_seed(labels)
    rows = torch.linalg.qr(torch.randn(labels, labels, generator=generator))[0].T
    start = torch.randn((1, labels) if shared else (1, labels, labels), generator=generator)
    feature = F.normalize(start, dim=-1).requires_grad_()
    descent = torch.optim.SGD([feature], lr=1.0)
    for _ in range(steps):
        seen = LENGTH * F.normalize(feature, dim=-1)
        logits = seen @ rows.T if shared else (seen * rows).sum(-1)
        descent.zero_grad()
        F.softplus(-logits).sum().backward()
        descent.step()
    return float(label_angles(feature.detach(), rows).mean())


def draw(path: Path) -> None:
    """Draw the law, and what gradient descent finds, into an SVG file."""
    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "angle_law", "font.size": 11, "svg.fonttype": "path"})
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    every = range(1, 91)
    axes.plot(every, [angle_law(m) for m in every], color="0.4", label=r"law: $\arccos(1/\sqrt{M})$")
    for shared, marker, colour, name in (
        (True, "o", "tab:orange", "one shared feature (OFML), learnt"),
        (False, "s", "tab:blue", "one feature a label (OFOL), learnt"),
    ):
        found = [learnt_angle(m, shared) for m in LABELS]
        axes.plot(LABELS, found, marker, color=colour, label=name)
    axes.set(xlabel="labels present, M", ylabel="angle to each label's classifier row", xlim=(0, 90), ylim=(-4, 94))
    axes.set_yticks(range(0, 91, 15), [f"{degrees}°" for degrees in range(0, 91, 15)])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.legend(frameon=False, loc="center right")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg"))
