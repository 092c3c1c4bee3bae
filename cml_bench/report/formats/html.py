"""Comparison tables as one small HTML page that needs no other file."""

from __future__ import annotations

from typing import Final

from cml_bench.report.formats.published import all_grids
from cml_bench.report.tables.table import ComparisonTable

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Results</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; border-block: 2px solid; }
th, td { padding: .25rem .75rem .25rem 0; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th { border-bottom: 1px solid; vertical-align: bottom; white-space: normal; }
.name { text-align: left; }
.notes { min-width: 16rem; white-space: normal; }
.best { font-weight: bold; }
.second { text-decoration: underline; }
p { max-width: 60rem; }
</style>
</head>
<body>
{% for grid in grids %}
<h2>{{ grid.heading }}</h2>
<div><table>
<thead><tr>
{% for head in grid.cells.columns %}
<th{% if head in grid.names %} class="name"{% endif %}>{{ head }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for line in grid.lines() %}
<tr>
{% for head, cell, mark in line %}
<td class="{{ 'name' if head in grid.names else mark }}{{ ' notes' if head == 'notes' }}">{{ cell }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table></div>
{% for note in grid.notes %}
<p>{{ note }}</p>
{% endfor %}
{% endfor %}
{% for note in notes %}
<p>{{ note }}</p>
{% endfor %}
{% for line in unreadable %}
<p>unreadable: {{ line }}</p>
{% endfor %}
</body>
</html>
"""


def to_html(table: ComparisonTable, *, intervals: bool = False) -> str:
    """Return the page: each table under its heading, best bold, second underlined, notes below; names are escaped."""
    # Imported here because only this format needs it.
    from jinja2 import Environment

    grids = list(all_grids(table, intervals=intervals))
    template = Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)
    return template.render(grids=grids, notes=table.notes, unreadable=table.unreadable)
