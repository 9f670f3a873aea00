"""Taps by name and kind, and suggested ones."""

import keras

import keras_distill as kd


def taps(student: keras.Model, teacher: keras.Model) -> list[kd.Tap]:
    """Return one tap of each kind."""
    pairs: kd.TapPairs = kd.suggest_taps(student, teacher)
    for pair in pairs:
        print(pair.student, pair.teacher)
    return [
        kd.Tap("stack2"),
        kd.Tap.layer("logits", call=1, side="input"),
        kd.Tap.output("species", member=0),
        kd.Tap.output(1),
        kd.Tap.input_gradient(mirrored=True),
        kd.Tap("attention", side="scores"),
    ]
