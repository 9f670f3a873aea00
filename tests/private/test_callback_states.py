"""States of callbacks go by what these are, and not by their places."""

import keras
import pytest

from keras_distill._backend.callback_states import callback_states, set_callback_states


def made():
    return [
        keras.callbacks.EarlyStopping("val_loss"),
        keras.callbacks.EarlyStopping("loss"),
        keras.callbacks.ReduceLROnPlateau("loss"),
        keras.callbacks.EarlyStopping("loss"),
    ]


def test_other_places():
    old = made()
    for wait, callback in enumerate(old):
        callback.wait = 10 + wait
    states, new = callback_states(old), made()
    set_callback_states(
        [new[2], keras.callbacks.ModelCheckpoint("x.keras"), *new], states
    )
    assert [x.wait for x in new[:2]] == [10, 11]
    assert new[3].wait == 13


def test_a_callback_that_is_not_passed():
    old, (new, *_) = made(), made()
    old[0].wait = 5
    with pytest.warns(UserWarning, match="ReduceLROnPlateau:loss:0, and no such"):
        set_callback_states([new, *made()[1:2]], callback_states(old[:3]))
    assert new.wait == 5
