"""Read a cache of many shards in random order with few open files; print their most.

python -m tests.teachers.cache.few_files FOLDER ROWS
"""

import os
import pathlib
import resource
import sys

import numpy as np

import keras_distill as kd


def main(folder, count):
    folder, count = pathlib.Path(folder), int(count)
    expected = np.load(folder / "expected.npy")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    cached, most = kd.CachedTeacher(folder / "c"), 0
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(count)
        for ids in np.split(order, 10):
            found = cached.read(ids)["logits"]["logits"]
            np.testing.assert_array_equal(found, expected[ids])
            most = max(most, len(os.listdir("/proc/self/fd")))
    print(most)


if __name__ == "__main__":
    main(*sys.argv[1:])
