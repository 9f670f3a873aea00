"""What every loss does with masked steps of a sequence, and with classes left out.

The table of methods is in `contract.py`.
"""

import numpy as np
import pytest
from keras import ops, tree

from keras_distill.adapters import Match
from tests.losses.contract import LOGITS, ROWS, compare, gradients, tensor

# Steps that are valid: the student's and the teacher's differ.
MASK = np.arange(6) < np.array([[6], [4], [2], [5]])
TEACHER_MASK = np.arange(6) < np.array([[5], [4], [3], [6]])
BOTH = MASK & TEACHER_MASK
numbers = ops.convert_to_numpy


def rows(condition):
    chosen = [row for row in ROWS if condition(row)]
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row.name)


every_masked = rows(lambda row: row.masked)
of_tokens = rows(lambda row: row.masked and row.tokens and row.alone)


def tensors(arrays):
    return tree.map_structure(tensor, arrays)


def padded(arrays, mask, value):
    return tree.map_structure(lambda x: np.where(mask[..., None], x, value), arrays)


def sides(row, teacher_mask=TEACHER_MASK, padding=(0.0, 0.0)):
    """Return a row's tensors of both sides with values at their masked steps."""
    teacher = padded(row.draw_sequences("teacher", seed=1), teacher_mask, padding[0])
    student = padded(row.draw_sequences(seed=2), MASK, padding[1])
    return tensors(teacher), row.fitted(tensors(student))


@every_masked
def test_masked_steps_change_nothing(row):
    masks = {"mask": MASK, "teacher_mask": TEACHER_MASK}
    found = []
    for padding in ((0.0, 0.0), (-3.0, 7.0)):
        value, grads, _ = gradients(row.loss(), *sides(row, padding=padding), **masks)
        found.append(numbers(value))
        for grad in grads:
            assert np.all(numbers(grad)[~MASK] == 0.0)
            assert np.abs(numbers(grad)).max() > 1e-6
    np.testing.assert_allclose(*found, rtol=1e-5)


@every_masked
def test_sequences_padded_alike_are_those_without_padding(row):
    """Here all are of 4 steps, so that they can be compared without a mask too."""
    teacher = row.draw_sequences("teacher", length=9, seed=1)
    student = row.draw_sequences(length=9, seed=2)
    mask = np.broadcast_to(np.arange(9) < 4, (4, 9))
    junk = padded(teacher, mask, 5.0), padded(student, mask, -2.0)
    short = tree.map_structure(lambda x: x[:, :4], (teacher, student))
    found, expected = (
        [numbers(x) for x in gradients(row.loss(), t, row.fitted(s), **masks)[1]]
        + [numbers(compare(row.loss(), t, row.fitted(s), **masks))]
        for (t, s), masks in (
            (tensors(junk), {"mask": mask, "teacher_mask": mask}),
            (tensors(short), {}),
        )
    )
    np.testing.assert_allclose(found[-1], expected[-1], rtol=1e-5)
    for one, other in zip(found[:-1], expected[:-1], strict=True):
        np.testing.assert_allclose(one[:, :4], other, rtol=1e-4, atol=1e-6)


@every_masked
def test_the_length_of_the_padding_changes_nothing(row):
    teacher = row.draw_sequences("teacher", length=30, seed=1)
    student = row.draw_sequences(length=30, seed=2)
    valid = np.arange(30) < np.array([[12], [7], [3], [1]])
    teacher, student = padded(teacher, valid, 0.5), padded(student, valid, -0.5)
    found = []
    for length in (12, 30):
        cut = slice(None), slice(length)
        t, s = tensors(
            tree.map_structure(lambda x, cut=cut: x[cut], (teacher, student))
        )
        mask = valid[cut]
        value = compare(row.loss(), t, row.fitted(s), mask=mask, teacher_mask=mask)
        found.append(numbers(value))
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-6)


@of_tokens
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", None])
def test_tokens_are_reduced_over_the_valid_ones(row, reduction):
    teacher, student = sides(row)
    each = numbers(compare(row.loss(reduction=None), teacher, student))
    reduce = {"sum": np.sum, "sum_over_batch_size": np.mean}.get(reduction)
    expected = reduce(each[BOTH], dtype="float64") if reduce else each * BOTH
    masks = {"mask": MASK, "teacher_mask": TEACHER_MASK}
    value = compare(row.loss(reduction=reduction), teacher, student, **masks)
    np.testing.assert_allclose(numbers(value), expected, rtol=1e-5)


@every_masked
def test_a_side_without_a_mask_has_that_of_the_other(row):
    teacher, student = sides(row, MASK)
    masks = {"mask": MASK}, {"teacher_mask": MASK}, {"mask": MASK, "teacher_mask": MASK}
    if not row.make.compares_teacher:
        masks = masks[::2]
    found = [numbers(compare(row.loss(), teacher, student, **m)) for m in masks]
    np.testing.assert_allclose(found, found[0], rtol=1e-6)


@rows(lambda row: not row.masked)
def test_a_loss_that_cannot_take_a_mask_refuses_it(row):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    length = tree.flatten(student)[0].shape[1]
    mask = np.ones((4, length), bool)
    with pytest.raises(
        ValueError, match=f"'{row.loss().name}'.*does not take their mask"
    ):
        compare(row.loss(), teacher, student, mask=mask)


LEFT_OUT = {
    row.name
    for row in ROWS
    if row.student == LOGITS and row.make.match is Match.CLASSES
}
# Of these the value depends on the number of classes.
OF_ALL_CLASSES = {
    "binary_soft_target",
    "soft_target_super_classes",
    "soft_target_class_similarity",
    "soft_target_permuted",
}
left_out = rows(lambda row: row.name in LEFT_OUT)


def without_classes(row):
    """Return logits whose last class, in one sample the last two, is -inf."""
    teacher, student = (np.array(x) for x in (row.draw("teacher", 1), row.draw(seed=2)))
    for logits in (teacher, student):
        logits[:, 4] = logits[1, 3] = -np.inf
    return teacher, student


@left_out
def test_classes_left_out_on_both_sides_have_no_value_and_no_gradient(row):
    teacher, student = without_classes(row)
    values, grads, _ = gradients(
        row.loss(reduction=None), tensor(teacher), tensor(student)
    )
    (grad,) = map(numbers, grads)
    assert np.all(np.isfinite(numbers(values)))
    assert np.all(np.isfinite(grad)) and np.abs(grad).max() > 1e-6
    assert np.all(grad[:, 4] == 0.0) and grad[1, 3] == 0.0


@rows(lambda row: row.name in LEFT_OUT - OF_ALL_CLASSES)
def test_classes_left_out_are_as_if_they_were_not_there(row):
    teacher, student = (np.delete(x, 1, axis=0) for x in without_classes(row))
    found, expected = (
        gradients(row.loss(), tensor(teacher[:, :k]), tensor(student[:, :k]))
        for k in (5, 4)
    )
    np.testing.assert_allclose(numbers(found[0]), numbers(expected[0]), rtol=1e-5)
    grads = numbers(found[1][0])[:, :4], numbers(expected[1][0])
    np.testing.assert_allclose(*grads, rtol=1e-4, atol=1e-6)
