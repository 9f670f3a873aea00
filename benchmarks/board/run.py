"""Train the next missing cells of the board, in the order of their worth, on a CPU.

    nice -n 19 taskset -c 1 python benchmarks/board/run.py --minutes 150

Stops by itself when the minutes are over, in the middle of a cell if need be: a cell goes
on, as one that was killed, where it was. Several processes share the work. Teachers are
read from `cells/`, where `gpu.py` puts them.
"""

import argparse
import contextlib
import fcntl
import os
import pathlib
import signal
import time

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")

import keras
from cells import Cell
from methods import METHODS
from pairs import PAIRS, Pair
from training import load, run_cell

HERE = pathlib.Path(__file__).parent
SEEDS = 3
# Rows of the pairs beside the main one.
OTHER = {
    "wrn16x2-wrn16x1": ("alone", "AT", "F-ActT", "KD", "KD+AT"),
    "resnet20-conv": ("alone", "KD", "AT", "FitNet", "DKD", "SP", "RKD"),
}


def queue() -> list[Cell]:
    """Return all cells, the most worthwhile first: three rows at all seeds, then on."""
    main, *others = PAIRS
    names = list(METHODS)
    cells = [
        Cell(method, main, seed)
        for rows in (names[:3], names[3:])
        for method in rows
        for seed in range(SEEDS)
    ]
    return cells + [
        Cell(method, pair, seed)
        for pair in others
        for method in OTHER[pair]
        for seed in range(SEEDS)
    ]


def trained_teacher(pair: Pair, folder) -> keras.Model | None:
    """Return a pair's teacher, None if it is not trained yet."""
    file = folder / f"{pair.teacher.name}.weights.h5"
    if not file.exists():
        return None
    model = pair.teacher.build(seed=0)
    model.load_weights(file)
    model.trainable = False
    return model


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=150.0)
    parser.add_argument("--dataset", default="cifar10_jpeg")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "cells")
    parser.add_argument(
        "--scratch", type=pathlib.Path, default=pathlib.Path("runs/board")
    )
    args = parser.parse_args()
    end = time.time() + 60 * args.minutes
    # A cell that is under way ends by this signal, and goes on the next time.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, max(60 * args.minutes, 1e-3))
    data = load(args.dataset)
    for cell in queue():
        pair = PAIRS[cell.pair]
        if cell.is_done(args.out) or time.time() > end:
            continue
        teacher = trained_teacher(pair, args.out)
        if teacher is None:
            print(f"{cell}: no teacher; run benchmarks/board/gpu.py first.")
            continue
        with claimed(cell, args.scratch) as ours:
            if ours and not cell.is_done(args.out):
                run_cell(cell, pair, teacher, data, args.out, args.scratch)
                print(cell.read(args.out)["accuracy"], cell, flush=True)


if __name__ == "__main__":
    main()
