"""Sphinx configuration: MyST pages and notebooks, and the API from the docstrings."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "extensions")]

from keras_distill import __version__ as release  # noqa: E402

project = "keras_distill"
author = copyright = "the keras_distill authors"

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "api_pages",
    "browser_notebooks",
    "code_links",
    "mathml",
    "table_filter",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
nitpicky = False

html_theme = "furo"
html_title = f"keras_distill {release}"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Notebooks are shown with the outputs that are stored in them.
nb_execution_mode = "off"

# Docstrings mark code with single backticks.
default_role = "literal"
