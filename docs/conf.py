"""Sphinx settings: MyST pages, and the API from the package's docstrings."""

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

# The docstrings write code in single backticks.
default_role = "literal"

_SECTION = re.compile(r"(Args|Raises|Returns|Example|Source):$")


def mark_formulas(app, what, name, obj, options, lines):
    """Turn the indented formulas before a docstring's first section into literals."""
    marked = []
    in_prose = True
    for place, line in enumerate(lines):
        in_prose = in_prose and not _SECTION.match(line)
        starts = line.startswith("    ") and (
            place == 0 or not lines[place - 1].strip()
        )
        if in_prose and starts and not _continues(marked):
            marked += [".. code-block:: text", ""]
        marked.append(line)
    lines[:] = marked


def _continues(lines):
    """Tell whether the last line with text is part of a formula already."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.startswith("    ")


def setup(app):
    """Register the hook before napoleon's, which runs at 500."""
    app.connect("autodoc-process-docstring", mark_formulas, priority=400)
