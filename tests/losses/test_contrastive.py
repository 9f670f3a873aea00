"""Contrastive distillation against NumPy in float64, and its memory bank."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd
from keras_distill._backend import noise
from keras_distill.losses import Contrastive
from tests.nets import conv_pair

SAMPLES, WIDTH, NEGATIVES = 20, 4, 7
IDS = np.array([3, 0, 11, 19])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softplus(x):
    return np.log1p(np.exp(-abs(x))) + max(x, 0.0)


def contrastive(student, teacher, banks, drawn, log_z, temperature=0.07):
    """Sum the noise-contrastive terms, sample by sample."""
    chance, values = np.log(NEGATIVES / SAMPLES), []
    sides = ((student, banks[1], log_z[0]), (teacher, banks[0], log_z[1]))
    for row, sample in enumerate(IDS):
        value = 0.0
        for embeddings, bank, z in sides:
            score = embeddings[row] @ bank[sample] / temperature - z
            value += softplus(chance - score)
            for negative in drawn:
                if negative != sample:
                    score = embeddings[row] @ bank[negative] / temperature - z
                    value += softplus(score - chance)
        values.append(value)
    return np.array(values)


@pytest.fixture
def setting():
    rng = np.random.default_rng(0)
    student, teacher = unit(rng.normal(size=(2, 4, WIDTH)))
    loss = Contrastive(SAMPLES, negatives=NEGATIVES, width=WIDTH, reduction=None)
    memory = loss.memory()
    memory.build((None, WIDTH))
    banks = [np.array(bank, "float64") for bank in memory.banks]
    return student, teacher, loss, memory, banks


def drawn_at(step):
    return np.floor(
        np.array(noise.uniform(range(NEGATIVES), 0, step)) * SAMPLES
    ).astype(int)


def first_log_z(student, teacher, banks, drawn):
    values = []
    for embeddings, bank in ((student, banks[1]), (teacher, banks[0])):
        same = (embeddings * bank[IDS]).sum(-1, keepdims=True)
        every = np.concatenate([same, embeddings @ bank[drawn].T], -1)
        values.append(np.log(np.exp(every / 0.07).mean() * SAMPLES))
    return values


def test_equals_numpy_with_the_constant_of_the_first_batch(setting):
    student, teacher, loss, memory, banks = setting
    log_z = first_log_z(student, teacher, banks, drawn_at(0))
    for step in (0, 1):
        drawn = drawn_at(step)
        actual = loss(teacher, student, sample_ids=IDS, step=step, memory=memory)
        expected = contrastive(student, teacher, banks, drawn, log_z)
        np.testing.assert_allclose(actual, expected, rtol=1e-3)
        for bank, new in zip(banks, (student, teacher), strict=True):
            bank[IDS] = unit(0.5 * bank[IDS] + 0.5 * new)
        for bank, expected in zip(memory.banks, banks, strict=True):
            np.testing.assert_allclose(bank, expected, rtol=1e-5)


def test_negatives_in_several_blocks():
    rng = np.random.default_rng(1)
    student, teacher = unit(rng.normal(size=(2, 4, WIDTH)))
    loss = Contrastive(1500, negatives=1200, width=WIDTH, reduction=None)
    memory = loss.memory()
    memory.build((None, WIDTH))
    banks = [np.array(bank, "float64") for bank in memory.banks]
    drawn = np.floor(np.array(noise.uniform(range(1200), 0, 0)) * 1500).astype(int)
    actual = loss(teacher, student, sample_ids=IDS, step=0, memory=memory)
    expected, chance = 0.0, np.log(1200 / 1500)
    different = IDS[:, None] != drawn
    for embeddings, bank in ((student, banks[1]), (teacher, banks[0])):
        positive = (embeddings * bank[IDS]).sum(-1) / 0.07
        negatives = embeddings @ bank[drawn].T / 0.07
        every = np.concatenate([positive[:, None], negatives], axis=-1)
        shift = np.log(np.exp(every).mean() * 1500) + chance
        terms = different * np.logaddexp(0.0, negatives - shift)
        expected = expected + np.logaddexp(0.0, shift - positive) + terms.sum(-1)
    np.testing.assert_allclose(actual, expected, rtol=1e-3)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_gradient_equals_finite_differences(
    setting, side, gradient, central_difference
):
    student, teacher, loss, memory, banks = setting
    log_z, drawn = [1.5, 2.0], drawn_at(0)
    memory.constants.assign(log_z)
    memory.initialized.assign(1.0)

    def sides(x):
        return (x, teacher) if side == "student" else (student, x)

    def value(x):
        for bank, start in zip(memory.banks, banks, strict=True):
            bank.assign(start)
        student, teacher = sides(x)
        values = loss(teacher, student, sample_ids=IDS, step=0, memory=memory)
        return keras.ops.mean(values)

    start = student if side == "student" else teacher
    expected = central_difference(
        lambda x: contrastive(*sides(x), banks, drawn, log_z).mean(), start
    )
    np.testing.assert_allclose(gradient(value, start), expected, rtol=2e-3, atol=1e-4)


def test_sample_weights_config_and_tracing(setting):
    """What the contract requires of losses without memory."""
    student, teacher, loss, memory, _ = setting
    weights = np.array([2.0, 0.5, 0.0, 3.0], "float32")
    again = Contrastive.from_config({**loss.get_config(), "reduction": "mean"})
    names = ("samples", "negatives", "temperature", "momentum", "width", "seed")
    for name in names:
        assert getattr(again, name) == getattr(loss, name)
    context = {"sample_ids": IDS, "step": 0, "memory": memory}
    start = memory.get_weights()
    values = loss(teacher, student, **context)
    memory.set_weights(start)
    expected = np.mean(weights * np.array(values))
    weighted = again(teacher, student, weights, **context)
    np.testing.assert_allclose(weighted, expected, rtol=1e-5)
    for jit_compile in (False, True):
        memory.set_weights(start)
        traced = tf.function(
            lambda t, s: loss(t, s, **context), jit_compile=jit_compile
        )
        np.testing.assert_allclose(traced(teacher, student), values, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_finite_in_half_precision(setting, dtype):
    *_, loss, memory, _ = setting
    embed = loss.adapters((4, 3), (4, 3))[0]
    signs = np.sign(np.random.default_rng(1).normal(size=(4, 3)))
    for size in (1e4, 0.0):
        x = tf.constant(size * signs, dtype)
        with tf.GradientTape() as tape:
            tape.watch(x)
            values = loss(embed(x), embed(x), sample_ids=IDS, step=0, memory=memory)
        grad = tape.gradient(values, x)
        assert values.dtype == "float32"
        assert np.isfinite(values).all()
        assert np.isfinite(np.array(grad, "float32")).all()


def data(nets):
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
    samples = kd.data.Samples(x, np.zeros(64, "int32"))
    return kd.data.batches(samples, 16, shuffle=True, sample_ids=True)


def make(nets, **kwargs):
    student, teacher = nets
    loss = Contrastive(64, negatives=32, width=8)
    return kd.Distiller(
        student,
        teacher,
        terms=[kd.Term(loss, student="stack2", teacher="stack2", weight=1.0)],
        label_weight=0.0,
        student_inputs="image",
        teacher_inputs="image",
        sample_ids="sample_id",
        **kwargs,
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_student_learns_to_distinguish_samples(jit_compile):
    keras.utils.set_random_seed(0)
    distiller = make(conv_pair())
    distiller.compile(keras.optimizers.Adam(0.01), jit_compile=jit_compile)
    train = data(None)
    for x, _ in train.take(1):
        distiller.fit(x, verbose=0)
    before = keras.ops.convert_to_numpy(distiller.terms["contrastive"].memory.banks[0])
    history = distiller.fit(train, epochs=25, verbose=0).history["contrastive"]
    assert history[-1] < 0.8 * history[0]
    after = np.array(distiller.terms["contrastive"].memory.banks[0])
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(np.linalg.norm(after, axis=-1), 1.0, rtol=1e-4)


def test_the_bank_is_saved_and_not_in_the_student(tmp_path):
    distiller = make(conv_pair())
    distiller.compile("adam")
    distiller.fit(data(None), verbose=0)
    assert not any("bank" in w.path for w in distiller.student.weights)
    distiller.save(tmp_path / "distiller.keras")
    again = keras.saving.load_model(tmp_path / "distiller.keras")
    banks, loaded = (d.terms["contrastive"].memory.weights for d in (distiller, again))
    assert len(banks) == 4
    for bank, restored in zip(banks, loaded, strict=True):
        np.testing.assert_array_equal(bank, restored)


def test_every_replica_keeps_the_global_batch(setting, two_replicas):
    student, teacher, loss, memory, _ = setting
    with two_replicas.scope():
        mirrored = loss.memory()
        mirrored.build((None, WIDTH))

    def distribute(side):
        side = tf.constant(side)
        side = tf.cast(side, "float32") if side.dtype.is_floating else side
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.split(side, 2)[context.replica_id_in_sync_group]
        )

    @tf.function
    def step(teacher, student, ids):
        return loss(teacher, student, sample_ids=ids, step=0, memory=mirrored)

    parts = two_replicas.run(step, tuple(map(distribute, (teacher, student, IDS))))
    values = np.concatenate(two_replicas.experimental_local_results(parts))
    whole = loss(teacher, student, sample_ids=IDS, step=0, memory=memory)
    np.testing.assert_allclose(values, whole, rtol=1e-4)
    for bank, single in zip(mirrored.banks, memory.banks, strict=True):
        np.testing.assert_allclose(np.array(bank), np.array(single), rtol=1e-5)


def test_bad_arguments_and_no_ids():
    with pytest.raises(
        ValueError, match="samples must be an integer of 2 or more; got 1"
    ):
        Contrastive(1)
    with pytest.raises(ValueError, match="momentum must be below 1"):
        Contrastive(5, momentum=1)
    with pytest.raises(ValueError, match=r"needs .*sample_ids"):
        Contrastive(5)(np.ones((2, 3)), np.ones((2, 3)), step=0, memory=None)


def fit_with_ids(ids, kind="arrays"):
    distiller = make(conv_pair())
    distiller.compile(keras.optimizers.Adam(0.01))
    x = np.random.default_rng(0).normal(size=(len(ids), 8, 8, 1)).astype("float32")
    x = {"image": x, "sample_id": np.asarray(ids)}
    if kind == "arrays":
        return distiller, lambda: distiller.fit(x, batch_size=16, verbose=0)
    batches = tf.data.Dataset.from_tensor_slices(x).batch(16)
    return distiller, lambda: distiller.fit(batches, verbose=0)


@pytest.mark.parametrize("where", [0, 40])
@pytest.mark.parametrize("wrong", [64, -1, 1000])
def test_ids_of_arrays_are_checked_before_the_first_step(where, wrong):
    ids = np.arange(48)
    ids[where] = wrong
    distiller, fit = fit_with_ids(ids)
    words = rf"0 to 63; got \[{wrong}\]. Pass samples={max(64, wrong + 1)} "
    with pytest.raises(ValueError, match=words):
        fit()
    assert int(distiller.optimizer.iterations) == 0


def test_ids_of_the_first_batch_are_checked_before_the_first_step():
    distiller, fit = fit_with_ids(np.arange(60, 76), "batches")
    with pytest.raises(
        ValueError, match=r"got \[64, 65, 66, 67, 68\]. Pass samples=76"
    ):
        fit()
    assert int(distiller.optimizer.iterations) == 0


def test_training_stops_at_an_id_of_a_later_batch():
    distiller, fit = fit_with_ids(np.arange(32, 80), "batches")
    with pytest.raises(ValueError, match=r"from 0 to 63, and contrastive is NaN"):
        fit()
    for weight in distiller.student.weights:
        assert np.isfinite(np.array(weight)).all()


def test_the_value_of_an_unknown_sample_alone_is_not_finite(setting):
    student, teacher, loss, memory, _ = setting
    memory.constants.assign([1.5, 2.0])
    memory.initialized.assign(1.0)
    start = memory.get_weights()
    context = {"step": 0, "memory": memory}
    expected = np.array(loss(teacher, student, sample_ids=IDS, **context))
    expected[[1, 3]] = np.nan
    memory.set_weights(start)
    ids = np.array([IDS[0], SAMPLES, IDS[2], -1])
    found = loss(teacher, student, sample_ids=ids, **context)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
