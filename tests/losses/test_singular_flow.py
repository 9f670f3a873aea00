"""Singular flows against NumPy's singular value decomposition in float64."""

import numpy as np
import pytest

from keras_distill.losses import SingularFlow


def singular_flow(teacher, student, count=1):
    values = []
    for b in range(len(teacher[0])):
        student_pair, teacher_pair = [], []
        for t, s in zip(teacher, student, strict=True):
            t, s = (f[b].reshape(-1, f.shape[-1]) for f in (t, s))
            _, sizes, v_t = np.linalg.svd(t, full_matrices=False)
            _, _, v_s = np.linalg.svd(s, full_matrices=False)
            v_t = v_t * np.sign(v_t.sum(-1, keepdims=True))
            sizes = sizes[:count] / np.linalg.norm(sizes[:count])
            aligned = []
            for vector in v_t[:count]:
                cosines = v_s[: count + 3] @ vector
                best = np.argmax(np.abs(cosines))
                aligned.append(np.sign(cosines[best]) * v_s[best])
            teacher_pair.append((v_t[:count] * sizes[:, None]).T)
            student_pair.append((np.array(aligned) * sizes[:, None]).T)
        flows = [
            np.exp(-((v[:, None] - w[None]) ** 2) / 8)
            for v, w in (student_pair, teacher_pair)
        ]
        values.append(((flows[0] - flows[1]) ** 2).sum())
    return np.array(values)


@pytest.fixture
def layers():
    rng = np.random.default_rng(0)

    def side():
        return rng.normal(size=(2, 3, 3, 5)), rng.normal(size=(2, 2, 3, 4))

    return side(), side()


@pytest.mark.parametrize("count", [1, 2])
def test_equals_numpy(layers, count):
    teacher, student = layers
    actual = SingularFlow(count=count, reduction=None)(teacher, student)
    np.testing.assert_allclose(actual, singular_flow(*layers, count), rtol=1e-3)


def test_gradient_equals_finite_differences(layers, gradient, central_difference):
    teacher, (early, late) = layers
    grad = gradient(lambda f: SingularFlow()(teacher, (f, late)), early)
    expected = central_difference(
        lambda f: singular_flow(teacher, (f, late)).mean(), early
    )
    np.testing.assert_allclose(grad, expected, rtol=5e-3, atol=1e-4)


def test_signs_and_scale_do_not_matter(layers):
    teacher, _ = layers
    turned = teacher[0] * -3.0, teacher[1] * 0.5
    np.testing.assert_allclose(SingularFlow()(teacher, turned), 0.0, atol=1e-6)


def test_bad_arguments(layers):
    with pytest.raises(ValueError, match="got 0"):
        SingularFlow(count=0)
    vectors = np.ones((2, 4)), np.ones((2, 4))
    with pytest.raises(ValueError, match=r"got \(2, 4\)"):
        SingularFlow()(vectors, vectors)
