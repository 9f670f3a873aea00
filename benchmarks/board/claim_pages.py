"""Make the pages of papers' claims from the cells that are there.

    python benchmarks/board/claim_pages.py

What these pages say of the claims comes from the cells alone. A page that is there keeps
what stands outside of the two marks.
"""

import argparse
import pathlib
import statistics

from claims import PROTOCOLS
from claims.protocol import Protocol, by_row
from table import HERE, cells, summary

import keras_distill as kd

PAGES = HERE.parents[1] / "docs" / "results"
BEGIN, END = "<!-- made from cells -->", "<!-- end of what is made from cells -->"
SUMMARY = """# What papers claim, and what shows here

Each claim compares two rows of a protocol: it shows if the means over seeds differ as
claimed by more than the larger of the two standard deviations; a claim that one row is as
good as another, unless it is worse by more than that. It is not tried while a row has fewer
seeds than its protocol asks for. This page is made from `benchmarks/board/cells`
by `python benchmarks/board/claim_pages.py`; more cells: `python benchmarks/board/run.py
--only <protocol>`.
"""


def measures_of(found: list[dict]) -> list[str]:
    """Return the names of all measures, in the order of the cells."""
    return list(dict.fromkeys(name for cell in found for name in cell["measures"]))


def table_of(protocol: Protocol, found: list[dict]) -> str:
    """Return the table of a protocol's rows."""
    values = {measure: by_row(found, measure) for measure in measures_of(found)}
    rows = []
    for name in protocol.rows:
        row = {"": name}
        if protocol.paper:
            row["paper"] = protocol.paper.get(name, "")
        for measure, of_row in values.items():
            numbers = of_row.get(name)
            row[measure] = summary(numbers, protocol.digits) if numbers else ""
        row["seeds"] = sum(cell["method"] == name for cell in found)
        rows.append(row)
    return kd.analysis.table(rows)


def claims_of(protocol: Protocol, found: list[dict]) -> list[dict]:
    """Return the rows of the table of claims."""
    rows = []
    for claim in protocol.claims:
        values = by_row(found, claim.measure)
        verdict = claim.verdict(values, protocol.seeds)
        means = [
            f"{row} {statistics.fmean(values[row]):.{protocol.digits}f}"
            for row in (claim.better, claim.worse)
            if row in values
        ]
        rows.append({"claim": claim.text, "": verdict, "means": ", ".join(means)})
    return rows


def section(protocol: Protocol, found: list[dict]) -> str:
    """Return what a protocol's page says from its cells."""
    parts = [
        protocol.about,
        f"```bash\npython benchmarks/board/run.py --only {protocol.name}\n```",
        kd.analysis.table(claims_of(protocol, found)),
    ]
    if found:
        machines = ", ".join(sorted({cell["machine"] for cell in found}))
        parts.append(
            "Last epoch, mean ± standard deviation over the seeds that are there "
            f"({machines}):\n\n{table_of(protocol, found)}"
        )
        if protocol.plot:
            parts.append(f"![{protocol.title}](figures/{protocol.name}.png)")
    return "\n\n".join(part.rstrip() for part in parts)


def page_of(protocol: Protocol, found: list[dict], old: str) -> str:
    """Return a protocol's page, with what an old one says outside of the marks."""
    before, after = f"# {protocol.title}\n\n", "\n"
    if BEGIN in old:
        before, after = old.partition(BEGIN)[0], old.partition(END)[2]
    return f"{before}{BEGIN}\n\n{section(protocol, found)}\n\n{END}{after}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=pathlib.Path, default=HERE / "cells")
    parser.add_argument("--pages", type=pathlib.Path, default=PAGES)
    args = parser.parse_args()
    all_cells, rows = cells(args.cells), []
    for protocol in PROTOCOLS.values():
        found = [cell for cell in all_cells if cell["pair"] == protocol.name]
        page = args.pages / f"{protocol.name}.md"
        old = page.read_text("utf-8") if page.exists() else ""
        page.write_text(page_of(protocol, found, old), "utf-8")
        if protocol.plot and found:
            protocol.plot(found, args.pages / "figures" / f"{protocol.name}.png")
        link = f"[{protocol.title}]({page.name})"
        rows += [{"paper": link, **row} for row in claims_of(protocol, found)]
    text = f"{SUMMARY}\n{kd.analysis.table(rows)}\n"
    (args.pages / "claims.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
