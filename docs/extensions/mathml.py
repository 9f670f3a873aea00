"""Formulas as MathML, which browsers typeset without a script or a network."""

import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)

# What docutils does not know.
COMMANDS = {r"\dots": r"\ldots", r"\iff": r"\;\Longleftrightarrow\;"}

# Delimiters that stretch only after `\left` and `\right`.
DELIMITERS = {"lVert": "‖", "rVert": "‖", "Vert": "‖", "|": "‖", "lvert": "|"}
DELIMITERS |= {"rvert": "|", "vert": "|", "langle": "⟨", "rangle": "⟩"}
DELIMITER = re.compile(
    r"(\\(?:left|right|[bB]igg?[lrm]?)\s*)?(?:\\(\||(?:[lr]?[vV]ert|[lr]angle)\b)|(\|))"
)

# `log x` has a space; an index is that of the letter, not of its accent.
CORRECTIONS = (
    (r"<mo>&ApplyFunction;</mo>(?!\s*<mo)", '<mspace width="0.17em"></mspace>'),
    (
        r"<munderover>\s*(<mi>.</mi>)\s*(.*?)\s*(<mo[^>]*>[~^¯˙]</mo>)\s*</munderover>",
        r'<msub><mover accent="true">\1\3</mover>\2</msub>',
    ),
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
    try:
        return mathml_of(node.astext(), block)
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        return ""


def mathml_of(formula, block=True):
    """Return LaTeX as MathML; in a block, an empty line begins another line."""
    if block:
        formula = r"\\ ".join(re.split(r"\n\s*\n", formula.strip()))
        if re.search(r"\\\\|&", formula) and not formula.startswith(r"\begin"):
            formula = rf"\begin{{aligned}}{formula}\end{{aligned}}"
    for command, replacement in COMMANDS.items():
        formula = re.sub(
            rf"{re.escape(command)}\b", lambda _, x=replacement: x, formula
        )
    formula = DELIMITER.sub(_delimiter, formula)
    mathml = latex2mathml.tex2mathml(formula, as_block=block)
    for pattern, replacement in CORRECTIONS:
        mathml = re.sub(pattern, replacement, mathml, flags=re.DOTALL)
    return mathml


def _delimiter(match):
    """Return a delimiter as it is after `\\left` and `\\right`, or else as text."""
    stretches, command, bar = match.groups()
    return match[0] if stretches else rf"\text{{{bar or DELIMITERS[command]}}}"


def setup(app):
    """Register the renderer; `html_math_renderer = "mathml"` selects it."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
