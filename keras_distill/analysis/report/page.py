"""HTML of the page and of its parts."""

import dataclasses
import html
import re
from collections.abc import Iterable, Mapping, Sequence

from keras_distill.analysis.report.style import SERIES, STYLE
from keras_distill.analysis.table import cell_text


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page: a title, a text that explains it, and HTML."""

    title: str
    text: str
    content: str

    @property
    def anchor(self) -> str:
        """Return the id that links to the section."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def page(title: str, text: str, sections: Sequence[Section]) -> str:
    """Return a whole page, with links to its sections."""
    links = "".join(f"<a href='#{x.anchor}'>{escape(x.title)}</a>" for x in sections)
    body = "\n".join(
        f"<section id='{x.anchor}'><h2>{escape(x.title)}</h2><p>{escape(x.text)}</p>"
        f"{x.content}</section>"
        for x in sections
    )
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        f"<header><h1>{escape(title)}</h1><p class='soft'>{escape(text)}</p>"
        f"<nav aria-label='Sections'>{links}</nav></header>\n"
        f"<main>{body}</main>\n"
        "<footer class='soft'>Made by keras_distill, kd.analysis.report.</footer>"
        "</body></html>\n"
    )


def table(rows: Sequence[Mapping[str, object]], *, text: bool = False) -> str:
    """Return a table that scrolls within itself; its first column heads the rows.

    Args:
        rows: one dict per row, from column title to value, as in `kd.analysis.table`.
        text: whether the cells are text, which is aligned to the left.
    """
    titles = list(dict.fromkeys(title for row in rows for title in row))
    head = "".join(f"<th scope='col'>{escape(title)}</th>" for title in titles)
    lines = []
    for row in rows:
        first, *cells = (_cell(row.get(title)) for title in titles)
        cells = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f"<tr><th scope='row'>{first}</th>{cells}</tr>")
    kind = " class='left'" if text else ""
    return (
        f"<div class='scroll' tabindex='0'><table{kind}><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def panels(figures: Iterable[tuple[str, str]]) -> str:
    """Return figures side by side, each a caption and an SVG."""
    found = (
        f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"
        for caption, svg in figures
    )
    return f"<div class='panels'>{''.join(found)}</div>"


def wide(svg: str) -> str:
    """Return a figure that keeps its width on a phone, and scrolls within itself."""
    return f"<div class='scroll' tabindex='0'><figure>{svg}</figure></div>"


def key(names: Mapping[str, int], marks: str) -> str:
    """Return a legend: the mark and the name of each series, by its number."""
    items = (
        f"<li><span aria-hidden='true' style='color:var(--series-{i % SERIES})'>"
        f"{marks[i % len(marks)]}</span> {escape(name)}</li>"
        for name, i in names.items()
    )
    return f"<ul class='key'>{''.join(items)}</ul>"


def details(summary: str, content: str) -> str:
    """Return content that is shown on a click."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def escape(text) -> str:
    """Return text as HTML."""
    return html.escape(str(text))


def _cell(value) -> str:
    return escape(cell_text(value).replace("\\|", "|"))
