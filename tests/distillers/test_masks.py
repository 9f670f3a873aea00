"""Each side's mask reaches a term's loss."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd

TOKENS = np.array([[1, 2, 0, 0], [3, 4, 5, 0]], "int32")
OTHERS = np.array([[1, 0, 0, 0], [3, 4, 5, 6]], "int32")


class Masks(kd.losses.DistillationLoss):
    """Records the masks that it is called with."""

    match = kd.adapters.Match.NOTHING
    needs = ("mask", "teacher_mask")

    def call(self, teacher, student, *, mask, teacher_mask):
        self.found = mask, teacher_mask
        return ops.mean(student, axis=(1, 2))


def net(width, seed=0, masks=True):
    """embedding, hidden, head."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((4,), dtype="int32")
    x = layers.Embedding(9, width, mask_zero=masks, name="embedding")(tokens)
    x = layers.Dense(width, name="hidden")(x)
    x = layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(x))
    return keras.Model(tokens, x, name=f"net_{width}_{seed}")


def masks_in_fit(distiller, x, y=None):
    """Train a step eagerly; return the masks that the loss gets."""
    distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    distiller.fit(x, y, verbose=0, shuffle=False)
    bound = next(iter(distiller.terms.values()))
    return [x if x is None else ops.convert_to_numpy(x) for x in bound.term.loss.found]


TEACHERS = {
    "model": lambda: net(8, 1),
    "portions": lambda: kd.Teacher(net(8, 1), portions=2),
    "member": lambda: kd.EnsembleTeacher([net(8, 1), net(8, 2)]),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_knowledge_has_the_masks_of_the_teacher(kind):
    tap = "0/hidden" if kind == "member" else "hidden"
    term = kd.Term(Masks(), "hidden", tap)
    both = {"student": OTHERS, "teacher": TOKENS}
    distiller = kd.Distiller(
        net(4),
        TEACHERS[kind](),
        terms=[term],
        label_weight=0.0,
        student_inputs="student",
        teacher_inputs="teacher",
    )
    mask, teacher_mask = masks_in_fit(distiller, both)
    np.testing.assert_array_equal(mask, OTHERS > 0)
    np.testing.assert_array_equal(teacher_mask, TOKENS > 0)


def test_an_average_has_the_masks_of_its_members():
    def sequences(seed):
        keras.utils.set_random_seed(seed)
        tokens = keras.Input((4,), dtype="int32")
        x = layers.Embedding(9, 4, mask_zero=True)(tokens)
        return keras.Model(tokens, layers.Dense(3)(x), name=f"sequences_{seed}")

    teacher = kd.EnsembleTeacher([sequences(1), sequences(2)])
    student = sequences(0)
    distiller = kd.Distiller(
        student, teacher, terms=[kd.Term(Masks())], label_weight=0.0
    )
    for mask in masks_in_fit(distiller, TOKENS):
        np.testing.assert_array_equal(mask, TOKENS > 0)


def test_peers_pass_their_masks_on():
    peers = [net(4), net(5, 1)]
    loss = Masks()
    mutual = kd.MutualDistiller(peers, [kd.Term(loss, "hidden", "hidden")])
    mutual.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    mutual.fit(TOKENS, verbose=0, shuffle=False)
    for mask in loss.found:
        np.testing.assert_array_equal(ops.convert_to_numpy(mask), TOKENS > 0)


def test_there_are_no_masks_without_a_layer_that_makes_one():
    term = kd.Term(Masks(), "hidden", "hidden")
    student, teacher = net(4, masks=False), net(8, 1, masks=False)
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    assert masks_in_fit(distiller, TOKENS) == [None, None]
