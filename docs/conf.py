"""Sphinx configuration: MyST pages, and the API from the docstrings."""

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
