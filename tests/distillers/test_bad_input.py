"""Each bad input is refused before the first step, with what to do about it."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from tests.nets import conv_pair


def dense(classes=3, activation=None, name=None, size=4):
    layer = layers.Dense(classes, activation, name="head")
    return keras.Sequential([keras.Input((size,)), layer], name=name)


X, Y = np.zeros((8, 4), "float32"), np.arange(8) % 3
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def hint(student, teacher, **arguments):
    net, other = conv_pair()
    term = kd.Term(kd.losses.Hint(), student, teacher, **arguments)
    return kd.Distiller(net, other, terms=[term])


def fit(distiller=None, x=X, y=Y, loss=CROSS_ENTROPY, **arguments):
    distiller = distiller or kd.Distiller(dense(), dense())
    distiller.compile("sgd", loss)
    return distiller.fit(x, y, verbose=0, **arguments)


class NotInitialized(kd.losses.DistillationLoss):
    """A loss whose constructor leaves out that of its base."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def call(self, teacher, student):
        return self.scale * (teacher - student)[:, 0]


class OfNames(kd.BaseTeacher):
    """A teacher that returns its knowledge by name, not by tap."""

    def __call__(self, inputs, taps, scores=None):
        return {"logits": keras.ops.zeros((8, 3))}


class OfLogits(kd.BaseTeacher):
    """A teacher that returns logits alone."""

    def __call__(self, inputs, taps, scores=None):
        return keras.ops.zeros((8, 3))


class WithoutScores(kd.BaseTeacher):
    """A teacher whose call lacks an argument."""

    def __call__(self, inputs, taps):
        return {tap: keras.ops.zeros((8, 3)) for tap in taps}


def named(name, metrics=(), loss=CROSS_ENTROPY, outputs=1):
    """Train with a term and metrics of such names."""

    def net(seed):
        x = keras.Input((4,))
        heads = {f"h{i}": layers.Dense(3, name=f"h{i}")(x) for i in range(outputs)}
        return keras.Model(x, heads if outputs > 1 else heads["h0"])

    tap = "logits/h0" if outputs > 1 else "logits"
    term = kd.Term(kd.losses.SoftTarget(), tap, tap, name=name)
    distiller = kd.Distiller(net(0), net(1), terms=[term])
    distiller.compile("sgd", loss, metrics=list(metrics))
    return distiller.fit(X, dict.fromkeys(["h0", "h1"], Y) if outputs > 1 else Y)


def own_metric_of_a_terms_name():
    class Student(keras.Model):
        def compute_metrics(self, *args, **kwargs):
            return {**super().compute_metrics(*args, **kwargs), "size": 1.0}

    x = keras.Input((4,))
    term = kd.Term(kd.losses.SoftTarget(), name="size")
    student = Student(x, layers.Dense(3)(x))
    fit(kd.Distiller(student, dense(), terms=[term]))


def fit_peers(*names, term="soft"):
    peers = [dense(name=name) for name in names]
    term = kd.Term(kd.losses.SoftTarget(1.0), name=term)
    fit(kd.MutualDistiller(peers, [term]))


class Unbuilt(keras.Model):
    """A subclassed model that was never called."""

    def __init__(self):
        super().__init__(name="unbuilt")
        self.head = layers.Dense(3)

    def call(self, inputs):
        return self.head(inputs)


def same_twice():
    model = dense(name="one")
    return kd.Distiller(model, model)


def two_of_a_name():
    terms = [kd.Term(kd.losses.SoftTarget()), kd.Term(kd.losses.SoftTarget(2.0))]
    return kd.Distiller(dense(), dense(), terms=terms)


def mean_error(y, y_pred):
    return keras.ops.mean(y_pred, axis=-1)


def bare_function(teacher, student):
    return student - teacher


def ends_in_softmax_layer():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Softmax()])


def first_look_at(student, teacher):
    distiller = kd.Distiller(student, teacher, label_weight=0.0)
    distiller.compile("sgd")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    return distiller.fit(x, verbose=0)


def nested_softmax():
    inputs = keras.Input((4,))
    return keras.Model(inputs, dense(activation="softmax")(inputs), name="outer")


BAD = {
    "no such layer": (
        lambda: hint("stack3", "stack2"),
        ["no layer 'stack3'", "stack2", "'student'"],
    ),
    "no such layer of the teacher": (
        lambda: hint("stack1", "block/stack2"),
        ["'teacher'", "no layer 'block/stack2'", "stack2"],
    ),
    "a call that does not happen": (
        lambda: hint(kd.Tap("stack1", call=1), "stack1"),
        ["'stack1'", "called 1 times", "call 1"],
    ),
    "map and vector": (
        lambda: hint("stack1", "logits"),
        ["Term 'hint'", "'stack1'", "no adapter joins", "(None, 8, 8, 4)"],
    ),
    "no adapter, other channels": (
        lambda: hint("stack1", "stack1", adapter=None),
        ["Term 'hint'", "must agree", "adapter='auto'"],
    ),
    "an adapter that does not fit": (
        lambda: hint("stack1", "stack1", adapter=layers.Conv2D(5, 1)),
        ["Term 'hint'", "(None, 8, 8, 5)", "(None, 8, 8, 6)"],
    ),
    "places in a vector": (
        lambda: kd.Distiller(
            dense(), dense(), terms=[kd.Term(kd.losses.AttentionMap(), "head", "head")]
        ),
        ["attention_map", "needs maps"],
    ),
    "other classes": (
        lambda: kd.Distiller(dense(3), dense(4)),
        ["class counts differ", "3 logits", "teacher 4"],
    ),
    "other numbers of outputs": (
        lambda: kd.Distiller(dense(1), dense(4)),
        ["numbers of outputs differ", "1 of the student", "4 of the teacher"],
    ),
    "samples that are not batched": (
        lambda: fit(x=tf.data.Dataset.from_tensor_slices((X, Y)), y=None),
        ["y is a scalar", "call .batch(n)"],
    ),
    "a dict for a student of one input": (
        lambda: fit(x={"image": X, "sample_id": Y}),
        ["takes one input", "['image', 'sample_id']", "student_inputs='image'"],
    ),
    "teacher ends in softmax": (
        lambda: first_look_at(dense(), dense(activation="softmax", name="soft")),
        ["teacher's 'logits' of 'soft'", "probabilities", "kd.as_logits"],
    ),
    "student ends in a softmax layer": (
        lambda: first_look_at(ends_in_softmax_layer(), dense()),
        ["student's 'logits'", "probabilities", "softmax"],
    ),
    "softmax of a nested model": (
        lambda: first_look_at(dense(), nested_softmax()),
        ["teacher's 'logits' of 'outer'", "probabilities"],
    ),
    "temperature 0": (
        lambda: kd.losses.SoftTarget(temperature=0.0),
        ["temperature must be above 0", "got 0"],
    ),
    "temperature not a number": (
        lambda: kd.losses.SoftTarget(temperature=float("nan")),
        ["temperature must be finite", "got nan"],
    ),
    "schedule that starts below 0": (
        lambda: kd.losses.SoftTarget(
            keras.optimizers.schedules.PolynomialDecay(-1.0, 4, 1.0)
        ),
        ["temperature must be above 0", "got -1"],
    ),
    "negative weight": (
        lambda: kd.Term(kd.losses.SoftTarget(), weight=-1.0),
        ["weight of term 'soft_target'", "got -1"],
    ),
    "negative label weight": (
        lambda: kd.Distiller(dense(), dense(), label_weight=-0.1),
        ["label_weight must be 0 or more", "-0.1"],
    ),
    "unbuilt teacher": (
        lambda: kd.Distiller(dense(), Unbuilt()),
        ["teacher 'unbuilt' is not built"],
    ),
    "one model as both": (same_twice, ["same object, 'one'", "clone_model"]),
    "a member of the ensemble as student": (
        lambda: kd.Distiller(
            (model := dense(name="one")), kd.EnsembleTeacher([model, dense()])
        ),
        ["same object, 'one'"],
    ),
    "a bare function": (
        lambda: kd.Term(bare_function),
        ["bare_function", "kd.losses.DistillationLoss"],
    ),
    "a weight without end": (
        lambda: kd.Term(kd.losses.SoftTarget(), weight=float("inf")),
        ["weight of term 'soft_target' must be finite", "got inf"],
    ),
    "a schedule of weights that starts at NaN": (
        lambda: kd.Term(
            kd.losses.Hint(),
            weight=keras.optimizers.schedules.PolynomialDecay(float("nan"), 4),
        ),
        ["weight of term 'hint' must be finite", "got nan"],
    ),
    "an infinite label weight": (
        lambda: kd.Distiller(dense(), dense(), label_weight=float("inf")),
        ["label_weight must be finite"],
    ),
    "an infinite temperature": (
        lambda: kd.losses.BinarySoftTarget(float("inf")),
        ["temperature must be finite", "got inf"],
    ),
    "gradients of a layer": (
        lambda: kd.Term(kd.losses.Jacobian()),
        ["Jacobian of term 'jacobian'", "'logits'", "kd.Tap.input_gradient"],
    ),
    "a gradient and a layer": (
        lambda: kd.Term(kd.losses.GradientAttention(), kd.Tap.input_gradient(), "head"),
        ["GradientAttention of term", "'head'", "kd.Tap.input_gradient"],
    ),
    "layers for mirrored gradients": (
        lambda: kd.Term(kd.losses.FlipSymmetry(), student=("head", "head")),
        ["FlipSymmetry of term", "'head'", "mirrored=True"],
    ),
    "logits of a gradient": (
        lambda: kd.Term(
            kd.losses.SoftTarget(), kd.Tap.input_gradient(), kd.Tap.input_gradient()
        ),
        ["SoftTarget of term", "compares logits", "GradientAttention"],
    ),
    "two terms of one name": (two_of_a_name, ["soft_target", "different names"]),
    "the name of a metric": (
        lambda: named("accuracy", ["accuracy"]),
        ["['accuracy']", "Keras logs", "name="],
    ),
    "the name of a metric object": (
        lambda: named("mine", [keras.metrics.SparseCategoricalAccuracy(name="mine")]),
        ["['mine']", "Keras logs"],
    ),
    "the name of a function": (
        lambda: named("mean_error", [mean_error]),
        ["['mean_error']", "Keras logs"],
    ),
    "the name of an output's loss": (
        lambda: named(
            "h1_loss", outputs=2, loss=dict.fromkeys(["h0", "h1"], CROSS_ENTROPY)
        ),
        ["['h1_loss']", "Keras logs"],
    ),
    "the name of an output's metric": (
        lambda: named("h0_mse", [["mse"], ["mae"]], None, 2),
        ["['h0_mse']", "Keras logs"],
    ),
    "the name of a metric of the student's own": (
        own_metric_of_a_terms_name,
        ["['size']", "Keras logs"],
    ),
    "a name of validation": (
        lambda: kd.Term(kd.losses.SoftTarget(), name="val_soft"),
        ["'val_soft'", "validation"],
    ),
    "a name that a callback logs": (
        lambda: kd.Term(kd.losses.SoftTarget(), name="learning_rate"),
        ["'learning_rate'", "which the logs use"],
    ),
    "the name of a callback's column": (
        lambda: kd.Term(kd.losses.SoftTarget(), name="epoch"),
        ["'epoch'", "which the logs use"],
    ),
    "a name that file names are formatted with": (
        lambda: kd.Term(kd.losses.SoftTarget(), name="batch"),
        ["'batch'", "which the logs use"],
    ),
    "peers of validation's name": (
        lambda: fit_peers("val", "other"),
        ["val_loss", "the peers"],
    ),
    "peers whose logs have one name": (
        lambda: fit_peers("a", "a_soft_from_a", term="soft"),
        ["a_soft_from_a", "the peers"],
    ),
    "an export of several": (
        lambda: kd.MutualDistiller([dense(name="a"), dense(name="b")]).export("file"),
        ["['a', 'b']", "peers[0].export"],
    ),
    "a name of the logs": (
        lambda: kd.Term(kd.losses.SoftTarget(), name="loss"),
        ["'loss'", "which the logs use"],
    ),
    "one tap for two layers": (
        lambda: kd.Term(kd.losses.FlowMatrix(), "stack1", ("stack1", "stack2")),
        ["compares 2 layer(s)", "student="],
    ),
    "a loss on probabilities": (
        lambda: fit(loss=keras.losses.SparseCategoricalCrossentropy()),
        ["returns logits", "from_logits=True"],
    ),
    "a loss on probabilities by name": (
        lambda: fit(loss="sparse_categorical_crossentropy"),
        ["returns logits", "from_logits=True"],
    ),
    "labels outside the classes": (lambda: fit(y=Y + 1), ["0..2", "[3]"]),
    "negative labels": (lambda: fit(y=Y - 1), ["0..2", "[-1]"]),
    "labels outside, in a data set": (
        lambda: fit(x=tf.data.Dataset.from_tensor_slices((X, Y + 5)).batch(4), y=None),
        ["0..2", "[5, 6, 7]"],
    ),
    "labels outside, in a generator": (
        lambda: fit(x=((X, Y + 5) for _ in range(2)), y=None),
        ["0..2", "[5, 6, 7]"],
    ),
    "empty arrays": (lambda: fit(x=X[:0], y=Y[:0]), ["data are empty"]),
    "an empty data set": (
        lambda: fit(x=tf.data.Dataset.from_tensor_slices((X, Y)).take(0), y=None),
        ["data are empty"],
    ),
    "no labels for a loss": (
        lambda: fit(x=X, y=None),
        ["the data have none", "label_weight=0"],
    ),
    "no such part of the batch": (
        lambda: fit(
            kd.Distiller(dense(), dense(), student_inputs="depth", teacher_inputs="a"),
            x={"a": X},
        ),
        ["no part 'depth'", "['a']"],
    ),
    "no such output": (
        lambda: kd.Distiller(
            dense(), dense(), terms=[kd.Term(kd.losses.SoftTarget(), "logits/kind")]
        ),
        ["no output 'kind'"],
    ),
}


@pytest.mark.parametrize("make, words", BAD.values(), ids=BAD)
def test_is_refused(make, words):
    with pytest.raises(ValueError) as error:
        make()
    for word in words:
        assert word in str(error.value)
    assert "Exception encountered when calling" not in str(error.value)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: kd.Distiller("net", dense()), ["student must be a keras.Model"]),
        (lambda: kd.Distiller(dense(), "net"), ["teacher is a keras.Model"]),
        (
            lambda: kd.Distiller(dense(), dense(), terms=[kd.losses.Hint()]),
            ["list of kd.Term"],
        ),
        (lambda: kd.Term(kd.losses.Hint(), adapter="dense"), ["'auto', None or a"]),
        (lambda: kd.Term(kd.losses.Hint(), student=3), ["layer path"]),
        (
            lambda: kd.Term(kd.losses.Hint(), weight="1"),
            ["weight of term 'hint' must be a number", "'1'"],
        ),
        (lambda: kd.losses.SoftTarget("4"), ["temperature must be a number", "'4'"]),
        (
            lambda: kd.Distiller(dense(), dense(), label_weight="1"),
            ["label_weight must be a number", "'1'"],
        ),
        (
            lambda: kd.losses.DecoupledTarget(alpha="1"),
            ["alpha must be a number", "'1'"],
        ),
        (
            lambda: kd.Distiller(
                dense(), dense(), terms=kd.Term(kd.losses.SoftTarget())
            ),
            ["terms is a list", "'soft_target' itself", "terms=["],
        ),
        (
            lambda: kd.MutualDistiller(
                [dense(name="a"), dense(name="b")], kd.Term(kd.losses.SoftTarget())
            ),
            ["terms is a list", "terms=["],
        ),
        (
            lambda: kd.Term(NotInitialized()),
            ["NotInitialized was not initialized", "super().__init__"],
        ),
        (
            lambda: kd.Distiller(dense(), OfNames()).bind_to(X),
            ["OfNames", "dict from each of the taps", "['logits']"],
        ),
        (
            lambda: kd.Distiller(dense(), OfLogits()).bind_to(X),
            ["OfLogits", "dict from each of the taps"],
        ),
        (
            lambda: kd.Distiller(dense(), WithoutScores()),
            ["WithoutScores", "(inputs, taps)", "scores=None"],
        ),
        (
            lambda: kd.Distiller(dense(), lambda x: x),
            ["got function", "kd.FunctionTeacher(function)"],
        ),
    ],
)
def test_wrong_types_are_refused(make, words):
    with pytest.raises(TypeError) as error:
        make()
    for word in words:
        assert word in str(error.value)


def test_a_generator_runs_to_its_end():
    def batches():
        for i in range(3):
            yield X[:4] + i, Y[:4]

    distiller = kd.Distiller(dense(), dense())
    distiller.compile("sgd", CROSS_ENTROPY)
    distiller.fit(batches(), verbose=0)
    # Keras's own step would count one more where the data end.
    assert int(distiller.optimizer.iterations) == 3


def test_ignored_labels_may_lie_outside():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    y = np.where(Y == 0, -1, Y)
    assert np.isfinite(fit(y=y, loss=loss).history["loss"][0])


def test_probabilities_are_fine_where_no_term_takes_logits():
    x = np.zeros((4, 4), "float32")
    term = kd.Term(kd.losses.Hint(), "hidden", "hidden")

    def net():
        hidden = layers.Dense(5, name="hidden")
        head = layers.Dense(3, "softmax")
        return keras.Sequential([keras.Input((4,)), hidden, head])

    distiller = kd.Distiller(net(), net(), terms=[term])
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    assert np.isfinite(distiller.fit(x, Y[:4], verbose=0).history["loss"][0])


@pytest.mark.parametrize("how", [{}, {"jit_compile": True}], ids=str)
def test_logits_that_are_not_finite_stop_training(tmp_path, how):
    teacher = dense(name="teacher")
    distiller = kd.Distiller(dense(), teacher)
    distiller.compile("sgd", CROSS_ENTROPY, **how)
    x = np.ones((16, 4), "float32")
    x[9] = np.inf
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "{batch}.weights.h5", save_freq=1, save_weights_only=True
    )
    # Of batches the first alone is looked at before the training.
    batches = tf.data.Dataset.from_tensor_slices((x, np.zeros(16))).batch(4)
    with pytest.raises(
        ValueError, match="call 3 of the step: label_loss, soft_target are not"
    ):
        distiller.fit(batches, callbacks=[checkpoint], verbose=0)
    saved = sorted(file.name for file in tmp_path.iterdir())
    assert saved == ["1.weights.h5", "2.weights.h5"]
    distiller.load_weights(tmp_path / "2.weights.h5")
    assert all(np.isfinite(np.array(v)).all() for v in distiller.variables)


def test_the_student_can_be_looked_at_when_its_loss_is_not_finite():
    """On JAX too, where a step gives the memory of the weights before it away."""
    x = np.ones((16, 4), "float32")
    x[4:] = np.inf
    student = dense()
    distiller = kd.Distiller(student, dense(name="teacher"))
    distiller.compile("sgd", CROSS_ENTROPY)
    with pytest.raises(ValueError, match="not finite"):
        batches = tf.data.Dataset.from_tensor_slices((x, np.zeros(16))).batch(4)
        distiller.fit(batches, verbose=0)
    assert len(student.get_weights()) == len(student.weights)
    student.set_weights([np.zeros(w.shape) for w in student.weights])
    history = distiller.fit(X[:8], Y[:8], verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_own_callbacks_are_in_a_users_list_once():
    distiller = kd.Distiller(dense(), dense(name="teacher"))
    distiller.compile("sgd", CROSS_ENTROPY)
    listed = keras.callbacks.CallbackList(add_history=True, model=distiller)
    for _ in range(2):
        distiller.fit(X[:8], Y[:8], verbose=0, callbacks=listed)
    kinds = [type(callback).__name__ for callback in listed.callbacks]
    assert kinds.count("StopAtNotFinite") == 1


def test_the_term_that_is_not_finite_is_named():
    teacher = dense(name="teacher")
    teacher.layers[-1].bias.assign([np.nan, 0, 0])
    with pytest.raises(ValueError, match="'soft_target' compares, is not finite"):
        fit(kd.Distiller(dense(), teacher))


@pytest.mark.parametrize(
    "weight, metrics, warns",
    [
        (1.0, [], True),
        (0.3, ["accuracy"], True),
        (1.0, ["accuracy"], False),
        (0.0, [], False),
    ],
)
def test_labels_that_nothing_uses_are_told_of_once(weight, metrics, warns):
    distiller = kd.Distiller(dense(), dense(), label_weight=weight)
    distiller.compile("sgd", metrics=metrics)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            distiller.fit(X, Y, verbose=0)
    told = [w for w in caught if "compile() got no loss" in str(w.message)]
    assert len(told) == warns


def test_a_teacher_of_several_outputs_needs_one_named():
    x = keras.Input((4,))
    teacher = keras.Model(x, {"logits": layers.Dense(3)(x)})
    with pytest.raises(ValueError, match=r"several outputs.*logits/logits"):
        kd.Distiller(dense(), teacher)
