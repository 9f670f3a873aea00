"""Build caches at the same moment as another process, with another teacher.

python -m tests.teachers.cache.racer FOLDER {0,1} ROUNDS
"""

import json
import pathlib
import sys
import time

import keras_distill as kd
from tests.teachers.cache.test_faults import net, samples


def main(folder, seed, rounds):
    folder, results = pathlib.Path(folder), []
    for turn in range(int(rounds)):
        teacher = net(int(seed))
        cached = kd.CachedTeacher(
            folder / f"round-{turn}", teacher, top_k=2, temperature=4.0
        )
        (folder / f"ready-{turn}-{seed}").touch()
        while len(list(folder.glob(f"ready-{turn}-*"))) < 2:
            time.sleep(0.001)
        try:
            cached.build(samples(), 4, shard_rows=3, verbose=0)
            results.append("built")
        except ValueError as error:
            results.append(str(error))
    (folder / f"{seed}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
