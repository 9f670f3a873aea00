"""Make the board's page and plot from the cells that are there.

    python benchmarks/board/table.py

Nothing else writes figures into `docs/results/board.md`.
"""

import argparse
import json
import pathlib
import statistics

import keras_distill as kd

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "results" / "board.md"
TEXT = """# The board: methods on real images

One rule for all methods: labels have weight 1, and each term the weight with which it pulls
as hard at the student as the labels when the training begins (`weight="balanced"`,
[balanced weights](../guide/temperature_and_weights.md#balanced-weights)). Nothing is tuned
for a method on these images, and all parts are learned together. CRD alone pulls 0.3 times as
hard, as [digits](compare.md#how-hard-a-term-should-pull) suggested. SimKD alone has no
labels, and the weight of its paper: its student ends in the teacher's last layer. FT's
paraphraser first learns the end of the teacher's last stage, from 10,000 images in 5 epochs.
DOT is KD by SGD with two momenta. To save time, a teacher of layers may be frozen in
bfloat16, and one of logits or pooled features cached: each cell says which.

Data: `cifar10_jpeg`, a recompressed and so lossy copy of CIFAR-10; teachers have all 50,000
images. Crops and flips, SGD with momentum 0.9, rate 0.1 that falls to 0 by a cosine, L2
penalty 5e-4, batches of 128. Accuracy in % on the 10,000 test images after the last epoch,
mean ± standard deviation over the seeds that are there; differences below one deviation say
nothing. "Plain PyTorch" is the same training written by hand without Keras
(`benchmarks/board/reference_torch.py`), from the same teacher, with seeds of its own.

This page is made from `benchmarks/board/cells` by `python benchmarks/board/table.py`; each
cell has its settings, history, revision and a hash of the weights. More cells: `python
benchmarks/board/run.py` on a CPU, `python benchmarks/board/gpu.py` on a GPU.
"""


def cells(folder: pathlib.Path) -> list[dict]:
    """Return what all files hold."""
    return [
        json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("*.json"))
    ]


def by_method(found: list[dict]) -> dict[str, list[float]]:
    """Return the accuracies of each method's seeds."""
    accuracies = {}
    for cell in found:
        accuracies.setdefault(cell["method"], []).append(cell["accuracy"])
    return accuracies


def rows_of(found: list[dict], reference: list[dict] = ()) -> list[dict]:
    """Return the rows of a pair's table, the best mean first, beside a reference."""
    rows, beside = [], by_method(reference)
    ranked = sorted(by_method(found).items(), key=lambda x: -statistics.fmean(x[1]))
    for method, values in ranked:
        row = {"method": method, "accuracy": summary(values), "seeds": len(values)}
        if method in beside:
            row["plain PyTorch"] = summary(beside[method])
            row["its seeds"] = len(beside[method])
        rows.append(row)
    return rows


def summary(values: list[float], digits: int = 2) -> str:
    """Return mean and deviation as text; of one seed, the value."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.pstdev(values):.{digits}f}"


def section(pair: str, found: list[dict], reference: list[dict]) -> str:
    """Return the section of a pair."""
    settings = found[0]["settings"]
    machines = ", ".join(sorted({cell["machine"] for cell in found}))
    about = f"{settings['images']:,} images, {settings['epochs']} epochs ({machines})."
    return f"## {pair}\n\n{about}\n\n{kd.analysis.table(rows_of(found, reference))}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=pathlib.Path, default=HERE / "cells")
    parser.add_argument("--page", type=pathlib.Path, default=PAGE)
    args = parser.parse_args()
    found = [cell for cell in cells(args.cells) if "accuracy" in cell]
    teachers = [cell for cell in found if cell["method"] == "teacher"]
    pairs = {}
    for cell in found:
        if cell["method"] != "teacher":
            pairs.setdefault(cell["pair"], []).append(cell)
    trained = [
        {"network": cell["pair"], "accuracy": f"{cell['accuracy']:.2f}"}
        for cell in teachers
    ]
    parts = [TEXT]
    if trained:
        parts.append(f"## Teachers\n\n{kd.analysis.table(trained)}\n")
    references = {pair: pairs.pop(f"{pair}-torch", []) for pair in list(pairs)}
    parts += [section(x, pairs[x], references[x]) for x in sorted(pairs)]
    args.page.write_text("\n".join(parts), "utf-8")
    print(args.page.read_text("utf-8"))


if __name__ == "__main__":
    main()
