"""Markdown tables."""

import numbers
import re
from collections.abc import Mapping, Sequence


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Format rows as an aligned Markdown table.

    Columns are in the order in which they first appear in the rows; a row may omit some.
    Columns of numbers are aligned to the right.

    Args:
        rows: one dict per row, from column title to value. Integers get commas between
            thousands, other numbers four significant digits, None is an empty cell, and
            any other value is formatted with `str`.

    Returns:
        The lines of the table, without a trailing newline.

    Raises:
        ValueError: there are no rows.

    Example:
        >>> print(kd.analysis.table([{"model": "teacher", "parameters": 272474}]))
        | model   | parameters |
        | ------- | ---------: |
        | teacher |    272,474 |
    """
    if not rows:
        raise ValueError("A table needs at least one row; got none.")
    titles = list(dict.fromkeys(title for row in rows for title in row))
    columns = [_column(title, [row.get(title) for row in rows]) for title in titles]
    lines = zip(*columns, strict=True)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _column(title: str, values: Sequence) -> list[str]:
    """Return title, rule and cells, padded to the same width."""
    title, *cells = map(cell_text, [title, *values])
    width = max(3, *map(len, [title, *cells]))
    if all(re.match(r"[-+]?\d|$", cell) for cell in cells):
        rule = "-" * (width - 1) + ":"
        return [title.rjust(width), rule, *(cell.rjust(width) for cell in cells)]
    return [title.ljust(width), "-" * width, *(cell.ljust(width) for cell in cells)]


def cell_text(value) -> str:
    """Format one value, as described in `table`."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return str(value).replace("|", "\\|").replace("\n", " ")
    return f"{value:,}" if isinstance(value, numbers.Integral) else f"{value:.4g}"
