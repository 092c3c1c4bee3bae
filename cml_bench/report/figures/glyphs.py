"""A method's marker as a small picture beside its name in a table."""

from __future__ import annotations

import numpy as np
from matplotlib.markers import MarkerStyle

from cml_bench.report.figures.style import VARIABLES, Look


def glyph(look: Look) -> str:
    """Return an ``<svg>`` element with the marker of a method, as pictures draw it."""
    style = MarkerStyle(look.marker)
    outline = style.get_path().transformed(style.get_transform()).to_polygons(closed_only=False)
    points = " ".join(f"{x:.2f},{-y:.2f}" for x, y in np.asarray(outline[0]))
    edge, fill = (f"var(--{VARIABLES[colour]})" for colour in (look.colour, look.fill))
    shape = f'<polygon points="{points}" style="fill:{fill};stroke:{edge}" stroke-width=".2"/>'
    return f'<svg class="glyph" viewBox="-.8 -.8 1.6 1.6" aria-hidden="true">{shape}</svg>'
