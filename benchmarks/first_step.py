"""Time to the first training step, and peak memory of a training process.

    python benchmarks/first_step.py

Each variant of `step_time.py` runs in separate processes, alternating: one measures the
seconds from building the models to the end of the first step, another the peak memory
after five steps, and its growth from before the models were built; medians and ratios to
the step written by hand. glibc is configured to return freed blocks to the system. The
last line is the time of `import keras_distill` on top of `import keras`.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import step_time

import keras_distill as kd

ROUNDS, STEPS = 5, 5
IMPORT = (
    "import keras, time; start = time.perf_counter(); import keras_distill; "
    "print(time.perf_counter() - start)"
)
RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(kind, terms, variant, steps):
    """Return the seconds of some steps, the peak memory in bytes, and its growth."""
    taps = step_time.STACKS if terms else ()
    train = step_time.data(kind, steps)
    before, start = peak_bytes(), time.perf_counter()
    step_time.variants(kind, taps, train)[variant]()()
    return time.perf_counter() - start, peak_bytes(), peak_bytes() - before


def printed(command, **environment):
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )
    return [float(word) for word in done.stdout.split()[-3:]]


def import_seconds(rounds):
    """Return the seconds of imports after the first one, which compiles the bytecode."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        seconds = [
            printed(["-c", IMPORT], PYTHONPYCACHEPREFIX=folder)[-1]
            for _ in range(rounds + 1)
        ]
    return seconds[1:]


def rows(kind, terms, rounds, variants):
    """Return a row for each of some variants; each round runs every one once."""
    names = list(step_time.variants(kind, (), None))[variants]
    results = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            command = [__file__, "--variant", f"{kind}|{terms}|{name}"]
            one, five = (
                printed([*command, f"--steps={n}"], **RETURN_FREED) for n in (1, STEPS)
            )
            results[name].append([one[0], *five[1:]])
    medians = {
        name: [statistics.median(column) for column in zip(*pairs, strict=True)]
        for name, pairs in results.items()
    }
    baseline = medians["by hand"]
    for name, (seconds, peak, growth) in medians.items():
        yield {
            "nets": kind,
            "terms": "and three layers" if terms else "soft targets",
            "variant": name,
            "s to first step": round(seconds, 1),
            "ratio to by hand": f"{seconds / baseline[0]:.2f}",
            "peak, MiB": round(peak / 2**20),
            "peak, ratio to by hand": f"{peak / baseline[1]:.3f}",
            "growth, MiB": round(growth / 2**20),
            "growth, ratio to by hand": f"{growth / baseline[2]:.2f}",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", help="measure one variant in this process")
    parser.add_argument("--steps", type=int, default=STEPS, help="for --variant")
    parser.add_argument("--nets", default=",".join(step_time.NETS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    if args.variant:
        kind, terms, variant = args.variant.split("|")
        print(*measure(kind, int(terms), variant, args.steps))
        return
    cells = [(kind, terms) for kind in args.nets.split(",") for terms in (0, 1)]
    rounds, variants, imports = args.rounds, slice(None), 4 * args.rounds
    if args.smoke:
        cells, rounds, variants, imports = [("mlp", 1)], 1, slice(1, 3), 1
    table = [row for cell in cells for row in rows(*cell, rounds, variants)]
    milliseconds = round(1e3 * statistics.median(import_seconds(imports)))
    print(kd.analysis.table(table))
    print(f"\nimport keras_distill: {milliseconds} ms on top of import keras.")
    if args.json:
        result = {"import, ms over keras": milliseconds, "variants": table}
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
