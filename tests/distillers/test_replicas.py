"""Two replicas on two logical devices give the update of one."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.nets import conv_pair


def run(three_taps, images, batch_size=16, reduction="mean", **schedules):
    keras.utils.set_random_seed(5)
    student, teacher = conv_pair(norm=False)
    distiller = kd.Distiller(student, teacher, terms=three_taps, **schedules)
    distiller.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction=reduction
        ),
        metrics=["accuracy"],
    )
    images, labels = images
    logs = distiller.fit(
        images,
        labels,
        batch_size,
        epochs=3,
        shuffle=False,
        verbose=0,
        validation_data=(images[:27], labels[:27]),
    )
    return distiller, logs.history


# Of 32 samples, batches of 11 leave 10; replicas get 6 and 5, then 5 and 5. The
# validation data end in parts of 3 and 2.
@pytest.mark.parametrize(
    ("batch_size", "reduction"),
    [
        (11, "mean"),
        pytest.param(16, "mean", marks=pytest.mark.long),
        pytest.param(11, "sum", marks=pytest.mark.long),
    ],
)
def test_three_taps_and_adapters(
    three_taps, images, two_replicas, batch_size, reduction
):
    relation = kd.losses.SimilarityMatrix()
    terms = [*three_taps, kd.Term(relation, "stack2", "stack2", weight=10.0)]
    one, one_logs = run(terms, images, batch_size, reduction)
    with two_replicas.scope():
        two, two_logs = run(terms, images, batch_size, reduction)
    assert len(one.trainable_variables) == len(two.trainable_variables) == 12
    for a, b in zip(one.trainable_variables, two.trainable_variables, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-5)
    assert set(one_logs) == set(two_logs) and "val_accuracy" in two_logs
    # Keras's evaluation weighs sums of replicas as if they were means.
    for name in set(one_logs) - ({"val_loss"} if reduction == "sum" else set()):
        np.testing.assert_allclose(one_logs[name], two_logs[name], rtol=1e-4, atol=1e-6)


def test_a_replica_without_samples_is_refused(three_taps, images, two_replicas):
    with (
        two_replicas.scope(),
        pytest.raises(ValueError, match="got no samples of a batch"),
    ):
        run(three_taps, images, batch_size=31)


@pytest.mark.long
def test_schedules_move_alike(images, two_replicas):
    def make():
        falling = keras.optimizers.schedules.PolynomialDecay(4.0, 6, 1.0)
        rising = keras.optimizers.schedules.PolynomialDecay(0.0, 6, 1.0)
        terms = [kd.Term(kd.losses.SoftTarget(falling), weight=rising)]
        return run(terms, images, label_weight=falling)

    one, _ = make()
    with two_replicas.scope():
        two, _ = make()
    for a, b in zip(one.variables, two.variables, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-5)
    # The sixth and last step ran at step 5 of 6.
    assert float(np.array(two.label_weight)) == pytest.approx(1.5)
    assert float(np.array(two.terms["soft_target"].weight)) == pytest.approx(5 / 6)


def test_statistics_of_batch_normalisation_move(three_taps, images, two_replicas):
    with two_replicas.scope():
        student, teacher = conv_pair()
        distiller = kd.Distiller(student, teacher, terms=three_taps)
        distiller.compile(
            "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
    before = np.array(student.get_layer("norm1").moving_mean)
    logs = distiller.fit(*images, batch_size=16, epochs=2, verbose=0).history
    assert np.abs(np.array(student.get_layer("norm1").moving_mean) - before).max() > 0
    assert all(np.isfinite(values).all() for values in logs.values())
    assert min(logs["hint"]) > 0
    assert "call" not in student.get_layer("stack1").__dict__
