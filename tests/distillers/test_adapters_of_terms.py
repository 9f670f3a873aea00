"""Adapters of both sides that a term is given, maps of logits, and shared classes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd

RNG = np.random.default_rng(0)
IMAGES = RNG.random((4, 8, 8, 3)).astype("float32")


def segmenter(stride, seed=0, classes=5, name="net"):
    """c, of 5 channels."""
    keras.utils.set_random_seed(seed)
    conv = layers.Conv2D(classes, 3, stride, "same", name="c")
    return keras.Sequential([keras.Input((8, 8, 3)), conv], name=f"{name}{seed}")


def vectors(classes, seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    return keras.Model(
        inputs, layers.Dense(classes, name="head")(inputs), name=f"v{seed}"
    )


def outputs(model, x):
    return model.predict(x, verbose=0).astype("float64")


def divergence(teacher, student):
    """Return KL(teacher || student) of logits at T = 1."""
    log_p, log_q = (
        z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (teacher, student)
    )
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def pooled(maps):
    batch, height, width, channels = maps.shape
    blocks = maps.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return blocks.mean((2, 4))


def part(student, teacher, term, x, y=None):
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    return distiller.fit(x, y, verbose=0).history[term.name][0]


@pytest.mark.parametrize("strides", [(2, 1), (1, 2)])
def test_logits_of_other_sizes_are_pooled_as_maps(strides):
    student, teacher = (segmenter(stride, seed) for seed, stride in enumerate(strides))
    z_s, z_t = outputs(student, IMAGES), outputs(teacher, IMAGES)
    z_s, z_t = (pooled(z) if z.shape[1] == 8 else z for z in (z_s, z_t))
    got = part(student, teacher, kd.Term(kd.losses.SoftTarget(1.0)), IMAGES)
    assert got == pytest.approx(divergence(z_t, z_s).mean(), rel=1e-4)


def test_labels_of_logits_that_would_be_pooled_are_refused():
    term = kd.Term(kd.losses.DecoupledTarget(), name="here")
    with pytest.raises(ValueError, match=r"'here'.*takes labels.*teacher_adapter="):
        kd.Distiller(segmenter(1), segmenter(2, 1), terms=[term])
    term = kd.Term(
        kd.losses.DecoupledTarget(), teacher_adapter=layers.UpSampling2D(2), name="here"
    )
    labels = RNG.integers(0, 5, (4, 8, 8))
    assert np.isfinite(part(segmenter(1), segmenter(2, 1), term, IMAGES, labels))


def test_class_counts_are_named_first():
    with pytest.raises(ValueError, match="class counts differ"):
        kd.Distiller(segmenter(1), segmenter(2, 1, classes=4))


def test_an_adapter_of_the_teacher_is_used_copied_and_saved():
    student, teacher = segmenter(2), segmenter(1, 1)
    term = kd.Term(
        kd.losses.Hint(), "c", "c", adapter=None, teacher_adapter=layers.MaxPooling2D(2)
    )
    blocks = outputs(teacher, IMAGES).reshape(4, 4, 2, 4, 2, 5).max((2, 4))
    expected = ((outputs(student, IMAGES) - blocks) ** 2).mean() / 2
    for each in (term, term.copy(), kd.Term.from_config(term.get_config())):
        assert part(student, teacher, each, IMAGES) == pytest.approx(expected, rel=1e-4)


def test_adapters_of_the_student_are_inferred_for_the_adapted_teacher():
    student, teacher = segmenter(2, classes=3), segmenter(1, 1)
    term = kd.Term(kd.losses.Hint(), "c", "c", teacher_adapter=layers.MaxPooling2D(4))
    distiller = kd.Distiller(student, teacher, terms=[term])
    bound = distiller.terms["hint"]
    shapes = (4, 4, 4, 3), (4, 8, 8, 5)
    adapters = bound.student_adapters[0], bound.teacher_adapters[0]
    for adapter, shape in zip(adapters, shapes, strict=True):
        assert tuple(adapter(ops.zeros(shape)).shape) == (4, 2, 2, 5)


def test_a_frozen_adapter_of_the_teacher_keeps_its_weights():
    frozen = layers.Conv2D(5, 1, name="frozen")
    frozen.build((None, 8, 8, 5))
    term = kd.Term(kd.losses.Hint(), "c", "c", teacher_adapter=frozen)
    with pytest.raises(ValueError, match=r"'frozen' has trainable weights"):
        kd.Distiller(segmenter(1), segmenter(1, 1), terms=[term])
    frozen.trainable = False
    before = ops.convert_to_numpy(frozen.kernel)
    for each in (term, term.copy()):
        distiller = kd.Distiller(segmenter(1), segmenter(1, 1), terms=[each])
        distiller.compile("sgd")
        distiller.fit(IMAGES, verbose=0)
        (used,) = distiller.terms["hint"].teacher_adapters
        np.testing.assert_array_equal(ops.convert_to_numpy(used.kernel), before)


def test_errors_of_a_teacher_adapter():
    with pytest.raises(
        TypeError, match="teacher_adapter of term 'hint' must be None or"
    ):
        kd.Term(kd.losses.Hint(), "c", "c", teacher_adapter="auto")
    with pytest.raises(ValueError, match=r"1 tap\(s\) of the teacher, but 2"):
        kd.Term(kd.losses.Hint(), "c", "c", teacher_adapter=(None, None))


X = RNG.normal(size=(4, 6)).astype("float32")


@pytest.mark.parametrize("ensemble", [False, True])
def test_classes_that_both_share(ensemble):
    student, members = vectors(7, 0), [vectors(5, 1), vectors(5, 2)]
    teacher = kd.EnsembleTeacher(members) if ensemble else members[0]
    probabilities = []
    for member in members[: 1 + ensemble]:
        p = np.exp(outputs(member, X)[:, :4])
        probabilities.append(p / p.sum(-1, keepdims=True))
    mean = np.log(sum(probabilities) / len(probabilities))
    expected = divergence(mean, outputs(student, X)[:, :4]).mean()
    term = kd.Term(kd.losses.SoftTarget(1.0), shared_classes=4)
    for each in (term, term.copy(), kd.Term.from_config(term.get_config())):
        assert part(student, teacher, each, X) == pytest.approx(expected, rel=1e-4)


def test_shared_classes_in_chunks_and_of_heads():
    """A vocabulary is compared in chunks; its last layer is that of the shared part."""
    count, x = 300, RNG.normal(size=(3, 4, 6)).astype("float32")

    def net(classes, seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((4, 6))
        head = layers.Dense(classes, name="head")(inputs)
        return keras.Model(inputs, head, name=f"words{seed}")

    student, teacher = net(count + 20, 0), net(count + 7, 1)
    z_s, z_t = (outputs(model, x)[..., :count] for model in (student, teacher))
    expected = divergence(z_t, z_s).mean()
    term = kd.Term(kd.losses.SoftTarget(1.0), shared_classes=count)
    assert part(student, teacher, term, x) == pytest.approx(expected, rel=1e-4)
    states = kd.Tap("head", side="input")
    loss = kd.losses.VocabularySoftTarget(1.0)
    term = kd.Term(loss, states, states, shared_classes=count, name="words")
    assert part(student, teacher, term, x) == pytest.approx(expected, rel=1e-4)


def test_errors_of_shared_classes():
    term = kd.Term(kd.losses.SoftTarget(), shared_classes=6, name="here")
    with pytest.raises(
        ValueError, match=r"'here'.*shared_classes is 6.*7 logits.*teacher 5"
    ) as error:
        kd.Distiller(vectors(7, 0), vectors(5, 1), terms=[term])
    assert str(error.value).count("'here'") == 1
    for wrong in (0, True, 2.0):
        with pytest.raises(ValueError, match=f"at least 1; got {wrong}"):
            kd.Term(kd.losses.SoftTarget(), shared_classes=wrong)
    numpys = kd.Term(kd.losses.SoftTarget(), shared_classes=np.int64(2))
    assert type(numpys.get_config()["shared_classes"]) is int
    with pytest.raises(ValueError, match="Hint compares other tensors"):
        kd.Term(kd.losses.Hint(), "c", "c", shared_classes=3)
    term = kd.Term(kd.losses.DecoupledTarget(), shared_classes=4)
    distiller = kd.Distiller(
        vectors(7, 0), vectors(5, 1), terms=[term], label_weight=0.0
    )
    distiller.compile("sgd")
    with pytest.raises(ValueError, match=r"must lie in 0\.\.3"):
        distiller.fit(X, np.array([0, 1, 5, 2]), verbose=0)


@pytest.mark.parametrize("size", [8, 12])
def test_sizes_that_vary_are_refused_by_the_term_or_compared(size):
    def net(stride, seed):
        keras.utils.set_random_seed(seed)
        conv = layers.Conv2D(4, 3, stride, "same", name="c")
        return keras.Sequential([keras.Input((None, None, 3)), conv], name=f"any{seed}")

    x = RNG.random((2, size, size, 3)).astype("float32")
    term = kd.Term(kd.losses.Hint(), "c", "c", name="here")
    distiller = kd.Distiller(net(2, 0), net(1, 1), terms=[term], label_weight=0.0)
    distiller.compile("sgd")
    with pytest.raises(ValueError, match="Term 'here'"):
        distiller.fit(x, verbose=0)
    adapted = kd.Term(
        kd.losses.Hint(), "c", "c", teacher_adapter=layers.AveragePooling2D(2)
    )
    distiller = kd.Distiller(net(2, 0), net(1, 1), terms=[adapted], label_weight=0.0)
    distiller.compile("sgd")
    distiller.fit(x, verbose=0)
    # Other batches have other sizes.
    distiller.fit(RNG.random((2, 16, 20, 3)).astype("float32"), verbose=0)
