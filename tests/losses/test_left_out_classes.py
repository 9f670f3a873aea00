"""Logits of -inf: of classes that both models leave out, or one of them."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_softmax, rel_entr, softmax

import keras_distill as kd
from keras_distill import losses, targets
from tests.differentiation import compilers, differentiate

RNG = np.random.default_rng(7)
TEACHER, STUDENT = RNG.normal(size=(2, 4, 6))
LABELS = np.array([0, 1, 2, 0])
numbers = ops.convert_to_numpy


def left_out(logits, *classes):
    return np.where(np.isin(np.arange(logits.shape[-1]), classes), -np.inf, logits)


def tensors(*arrays):
    return [ops.convert_to_tensor(x.astype("float32")) for x in arrays]


def divergences(teacher, student, temperature=2.0):
    """The formulas, where SciPy's `rel_entr` is 0 for p = 0 and inf for q = 0."""
    p, q = softmax(teacher / temperature, -1), softmax(student / temperature, -1)
    m = (p + q) / 2
    found = {
        losses.SoftTarget: rel_entr(p, q),
        losses.ReverseSoftTarget: rel_entr(q, p),
        losses.JensenShannon: (rel_entr(p, m) + rel_entr(q, m)) / 2,
    }
    return {loss: temperature**2 * terms.sum(-1) for loss, terms in found.items()}


SIDES = {"both": ((4, 5), (4, 5)), "teacher": ((4,), ()), "student": ((), (4,))}


@pytest.mark.parametrize("side", [*SIDES, "some"])
@pytest.mark.parametrize("kind", divergences(TEACHER, STUDENT))
def test_divergences_equal_numpy(kind, side):
    of_teacher, of_student = SIDES.get(side, ((3, 4), (4, 5)))
    sides = left_out(TEACHER, *of_teacher), left_out(STUDENT, *of_student)
    values = numbers(kind(2.0, reduction=None)(*tensors(*sides)))
    np.testing.assert_allclose(values, divergences(*sides)[kind], rtol=1e-5)


def decoupled(teacher, student, temperature=4.0, beta=8.0):
    p, q = softmax(teacher / temperature, -1), softmax(student / temperature, -1)
    chosen = np.eye(p.shape[-1], dtype=bool)[LABELS]
    true_p, true_q = p[chosen], q[chosen]
    binary = rel_entr(true_p, true_q) + rel_entr(1 - true_p, 1 - true_q)
    others = (np.where(chosen, 0.0, x) for x in (p, q))
    others = (x / x.sum(-1, keepdims=True) for x in others)
    return temperature**2 * (binary + beta * rel_entr(*others).sum(-1))


def squares(teacher, student):
    return 0.5 * ((student - teacher)[:, :4] ** 2).sum(-1)


GRADIENTS = {
    **{
        kind.__name__: (kind(2.0), lambda t, s, kind=kind: divergences(t, s)[kind])
        for kind in divergences(TEACHER, STUDENT)
    },
    "DecoupledTarget": (losses.DecoupledTarget(), decoupled),
    "LogitRegression": (losses.LogitRegression(), squares),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_the_finite_differences(name, gradient, central_difference):
    loss, formula = GRADIENTS[name]
    teacher, student = (left_out(x, 4, 5) for x in (TEACHER, STUDENT))

    def expected(inner):
        full = np.concatenate([inner, student[:, 4:]], axis=-1)
        return formula(teacher, full).mean()

    (given,) = tensors(teacher)
    grad = gradient(lambda full: loss(given, full, labels=LABELS), student)
    slopes = central_difference(expected, student[:, :4])
    np.testing.assert_allclose(grad[:, :4], slopes, rtol=1e-4, atol=1e-6)
    assert np.all(grad[:, 4:] == 0.0)


@pytest.mark.parametrize("compiler", ["none", "traced", "jit"])
def test_a_vocabulary_in_chunks(compiler):
    """Padding of the vocabulary, -inf on both sides, changes nothing."""
    available = {"none": lambda function: function, **compilers()}
    if compiler not in available:
        pytest.skip(f"{keras.backend.backend()} has no such compiler")
    logits = RNG.normal(size=(2, 2, 5, 300))
    loss = losses.SoftTarget(2.0)
    results = []
    for teacher, student in (
        tensors(*(left_out(x, *range(280, 300)) for x in logits)),
        tensors(*logits[..., :280]),
    ):
        step = available[compiler](lambda t, s: differentiate(lambda s: loss(t, s), s))
        results.append([numbers(x) for x in keras.tree.flatten(step(teacher, student))])
    (value, grad), (short_value, short_grad) = results
    np.testing.assert_allclose(value, short_value, rtol=1e-6)
    np.testing.assert_allclose(grad[..., :280], short_grad, rtol=1e-5, atol=1e-9)
    assert np.all(grad[..., 280:] == 0.0)


def test_one_side_alone_is_infinite_in_chunks():
    teacher, student = RNG.normal(size=(2, 2, 5, 300))
    value = losses.SoftTarget(2.0)(*tensors(teacher, left_out(student, 7)))
    assert numbers(value) == np.inf
    value = losses.SoftTarget(2.0)(*tensors(left_out(teacher, 7), student))
    assert np.isfinite(numbers(value))


@pytest.mark.parametrize("label_weight", [0.0, 0.5])
def test_a_last_layer_whose_bias_leaves_classes_out(label_weight):
    rng = np.random.default_rng(1)
    teacher, student = tensors(*rng.normal(size=(2, 4, 3)))
    kernels, biases = rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 6))
    loss = losses.VocabularySoftTarget(2.0, label_weight=label_weight, chunk=3)

    def run(kernels, biases):
        heads = [tensors(*pair) for pair in zip(kernels, biases, strict=True)]
        context = {"teacher_head": heads[0], "labels": LABELS}
        return differentiate(
            lambda s, *head: loss(teacher, s, student_head=head, **context),
            student,
            *heads[1],
        )

    found = run(kernels, left_out(biases, 4, 5))
    expected = run(kernels[..., :4], biases[..., :4])
    for a, b in zip(*map(keras.tree.flatten, (found, expected)), strict=True):
        a = numbers(a)
        if a.shape[-1:] == (6,):
            assert np.all(a[..., 4:] == 0.0)
            a = a[..., :4]
        np.testing.assert_allclose(a, numbers(b), rtol=1e-4, atol=1e-6)


def test_items_left_out_are_not_ranked():
    """Of three of the teacher's top items two are there, and their weights sum to one."""
    teacher, student = np.array([[3.0, 2.0, -np.inf]]), np.array([[1.0, -1.0, -np.inf]])
    weights = np.exp(-np.array([1, 2]) / 10.0)
    weights /= weights.sum()
    expected = (weights * np.log1p(np.exp(-student[0, :2]))).sum()
    value = losses.Ranking(3)(*tensors(teacher, student))
    np.testing.assert_allclose(numbers(value), expected, rtol=1e-6)


def test_a_centred_regression_on_one_side_is_infinite():
    loss = losses.LogitRegression(centred=True, reduction=None)
    values = loss(*tensors(TEACHER, left_out(STUDENT, 2)))
    assert np.all(numbers(values) == np.inf)


TARGETS = {
    "uniform": (targets.Uniform(), lambda p, y: np.full(4, 0.25)),
    "top_1": (
        targets.TopK(1),
        lambda p, y: np.where(p == p.max(), p, (1 - p.max()) / 3),
    ),
    "hard_label": (targets.HardLabel(), lambda p, y: 1.0 * (p == p.max())),
    "top_5": (targets.TopK(5), lambda p, y: p),
    "true_class": (
        targets.TrueClass(),
        lambda p, y: np.where(np.arange(4) == y, p[y], (1 - p[y]) / 3),
    ),
    "virtual_teacher": (
        targets.VirtualTeacher(0.9),
        lambda p, y: np.where(np.arange(4) == y, 0.9, 0.1 / 3),
    ),
    "super_classes": (
        targets.SuperClasses([0, 0, 1, 1, 0, 1], (0.8, 0.2, 0.1)),
        lambda p, y: np.where(
            np.arange(4) == y, 0.8, np.where(np.arange(4) // 2 == y // 2, 0.2, 0.1)
        ),
    ),
    "class_similarity": (
        targets.ClassSimilarity(np.eye(6), temperature=0.5),
        lambda p, y: np.exp(2.0 * (np.arange(4) == y)),
    ),
    "mixed": (
        targets.Mixed(targets.Uniform(), targets.TopK(6), 0.25),
        lambda p, y: 0.75 / 4 + 0.25 * p,
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_give_nothing_to_classes_left_out(name):
    target, formula = TARGETS[name]
    (teacher,) = tensors(left_out(TEACHER, 4, 5))
    log_p = numbers(target(teacher, 1.0, labels=LABELS, step=3))
    assert np.all(log_p[:, 4:] == -np.inf)
    for row, logits, label in zip(log_p, TEACHER, LABELS, strict=True):
        expected = formula(softmax(logits[:4]), label)
        expected = expected / expected.sum()
        np.testing.assert_allclose(np.exp(row[:4]), expected, rtol=1e-5)


def test_permuted_classes_stay_in_those_that_are_there():
    teacher = left_out(np.tile(TEACHER, (50, 1)), 1, 4)
    log_p = numbers(targets.Permuted()(*tensors(teacher), 1.0, step=3))
    assert np.all(log_p[:, [1, 4]] == -np.inf)
    expected = np.sort(log_softmax(teacher, -1))
    np.testing.assert_allclose(np.sort(log_p), expected, rtol=1e-5)
    assert np.any(log_p != log_softmax(teacher, -1).astype("float32"))


def test_an_ensemble_of_members_that_leave_classes_out():
    from keras_distill.teachers.averaging_teacher import averaged

    one, two = left_out(TEACHER, 4, 5), left_out(STUDENT, 4)
    z = numbers(averaged(tensors(one, two), [0.5, 0.5], "arithmetic", 2.0))
    expected = (softmax(one / 2, -1) + softmax(two / 2, -1)) / 2
    np.testing.assert_allclose(softmax(z / 2.0, -1), expected, atol=1e-6)
    assert np.all(z[:, 4] == -np.inf)


def net(name, left=()):
    keras.utils.set_random_seed(ord(name[0]))
    inputs = keras.Input((4,))
    bias = np.where(np.isin(np.arange(5), left), -np.inf, 0.0).astype("float32")
    outputs = keras.layers.Dense(5)(inputs) + bias
    return keras.Model(inputs, outputs, name=name)


def fit(teacher_left, student_left):
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    distiller = kd.Distiller(
        net("student", student_left), net("teacher", teacher_left), label_weight=0.0
    )
    distiller.compile(keras.optimizers.SGD(0.1))
    return distiller.fit(x, epochs=3, verbose=0).history["soft_target"]


def test_a_student_learns_from_a_teacher_that_leaves_the_same_classes_out():
    history = fit((3, 4), (3, 4))
    assert np.isfinite(history).all() and history[-1] < history[0]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_class_left_out_on_one_side_is_named_before_the_first_step(reverse):
    kind = kd.losses.ReverseSoftTarget if reverse else kd.losses.SoftTarget
    left = {"teacher": (3,), "student": ()} if reverse else {"teacher": ()}
    side = "teacher" if reverse else "student"
    nets = net("student", left.get("student", (3,))), net("teacher", left["teacher"])
    terms = [kd.Term(kind(), name="soft")]
    distiller = kd.Distiller(*nets, terms=terms, label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.1))
    before = nets[0].get_weights()
    words = rf"'soft' is not finite on the first batch.* -inf in the {side}'s 'logits' alone"
    with pytest.raises(ValueError, match=words):
        distiller.fit(np.ones((4, 4), "float32"), verbose=0)
    for old, new in zip(before, nets[0].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_where_the_divergence_is_finite_one_side_may_leave_out_classes():
    assert np.isfinite(fit((3,), ())).all()


def test_fit_says_that_the_class_of_a_label_is_left_out():
    distiller = kd.Distiller(net("student", (3,)), net("teacher", (3,)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.1), loss)
    words = r"label_loss is not finite.*label_loss: .* -inf on one side"
    with pytest.raises(ValueError, match=words):
        distiller.fit(np.ones((4, 4), "float32"), np.full(4, 3), verbose=0)
