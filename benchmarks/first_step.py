"""How long it takes to the first step, and the memory of a process that trains.

    python benchmarks/first_step.py

Each variant of `step_time.py` in processes of its own, in turn: in one the seconds from the
nets to the end of the first step, in another the peak of the process after five steps,
and by how much it grew from before the nets were made; medians and ratios to the
hand-written loop. glibc is told to give freed blocks back. And by how much
`import keras_distill` takes longer than `import keras`.
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
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(kind, terms, variant, steps):
    """Give seconds to the end of some steps, the peak in bytes, and its growth."""
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
    """Give seconds of imports of what is compiled to bytecode, as it is from then on."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        found = [
            printed(["-c", IMPORT], PYTHONPYCACHEPREFIX=folder)[-1]
            for _ in range(rounds + 1)
        ]
    return found[1:]


def rows(kind, terms, rounds):
    """Give a row for each variant; a round takes each once."""
    names = list(step_time.variants(kind, (), None))
    found = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            command = [__file__, "--variant", f"{kind}|{terms}|{name}"]
            one, five = (
                printed([*command, f"--steps={n}"], **GIVE_BACK) for n in (1, STEPS)
            )
            found[name].append([one[0], *five[1:]])
    middle = {
        name: [statistics.median(column) for column in zip(*pairs, strict=True)]
        for name, pairs in found.items()
    }
    floor = middle["by hand"]
    for name, (seconds, peak, grown) in middle.items():
        yield {
            "nets": kind,
            "terms": "and three layers" if terms else "soft targets",
            "variant": name,
            "s to first step": round(seconds, 1),
            "of by hand": f"{seconds / floor[0]:.2f}",
            "peak, MiB": round(peak / 2**20),
            "peak of by hand": f"{peak / floor[1]:.3f}",
            "grown, MiB": round(grown / 2**20),
            "grown of by hand": f"{grown / floor[2]:.2f}",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", help="measure one, in this process")
    parser.add_argument("--steps", type=int, default=STEPS, help="of that one")
    parser.add_argument("--nets", default=",".join(step_time.NETS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    if args.variant:
        kind, terms, variant = args.variant.split("|")
        print(*measure(kind, int(terms), variant, args.steps))
        return
    kinds, rounds = args.nets.split(","), args.rounds
    if args.smoke:
        kinds, rounds = ["mlp"], 1
    table = [
        row for kind in kinds for terms in (0, 1) for row in rows(kind, terms, rounds)
    ]
    milliseconds = round(1e3 * statistics.median(import_seconds(4 * rounds)))
    print(kd.analysis.table(table))
    print(f"\nimport keras_distill: {milliseconds} ms over import keras.")
    if args.json:
        found = {"import, ms over keras": milliseconds, "variants": table}
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
