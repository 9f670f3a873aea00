"""Memory of soft targets over a vocabulary of 32,000 words and of their gradients.

    python benchmarks/vocabulary_memory.py

For 8 texts of 128 tokens: from the logits of both models, and from the states of width 256
that are the inputs of both last layers. Each variant runs in its own process, first on 8
tokens, which loads what it needs, and then on all. The table has the growth of the peak
memory (Linux's `VmHWM`) in copies of one model's logits `(8, 128, 32000)`, of which the
returned gradients, the rest, and the time relative to the same loss by hand. glibc is
configured to return freed blocks to the system, and TensorFlow not to use oneDNN, whose
allocator keeps them.
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
RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
RETURN_FREED |= {"TF_ENABLE_ONEDNN_OPTS": "0"}


def memory(field):
    """Return the memory of this process in bytes: `VmRSS`, or the peak `VmHWM`."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(field))
    return 1024 * int(line.split()[1])


def soft_target(teacher, student):
    """Return the loss, written by hand."""
    p = tf.nn.softmax(teacher / TEMPERATURE)
    gap = tf.nn.log_softmax(teacher / TEMPERATURE)
    gap -= tf.nn.log_softmax(student / TEMPERATURE)
    return TEMPERATURE**2 * tf.reduce_mean(tf.reduce_sum(p * gap, axis=-1))


def of_logits(loss):
    """Return functions for a batch, and for the gradient by the student's logits."""

    def batch(tokens):
        return [tf.random.normal((*tokens, WORDS)) for _ in range(2)]

    @tf.function(reduce_retracing=False)
    def gradients(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(teacher, student)
        return [tape.gradient(value, student)]

    return batch, gradients


def of_states(loss):
    """Return functions for a batch, and for the gradients by states and last layer."""

    def batch(tokens):
        states = [tf.random.normal((*tokens, WIDTH)) for _ in range(2)]
        return states + [tf.random.normal((WIDTH, WORDS), stddev=0.1) for _ in range(2)]

    @tf.function(reduce_retracing=False)
    def gradients(teacher, student, teacher_kernel, kernel):
        with tf.GradientTape() as tape:
            tape.watch([student, kernel])
            value = loss(teacher, student, teacher_kernel, kernel)
        return tape.gradient(value, [student, kernel])

    return batch, gradients


def product_by_hand(teacher, student, teacher_kernel, kernel):
    return soft_target(teacher @ teacher_kernel, student @ kernel)


def product_in_chunks(teacher, student, teacher_kernel, kernel):
    loss = kd.losses.VocabularySoftTarget(TEMPERATURE)
    heads = {
        "teacher_head": (teacher_kernel, None, False),
        "student_head": (kernel, None, False),
    }
    return loss(teacher, student, **heads)


VARIANTS = {
    "logits, by hand": lambda: of_logits(soft_target),
    "logits, SoftTarget": lambda: of_logits(kd.losses.SoftTarget(TEMPERATURE)),
    "states, by hand": lambda: of_states(product_by_hand),
    "states, VocabularySoftTarget": lambda: of_states(product_in_chunks),
}


def measure(variant, tokens):
    """Return the growth of the peak and the size of the gradients in bytes, and seconds."""
    make, gradients = VARIANTS[variant]()
    keras.utils.set_random_seed(0)
    gradients(*make((1, 8)))
    batch = make(tokens)
    # Reset the peak.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    values = gradients(*batch)
    size = sum(4 * tf.size(x).numpy() for x in values)
    growth = memory("VmHWM") - before
    del values
    return growth, size, timed(lambda: gradients(*batch)[0][0, 0, 0].numpy())


def timed(run):
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_in_process(variant, tokens):
    """Measure in a new process."""
    sizes = [str(size) for size in tokens]
    done = subprocess.run(
        [sys.executable, __file__, "--variant", variant, "--tokens", *sizes],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **RETURN_FREED},
    )
    return [float(word) for word in done.stdout.split()[-3:]]


def rows(tokens):
    copy = 4 * tokens[0] * tokens[1] * WORDS
    baseline = None
    for variant in VARIANTS:
        growth, size, seconds = measure_in_process(variant, tokens)
        baseline = seconds if variant.endswith("by hand") else baseline
        yield {
            "from": variant,
            "growth, copies": f"{growth / copy:.2f}",
            "returned gradients": f"{size / copy:.2f}",
            "other": f"{(growth - size) / copy:.2f}",
            "time, ratio to by hand": f"{seconds / baseline:.2f}",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=VARIANTS, help="measure in this process")
    parser.add_argument("--tokens", type=int, nargs=2, default=TOKENS)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    if args.variant:
        print(*measure(args.variant, args.tokens))
        return
    table = list(rows((1, 32) if args.smoke else args.tokens))
    print(kd.analysis.table(table))
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
