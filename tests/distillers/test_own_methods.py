"""A student's own loss and metrics are kept, and its own steps are told of."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from tests.formulas import softmax

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 8)).astype("float32")
Y = np.arange(12) % 4


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Net(keras.Model):
    """A subclassed net with every kind of penalty."""

    def __init__(self, name=None):
        super().__init__(name=name)
        self.hidden = layers.Dense(5, activity_regularizer=keras.regularizers.L2(0.1))
        self.out = layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.2))

    def call(self, x):
        hidden = self.hidden(x)
        self.add_loss(0.3 * ops.mean(ops.square(hidden)))
        return self.out(hidden)


class WithSuper(Net):
    """Its loss is three times Keras's, penalties included."""

    def compute_loss(self, *args, **kwargs):
        return 3.0 * super().compute_loss(*args, **kwargs)


class WithoutSuper(Net):
    """Its loss needs none that is compiled, counts penalties itself, takes no `training`."""

    def compute_loss(self, x, y, y_pred, sample_weight=None):
        gap = ops.square(y_pred - ops.one_hot(y, 4))
        return ops.mean(gap) * ops.mean(ops.abs(x)) + ops.sum(
            [ops.sum(loss) for loss in self.losses]
        )


class WithoutPenalties(Net):
    """Its loss leaves penalties out."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **unused):
        return ops.mean(ops.square(y_pred - ops.one_hot(y, 4)))


class WithMetrics(Net):
    """A metric of its own beside those that are compiled, and one inside the loss."""

    def __init__(self, name=None):
        super().__init__(name=name)
        self.size = keras.metrics.Mean(name="size")
        self.seen = keras.metrics.Sum(name="seen")
        self.loss_tracker = keras.metrics.Mean(name="loss")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
        loss = super().compute_loss(x, y, y_pred, sample_weight, **kwargs)
        self.seen.update_state(ops.ones_like(y))
        self.loss_tracker.update_state(loss)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.size.update_state(ops.mean(ops.abs(x)))
        return super().compute_metrics(x, y, y_pred, sample_weight)


def built(kind, seed=0, **arguments):
    keras.utils.set_random_seed(seed)
    net = kind(**arguments)
    net(X[:1])
    return net


def teacher():
    keras.utils.set_random_seed(7)
    hidden = layers.Dense(16, "relu")
    return keras.Sequential([keras.Input((8,)), hidden, layers.Dense(4)])


def idle(student, **arguments):
    """Return a distiller whose term weighs nothing."""
    terms = [kd.Term(kd.losses.SoftTarget(), weight=0.0)]
    return kd.Distiller(student, teacher(), terms=terms, **arguments)


def fitted(model, *compile_arguments, x=X, **arguments):
    model.compile(keras.optimizers.SGD(0.1), *compile_arguments, **arguments)
    return model.fit(x, Y, batch_size=6, epochs=2, shuffle=False, verbose=0).history


def weights(model):
    return [ops.convert_to_numpy(w) for w in model.trainable_variables]


def distance(y, y_pred):
    return ops.mean(ops.square(y_pred - ops.one_hot(y, 4)), axis=-1)


# The student, and a plain model with what it is compiled with whose fit is the same.
SAME = {
    "super": (WithSuper, [cross_entropy()], Net, [cross_entropy(), 3.0]),
    "without super": (WithoutSuper, [], WithoutSuper, []),
    "without penalties": (WithoutPenalties, [], Net, [distance]),
    "metrics": (WithMetrics, [cross_entropy()], WithMetrics, [cross_entropy()]),
}


@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}], ids=str)
@pytest.mark.parametrize("kind", SAME)
def test_penalties_count_once_and_in_full(kind, how):
    own, loss, plain, same_loss = SAME[kind]
    student, alone = built(own), built(plain)
    found = fitted(idle(student), *loss, **how)
    expected = fitted(alone, *same_loss, **how)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
    for a, b in zip(weights(student), weights(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_label_loss_is_logged_without_penalties():
    student = built(WithSuper)
    z = np.float64(student.predict(X, verbose=0))
    distiller = idle(student, label_weight=0.5)
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy())
    found = distiller.fit(X, Y, batch_size=12, verbose=0).history
    surprise = -np.log(softmax(z)[np.arange(12), Y]).mean()
    assert found["label_loss"][0] == pytest.approx(3.0 * surprise, rel=1e-5)
    hidden = X @ np.float64(weights(student)[0])
    penalties = 0.2 * np.square(weights(student)[2]).sum() + 0.3 * (hidden**2).mean()
    penalties += 0.1 * (hidden**2).sum() / len(X)
    total = 0.5 * 3.0 * surprise + penalties
    assert found["loss"][0] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("kind", SAME)
def test_evaluate_is_the_students(kind):
    own, loss, *_ = SAME[kind]
    student = built(own)
    metrics = ["accuracy"] if loss else None
    distiller = idle(student)
    distiller.compile("sgd", *loss, metrics=metrics)
    found = distiller.evaluate(X, Y, batch_size=6, return_dict=True, verbose=0)
    listed = distiller.evaluate(X, Y, batch_size=6, verbose=0)
    student.compile("sgd", *loss, metrics=metrics)
    expected = student.evaluate(X, Y, batch_size=6, return_dict=True, verbose=0)
    assert found == pytest.approx(expected, rel=1e-5)
    expected = student.evaluate(X, Y, batch_size=6, verbose=0)
    # Keras lists a tracker of the model that is named "loss" a second time.
    listed = np.ravel(listed)
    assert listed == pytest.approx(np.ravel(expected)[: len(listed)], rel=1e-5)


def test_own_metrics_are_in_the_logs_and_start_anew_each_epoch():
    distiller = idle(built(WithMetrics))
    logs = fitted(distiller, cross_entropy(), metrics=["accuracy"])
    assert {"size", "seen", "accuracy", "label_loss", "loss"} <= set(logs)
    assert logs["size"] == pytest.approx([np.abs(X).mean()] * 2, rel=1e-5)
    assert logs["seen"] == [12, 12]


def test_it_gets_its_part_of_the_inputs():
    """Its loss is multiplied by the mean of its inputs' absolute values."""
    parts = {"own": 2.0 * X, "other": X}
    student = built(WithoutSuper)
    distiller = idle(student, student_inputs="own", teacher_inputs="other")
    distiller.compile(keras.optimizers.SGD(0.0))
    found = distiller.fit(parts, Y, batch_size=12, verbose=0).history
    z = np.float64(student.predict(2.0 * X, verbose=0))
    expected = np.square(z - np.eye(4)[Y]).mean() * np.abs(2.0 * X).mean()
    assert found["label_loss"][0] == pytest.approx(expected, rel=1e-5)
    logs = distiller.evaluate(parts, Y, batch_size=12, verbose=0)
    assert logs == pytest.approx(found["loss"][0], rel=1e-5)


def test_a_loss_it_was_compiled_with_before_counts():
    student = built(WithSuper)
    student.compile(keras.optimizers.Adam(0.5), cross_entropy())
    optimizer = student.optimizer
    found = fitted(idle(student))
    expected = fitted(idle(built(WithSuper)), cross_entropy())
    assert found["label_loss"] == pytest.approx(expected["label_loss"], rel=1e-6)
    assert student.optimizer is optimizer and not optimizer.built


def test_without_labels_its_loss_stays_out():
    distiller = kd.Distiller(built(WithoutSuper), teacher(), label_weight=0.0)
    distiller.compile("sgd")
    logs = distiller.fit(X, batch_size=6, verbose=0).history
    assert set(logs) == {"loss", "soft_target"}


def test_peers_keep_theirs():
    first, second = built(WithSuper, name="first"), built(Net, 1, name="second")
    distiller = kd.MutualDistiller([first, second])
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy(), metrics=["accuracy"])
    found = distiller.fit(X, Y, batch_size=12, verbose=0).history
    for net, factor in ((first, 3.0), (second, 1.0)):
        z = np.float64(net.predict(X, verbose=0))
        surprise = -np.log(softmax(z)[np.arange(12), Y]).mean()
        name = f"{net.name}_label_loss"
        assert found[name][0] == pytest.approx(factor * surprise, rel=1e-5)
    logs = distiller.evaluate(X, Y, return_dict=True, verbose=0)
    first.compile("sgd", cross_entropy(), metrics=["accuracy"])
    alone = first.evaluate(X, Y, return_dict=True, verbose=0)
    assert logs["first_loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert logs["first_accuracy"] == pytest.approx(alone["accuracy"])


def test_two_replicas_do_what_the_students_own_fit_does(two_replicas):
    histories = []
    with two_replicas.scope():
        for wrap in (lambda net: net, idle):
            keras.utils.set_random_seed(0)
            model = wrap(functional(OwnLossOnly))
            logs = fitted(model, cross_entropy(), metrics=["acc"])
            judged = model.evaluate(X, Y, batch_size=6, verbose=0)
            histories.append((logs, judged))
    (alone, judged), (found, again) = histories
    assert again == pytest.approx(judged, rel=1e-5)
    assert found["label_loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert found["acc"] == pytest.approx(alone["acc"])


class OwnLossOnly(keras.Model):
    def compute_loss(self, *args, **kwargs):
        return 2.0 * super().compute_loss(*args, **kwargs)


class OwnSteps(keras.Model):
    def train_step(self, *args):
        raise RuntimeError("never reached")

    def predict_step(self, *args):
        raise RuntimeError("never reached")


def functional(kind=keras.Model, name=None):
    x = keras.Input((8,))
    hidden = layers.Dense(5, name="hidden")(x)
    return kind(x, layers.Dense(4)(hidden), name=name)


def test_exits_are_not_built_on_a_net_with_a_loss_of_its_own():
    with pytest.raises(ValueError, match=r"OwnLossOnly has its own compute_loss"):
        kd.SelfDistiller(functional(OwnLossOnly), ["hidden"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: kd.Distiller(functional(OwnSteps), teacher()),
        lambda: kd.MutualDistiller([functional(OwnSteps, "a"), functional(name="b")]),
        lambda: kd.SelfDistiller(functional(OwnSteps), ["hidden"]),
    ],
    ids=["one", "mutual", "self"],
)
def test_own_steps_are_told_of_once(make):
    distiller = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        distiller.compile("sgd", cross_entropy())
        distiller.fit(X, Y, verbose=0)
        distiller.predict(X, verbose=0)
    texts = [str(w.message) for w in caught if "OwnSteps" in str(w.message)]
    assert len(texts) == 1 and "train_step and predict_step" in texts[0]


def test_a_compile_of_its_own_gets_its_arguments(tmp_path):
    class Detector(Net):
        def compile(self, optimizer="auto", box_loss="auto", **arguments):
            super().compile(optimizer, loss=box_loss, **arguments)
            self.box_loss = box_loss

        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs)

    student = built(Detector)
    distiller = idle(student)
    distiller.compile("sgd", box_loss=cross_entropy())
    assert student.box_loss.from_logits
    assert distiller.fit(X, Y, verbose=0).history["label_loss"][0] > 0
    with pytest.raises(TypeError, match=r"Detector has its own loss .*'loss'"):
        distiller.compile("sgd", cross_entropy())
