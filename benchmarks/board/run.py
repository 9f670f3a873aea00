"""Train the next missing cells of the board, in the order of their worth, on a CPU.

    nice -n 19 taskset -c 1 python benchmarks/board/run.py --minutes 150
    python benchmarks/board/run.py --only hinton2015_speech

Cells are a row, a pair of networks and a seed, or a row of a paper's protocol (`claims/`)
and a seed. Stops by itself when the minutes are over, in the middle of a cell if need be:
a cell of a pair goes on, as one that was killed, where it was. Several processes share the
work. Teachers are read from `cells/`, where `gpu.py` puts them.
"""

import argparse
import contextlib
import fcntl
import functools
import os
import pathlib
import signal
import time

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")

from cells import Cell
from claims import PROTOCOLS
from methods import METHODS
from pairs import PAIRS
from training import load, run_cell, trained

HERE = pathlib.Path(__file__).parent
SEEDS = 3
# Rows of the pairs beside the main one.
OTHER = {
    "wrn16x2-wrn16x1": ("alone", "AT", "F-ActT", "KD", "KD+AT"),
    "resnet20-conv": ("alone", "KD", "AT", "FitNet", "DKD", "SP", "RKD"),
}


# Rows of the main pair that come before the claims of papers.
BEFORE_CLAIMS = 12


def queue() -> list[Cell]:
    """Return all cells, the most worthwhile first: three rows at all seeds, then on."""
    main, *others = PAIRS
    names = list(METHODS)
    first = of_rows(names[:BEFORE_CLAIMS], main)
    claims = [
        Cell(row, protocol.name, seed)
        for protocol in PROTOCOLS.values()
        for seed in range(protocol.seeds)
        for row in protocol.rows
    ]
    rest = of_rows(names[BEFORE_CLAIMS:], main)
    return first + claims + rest + [x for y in others for x in of_rows(OTHER[y], y)]


def of_rows(rows, pair: str) -> list[Cell]:
    """Return the cells of some rows of a pair, at all seeds."""
    return [Cell(row, pair, seed) for row in rows for seed in range(SEEDS)]


@contextlib.contextmanager
def claimed(cell: Cell, scratch: pathlib.Path):
    """Claim a cell for this process, as long as it lives; yields whether it is ours."""
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / f"{cell}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def run(cell: Cell, out: pathlib.Path, scratch: pathlib.Path, data) -> None:
    """Train a cell and write it.

    Args:
        cell: to train.
        out: folder of cells.
        scratch: folder of caches, and of what is left of a killed run.
        data: function that returns the data set of the pairs.
    """
    if cell.pair in PROTOCOLS:
        return run_claim(cell, out, scratch)
    pair = PAIRS[cell.pair]
    teacher = trained(pair.teacher, out)
    if teacher is None:
        return print(f"{cell}: no teacher; run benchmarks/board/gpu.py first.")
    return run_cell(cell, pair, teacher, data(), out, scratch)


def run_claim(cell: Cell, out: pathlib.Path, scratch: pathlib.Path) -> None:
    """Train a row of a paper's protocol and write its cell."""
    protocol = PROTOCOLS[cell.pair]
    begin = time.time()
    found = protocol.train(cell.method, cell.seed, scratch / protocol.name)
    seconds = round(time.time() - begin)
    measures = {name: float(value) for name, value in found.items()}
    cell.write(out, measures=measures, seconds=seconds, settings=protocol.settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=150.0)
    parser.add_argument("--dataset", default="cifar10_jpeg")
    parser.add_argument(
        "--only", nargs="*", default=[*PAIRS, *PROTOCOLS], help="pairs and protocols"
    )
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "cells")
    parser.add_argument(
        "--scratch", type=pathlib.Path, default=pathlib.Path("runs/board")
    )
    args = parser.parse_args()
    end = time.time() + 60 * args.minutes
    # A cell that is under way ends by this signal, and goes on the next time.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, max(60 * args.minutes, 1e-3))
    data = functools.cache(lambda: load(args.dataset))
    for cell in queue():
        skip = cell.pair not in args.only or cell.is_done(args.out)
        if skip or time.time() > end:
            continue
        with claimed(cell, args.scratch) as ours:
            if ours and not cell.is_done(args.out):
                run(cell, args.out, args.scratch, data)
                print(time.strftime("%H:%M"), cell, flush=True)


if __name__ == "__main__":
    main()
