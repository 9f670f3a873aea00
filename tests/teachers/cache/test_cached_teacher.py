"""A cache returns the teacher's outputs, in whatever order they are read, or raises."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_distill as kd
from keras_distill.taps import Tap
from keras_distill.teachers.cache import cache_checks as checks
from keras_distill.teachers.cache import forms, joining
from tests.teachers.cache.conftest import net

LOGITS, HIDDEN = Tap("logits"), Tap("hidden")
LABELS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def cache(folder, teacher, samples, shard_rows=70, **arguments):
    cached = kd.CachedTeacher(folder, teacher, **arguments)
    return cached.build(samples, 64, shard_rows=shard_rows, verbose=0)


def batches(samples, size=32, **arguments):
    return kd.data.batches(samples, size, sample_ids=True, **arguments)


@pytest.fixture(params=["in memory", "on disk"])
def rows(request, monkeypatch):
    """Read joined rows from memory, or from disk whatever their size."""
    if request.param == "on disk":
        monkeypatch.setattr(joining, "LIMIT", 0)


def test_any_order_and_batch_size_is_joined_by_id(tmp_path, teacher, samples, rows):
    taps = [LOGITS, HIDDEN, Tap("conv")]
    cached = cache(tmp_path / "c", teacher, samples, taps=taps, dtype="float32")
    train = batches(samples, 7, shuffle=True).unbatch()
    train = train.filter(lambda x, y: y != 3).repeat(2).batch(19)
    count = 0
    for x, y in cached.join(train):
        direct = kd.Teacher(teacher)(x["image"], taps)
        for tap, found in cached(x, taps).items():
            np.testing.assert_allclose(found, direct[tap], rtol=1e-5, atol=1e-4)
        assert not (y.numpy() == 3).any()
        count += len(y)
    assert count == 2 * (samples.labels != 3).sum()


def test_ids_may_be_any_numbers(tmp_path, teacher, samples, rows):
    ids = 7 * np.random.default_rng(0).permutation(len(samples)) + 2**40
    samples = kd.data.Samples(samples.images, samples.labels, ids)
    cached = cache(tmp_path / "c", teacher, samples, dtype="float32")
    for x, _ in cached.join(batches(samples, 19, shuffle=True)):
        direct = kd.Teacher(teacher)(x["image"], [LOGITS])[LOGITS]
        np.testing.assert_allclose(cached(x, [LOGITS])[LOGITS], direct, atol=1e-4)
    few = cache(tmp_path / "few", teacher, samples[:50])
    with pytest.raises(Exception, match="no samples with the ids"):
        list(few.join(batches(samples)))


class Reversed(keras.utils.PyDataset):
    """Batches of samples from the last to the first."""

    def __init__(self, samples, size):
        super().__init__()
        self.samples, self.size = samples[::-1], size

    def __len__(self):
        return -(-len(self.samples) // self.size)

    def __getitem__(self, index):
        part = self.samples[index * self.size :][: self.size]
        return {"image": part.images, "sample_id": part.ids}, part.labels


def test_arrays_and_batches_of_arrays_are_joined_by_id(tmp_path, teacher, samples):
    cached = cache(tmp_path / "c", teacher, samples, dtype="float32")
    mixed = samples[np.random.default_rng(0).permutation(len(samples))]
    joined = cached.join({"image": mixed.images, "sample_id": mixed.ids})
    direct = teacher.predict(mixed.images, verbose=0)
    np.testing.assert_allclose(cached(joined, [LOGITS])[LOGITS], direct, atol=1e-4)
    data = cached.join(Reversed(samples, 64))
    assert data.num_batches == 5
    x, labels = data[4]
    np.testing.assert_array_equal(labels, samples.labels[43::-1])
    direct = teacher.predict(samples.images[43::-1], verbose=0)
    np.testing.assert_allclose(cached(x, [LOGITS])[LOGITS], direct, atol=1e-4)


def test_arrays_that_cannot_be_joined_are_refused(tmp_path, teacher, samples):
    cached = cache(tmp_path / "c", teacher, samples)
    with pytest.raises(ValueError, match=r"\['sample_id'\] is not in \['image'\]"):
        cached.join({"image": samples.images})
    with pytest.raises(ValueError, match="differ from the teacher's inputs"):
        cached.join({"image": samples.images[::-1], "sample_id": samples.ids})
    with pytest.raises(TypeError, match="or with a dict of arrays; got ndarray"):
        cached.join(samples.images)


def test_training_equals_that_with_the_teacher_itself(tmp_path, teacher, samples):
    def terms():
        return [
            kd.Term(kd.losses.SoftTarget(3.0)),
            kd.Term(kd.losses.Hint(), student="hidden", teacher="hidden"),
        ]

    students = [net("student", 6, seed=2) for _ in range(2)]
    cached = cache(
        tmp_path / "c", teacher, samples, taps=["logits", "hidden"], dtype="float32"
    )
    train = batches(samples)
    direct = train.map(lambda x, y: (x["image"], y))
    for student, (taught, data, inputs) in zip(
        students,
        [(teacher, direct, None), (cached, cached.join(train), "image")],
        strict=True,
    ):
        keras.utils.set_random_seed(3)
        distiller = kd.Distiller(student, taught, terms=terms(), student_inputs=inputs)
        distiller.compile(keras.optimizers.SGD(1e-3), LABELS)
        distiller.fit(data, epochs=2, verbose=0)
    for one, other in zip(*(s.get_weights() for s in students), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_student_learns_from_the_top_classes(tmp_path, teacher, student, samples):
    cached = cache(tmp_path / "c", teacher, samples, top_k=3, temperature=4.0)
    far = divergence(teacher, student, samples)
    distiller = kd.Distiller(student, cached, student_inputs="image", label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.01))
    distiller.fit(cached.join(batches(samples, shuffle=True)), epochs=8, verbose=0)
    assert divergence(teacher, student, samples) < 0.5 * far


class ProbabilityDistance(kd.losses.DistillationLoss):
    match = kd.adapters.Match.CLASSES

    def call(self, teacher, student):
        gap = ops.softmax(teacher) - ops.softmax(student)
        return ops.sum(ops.square(gap), axis=-1)


class OfClasses(ProbabilityDistance):
    predicts = "classes"


RAW = [kd.losses.LogitRegression(), kd.losses.Hint(), kd.losses.CosineDistance()]
RAW += [kd.losses.Ranking(), ProbabilityDistance()]


@pytest.mark.parametrize("loss", RAW, ids=lambda x: x.name)
def test_top_classes_are_refused_for_losses_of_raw_logits(
    tmp_path, teacher, student, samples, loss
):
    """The logits that are read are log-probabilities, which differ by a constant."""
    cached = cache(tmp_path / "c", teacher, samples, top_k=9, temperature=1.0)
    terms = [kd.Term(loss, name="raw")]
    with pytest.raises(ValueError, match=r"'raw' compares logits.*without top_k"):
        kd.Distiller(student, cached, terms=terms, student_inputs="image")
    whole = cache(tmp_path / "whole", teacher, samples)
    kd.Distiller(student, whole, terms=terms, student_inputs="image")


@pytest.mark.parametrize(
    "loss",
    [kd.losses.LogitRegression(centred=True), OfClasses()],
    ids=["centred", "own"],
)
def test_losses_that_a_constant_does_not_change_take_top_classes(
    tmp_path, teacher, student, samples, loss
):
    """With all classes but one stored, the cached softmax is the teacher's."""
    # So small that no probability is below the least that is stored, e^-30.
    head = teacher.get_layer("head")
    head.set_weights([0.05 * w for w in head.get_weights()])
    cached = cache(tmp_path / "c", teacher, samples, top_k=9, temperature=1.0)
    logs, train = [], batches(samples)
    terms = [kd.Term(loss, name="term")]
    for taught, inputs, data in (
        (cached, None, cached.join(train)),
        (teacher, "image", train),
    ):
        how = {"student_inputs": "image", "teacher_inputs": inputs}
        distiller = kd.Distiller(student, taught, terms=terms, **how)
        distiller.compile(keras.optimizers.SGD(0.0), LABELS)
        logs.append(distiller.fit(data, verbose=0).history["term"][0])
    assert logs[0] == pytest.approx(logs[1], rel=5e-3)


def divergence(teacher, student, samples):
    return float(
        kd.losses.SoftTarget(4.0)(teacher(samples.images), student(samples.images))
    )


def test_a_thousand_classes_take_140_bytes_a_sample(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1000)(inputs))
    x = np.random.default_rng(0).normal(size=(5000, 4)).astype("float32")
    cached = kd.CachedTeacher(tmp_path / "c", model, top_k=32, temperature=2.0)
    cached.build(kd.data.Samples(x, np.zeros(5000, "int32")), verbose=0)
    assert cached.bytes_per_sample <= 140


def test_the_distance_is_that_of_the_full_predictions(tmp_path, teacher, samples):
    cached = cache(tmp_path / "c", teacher, samples, top_k=2, temperature=4.0)
    z = np.array(teacher(samples.images), "float64") / 4
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    largest = np.sort(p, axis=-1)[:, -2:-1]
    kept = p >= largest
    q = np.where(kept, p, (np.where(kept, 0, p).sum(-1, keepdims=True)) / 8)
    expected = (p * np.log(p / q)).sum(-1).mean()
    assert expected > 0.001
    assert cached.distance == pytest.approx(expected, rel=0.02)
    again = kd.CachedTeacher(tmp_path / "c")
    assert again.distance == cached.distance


class LastClassAbsent(keras.layers.Layer):
    def call(self, x):
        return ops.where(np.arange(10) == 9, -float("inf"), x)

    def compute_output_shape(self, input_shape):
        return input_shape


def test_a_class_of_minus_infinity_adds_nothing_to_the_distance(tmp_path, samples):
    """Its probability is 0, so the distance is that of the other nine classes."""
    whole = net()
    model = keras.Sequential([keras.Input((8, 8, 1)), whole, LastClassAbsent()])
    cached = cache(tmp_path / "c", model, samples, top_k=2, temperature=20.0)
    z = np.array(whole(samples.images), "float64")[:, :9] / 20
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    kept = p >= np.sort(p, axis=-1)[:, -2:-1]
    # Spread over eight classes, one of which is absent.
    q = np.where(kept, p, np.where(kept, 0, p).sum(-1, keepdims=True) / 8)
    expected = (p * np.log(p / q)).sum(-1).mean()
    assert cached.distance == pytest.approx(expected, rel=0.02)


def test_ids_of_any_kind(tmp_path, teacher, samples):
    ids = np.random.default_rng(0).permutation(10**12 + np.arange(len(samples)) * 7)
    samples = kd.data.Samples(samples.images, samples.labels, ids)
    cached = cache(tmp_path / "c", teacher, samples, dtype="float32")
    some = [5, 250, 5, 71]
    found = cached.read(ids[some])["logits"]["all"]
    np.testing.assert_allclose(
        found, teacher(samples.images[some]), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"no samples with the ids \[3\]; it has 300"):
        cached.read([ids[0], 3])
    twice = kd.data.Samples(samples.images, samples.labels, np.r_[ids[:-1], ids[0]])
    with pytest.raises(ValueError, match="occur more than once"):
        cache(tmp_path / "d", teacher, twice)
    cache(tmp_path / "d", teacher, samples)


def test_an_ensemble_is_averaged_at_its_temperature(tmp_path, samples):
    members = net("a", seed=3), net("b", seed=4)
    ensemble = kd.EnsembleTeacher(members, weights=[3, 1])
    with pytest.raises(
        ValueError, match="of an ensemble stores predictions at one temp"
    ):
        kd.CachedTeacher(tmp_path / "c", ensemble)
    taps = ["logits", "1/hidden"]
    cached = cache(
        tmp_path / "c", ensemble, samples, taps=taps, temperature=2.0, dtype="float32"
    )
    found = cached.read(samples.ids)
    p = [np.exp(ops.log_softmax(m(samples.images) / 2.0)) for m in members]
    np.testing.assert_allclose(
        ops.softmax(found["logits"]["all"] / 2.0), 0.75 * p[0] + 0.25 * p[1], rtol=1e-4
    )
    hidden = kd.Teacher(members[1])(samples.images, [HIDDEN])[HIDDEN]
    np.testing.assert_allclose(found["1/hidden"]["all"], hidden, rtol=1e-5, atol=1e-5)


def test_a_mean_of_values_is_cached_at_any_temperature(tmp_path, samples):
    members = net("a", seed=3), net("b", seed=4)
    how = {"weights": [3, 1], "predicts": "values"}
    ensemble = kd.EnsembleTeacher(members, **how)
    with pytest.raises(ValueError, match="largest probabilities of a softmax"):
        kd.CachedTeacher(tmp_path / "c", ensemble, top_k=2, temperature=1.0)
    cached = cache(tmp_path / "c", ensemble, samples, dtype="float32")
    values = [np.float64(m(samples.images)) for m in members]
    np.testing.assert_allclose(
        cached.read(samples.ids)["logits"]["all"],
        0.75 * values[0] + 0.25 * values[1],
        rtol=1e-4,
        atol=1e-4,
    )
    with pytest.raises(ValueError, match="not built with this teacher"):
        kd.CachedTeacher(
            tmp_path / "c", kd.EnsembleTeacher(members, weights=[3, 1]), temperature=2.0
        )
    with pytest.raises(ValueError, match=r"has predictions of values, but .* classes"):
        term = kd.Term(kd.losses.SoftTarget())
        kd.Distiller(net("student", 6, seed=2), cached, terms=[term])
    assert cached.predicts == "values"


def test_a_stream_is_cached_as_samples_are(tmp_path, teacher, samples):
    stream = batches(samples, 40)
    one = cache(tmp_path / "c", teacher, stream, dtype="float32")
    other = cache(tmp_path / "d", teacher, samples, dtype="float32")
    assert one.contents.wide_ids is False
    for key in ("logits",):
        found, expected = one.read(samples.ids), other.read(samples.ids)
        np.testing.assert_array_equal(found[key]["all"], expected[key]["all"])
    with pytest.raises(ValueError, match="keyed by sample ids"):
        kd.CachedTeacher(tmp_path / "e", teacher).build(kd.data.batches(samples))
    with pytest.raises(TypeError, match=r"kd\.data\.Samples\(images, labels\)"):
        kd.CachedTeacher(tmp_path / "e", teacher).build(samples.images)


def test_preprocessing_is_applied_to_the_teachers_inputs(tmp_path, teacher, samples):
    small = kd.data.Samples(samples.images[:, ::2, ::2], samples.labels)
    resize = keras.layers.Resizing(8, 8)
    cached = cache(
        tmp_path / "c", teacher, small, preprocessing=resize, dtype="float32"
    )
    found = cached.read(small.ids)["logits"]["all"]
    expected = teacher(resize(small.images))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    next(iter(cached.join(batches(small))))


def test_states_and_names_are_not_in_the_fingerprint(tmp_path, samples):
    def dropping(name):
        inputs = keras.Input((8, 8, 1))
        outputs = keras.layers.Dropout(0.5, name=name)(net(seed=4)(inputs))
        return keras.Model(inputs, outputs)

    cache(tmp_path / "c", dropping("one"), samples)
    other = dropping("two")
    other.compile("sgd", LABELS, metrics=["accuracy"])
    other.evaluate(samples.images, samples.labels, verbose=0)
    other(samples.images, training=True)
    kd.CachedTeacher(tmp_path / "c", other).build(samples, verbose=0)


def test_arguments_of_layers_are_in_the_fingerprint(tmp_path, samples):
    def scaled(scale, activation, name):
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Rescaling(scale, name=name)(inputs)
        return keras.Model(inputs, keras.layers.Activation(activation)(net(seed=4)(x)))

    cache(tmp_path / "c", scaled(1.0, "relu", "one"), samples)
    kd.CachedTeacher(tmp_path / "c", scaled(1.0, "relu", "two"))
    for other in (scaled(2.0, "relu", "one"), scaled(1.0, "tanh", "one")):
        with pytest.raises(ValueError, match="not built with this teacher"):
            kd.CachedTeacher(tmp_path / "c", other)


def connected(function, name="net"):
    """Return a net whose middle is made of operations."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Dense(4, kernel_initializer="ones")(keras.layers.Flatten()(inputs))
    a, b = keras.layers.Identity(name=f"{name}_a"), keras.layers.Identity()
    outputs = keras.layers.Dense(3, kernel_initializer="ones")(function(x, a, b))
    return keras.Model(inputs, outputs, name=name)


CONNECTIONS = {
    "number": (lambda x, a, b: x / 2.0, lambda x, a, b: x / 4.0),
    "operation": (lambda x, a, b: keras.ops.relu(x), lambda x, a, b: keras.ops.tanh(x)),
    "way": (
        lambda x, a, b: keras.layers.Add()([b(a(x)), x]),
        lambda x, a, b: keras.layers.Add()([b(a(x)), a(x)]),
    ),
}


@pytest.mark.parametrize("one, other", CONNECTIONS.values(), ids=CONNECTIONS)
def test_other_connections_of_the_same_layers_are_found(tmp_path, samples, one, other):
    cache(tmp_path / "c", connected(one, "first"), samples)
    kd.CachedTeacher(tmp_path / "c", connected(one, "second"))
    with pytest.raises(ValueError, match=r"not built with this (teacher|connections)"):
        kd.CachedTeacher(tmp_path / "c", connected(other, "first"))


class Nameless(keras.layers.Layer):
    """A layer without a configuration."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, x):
        return self.scale * x


def test_layers_without_a_configuration_are_connected_too(tmp_path, samples):
    def made(function):
        return connected(lambda x, a, b: function(Nameless(2.0)(x)))

    cache(tmp_path / "c", made(keras.ops.relu), samples)
    kd.CachedTeacher(tmp_path / "c", made(keras.ops.relu))
    with pytest.raises(ValueError, match="not built with this connections"):
        kd.CachedTeacher(tmp_path / "c", made(keras.ops.tanh))


def test_preprocessing_runs_in_inference_form(tmp_path, teacher, samples):
    flips = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.RandomFlip()])
    flipped = cache(tmp_path / "a", teacher, samples, preprocessing=flips)
    plain = cache(tmp_path / "b", teacher, samples)
    found, expected = (x.read(samples.ids)["logits"]["all"] for x in (flipped, plain))
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_connections_of_preprocessing_are_found(tmp_path, teacher, samples):
    def scaled(number):
        inputs = keras.Input((8, 8, 1))
        return keras.Model(inputs, inputs / number)

    cache(tmp_path / "c", teacher, samples, preprocessing=scaled(2.0))
    kd.CachedTeacher(tmp_path / "c", teacher, preprocessing=scaled(2.0))
    with pytest.raises(ValueError, match="not built with this connections"):
        kd.CachedTeacher(tmp_path / "c", teacher, preprocessing=scaled(4.0))


def test_preprocessing_of_several_layers_is_recognized(tmp_path, teacher, samples):
    def both(scale):
        parts = keras.layers.Resizing(8, 8), keras.layers.Rescaling(scale)
        return keras.Sequential([keras.Input((8, 8, 1)), *parts])

    cache(tmp_path / "c", teacher, samples, preprocessing=both(2.0))
    kd.CachedTeacher(tmp_path / "c", teacher, preprocessing=both(2.0))
    with pytest.raises(ValueError, match="not built with this preprocessing"):
        kd.CachedTeacher(tmp_path / "c", teacher, preprocessing=both(1.0))


def test_a_stream_of_other_data_raises(tmp_path, teacher, samples):
    cached = cache(tmp_path / "c", teacher, batches(samples, 40))
    cached.build(batches(samples, 40), verbose=0)
    dark = kd.data.Samples(0.5 * samples.images, samples.labels)
    with pytest.raises(ValueError, match="not built with this data"):
        cached.build(batches(dark, 40), verbose=0)
    with pytest.raises(ValueError, match=r"without repeat\(\)"):
        cached.build(batches(samples, 40).repeat(), verbose=0)


@pytest.mark.parametrize("numbers", [{"shard_rows": 0}, {"batch_size": 0}])
def test_a_cache_of_nothing_raises(numbers, tmp_path, teacher, samples):
    with pytest.raises(
        ValueError, match=f"{next(iter(numbers))} must be an integer of 1 or more"
    ):
        kd.CachedTeacher(tmp_path / "c", teacher).build(samples, **numbers)
    for empty in (samples[:0], batches(samples, 40).take(0)):
        with pytest.raises(ValueError, match="There are no samples"):
            kd.CachedTeacher(tmp_path / "c", teacher).build(empty, verbose=0)
    kd.CachedTeacher(tmp_path / "c", teacher).build(samples, verbose=0)


@pytest.mark.parametrize("value", [1e5, np.nan])
def test_values_that_are_not_finite_raise(value, tmp_path, samples):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda x: x * value, name="large")(inputs)
    outputs = keras.layers.Dense(10, kernel_initializer="zeros")(
        keras.layers.Flatten()(x)
    )
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match="'large' are not finite in float16"):
        cache(tmp_path / "c", model, samples, taps="large")


CHANGES = {
    "teacher": lambda net, images: {"teacher": net(seed=9)},
    "taps": lambda net, images: {"taps": ["logits", "hidden"]},
    "preprocessing": lambda net, images: {"preprocessing": keras.layers.Rescaling(1)},
    "views": lambda net, images: {"views": kd.data.Views(lambda x, seed: x, 2)},
    "temperature": lambda net, images: {"top_k": 3, "temperature": 2.0},
    "data": lambda net, images: {"images": images + 0.01},
}


@pytest.mark.parametrize("part", CHANGES)
def test_a_mismatch_is_named(part, tmp_path, teacher, samples):
    cache(tmp_path / "c", teacher, samples)
    again = kd.CachedTeacher(tmp_path / "c", net())
    again.build(samples, verbose=0)
    other = CHANGES[part](net, samples.images)
    images = other.pop("images", samples.images)
    model = other.pop("teacher", teacher)
    with pytest.raises(ValueError, match=f"not built with this [a-z ]*{part}"):
        kd.CachedTeacher(tmp_path / "c", model, **other).build(
            kd.data.Samples(images, samples.labels), verbose=0
        )


def test_random_augmentation_raises(tmp_path, teacher, samples):
    cached = cache(tmp_path / "c", teacher, samples)
    shift = keras.layers.RandomTranslation(0.2, 0.2, seed=0)
    for augment in (shift, keras.layers.RandomBrightness(0.2, (0, 1), seed=0)):
        with pytest.raises(
            ValueError, match=r"differ from the teacher's inputs.*Views"
        ):
            cached.join(batches(samples, augment=augment))
    scaled = batches(kd.data.Samples(samples.images * 2, samples.labels))
    with pytest.raises(ValueError, match="32 of 32 samples"):
        cached.join(scaled)
    with pytest.raises(TypeError, match=r"a kd\.data\.Views.*RandomTranslation"):
        kd.CachedTeacher(tmp_path / "d", teacher, views=shift)


def test_a_change_in_a_later_batch_raises_too(rows, tmp_path, teacher, samples):
    cached = cache(tmp_path / "c", teacher, samples)
    images = samples.images.copy()
    images[150] = images[151]
    train = cached.join(batches(kd.data.Samples(images, samples.labels)))
    with pytest.raises(tf.errors.OpError, match=r"such as the ids \[150\]"):
        list(train)


def shaken(image, seed):
    image = tf.image.stateless_random_flip_left_right(image, seed)
    return tf.image.stateless_random_brightness(image, 0.3, seed)


def test_the_student_trains_on_the_teachers_view(rows, tmp_path, teacher, samples):
    views = kd.data.Views(shaken, 3, seed=5)
    cached = cache(tmp_path / "c", teacher, samples, views=views, dtype="float32")
    train = cached.join(batches(samples, shuffle=True, augment=views))
    views_of = {}
    for _ in range(6):
        for x, _ in train:
            found = cached(x, [LOGITS])[LOGITS]
            direct = teacher(x["image"])
            np.testing.assert_allclose(found, direct, rtol=1e-4, atol=1e-4)
            views_of.setdefault(int(x["sample_id"][0]), set()).update(x["view"].numpy())
    assert set().union(*views_of.values()) == {0, 1, 2}
    again = kd.CachedTeacher(tmp_path / "c")
    with pytest.raises(ValueError, match=r"by 'sample_id' and 'view'.*Views"):
        again.join(batches(samples))
    other = kd.data.Views(shaken, 3, seed=6)
    with pytest.raises(ValueError, match="differ from the teacher's inputs"):
        again.join(batches(samples, augment=other))
    with pytest.raises(ValueError, match="views 0 to 2; got 3 to 3"):
        again.read([0], 3)


TERMS = {
    "the term 'soft_target' compares at 2.0": [kd.Term(kd.losses.SoftTarget(2.0))],
    "compares at a scheduled one": [
        kd.Term(
            kd.losses.SoftTarget(keras.optimizers.schedules.ExponentialDecay(4, 9, 1))
        )
    ],
    "'logit_regression' compares at 1.0": [
        kd.Term(kd.losses.LogitRegression(centred=True))
    ],
    r"terms need \['hidden'\]": [
        kd.Term(kd.losses.Hint(), student="hidden", teacher="hidden")
    ],
}


@pytest.mark.parametrize("message", TERMS)
def test_terms_that_the_cache_cannot_teach(
    message, tmp_path, teacher, student, samples
):
    cached = cache(tmp_path / "c", teacher, samples, top_k=3, temperature=4.0)
    with pytest.raises(ValueError, match=message):
        kd.Distiller(student, cached, terms=TERMS[message], student_inputs="image")


@pytest.mark.parametrize("top_k", [2, 9])
def test_the_highest_temperature_moves_no_logit_by_a_tenth(top_k):
    rng, temperature = np.random.default_rng(0), checks.HIGHEST_OF_FLOAT16
    z = rng.normal(0.0, 4.0, (64, 10)).astype("float32")
    form = forms.TopK(top_k, temperature)
    found = keras.ops.convert_to_numpy(form.decode(form.encode(z), (10,)))
    p = np.exp(np.float64(z) / temperature)
    p /= p.sum(-1, keepdims=True)
    largest = np.argsort(-z, -1)[:, :top_k]
    rest = 1.0 - np.take_along_axis(p, largest, -1).sum(-1, keepdims=True)
    expected = np.repeat(rest / (10 - top_k), 10, -1)
    np.put_along_axis(expected, largest, np.take_along_axis(p, largest, -1), -1)
    logits = temperature * np.log(expected)
    gap = found - found.mean(-1, keepdims=True)
    gap -= logits - logits.mean(-1, keepdims=True)
    assert np.abs(gap).max() < 0.1


def test_bad_input(tmp_path, teacher, student, samples):
    with pytest.raises(ValueError, match=r"no cache in .* and no teacher"):
        kd.CachedTeacher(tmp_path / "none")
    with pytest.raises(
        ValueError, match="with top_k stores predictions at one temperature"
    ):
        kd.CachedTeacher(tmp_path / "none", teacher, top_k=3)
    with pytest.raises(ValueError, match="temperature must be above 0; got -1"):
        kd.CachedTeacher(tmp_path / "none", teacher, top_k=3, temperature=-1.0)
    for dtype in ("float16", "float32"):
        with pytest.raises(
            ValueError, match=r"must be at most 100 in a cache .* float16"
        ):
            kd.CachedTeacher(
                tmp_path / "none", teacher, top_k=3, temperature=101, dtype=dtype
            )
    with pytest.raises(ValueError, match=r"\['label_gradient'\]"):
        kd.CachedTeacher(tmp_path / "none", teacher, taps=Tap.input_gradient())
    soft = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    soft.add(keras.layers.Dense(10, "softmax"))
    with pytest.raises(ValueError, match="ends in probabilities"):
        cache(tmp_path / "none", soft, samples)
    soft.add(keras.layers.Reshape((2, 5)))
    with pytest.raises(ValueError, match="ends in probabilities"):
        cache(tmp_path / "none", soft, samples)
    empty = kd.CachedTeacher(tmp_path / "none", teacher)
    with pytest.raises(ValueError, match=r"is empty: call build\(data\)"):
        kd.Distiller(student, empty, student_inputs="image")
    cached = cache(tmp_path / "c", teacher, samples)
    distiller = kd.Distiller(student, cached, student_inputs="image")
    distiller.compile("adam", LABELS)
    with pytest.raises(ValueError, match=r"fit on cached\.join\(dataset\)"):
        distiller.fit(batches(samples), verbose=0)
    (tmp_path / "c" / "cache.json").write_text("{")
    with pytest.raises(ValueError, match="can't be read as the contents of a cache"):
        kd.CachedTeacher(tmp_path / "c")


def test_a_function_is_no_preprocessing(tmp_path, teacher):
    scale = keras.applications.mobilenet_v2.preprocess_input
    with pytest.raises(TypeError, match=r"must be a keras\.Layer.*preprocess_input"):
        kd.CachedTeacher(tmp_path / "c", teacher, preprocessing=scale)


@pytest.mark.parametrize("form", [{}, {"top_k": 3, "temperature": 4.0}])
@pytest.mark.parametrize("shift", [0, 1])
def test_classes_in_another_order_than_the_cache_are_warned_of(
    tmp_path, teacher, student, samples, form, shift
):
    known = teacher.predict(samples.images, verbose=0).argmax(-1)
    labels = ((known + shift) % 10).astype("int32")
    samples = kd.data.Samples(samples.images, labels, samples.ids)
    cached = cache(tmp_path / "c", teacher, samples, **form)
    soft = kd.Term(kd.losses.SoftTarget(4.0))
    distiller = kd.Distiller(student, cached, student_inputs="image", terms=[soft])
    distiller.compile("sgd", LABELS)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        distiller.fit(cached.join(batches(samples)), verbose=0)
    right = [x for x in found if "right on 0 % of the labels" in str(x.message)]
    assert len(right) == shift
