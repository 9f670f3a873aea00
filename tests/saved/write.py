"""Write the files of `version_0_1_0`, by the commit before the rooms were rebuilt.

git worktree add /tmp/before bce602d
PYTHONPATH=/tmp/before python tests/saved/write.py tests/saved/version_0_1_0

`spectra.npz` is of the teacher there, by a later commit, 30eb6ba.
"""

import contextlib
import pathlib
import sys

import keras
import numpy as np

import keras_distill as kd

FOLDER = pathlib.Path(sys.argv[-1])
X = np.random.default_rng(0).normal(size=(12, 6, 6, 1)).astype("float32")
Y = np.arange(12, dtype="int32") % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(width, name):
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(width, 3, 2, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="stage")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name=name)


def fitted(distiller, **arguments):
    distiller.compile("adam", LOSS, metrics=["accuracy"])
    distiller.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0, **arguments)
    return distiller


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 5:
            raise KeyboardInterrupt


def main():
    keras.utils.set_random_seed(0)
    rate = keras.optimizers.schedules.PolynomialDecay(4.0, 6, 1.0)
    terms = [
        kd.Term(kd.losses.SoftTarget(rate)),
        kd.Term(kd.losses.Hint(), "stage", "stage", weight=1.0),
        kd.Term(kd.losses.GradientAttention(), "label_gradient", "label_gradient"),
    ]
    distiller = kd.Distiller(net(2, "student"), net(3, "teacher"), terms=terms)
    fitted(distiller).save(FOLDER / "distiller.keras")
    mutual = fitted(kd.MutualDistiller([net(2, "a"), net(3, "b")], refresh=2))
    mutual.save(FOLDER / "mutual.keras")
    own = fitted(kd.SelfDistiller(net(2, "net"), ["norm"]))
    own.save(FOLDER / "self.keras")
    ensemble = kd.Ensemble([net(2, "one"), net(3, "two")], weights=[1, 3])
    ensemble.save(FOLDER / "ensemble.keras")
    teacher = net(3, "cached")
    teacher.save(FOLDER / "teacher.keras")
    cached = kd.CachedTeacher(FOLDER / "cache", teacher, top_k=2, temperature=4.0)
    cached.build(kd.data.Samples(X, Y), verbose=0)
    kd.record_metadata(teacher, X, kind="all").save(FOLDER / "metadata.npz")
    spectra = kd.record_metadata(teacher, X, kind="pairs", keep=0.3)
    spectra.save(FOLDER / "spectra.npz")
    np.savez(
        FOLDER / "predictions.npz",
        distiller=distiller.predict(X, verbose=0),
        mutual=np.stack(mutual.predict(X, verbose=0)),
        self=own.predict(X, verbose=0)["norm"],
        ensemble=ensemble.predict(X, verbose=0),
        cached=cached.read(np.arange(12))["logits"]["logits"],
        adapter=distiller.terms["hint"].student_adapters[0].get_weights()[0],
        temperature=distiller.terms["soft_target"].temperature.numpy(),
    )
    keras.utils.set_random_seed(1)
    distiller = kd.Distiller(net(2, "student"), net(3, "teacher"))
    backup = keras.callbacks.BackupAndRestore(FOLDER / "backup", save_freq=1)
    with contextlib.suppress(KeyboardInterrupt):
        fitted(distiller, callbacks=[backup, Stop()])
    distiller.student.save_weights(FOLDER / "stopped.weights.h5")


if __name__ == "__main__":
    main()
