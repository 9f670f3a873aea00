"""Train one of two peers, and write its logits of all points to the folder.

python -m tests.teachers.remote_peer FOLDER {a,b} {alone,together} [dies]
"""

import os
import pathlib
import sys

import keras
import numpy as np

import keras_distill as kd


class Dies(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 20:
            os._exit(3)


def net(seed):
    keras.utils.set_random_seed(seed)
    x = keras.Input((6,))
    hidden = keras.layers.Dense(32, "relu")(x)
    return keras.Model(x, keras.layers.Dense(4)(hidden))


def main(folder, name, how, *more):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 6)).astype("float32")
    # Random labels, so that each peer alone memorizes its own part.
    y = rng.integers(0, 4, 256).astype("int32")
    index = "ab".index(name)
    model = student = net(index)
    if how == "together":
        other = "ba"[index]
        peers = {other: net(1 - index)}
        teacher = kd.RemotePeers(peers, folder, name=name, refresh=10, wait=120.0)
        soft = kd.Term(kd.losses.SoftTarget(1.0), weight=3.0)
        model = kd.Distiller(student, teacher, terms=[soft])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    own = slice(index, None, 2)
    callbacks = [Dies()] if "dies" in more else []
    model.fit(
        *(x[own], y[own]), batch_size=4, epochs=20, verbose=0, callbacks=callbacks
    )
    logits = student.predict(x, verbose=0)
    np.save(pathlib.Path(folder) / f"{name}.logits.npy", logits)


if __name__ == "__main__":
    main(*sys.argv[1:])
