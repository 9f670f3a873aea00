"""Callbacks, strategies and optimizers."""

import keras

import keras_distill as kd


def fit(make_student, teacher: keras.Model, train) -> keras.callbacks.History:
    """Train on all devices, and resume after a crash."""
    with kd.strategies.scope("auto"):
        distiller = kd.Distiller(make_student(), teacher)
        distiller.compile(
            kd.optimizers.DistillationOrientedSGD(0.1, momentum=0.9),
            loss="sparse_categorical_crossentropy",
        )
    pulls = kd.callbacks.Pulls(every=100)
    callbacks: list[keras.callbacks.Callback] = [
        kd.BackupAndRestore("backup"),
        pulls,
        keras.callbacks.TensorBoard("logs"),
    ]
    history = distiller.fit(train, epochs=3, callbacks=callbacks, verbose=0)
    pulls.plot().savefig("pulls.png")
    return history
