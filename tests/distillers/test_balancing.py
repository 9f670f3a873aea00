"""Terms whose weight is balanced: measured once as `fit` begins, saved, resumed."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.analysis.test_suggested_weights import LOSS, norms, problem
from tests.linear import with_kernel as linear

SIZE = 16


def distiller_of(kernels, student=None, rate=0.1):
    student = student or linear(kernels[0], "student")
    terms = [
        kd.Term(kd.losses.SoftTarget(3.0), weight="balanced"),
        kd.Term(kd.losses.LogitRegression(), weight=0.1),
    ]
    teacher = linear(kernels[1], "teacher")
    distiller = kd.Distiller(student, teacher, terms=terms)
    distiller.compile(keras.optimizers.SGD(rate), LOSS)
    return distiller


def weight(distiller, name="soft_target"):
    return float(keras.ops.convert_to_numpy(distiller.terms[name].weight))


def test_the_weight_is_measured_before_the_first_step():
    x, y, kernels = problem()
    distiller = distiller_of(kernels)
    assert weight(distiller) == -1.0
    distiller.fit(x, y, batch_size=SIZE, verbose=0)
    expected, _ = norms(x, y, kernels, SIZE)
    pull = expected["label_loss"] / expected["soft_target"]
    # All four batches, of rows in the order of the data.
    assert weight(distiller) == pytest.approx(pull, rel=1e-5)
    assert weight(distiller, "logit_regression") == pytest.approx(0.1)


def test_one_step_uses_the_measured_weight():
    x, y, kernels = problem()
    distiller = distiller_of(kernels)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    total = logs["label_loss"] + 0.1 * logs["logit_regression"]
    assert float(logs["loss"]) == pytest.approx(
        float(total + weight(distiller) * logs["soft_target"]), rel=1e-5
    )


def test_batches_are_measured_as_they_are():
    x, y, kernels = problem()
    distiller = distiller_of(kernels)
    distiller.fit(kd.data.batches(kd.data.Samples(x, y), SIZE), verbose=0)
    expected, _ = norms(x[:SIZE], y[:SIZE], kernels, SIZE)
    pull = expected["label_loss"] / expected["soft_target"]
    assert weight(distiller) == pytest.approx(pull, rel=1e-5)


def test_it_is_measured_once_and_saved(tmp_path):
    x, y, kernels = problem()
    distiller = distiller_of(kernels)
    distiller.fit(x, y, batch_size=SIZE, verbose=0)
    first = weight(distiller)
    distiller.fit(x, y, batch_size=SIZE, verbose=0)
    assert weight(distiller) == first
    distiller.save(tmp_path / "distiller.keras")
    again = keras.saving.load_model(tmp_path / "distiller.keras")
    again.set_teacher(distiller.teacher)
    assert weight(again) == first
    again.fit(x, y, batch_size=SIZE, verbose=0)
    assert weight(again) == first


def test_a_resumed_run_has_the_weight_of_its_start(tmp_path):
    x, y, kernels = problem()

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def run(*callbacks):
        keras.utils.set_random_seed(1)
        distiller = distiller_of(kernels, rate=0.5)
        callbacks = [kd.BackupAndRestore(tmp_path / "backup"), *callbacks]
        distiller.fit(x, y, batch_size=SIZE, epochs=3, verbose=0, callbacks=callbacks)
        return distiller

    plain = distiller_of(kernels, rate=0.5)
    keras.utils.set_random_seed(1)
    plain.fit(x, y, batch_size=SIZE, epochs=3, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        run(Stop())
    again = run()
    assert weight(again) == weight(plain)
    np.testing.assert_array_equal(
        *(model.student.get_weights()[0] for model in (again, plain))
    )


def test_it_is_measured_in_each_stage():
    x, y, kernels = problem()
    distiller = distiller_of(kernels)
    term = kd.Term(kd.losses.SoftTarget(3.0), weight="balanced")
    seen = []

    class See(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            seen.append(weight(self.model))

    stages = [
        kd.Stage([term], epochs=1, label_weight=w, callbacks=[See()])
        for w in (1.0, 0.1)
    ]
    kd.fit_stages(distiller, stages, kd.data.batches(kd.data.Samples(x, y), SIZE))
    expected, _ = norms(x[:SIZE], y[:SIZE], kernels, SIZE)
    assert seen[0] == pytest.approx(expected["label_loss"] / expected["soft_target"])
    assert 0 < seen[1] < 0.5 * seen[0]
    assert weight(distiller) == -1.0


def test_half_precision_loses_no_small_gradient():
    x, y, kernels = problem()
    found = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        nets = []
        for kernel, name in zip(kernels, ("student", "teacher"), strict=True):
            inputs = keras.Input((5,))
            h = keras.layers.Dense(4, use_bias=False, kernel_initializer="identity")
            logits = keras.layers.Dense(4, dtype="float32", use_bias=False)
            nets.append(keras.Model(inputs, logits(h(inputs)), name=name))
            nets[-1].set_weights([kernel, np.eye(4)])
        tiny = kd.losses.LogitRegression(), "logits", "logits"
        distiller = kd.Distiller(*nets, terms=[kd.Term(*tiny, weight="balanced")])
        optimizer = keras.optimizers.SGD(1e-4)
        if policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        distiller.compile(optimizer, LOSS)
        distiller.fit(1e-3 * x, y, batch_size=64, verbose=0)
        found.append(weight(distiller, "logit_regression"))
    assert found[1] == pytest.approx(found[0], rel=2e-2)


def test_two_replicas_measure_what_one_device_does(two_replicas):
    x, y, kernels = problem()
    alone = distiller_of(kernels)
    alone.fit(x, y, batch_size=SIZE, verbose=0)
    with two_replicas.scope():
        both = distiller_of(kernels)
        both.fit(x, y, batch_size=SIZE, verbose=0)
    assert weight(both) == pytest.approx(weight(alone), rel=1e-5)


def test_what_can_not_be_balanced_is_refused():
    _, _, kernels = problem()
    with pytest.raises(TypeError, match=r"a number, a schedule or .*got .x."):
        kd.Term(kd.losses.SoftTarget(), weight="x")
    peers = [linear(k, n) for k, n in zip(kernels, "ab", strict=True)]
    term = kd.Term(kd.losses.SoftTarget(), weight="balanced")
    with pytest.raises(ValueError, match=r"soft_target is 'balanced'.*peers"):
        kd.MutualDistiller(peers, [term])


class Net(keras.Model):
    """A subclassed net whose inputs are unknown before the first batch."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(6, "relu")
        self.drop = keras.layers.Dropout(0.5)
        self.logits = keras.layers.Dense(4)

    def call(self, inputs, training=None):
        return self.logits(self.drop(self.hidden(inputs), training=training))


def test_subclassed_nets():
    x, y, _ = problem()
    student, teacher = Net(), Net()
    teacher(x)
    term = kd.Term(kd.losses.Hint(), "hidden", "hidden", weight="balanced")
    distiller = kd.Distiller(student, teacher, terms=[term])
    distiller.compile(keras.optimizers.SGD(0.1), LOSS)
    distiller.fit(x, y, batch_size=SIZE, verbose=0)
    assert weight(distiller, "hint") > 0
