"""How tables look: in a terminal, as Markdown, CSV, LaTeX and HTML."""
