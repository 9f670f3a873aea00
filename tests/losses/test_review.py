"""Knowledge review against NumPy, and its fusion of stages."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.losses import Review
from tests.nets import conv_pair


def review(teacher, student):
    """Average over blocks, grid by grid."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        size = s.shape[1]
        grids = [size, *(g for g in (4, 2, 1) if g < size)]
        weights = [0.5**level for level in range(len(grids))]
        for grid, weight in zip(grids, weights, strict=True):
            block = size // grid
            s_mean, t_mean = (
                f.reshape(len(f), grid, block, grid, block, -1).mean((2, 4))
                for f in (s, t)
            )
            gap = ((s_mean - t_mean) ** 2).mean((1, 2, 3))
            total = total + weight * gap / sum(weights)
    return total


@pytest.fixture
def stages():
    rng = np.random.default_rng(0)
    return [
        [rng.normal(size=(3, 8, 8, 2)), rng.normal(size=(3, 4, 4, 3))] for _ in range(2)
    ]


def test_equals_numpy(stages):
    teacher, student = (tuple(side) for side in stages)
    actual = Review(2, reduction=None)(teacher, student)
    np.testing.assert_allclose(actual, review(*stages), rtol=1e-4)


def test_gradient_equals_finite_differences(stages, gradient, central_difference):
    (t_early, t_deep), (s_early, s_deep) = stages
    loss = Review(2)
    grad = gradient(lambda f: loss((t_early, t_deep), (s_early, f)), s_deep)
    expected = central_difference(
        lambda f: review([t_early, t_deep], [s_early, f]).mean(), s_deep
    )
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-6)


def test_a_deep_stage_reaches_the_early_output():
    fusion = kd.adapters.ReviewFusion([(None, 8, 8, 6), (None, 4, 4, 12)], width=5)
    shapes = [(None, 8, 8, 4), (None, 4, 4, 8)]
    fusion.build(shapes)
    rng = np.random.default_rng(0)
    early, deep = (rng.normal(size=(2, *s[1:])).astype("float32") for s in shapes)
    out = fusion([early, deep], training=True)
    assert [tuple(x.shape) for x in out] == [(2, 8, 8, 6), (2, 4, 4, 12)]
    assert fusion.compute_output_shape(shapes)[0] == (None, 8, 8, 6)
    changed = fusion([early, deep + rng.normal(size=deep.shape)], training=True)
    assert np.abs(out[0] - changed[0]).max() > 1e-3
    # Not the other way round: the deepest stage is fused with no other.
    changed = fusion([early + 1.0 * rng.normal(size=early.shape), deep], training=True)
    np.testing.assert_allclose(out[1], changed[1], atol=1e-6)


def test_a_distiller_learns_and_saves_the_fusion(tmp_path):
    keras.utils.set_random_seed(0)
    student, teacher = conv_pair()
    stages = ("stack1", "stack2")
    term = kd.Term(Review(2, width=8), student=stages, teacher=stages)
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.01))
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
    history = distiller.fit(x, batch_size=32, epochs=25, verbose=0).history["review"]
    assert history[-1] < 0.7 * history[0]
    distiller.save(tmp_path / "distiller.keras")
    again = keras.saving.load_model(tmp_path / "distiller.keras")
    for weight, loaded in zip(distiller.weights, again.weights, strict=True):
        np.testing.assert_array_equal(weight, loaded)
    again.set_teacher(teacher)
    again.fit(x, verbose=0)


def test_bad_levels_and_taps():
    with pytest.raises(ValueError, match="2 or more; got 1"):
        Review(1)
    student, teacher = conv_pair()
    pair = ("stack1", "logits")
    with pytest.raises(ValueError, match="Review fuses maps"):
        kd.Distiller(student, teacher, terms=[kd.Term(Review(2), pair, pair)])
