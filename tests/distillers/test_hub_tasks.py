"""Tasks of keras_hub with preprocessing of their own, on both sides and on one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd
from tests import hub_tasks
from tests.backends import hub
from tests.hub_tasks import IMAGES, LABELS, TEXTS

pytestmark = pytest.mark.filterwarnings("ignore")


MARKS = {name: () if name == "vit" else pytest.mark.long for name in hub_tasks.TASKS}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=mark) for name, mark in MARKS.items()]
)
def test_a_distiller_gives_what_the_task_gives(name):
    hub.check(name)


def compiled(distiller, loss=None):
    distiller.compile(keras.optimizers.SGD(0.0), loss)
    return distiller


def soft_target(distiller, x, **arguments):
    arguments = {"verbose": 0, **arguments}
    return compiled(distiller).fit(x, **arguments).history["soft_target"][0]


def nets(student=None, teacher=None):
    """Return two small ViTs of other sizes and scales."""
    keras.utils.set_random_seed(0)
    made = []
    for seed, arguments in enumerate((student or {}, teacher or {})):
        made.append(hub_tasks.vit(1, **arguments))
        hub_tasks.randomize(made[-1], seed)
    return made


def expected(teacher, student):
    values = (
        m if isinstance(m, np.ndarray) else m.predict(IMAGES)
        for m in (teacher, student)
    )
    return pytest.approx(hub.divergence(*values).mean(), rel=1e-3)


def test_each_has_its_own_resolution_and_scale():
    student, teacher = nets({"size": 8}, {"size": 16, "scale": 1 / 100.0})
    distiller = kd.Distiller(student, teacher, label_weight=0.0)
    assert soft_target(distiller, IMAGES) == expected(teacher, student)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_one_side_alone_preprocesses(side):
    """The other takes the raw images, as it would by itself."""
    student, teacher = nets({"size": 16}, {"size": 24})
    plain = nets({"size": 24})[0]
    plain.preprocessor = None
    pair = (plain, teacher) if side == "teacher" else (student, plain)
    distiller = kd.Distiller(*pair, label_weight=0.0)
    assert soft_target(distiller, IMAGES, batch_size=8) == expected(*pair[::-1])
    np.testing.assert_array_equal(distiller.predict(IMAGES), pair[0].predict(IMAGES))


@pytest.mark.long
def test_members_of_an_ensemble_have_their_own():
    student, first = nets({"size": 8}, {"size": 16})
    second = nets({"size": 24, "scale": 1 / 50.0})[0]
    teacher = kd.EnsembleTeacher([first, second], average="geometric")
    distiller = kd.Distiller(student, teacher, label_weight=0.0)
    mean = (first.predict(IMAGES) + second.predict(IMAGES)) / 2
    assert soft_target(distiller, IMAGES) == expected(mean, student)


@pytest.mark.long
def test_peers_have_their_own():
    peers = nets({"size": 8}, {"size": 16})
    peers[0].name, peers[1].name = "small", "large"
    mutual = compiled(kd.MutualDistiller(peers), hub.cross_entropy())
    logs = mutual.fit(IMAGES, LABELS, verbose=0, validation_data=(IMAGES, LABELS))
    found = logs.history["small_soft_target_from_large"][0]
    gap = hub.divergence(*(p.predict(IMAGES) for p in peers[::-1]), temperature=1.0)
    assert found == pytest.approx(gap.mean(), rel=1e-3)
    for peer, predicted in zip(peers, mutual.predict(IMAGES), strict=True):
        np.testing.assert_array_equal(predicted, peer.predict(IMAGES))
        peer.compile("sgd", hub.cross_entropy())
        own = peer.evaluate(IMAGES, LABELS, return_dict=True, verbose=0)
        assert logs.history[f"val_{peer.name}_loss"][0] == pytest.approx(own["loss"])


@pytest.mark.long
def test_a_task_that_distils_itself():
    net = hub_tasks.resnet(1)
    exits = [net.pooler.name]
    distiller = compiled(kd.SelfDistiller(net, exits), hub.cross_entropy())
    distiller.fit(IMAGES, LABELS, verbose=0)
    found = distiller.predict(IMAGES)["deepest"]
    np.testing.assert_allclose(found, net.predict(IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_copies_keep_the_preprocessing():
    """A mean of the student, and a frozen teacher, which Keras copies without it."""
    student, teacher = hub_tasks.pair("resnet")
    frozen = kd.freeze(teacher, teacher.preprocessor(IMAGES))
    distiller = kd.Distiller(student, frozen, label_weight=0.0)
    assert soft_target(distiller, IMAGES) == expected(teacher, student)
    distiller = kd.Distiller(student, kd.MeanTeacher(student), label_weight=0.0)
    assert soft_target(distiller, IMAGES) == pytest.approx(0.0, abs=1e-5)


def test_equal_preprocessors_run_once_and_other_vocabularies_twice():
    from keras_distill.data.preparation import Preparation

    def runs(student, teacher):
        distiller = kd.Distiller(student, teacher)
        counts = []
        for model in (student, teacher):
            own = model.preprocess_samples

            def counted(*arguments, own=own):
                counts.append(1)
                return own(*arguments)

            counted.__self__ = model
            model.preprocess_samples = counted
        prepare = Preparation(distiller.entry, training=True, teach=True)
        prepare(TEXTS)
        return len(counts)

    other = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *hub_tasks.WORDS[::-1]]
    assert runs(hub_tasks.bert(1), hub_tasks.bert(1)) == 1
    assert runs(hub_tasks.bert(1), hub_tasks.bert(1, length=10)) == 2
    assert runs(hub_tasks.bert(1), hub_tasks.bert(1, words=other)) == 2


FORMS = {
    "list": lambda: (TEXTS, LABELS),
    "array": lambda: (np.array(TEXTS), LABELS),
    "tf.data": lambda: (tf.data.Dataset.from_tensor_slices((TEXTS, LABELS)).batch(8),),
    "generator": lambda: (((np.array(TEXTS), LABELS) for _ in range(2)),),
}


@pytest.fixture(scope="module")
def texts():
    """A distiller of text classifiers that learns nothing, and its divergences."""
    student, teacher = hub_tasks.pair("bert")
    distiller = compiled(kd.Distiller(student, teacher), hub.cross_entropy())
    return distiller, hub.divergence(
        *(hub.logits(m, TEXTS) for m in (teacher, student))
    )


@pytest.mark.long
def test_texts_come_in_any_form(texts):
    distiller, gap = texts
    for kind, data in FORMS.items():
        found = distiller.fit(*data(), verbose=0).history["soft_target"][0]
        assert found == pytest.approx(gap.mean(), rel=1e-3), kind


@pytest.mark.long
def test_texts_have_weights_and_a_validation_split(texts):
    distiller, gap = texts
    weights = np.linspace(0.5, 1.0, 8)
    logs = distiller.fit(TEXTS, sample_weight=weights, y=LABELS, verbose=0).history
    assert logs["soft_target"][0] == pytest.approx((weights * gap).mean(), rel=1e-3)
    logs = distiller.fit(TEXTS, LABELS, validation_split=0.25, verbose=0).history
    last = TEXTS[6:], LABELS[6:]
    own = distiller.student.evaluate(*last, verbose=0, return_dict=True)
    assert {"loss"} < set(own)
    for name, value in own.items():
        assert logs[f"val_{name}"][0] == pytest.approx(value, rel=1e-5)


def test_keys_select_raw_inputs_and_ids():
    student, teacher = hub_tasks.pair("bert")
    data = {"text": np.array(TEXTS), "sample_id": np.arange(8)}
    keys = {"student_inputs": "text", "teacher_inputs": "text"}
    distiller = kd.Distiller(
        student, teacher, sample_ids="sample_id", label_weight=0.0, **keys
    )
    gap = hub.divergence(*(hub.logits(m, TEXTS) for m in (teacher, student)))
    assert soft_target(distiller, data) == pytest.approx(gap.mean(), rel=1e-3)
    np.testing.assert_array_equal(distiller.predict(TEXTS), hub.logits(student, TEXTS))


def test_a_shared_random_layer_augments_raw_images():
    """The same net on both sides sees the same, flipped or not."""
    student, teacher = nets()
    teacher.set_weights(student.get_weights())
    layer = keras.layers.RandomFlip("horizontal", seed=0)
    distiller = kd.Distiller(student, teacher, inputs=layer, label_weight=0.0)
    assert soft_target(distiller, IMAGES) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.long
def test_caches_and_specialists_of_tasks_say_what_to_do(tmp_path):
    task = nets()[0]
    # Softmax is refused in front of it.
    task.layers[-1].activation = keras.activations.linear
    samples = kd.data.Samples(IMAGES, LABELS)
    compiled = {"optimizer": "sgd", "loss": hub.cross_entropy()}
    for make in (
        lambda: kd.CachedTeacher(tmp_path / "c", task),
        lambda: kd.fit_specialists(task, [[0]], samples, compiled=compiled),
    ):
        with pytest.raises(ValueError, match=r"preprocess.*preprocessor = None"):
            make()


@pytest.mark.parametrize("side", [0, 1])
def test_texts_to_a_model_without_a_preprocessor_name_it(side):
    pair = [hub_tasks.bert(8), hub_tasks.bert(8)]
    pair[side].preprocessor = None
    distiller = compiled(kd.Distiller(*pair, label_weight=0.0))
    with pytest.raises(TypeError, match=f"'{pair[side].name}' has no preprocessor"):
        distiller.fit(TEXTS, verbose=0)


@pytest.mark.long
def test_without_a_preprocessor_a_task_takes_tensors():
    student, teacher = hub_tasks.pair("bert")
    tensors = student.preprocessor(TEXTS)
    tensors = keras.tree.map_structure(keras.ops.convert_to_numpy, tensors)
    student.preprocessor = teacher.preprocessor = None
    distiller = kd.Distiller(student, teacher, label_weight=0.0)
    gap = hub.divergence(*(m.predict(tensors, verbose=0) for m in (teacher, student)))
    assert soft_target(distiller, tensors) == pytest.approx(gap.mean(), rel=1e-3)
