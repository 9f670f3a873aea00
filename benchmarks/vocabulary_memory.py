"""How much memory soft targets over a vocabulary of 32,000 take, gradient included.

    python benchmarks/vocabulary_memory.py

For 8 texts of 128 tokens: from the logits of both nets, and from the states of width
256 that go into both last layers. Each way runs in a process of its own, first on 8
tokens, which loads all that it needs, then on all; the table shows by how much the peak
(Linux's `VmHWM`) grew, in copies of one net's logits `(8, 128, 32000)`, what of that is
the gradient that comes out, the rest, and the time beside that of the same by hand.
glibc is told to give freed blocks back, and TensorFlow to compute without oneDNN, whose
own allocator keeps them.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import keras
import tensorflow as tf

import keras_distill as kd

TOKENS, WIDTH, WORDS, TEMPERATURE = (8, 128), 256, 32_000, 2.0
ROUNDS = 5
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
GIVE_BACK |= {"TF_ENABLE_ONEDNN_OPTS": "0"}


def memory(field):
    """Give what the system says of this process in bytes: `VmRSS`, or the peak `VmHWM`."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(field))
    return 1024 * int(line.split()[1])


def written_out(teacher, student):
    """The formula, as one writes it."""
    p = tf.nn.softmax(teacher / TEMPERATURE)
    gap = tf.nn.log_softmax(teacher / TEMPERATURE)
    gap -= tf.nn.log_softmax(student / TEMPERATURE)
    return TEMPERATURE**2 * tf.reduce_mean(tf.reduce_sum(p * gap, axis=-1))


def of_logits(loss):
    """Give what makes a batch, and the gradient by the student's logits."""

    def batch(tokens):
        return [tf.random.normal((*tokens, WORDS)) for _ in range(2)]

    @tf.function(reduce_retracing=False)
    def slopes(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(teacher, student)
        return [tape.gradient(value, student)]

    return batch, slopes


def of_states(loss):
    """Give what makes a batch, and the gradients by states and last layer."""

    def batch(tokens):
        states = [tf.random.normal((*tokens, WIDTH)) for _ in range(2)]
        return states + [tf.random.normal((WIDTH, WORDS), stddev=0.1) for _ in range(2)]

    @tf.function(reduce_retracing=False)
    def slopes(teacher, student, teacher_kernel, kernel):
        with tf.GradientTape() as tape:
            tape.watch([student, kernel])
            value = loss(teacher, student, teacher_kernel, kernel)
        return tape.gradient(value, [student, kernel])

    return batch, slopes


def product_by_hand(teacher, student, teacher_kernel, kernel):
    return written_out(teacher @ teacher_kernel, student @ kernel)


def product_in_chunks(teacher, student, teacher_kernel, kernel):
    loss = kd.losses.VocabularySoftTarget(TEMPERATURE)
    heads = {
        "teacher_head": (teacher_kernel, None, False),
        "student_head": (kernel, None, False),
    }
    return loss(teacher, student, **heads)


WAYS = {
    "logits, by hand": lambda: of_logits(written_out),
    "logits, SoftTarget": lambda: of_logits(kd.losses.SoftTarget(TEMPERATURE)),
    "states, by hand": lambda: of_states(product_by_hand),
    "states, VocabularySoftTarget": lambda: of_states(product_in_chunks),
}


def measure(way, tokens):
    """Give the growth of the peak and the size of the gradients, in bytes, and seconds."""
    make, slopes = WAYS[way]()
    keras.utils.set_random_seed(0)
    slopes(*make((1, 8)))
    batch = make(tokens)
    # From here on the peak counts anew.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    found = slopes(*batch)
    size = sum(4 * tf.size(x).numpy() for x in found)
    grown = memory("VmHWM") - before
    del found
    return grown, size, timed(lambda: slopes(*batch)[0][0, 0, 0].numpy())


def timed(run):
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measured_apart(way, tokens):
    """Measure in a new process."""
    sizes = [str(size) for size in tokens]
    done = subprocess.run(
        [sys.executable, __file__, "--way", way, "--tokens", *sizes],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **GIVE_BACK},
    )
    return [float(word) for word in done.stdout.split()[-3:]]


def rows(tokens):
    copy = 4 * tokens[0] * tokens[1] * WORDS
    floor = None
    for way in WAYS:
        grown, size, seconds = measured_apart(way, tokens)
        floor = seconds if way.endswith("by hand") else floor
        yield {
            "from": way,
            "grown, copies": f"{grown / copy:.2f}",
            "gradients": f"{size / copy:.2f}",
            "beside them": f"{(grown - size) / copy:.2f}",
            "time of by hand": f"{seconds / floor:.2f}",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS, help="measure one, in this process")
    parser.add_argument("--tokens", type=int, nargs=2, default=TOKENS)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    if args.way:
        print(*measure(args.way, args.tokens))
        return
    table = list(rows((1, 32) if args.smoke else args.tokens))
    print(kd.analysis.table(table))
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
