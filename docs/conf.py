"""Sphinx configuration: MyST pages, and the API from the docstrings."""

import re

from keras_distill import __version__ as release

project = "keras_distill"
author = "the keras_distill authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"keras_distill {release}"
exclude_patterns = ["_build"]
nitpicky = False

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]
myst_heading_anchors = 3

# Docstrings mark code with single backticks.
default_role = "literal"

_SECTION = re.compile(r"(Args|Raises|Returns|Example|Source):$")


def mark_formulas(app, what, name, obj, options, lines):
    """Mark indented formulas before the first section of a docstring as literals."""
    marked = []
    in_prose = True
    for index, line in enumerate(lines):
        in_prose = in_prose and not _SECTION.match(line)
        starts = line.startswith("    ") and (
            index == 0 or not lines[index - 1].strip()
        )
        if in_prose and starts and not _continues(marked):
            marked += [".. code-block:: text", ""]
        marked.append(line)
    lines[:] = marked


def _continues(lines):
    """Whether the last nonempty line is part of a formula."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.startswith("    ")


def setup(app):
    """Register the hook before that of napoleon, which has priority 500."""
    app.connect("autodoc-process-docstring", mark_formulas, priority=400)
