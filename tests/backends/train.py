"""Train a distiller for two steps on the current backend, and save weights and logs.

    KERAS_BACKEND=jax python tests/backends/train.py START RESULT

START is a file of weights, written if it does not exist; RESULT gets the weights, the
logs of training and evaluation, and whether the package imported TensorFlow.
"""

import pathlib
import sys

import keras
import numpy as np

import keras_distill as kd
from keras_distill import losses

# Checked before `fit`, in which Keras imports TensorFlow where it is installed.
IMPORTED_TENSORFLOW = "tensorflow" in sys.modules


def net(filters, name):
    x = inputs = keras.Input((6, 6, 1))
    for i, width in enumerate(filters, start=1):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation("tanh", name=f"stack{i}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    l2 = keras.regularizers.L2(0.01)
    x = keras.layers.ActivityRegularization(l2=0.1)(x)
    outputs = keras.layers.Dense(5, kernel_regularizer=l2, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


def make():
    student, teacher = net((3, 4), "student"), net((4, 6), "teacher")
    gradients = kd.Tap.input_gradient(), kd.Tap.input_gradient()
    falling = keras.optimizers.schedules.PolynomialDecay(4.0, 2, 1.0)
    terms = [
        kd.Term(losses.SoftTarget(falling), weight=0.9),
        kd.Term(losses.Hint(), student="stack2", teacher="stack2", weight=1.0),
        kd.Term(losses.AttentionMap(), student="stack1", teacher="stack1", weight=10.0),
        kd.Term(losses.SimilarityMatrix(), student="pool", teacher="pool", weight=10.0),
        kd.Term(losses.GradientAttention(), *gradients, weight=10.0),
    ]
    distiller = kd.Distiller(student, teacher, terms=terms, label_weight=0.5)
    distiller.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return distiller, teacher


def masked_loss():
    """Return a term's loss on a sequence with a masked end, and on the same without it."""

    def net(name, length):
        inputs = keras.Input((length,), dtype="int32")
        normal = keras.initializers.RandomNormal(stddev=1.0, seed=len(name))
        x = keras.layers.Embedding(6, 3, normal, mask_zero=True)(inputs)
        x = keras.layers.Dense(6, kernel_initializer=normal, name="logits")(x)
        return keras.Model(inputs, x, name=name)

    values = []
    for tokens in (np.array([[1, 2, 3, 0, 0]]), np.array([[1, 2, 3]])):
        nets = net("one", tokens.shape[1]), net("other", tokens.shape[1])
        terms = [kd.Term(losses.SoftTarget(1.0), weight=1.0)]
        distiller = kd.Distiller(*nets, terms=terms, label_weight=0.0)
        distiller.compile(keras.optimizers.SGD(0.0))
        values += distiller.fit(tokens, verbose=0).history["soft_target"]
    return values


def vocabulary():
    """Yield two epochs' losses of a pair in chunks, then those on its logits and labels."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 300, (2, 8, 5))
    chunked = losses.VocabularySoftTarget(2.0, label_weight=0.5, chunk=7)
    states = kd.Tap("head", side="input")
    of_labels = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for term, compiled in (
        (kd.Term(chunked, states, states), None),
        (kd.Term(losses.SoftTarget(2.0)), of_labels),
    ):
        nets = []
        for seed, width in enumerate((3, 4)):
            inputs = keras.Input((5,), dtype="int32")
            hidden = keras.layers.Embedding(300, width)(inputs)
            logits = keras.layers.Dense(300, name="head")(hidden)
            nets.append(keras.Model(inputs, logits))
            rng = np.random.default_rng(seed)
            nets[-1].set_weights([rng.normal(size=w.shape) for w in nets[-1].weights])
        distiller = kd.Distiller(*nets, terms=[term], label_weight=0.5)
        distiller.compile(keras.optimizers.SGD(1.0), compiled)
        yield distiller.fit(x, y, epochs=2, shuffle=False, verbose=0).history["loss"]


def main(start, result):
    # Backends then do not differ by the rounding of convolutions.
    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(0)
    distiller, teacher = make()
    if not pathlib.Path(start).exists():
        np.savez(start, *distiller.get_weights(), *teacher.get_weights())
    weights = list(np.load(start).values())
    count = len(distiller.weights)
    distiller.set_weights(weights[:count])
    teacher.set_weights(weights[count:])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 6, 6, 1)), rng.integers(0, 5, 16)
    logs = distiller.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0).history
    logs = {name: value[0] for name, value in logs.items()}
    found = distiller.evaluate(x, y, verbose=0, return_dict=True)
    np.savez(
        result,
        *distiller.get_weights(),
        **{f"train_{name}": value for name, value in logs.items()},
        **{f"test_{name}": value for name, value in found.items()},
        masked=masked_loss(),
        vocabulary=list(vocabulary()),
        imported_tensorflow=IMPORTED_TENSORFLOW,
        teacher_moved=any(
            np.any(old != np.array(new))
            for old, new in zip(weights[count:], teacher.get_weights(), strict=True)
        ),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
