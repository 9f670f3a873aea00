"""Formulas as MathML, which browsers typeset without a script or a network."""

import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)

# Bars are as high as their line, which an index would stretch, and `log x` has a space.
SPACING = (
    (r'<mo class="mathopen">(?=[|‖])', '<mo form="prefix" stretchy="false">'),
    (r"(<m(?:sub|sup|subsup)>\s*)<mo>(?=[|‖])", r'\1<mo stretchy="false">'),
    (r"<mo>&ApplyFunction;</mo>(?!\s*<mo)", '<mspace width="0.17em"></mspace>'),
)


def visit_math(translator, node):
    """Write an inline formula."""
    translator.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def visit_math_block(translator, node):
    """Write a formula on lines of its own, which scrolls if it is wider than the page."""
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(_mathml(node, block=True))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def _mathml(node, block):
    formula = node.astext()
    if block and r"\\" in formula and r"\begin" not in formula:
        formula = rf"\begin{{aligned}}{formula}\end{{aligned}}"
    try:
        mathml = latex2mathml.tex2mathml(formula, as_block=block)
    except MathError as error:
        logger.warning("formula %r: %s", formula, error, location=node)
        return ""
    for pattern, replacement in SPACING:
        mathml = re.sub(pattern, replacement, mathml)
    return mathml


def setup(app):
    """Register the renderer; `html_math_renderer = "mathml"` selects it."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
