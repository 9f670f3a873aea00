"""Kim, Rush 2016: word-level and sequence-level distillation of a language model."""

import functools

import kim2016_sequences as example
import numpy as np

import keras_distill as kd
from claims.protocol import Claim, Protocol
from claims.training import stored

LINES, TIMES, TEACHER, STUDENT, EPOCHS, STUDENT_STEPS = 8000, 4, 128, 32, 30, 15_000
LOW, PROMPT, CONTINUED, TEST = 0.5, 20, 20, 2000
SETTINGS = {
    "lines": LINES,
    "times": TIMES,
    "units": [TEACHER, STUDENT],
    "epochs": EPOCHS,
    "student_steps": STUDENT_STEPS,
    "low": LOW,
}
SMOKE = {
    "LINES": 128,
    "TIMES": 2,
    "EPOCHS": 1,
    "STUDENT_STEPS": 2,
    "TEST": 64,
    "TEACHER": 8,
    "STUDENT": 8,
}
ABOUT = f"""Small-scale stand-in for translation: {LINES:,} lines of tiny_shakespeare, of at
most {example.LENGTH} characters, and recurrent nets (GRU) of {TEACHER} and {STUDENT} units.
The teacher learns for {EPOCHS} epochs, each student for {STUDENT_STEPS:,} steps of
{example.BATCH} lines, by Adam with a rate of 3e-3 that falls to 0 by a cosine. For the
sequence level the teacher generates {TIMES} times as many lines as there are, by samples
of T = 1 or, in place of the paper's beam search, of T = {LOW:g}; `both` has the latter, and
the teacher's predictions of them.

`bits` are per character on {TEST:,} test lines, as far as the data go; `overlap` is a
stand-in for BLEU: the most probable {CONTINUED} characters behind the first {PROMPT} of
each test line that is long enough, and the part of its trigrams, in %, that are in the rest
of the line. The paper has figures of translation only."""


@functools.cache
def load(count: int):
    """Return training lines and test lines as tokens, and the number of tokens."""
    train, test, letters = example.load("tiny_shakespeare", count)
    return train, test[:TEST], letters


def teacher_of(scratch, seed: int):
    """Return the teacher of a seed."""

    def make():
        train, _, letters = load(LINES)
        teacher = example.net(seed, letters, TEACHER, "teacher")
        example.fit(teacher, train, EPOCHS)
        return teacher

    return stored(scratch / f"teacher_{seed}.keras", make)


def lines_of(row: str, teacher, seed: int) -> np.ndarray:
    """Return the lines that a row's student learns."""
    lines = load(LINES)[0]
    if row in ("labels", "word level"):
        return lines
    temperature = 1.0 if "T = 1" in row else LOW
    return example.generated_by(teacher, TIMES * len(lines), seed, temperature)


def trained(row: str, teacher, seed: int):
    """Return a row's student."""
    student = model = example.net(1000 + seed, load(LINES)[2], STUDENT, "student")
    lines = lines_of(row, teacher, seed)
    if row in ("word level", "both"):
        word = kd.Term(kd.losses.SoftTarget(temperature=1.0), weight=0.5)
        model = kd.Distiller(student, teacher, terms=[word], label_weight=0.5)
    example.fit(model, lines, max(1, round(STUDENT_STEPS * example.BATCH / len(lines))))
    return student


def overlap(model, lines: np.ndarray) -> float:
    """Return the part of the trigrams of continuations that the lines have, in %."""
    end = 1 + PROMPT + CONTINUED
    lines = lines[(lines[:, :end] > 1).sum(1) == end - 1]
    tokens = lines[:, :-1].copy()
    for index in range(PROMPT, PROMPT + CONTINUED):
        logits = model.predict(tokens, 1000, verbose=0)[:, index]
        # Neither padding nor the end of a line.
        tokens[:, index + 1] = 2 + logits[:, 2:].argmax(-1)
    found = [
        len(trigrams(made[1 + PROMPT : end]) & trigrams(line[1 + PROMPT : end]))
        / (CONTINUED - 2)
        for made, line in zip(tokens, lines, strict=True)
    ]
    return 100 * float(np.mean(found))


def trigrams(tokens) -> set:
    """Return the trigrams of a line."""
    return set(zip(tokens, tokens[1:], tokens[2:], strict=False))


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    teacher = teacher_of(scratch, seed)
    model = teacher if row == "teacher" else trained(row, teacher, seed)
    test = load(LINES)[1]
    return {"bits": example.bits(model, test), "overlap": overlap(model, test)}


LOW_ROW = f"sequence level, T = {LOW:g}"
PROTOCOL = Protocol(
    name="kim2016_sequences",
    title="Kim, Rush 2016: sequences",
    about=ABOUT,
    rows=("teacher", "labels", "word level", "sequence level, T = 1", LOW_ROW, "both"),
    train=train,
    claims=(
        Claim("Word level helps", "word level", "labels", "bits", larger=False),
        Claim(
            "The teacher's lines help, sampled",
            "sequence level, T = 1",
            "labels",
            "bits",
            larger=False,
        ),
        Claim("Word level helps what is generated", "word level", "labels", "overlap"),
        Claim(
            "The teacher's probable lines help what is generated",
            LOW_ROW,
            "labels",
            "overlap",
        ),
        Claim("They help it more than word level", LOW_ROW, "word level", "overlap"),
        Claim(
            "Both together help it more than the lines alone",
            "both",
            LOW_ROW,
            "overlap",
        ),
    ),
    settings=SETTINGS,
    digits=3,
)
