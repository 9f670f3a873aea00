"""Flow matrices against NumPy in float64."""

import numpy as np
import pytest

from keras_distill.losses import FlowMatrix


def flow(first, second, mask=None):
    """Return `(B, m, n)`, location by location."""
    batch = len(first)
    first = first.reshape(batch, -1, first.shape[-1])
    second = second.reshape(batch, -1, second.shape[-1])
    mask = np.ones(first.shape[:2]) if mask is None else mask
    matrices = []
    for f, g, valid in zip(first, second, mask, strict=True):
        outer = [np.outer(a, b) for a, b, v in zip(f, g, valid, strict=True) if v]
        matrices.append(np.mean(outer, axis=0))
    return np.stack(matrices)


def flow_matrix(teacher, student, mask=None):
    gap = flow(*student, mask) - flow(*teacher, mask)
    return (gap**2).mean((1, 2))


def max_pool(features, size):
    """Pool to `size` by windows of one size, placed as by "same" padding.

    Windows are as large as needed; the excess is split between both ends, the odd one
    at the end.
    """
    for axis, target in zip((1, 2), size, strict=True):
        length = features.shape[axis]
        window = -(-length // target)
        start = -((window * target - length) // 2)
        pieces = []
        for i in range(target):
            indices = range(start + i * window, start + (i + 1) * window)
            inside = [index for index in indices if 0 <= index < length]
            pieces.append(features.take(inside, axis).max(axis))
        features = np.stack(pieces, axis)
    return features


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(3, *shape)) for shape in shapes)


def test_equals_numpy():
    teacher = draw((4, 5, 2), (4, 5, 3), seed=1)
    student = draw((4, 5, 2), (4, 5, 3), seed=2)
    values = FlowMatrix(reduction=None)(teacher, student)
    np.testing.assert_allclose(values, flow_matrix(teacher, student), rtol=1e-4)


def test_by_hand():
    """G = (1*3 + 2*4) / 2 = 5.5 against 0."""
    first = np.array([1.0, 2.0]).reshape(1, 1, 2, 1)
    second = np.array([3.0, 4.0]).reshape(1, 1, 2, 1)
    zero = np.zeros_like(first)
    value = FlowMatrix()((zero, zero), (first, second))
    np.testing.assert_allclose(value, 5.5**2, rtol=1e-6)


def test_teacher_and_student_may_differ_in_resolution():
    teacher = draw((2, 3, 2), (2, 3, 3), seed=1)
    student = draw((4, 6, 2), (4, 6, 3), seed=2)
    values = FlowMatrix(reduction=None)(teacher, student)
    np.testing.assert_allclose(values, flow_matrix(teacher, student), rtol=1e-4)


def test_tiling_an_image_does_not_change_its_flow():
    teacher, student = draw((2, 3, 2), (2, 3, 3)), draw((2, 3, 2), (2, 3, 3), seed=1)
    tiled = tuple(np.tile(f, (1, 3, 2, 1)) for f in student)
    loss = FlowMatrix(reduction=None)
    np.testing.assert_allclose(loss(teacher, tiled), loss(teacher, student), rtol=1e-4)


SIZES = [
    ((8, 8), (4, 4)),
    ((8, 6), (4, 2)),
    ((7, 7), (4, 4)),
    ((7, 5), (3, 2)),
    ((5, 9), (1, 3)),
    ((4, 8), (8, 4)),
]


@pytest.mark.parametrize(("first", "second"), SIZES)
def test_the_larger_map_is_max_pooled(first, second):
    student = draw((*first, 2), (*second, 3), seed=2)
    teacher = draw((*first, 2), (*second, 3), seed=1)
    target = tuple(np.minimum(first, second))
    pooled = [[max_pool(f, target) for f in side] for side in (teacher, student)]
    values = FlowMatrix(reduction=None)(teacher, student)
    np.testing.assert_allclose(values, flow_matrix(*pooled), rtol=1e-4)


def test_channels_are_the_last_axis_whatever_the_configuration(channels_first):
    test_the_larger_map_is_max_pooled((8, 8), (4, 4))


def test_pooling_negative_maps_is_not_padded_with_zeros():
    """A constant of -1 stays -1 at the border, so that G is 1 against 0."""
    first, second = -np.ones((1, 7, 7, 1)), -np.ones((1, 4, 4, 1))
    zero = np.zeros((1, 4, 4, 1))
    value = FlowMatrix()((zero, zero), (first, second))
    np.testing.assert_allclose(value, 1.0, rtol=1e-6)


@pytest.mark.parametrize("sizes", [((4, 4), (4, 4)), ((5, 4), (3, 2))])
def test_gradient_equals_finite_differences(sizes, gradient, central_difference):
    (first, second), teacher = (
        draw((*sizes[0], 2), (*sizes[1], 3), seed=seed) for seed in (1, 2)
    )
    target = tuple(np.minimum(*sizes))

    def pooled(*layers):
        return [max_pool(f, target) for f in layers]

    def expected(first, second):
        return flow_matrix(pooled(*teacher), pooled(first, second)).mean()

    loss = FlowMatrix()
    np.testing.assert_allclose(
        gradient(lambda f: loss(teacher, (f, second.astype("float32"))), first),
        central_difference(lambda f: expected(f, second), first, 1e-6),
        rtol=1e-3,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        gradient(lambda f: loss(teacher, (first.astype("float32"), f)), second),
        central_difference(lambda f: expected(first, f), second, 1e-6),
        rtol=1e-3,
        atol=1e-6,
    )


MASK = np.array([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)


def test_sequences_count_the_valid_positions():
    teacher, student = draw((5, 2), (5, 3), seed=1), draw((5, 2), (5, 3), seed=2)
    loss = FlowMatrix(reduction=None)
    np.testing.assert_allclose(
        loss(teacher, student), flow_matrix(teacher, student), rtol=1e-4
    )
    np.testing.assert_allclose(
        loss(teacher, student, mask=MASK),
        flow_matrix(teacher, student, MASK),
        rtol=1e-4,
    )


@pytest.mark.parametrize("index", [0, 1])
def test_masked_positions_change_nothing(index, gradient):
    teacher, student = draw((5, 2), (5, 3), seed=1), draw((5, 2), (5, 3), seed=2)
    loss = FlowMatrix(reduction=None)
    changed = list(student)
    changed[index] = np.where(MASK[..., None], student[index], 1e3)
    np.testing.assert_allclose(
        loss(teacher, changed, mask=MASK), loss(teacher, student, mask=MASK), rtol=1e-4
    )

    def of_one(features):
        both = [f.astype("float32") for f in student]
        both[index] = features
        return loss(teacher, both, mask=MASK)

    assert np.all(gradient(of_one, student[index])[~MASK] == 0)


def test_a_masked_sequence_cannot_be_pooled():
    mask = np.array([[1, 1, 1, 1, 0, 0]] * 3, bool)
    teacher, student = draw((6, 2), (3, 3), seed=1), draw((6, 2), (3, 3), seed=2)
    with pytest.raises(ValueError, match="can't pool masked sequences"):
        FlowMatrix(reduction=None)(teacher, student, mask=mask)


def test_a_sequence_without_valid_positions_is_finite(gradient):
    teacher, student = draw((5, 2), (5, 3), seed=1), draw((5, 2), (5, 3), seed=2)
    mask = MASK & np.array([[False], [True], [True]])
    loss = FlowMatrix(reduction=None)
    assert loss(teacher, student, mask=mask)[0] == 0.0
    second = student[1].astype("float32")
    grad = gradient(lambda f: loss(teacher, (f, second), mask=mask), student[0])
    assert np.all(np.isfinite(grad))


def test_vectors_have_no_flow():
    pair = (np.ones((2, 5)), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"needs two maps.*\(2, 5\) and \(2, 3\)"):
        FlowMatrix()(pair, pair)


def test_a_map_and_a_sequence_have_no_flow():
    pair = (np.ones((2, 4, 4, 3)), np.ones((2, 16, 3)))
    with pytest.raises(ValueError, match="needs two maps"):
        FlowMatrix()(pair, pair)


def test_sizes_without_a_common_window():
    pair = draw((7, 7, 2), (5, 5, 2))
    with pytest.raises(
        ValueError, match=r"can't max-pool a map of \(7, 7\) to \(5, 5\)"
    ):
        FlowMatrix()(pair, pair)


def test_two_taps_and_the_recommended_weight():
    assert (FlowMatrix().taps, FlowMatrix().recommended_weight) == (2, 50.0)
