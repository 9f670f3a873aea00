"""The losses' base class: names, reduction, weights, and what a loss needs."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_distill as kd
from keras_distill.adapters.match import Match
from keras_distill.losses import DistillationLoss, Hint, SoftTarget

NEEDS = ("labels", "student_logits", "teacher_logits", "sample_ids", "step", "mask")


class Distance(DistillationLoss):
    """The simplest loss: the mean distance over all axes but the batch."""

    match = Match.ALL

    def call(self, teacher, student):
        gap = ops.abs(student - teacher)
        return ops.mean(gap, axis=tuple(range(1, len(gap.shape))))


class TokenDistance(DistillationLoss):
    def call(self, teacher, student):
        return ops.mean(ops.abs(student - teacher), axis=-1)


def test_name_is_the_class_in_snake_case():
    assert Distance().name == "distance"
    assert TokenDistance().name == "token_distance"
    assert Hint(name="first_hint").name == "first_hint"


class Scaled(Distance):
    """Has arguments of its own, and those of its base by `kwargs`."""

    scheduled = ("scale",)

    def __init__(self, scale, *, steps=2, name="scaled", **kwargs):
        super().__init__(name, **kwargs)
        self.scale = scale
        self.steps = steps


class Explicit(SoftTarget):
    """Has a `get_config` of its own, whose arguments need no attributes."""

    scheduled = ("temperature", "power")

    def __init__(self, items, power=1.0, **kwargs):
        super().__init__(**kwargs)
        self.numbers = items
        self.power = power

    def get_config(self):
        return {**super().get_config(), "items": self.numbers}


class Forgotten(SoftTarget):
    def __init__(self, items, **kwargs):
        super().__init__(**kwargs)


def test_the_arguments_are_the_configuration():
    schedule = keras.optimizers.schedules.ExponentialDecay(8.0, 10, 0.5)
    config = Scaled(schedule, reduction="sum").get_config()
    assert config == {
        "name": "scaled",
        "reduction": "sum",
        "scale": keras.saving.serialize_keras_object(schedule),
        "steps": 2,
    }
    again = Scaled.from_config(config)
    assert again.get_config() == config and float(again.scale(10)) == 4.0


def test_a_get_config_of_its_own_is_added_to_the_base():
    config = Explicit(3, temperature=2.0).get_config()
    assert config == {
        "name": "explicit",
        "reduction": "sum_over_batch_size",
        "temperature": 2.0,
        "target": None,
        "power": 1.0,
        "items": 3,
    }
    assert Explicit.from_config(config).get_config() == config


def test_an_argument_without_an_attribute_is_an_error():
    with pytest.raises(
        ValueError, match=r"of Forgotten .* it has none for \['items'\]"
    ):
        Forgotten(3).get_config()


def test_call_must_be_implemented():
    with pytest.raises(NotImplementedError):
        DistillationLoss()(np.ones((2, 3)), np.ones((2, 3)))


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (None, [1.0, 2.0, 3.0]),
        ("sum", 6.0),
        ("sum_over_batch_size", 2.0),
        ("mean", 2.0),
    ],
)
def test_reductions(reduction, expected):
    student = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    value = Distance(reduction=reduction)(np.zeros((3, 2)), student)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_reduction_with_sample_weight_divides_by_the_weights():
    student = np.array([[1.0], [2.0], [3.0]])
    loss = Distance(reduction="mean_with_sample_weight")
    value = loss(np.zeros((3, 1)), student, [1.0, 0.0, 3.0])
    np.testing.assert_allclose(value, (1 + 9) / 4, rtol=1e-6)


def test_computes_in_float32_whatever_the_inputs():
    value = Distance()(np.zeros((2, 3), "int32"), np.ones((2, 3), "float64"))
    assert keras.backend.standardize_dtype(value.dtype) == "float32"


def test_dtype_of_the_loss():
    value = Distance(dtype="float64")(np.zeros((1, 1)), np.full((1, 1), 1 + 1e-12))
    assert float(value) == 1 + 1e-12


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ([1.0, 2.0], (1 * (1 + 2) + 2 * (3 + 4)) / 4),
        ([[1.0], [2.0]], (1 * (1 + 2) + 2 * (3 + 4)) / 4),
        ([[1.0, 0.0], [0.5, 2.0]], (1 + 0.5 * 3 + 2 * 4) / 4),
    ],
    ids=["sample", "sample_column", "token"],
)
def test_weights_of_samples_and_of_tokens(weight, expected):
    student = np.array([[1.0, 2.0], [3.0, 4.0]])[..., None]
    value = TokenDistance()(np.zeros((2, 2, 1)), student, weight)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_token_weights_of_a_sample_loss_are_averaged():
    student = np.array([[1.0, 2.0], [3.0, 4.0]])[..., None]
    value = Distance()(np.zeros((2, 2, 1)), student, [[1.0, 0.0], [0.5, 2.5]])
    np.testing.assert_allclose(value, (0.5 * 1.5 + 1.5 * 3.5) / 2, rtol=1e-6)


def test_masked_tokens_are_left_out():
    student = np.array([[1.0, 2.0], [3.0, 4.0]])[..., None]
    mask = np.array([[True, False], [True, True]])
    value = TokenDistance()(np.zeros((2, 2, 1)), student, mask=mask)
    np.testing.assert_allclose(value, (1 + 3 + 4) / 3, rtol=1e-6)
    values = TokenDistance(reduction=None)(np.zeros((2, 2, 1)), student, mask=mask)
    assert values[0, 1] == 0.0


def test_a_sum_is_over_valid_tokens():
    student = np.array([[1.0, 2.0], [3.0, 4.0]])[..., None]
    mask = np.array([[True, False], [True, True]])
    loss = TokenDistance(reduction="sum")
    value = loss(np.zeros((2, 2, 1)), student, [1.0, 0.5], mask=mask)
    np.testing.assert_allclose(value, 1 + 0.5 * (3 + 4), rtol=1e-6)


def test_a_masked_value_that_is_infinite_is_left_out(gradient):
    student = np.array([[1.0, np.inf], [3.0, 4.0]])[..., None]
    mask = np.array([[True, False], [True, True]])

    def value(student):
        return TokenDistance()(np.zeros((2, 2, 1)), student, mask=mask)

    np.testing.assert_allclose(value(student), (1 + 3 + 4) / 3, rtol=1e-6)
    expected = np.where(mask, 1 / 3, 0.0)[..., None]
    np.testing.assert_allclose(gradient(value, student), expected, rtol=1e-6)


def test_tokens_count_that_are_valid_on_both_sides():
    student = np.array([[1.0, 2.0], [3.0, 4.0]])[..., None]
    masks = {"mask": [[1, 0], [1, 1]], "teacher_mask": [[1, 1], [0, 1]]}
    masks = {name: np.array(mask, bool) for name, mask in masks.items()}
    value = TokenDistance()(np.zeros((2, 2, 1)), student, **masks)
    np.testing.assert_allclose(value, (1 + 4) / 2, rtol=1e-6)


def test_a_loss_of_sequences_must_take_their_mask():
    """`Distance` is a mean over the steps, in which padding would count."""
    tensors, mask = np.ones((2, 3, 4)), np.ones((2, 3), bool)
    with pytest.raises(ValueError, match=r"'distance' .*does not take their mask"):
        Distance()(tensors, tensors, mask=mask)
    with pytest.raises(ValueError, match=r"'distance' .*does not take their mask"):
        Distance()(tensors, tensors, teacher_mask=mask)
    # A pooled tensor has no steps.
    np.testing.assert_allclose(Distance()(tensors[:, 0], tensors[:, 0], mask=mask), 0)


def test_a_mask_must_fit_its_sequence():
    tensors, mask = np.ones((2, 3, 4)), np.ones((2, 5), bool)
    with pytest.raises(ValueError, match=r"mask .*\(2, 5\), which does not fit"):
        TokenDistance()(tensors, tensors, mask=mask)


@pytest.mark.parametrize(
    "reduce",
    [
        lambda x: ops.mean(x),
        lambda x: ops.mean(x, axis=0),
        lambda x: ops.mean(x, axis=(1, 2), keepdims=True)[None],
        lambda x: x,
        lambda x: ops.mean(x, axis=1),
    ],
)
@pytest.mark.parametrize("fits", [False, True])
def test_values_must_be_one_per_sample_or_token(reduce, fits):
    class Wrong(DistillationLoss):
        def call(self, teacher, student):
            return reduce(ops.square(student - teacher))

    rng = np.random.default_rng(0)
    tensors = rng.normal(size=(2, 5, 3, 4)).astype("float32")
    with pytest.raises(ValueError, match=r"'wrong' returned .* one value per sample"):
        if not fits:
            Wrong()(*tensors)
        else:
            inputs = keras.Input((3, 4))
            models = [
                keras.Model(inputs, keras.layers.Dense(4, name="h")(inputs), name=name)
                for name in "st"
            ]
            # Before the first step, while the distiller is created.
            kd.Distiller(*models, terms=[kd.Term(Wrong(), "h", "h")])


def test_same_mask_rule_as_keras():
    """As keras.losses.Loss does with `_keras_mask`."""

    class KerasDistance(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(ops.abs(y_pred - y_true), axis=-1)

    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    mask, weight = rng.random((3, 4)) > 0.4, rng.random((3, 4)).astype("float32")
    prediction = ops.convert_to_tensor(student)
    keras.src.backend.set_keras_mask(prediction, ops.convert_to_tensor(mask))
    expected = KerasDistance()(teacher, prediction, weight)
    value = TokenDistance()(teacher, student, weight, mask=mask)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


class Everything(DistillationLoss):
    """Needs everything, records it, and is zero."""

    match = Match.NOTHING
    needs = NEEDS

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = []

    def call(self, teacher, student, **context):
        self.calls.append({name: _array(value) for name, value in context.items()})
        return ops.mean(student, axis=-1) * 0.0


def _array(value):
    return None if value is None else np.array(value)


def test_missing_needs_are_named():
    with pytest.raises(ValueError, match="'everything' needs") as error:
        Everything()(np.ones((2, 3)), np.ones((2, 3)), labels=np.ones(2), step=0)
    missing, got = str(error.value).split("; got")
    for name in ("student_logits", "teacher_logits", "sample_ids"):
        assert name in missing
    for name in ("labels", "step"):
        assert name not in missing.split("needs")[1]
        assert name in got
    assert "mask" not in missing


def test_what_is_not_needed_is_not_passed():
    value = Distance()(np.zeros((2, 3)), np.ones((2, 3)), step=3, labels=np.ones(2))
    np.testing.assert_allclose(value, 1.0)


def dense_net(name, seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(4, "relu", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(hidden), name=name)


@pytest.fixture
def ids_and_images():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 6)).astype("float32")
    return {"image": x, "sample_id": np.arange(100, 108)}, rng.integers(0, 3, 8)


def distil(loss, x, y, **kwargs):
    student, teacher = dense_net("student", 1), dense_net("teacher", 2)
    term = kd.Term(loss, student="hidden", teacher="hidden")
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[term],
        student_inputs="image",
        teacher_inputs="image",
        **kwargs,
    )
    label_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # At a learning rate of zero the student's logits do not change.
    distiller.compile(keras.optimizers.SGD(0.0), label_loss, run_eagerly=True)
    distiller.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    return student, teacher


def test_a_distiller_passes_what_a_loss_needs(ids_and_images):
    x, y = ids_and_images
    loss = Everything()
    student, teacher = distil(loss, x, y, sample_ids="sample_id")
    steps = [call for call in loss.calls if call["step"] is not None][-4:]
    assert [int(call["step"]) for call in steps] == [0, 1, 2, 3]
    for index, call in enumerate(steps):
        part = slice(4 * (index % 2), 4 * (index % 2) + 4)
        image = x["image"][part]
        np.testing.assert_array_equal(call["labels"].ravel(), y[part])
        np.testing.assert_array_equal(call["sample_ids"].ravel(), x["sample_id"][part])
        np.testing.assert_allclose(
            call["student_logits"], student(image), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(
            call["teacher_logits"], teacher(image), rtol=1e-4, atol=1e-6
        )
        assert call["mask"] is None


def test_an_error_names_what_the_data_lack(ids_and_images):
    x, y = ids_and_images
    with pytest.raises(ValueError, match=r"'everything' needs \['sample_ids'\]"):
        distil(Everything(), x, y)


class TapMask(DistillationLoss):
    match = Match.NOTHING
    needs = ("mask",)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.mask = None

    def call(self, teacher, student, *, mask):
        self.mask = _array(mask) if hasattr(mask, "numpy") else self.mask
        return ops.mean(student, axis=(1, 2))


def test_a_distiller_passes_the_mask_of_the_tap():
    def net(name):
        tokens = keras.Input((5,), dtype="int32")
        x = keras.layers.Embedding(9, 4, mask_zero=True, name="embedding")(tokens)
        x = keras.layers.GlobalAveragePooling1D()(x)
        return keras.Model(tokens, keras.layers.Dense(3, name="logits")(x), name=name)

    tokens = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    loss = TapMask()
    term = kd.Term(loss, student="embedding", teacher="embedding")
    distiller = kd.Distiller(net("s"), net("t"), terms=[term], label_weight=0.0)
    # Without metrics the student runs only up to the tap.
    for metrics in (None, ["accuracy"]):
        loss.mask = None
        distiller.compile("sgd", run_eagerly=True, metrics=metrics)
        distiller.fit(tokens, np.zeros(2), shuffle=False, verbose=0)
        np.testing.assert_array_equal(loss.mask, tokens > 0)


def test_scheduled_values_are_passed_by_name(ids_and_images):
    """A loss uses its schedule's temperature at each step."""
    x, y = ids_and_images
    temperatures = []

    class Recorded(SoftTarget):
        def call(self, teacher, student, *, temperature):
            if hasattr(temperature, "numpy"):
                temperatures.append(float(temperature))
            return super().call(teacher, student, temperature=temperature)

    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [0, 2], [8.0, 4.0, 1.0]
    )
    student, teacher = dense_net("student", 1), dense_net("teacher", 2)
    distiller = kd.Distiller(student, teacher, terms=[kd.Term(Recorded(schedule))])
    label_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", label_loss, run_eagerly=True)
    distiller.fit(x["image"], y, batch_size=2, epochs=1, verbose=0)
    assert temperatures[-4:] == [8.0, 4.0, 4.0, 1.0]


@pytest.mark.parametrize("match", [Match.ALL, Match.CLASSES, Match.NOTHING])
def test_a_loss_that_does_not_use_the_teacher(ids_and_images, match):
    """A penalty on confidence: minus the entropy of the student's prediction."""

    class Confidence(DistillationLoss):
        compares_teacher = False

        def call(self, teacher, student):
            assert teacher == ()
            log_p = ops.log_softmax(student, axis=-1)
            return ops.sum(ops.exp(log_p) * log_p, axis=-1)

    Confidence.match = match
    student, teacher = dense_net("student", 1), dense_net("teacher", 2)
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[kd.Term(Confidence(), weight=1.0)],
        label_weight=0.0,
        student_inputs="image",
        teacher_inputs="image",
    )
    distiller.compile(keras.optimizers.Adam(0.1))
    x = ids_and_images[0]
    history = distiller.fit(x, epochs=5, verbose=0).history["confidence"]
    assert history[-1] < history[0] < 0


@pytest.mark.parametrize("weight", [None, 0.5])
def test_a_mean_in_half_precision_does_not_overflow(weight):
    """The sum of these values is 1e6, above all numbers of float16."""
    student = np.full((1000, 1), np.sqrt(1000.0))
    loss = kd.losses.OutputRegression(dtype="float16")
    weights = None if weight is None else np.full(1000, weight)
    found = loss(np.zeros((1000, 1)), student, weights)
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    assert float(found) == pytest.approx(1000.0 * (weight or 1.0), rel=2e-3)
