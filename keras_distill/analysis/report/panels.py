"""Plots as SVG that take their colors from the page."""

import contextlib
import io
import re
import zlib

from keras_distill.analysis.figures import new_figure
from keras_distill.analysis.report.page import escape
from keras_distill.analysis.report.style import SERIES

# Colors that stand for the page's own, which differ in dark mode.
_NAMES = ["text", "soft", "line", "card", "gain", "loss"]
_NAMES += [f"series-{i}" for i in range(SERIES)]
COLORS = {name: f"#0102{i + 1:02x}" for i, name in enumerate(_NAMES)}
# Marks of the series in a plot, and in a legend.
MARKERS, MARKS = "osD^vPXp", "●■◆▲▼✚✖⬟"


def color(number: int) -> str:
    """Return the color of a series by its number."""
    return COLORS[f"series-{number % SERIES}"]


def panel(draw, alt: str, width: float = 3.5, height: float = 2.5) -> str:
    """Return a plot as SVG, drawn by a function of its axes."""
    with theme():
        figure, axes = new_figure(width, height)
        draw(axes)
        return as_svg(figure, alt)


@contextlib.contextmanager
def theme(grid: bool = True):
    """Create figures in the colors of the page within a context."""
    import matplotlib

    settings = {
        "font.size": 8,
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "image.interpolation": "none",
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "legend.framealpha": 0.0,
        "lines.linewidth": 1.4,
        "lines.markersize": 4,
        "axes.grid": grid,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": COLORS["line"],
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        **dict.fromkeys(["text.color", "axes.labelcolor"], COLORS["text"]),
        **dict.fromkeys(["xtick.color", "ytick.color"], COLORS["soft"]),
        "axes.edgecolor": COLORS["soft"],
        "axes.prop_cycle": matplotlib.cycler(
            color=[color(i) for i in range(SERIES)], marker=list(MARKERS)
        ),
    }
    with matplotlib.rc_context(settings):
        yield


def as_svg(figure, alt: str) -> str:
    """Return a figure as SVG for HTML, without links to the standards it follows."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=72)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href")
    box = re.search(r'viewBox="[^"]*"', svg).group()
    head = f'<svg role="img" aria-label="{escape(alt)}" {box}>'
    svg = head + svg[svg.index(">") + 1 :].strip()
    for name, placeholder in COLORS.items():
        svg = svg.replace(placeholder, f"var(--{name})")
    return _with_own_ids(re.sub(r"\n\s*", "\n", svg))


def _with_own_ids(svg: str) -> str:
    """Return an SVG whose ids differ from those of the page's other figures."""
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    prefix = f"f{zlib.crc32(svg.encode()):x}-"
    svg = re.sub(
        r' id="([^"]+)"', lambda x: f' id="{prefix}{x[1]}"' if x[1] in used else "", svg
    )
    return re.sub(r'(href="|url\()#', rf"\1#{prefix}", svg)
