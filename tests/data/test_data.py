"""Datasets by name, batches and transfer sets."""

import sys

import keras
import numpy as np
import pytest

import keras_distill as kd


@pytest.fixture(scope="module")
def digits():
    return kd.data.load("digits")


def test_digits_are_scikit_learns(digits):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    assert len(digits.train) == 1438 and len(digits.test) == 359
    np.testing.assert_array_equal(digits.test.labels, labels[4::5])
    np.testing.assert_allclose(digits.test.images[3].ravel() * 16, images[19])
    assert digits.input_shape == (8, 8, 1) and digits.classes == 10


def test_splits_and_transfer_sets_keep_ids(digits):
    rest, held_out = digits.train.split(0.25, seed=1)
    assert len(held_out) == 360 and len(rest) == 1078
    assert set(rest.ids) | set(held_out.ids) == set(range(1438))
    np.testing.assert_array_equal(digits.train.labels[held_out.ids], held_out.labels)
    few = digits.train.only([7, 8])
    assert set(few.labels) == {7, 8}
    assert len(few) + len(digits.train.without([7, 8])) == 1438
    with pytest.raises(ValueError, match="between 0 and 1"):
        digits.train.split(1.5)


def test_few_are_drawn_by_seed_without_repeats(digits):
    few = digits.train.few(200, seed=1)
    assert len(set(few.ids)) == len(few) == 200
    np.testing.assert_array_equal(digits.train.labels[few.ids], few.labels)
    np.testing.assert_array_equal(few.ids, digits.train.few(200, seed=1).ids)
    assert set(few.ids) != set(digits.train.few(200, seed=2).ids)
    for count in (0, 1439):
        with pytest.raises(ValueError, match=f"1 to 1438.*got {count}"):
            digits.train.few(count)


def test_batches_carry_ids_through_shuffling_and_augmentation(digits):
    flip = keras.layers.RandomFlip("horizontal", seed=0)
    train = kd.data.batches(
        digits.train, 100, shuffle=True, seed=3, augment=flip, sample_ids=True
    )
    orders = []
    for _ in range(2):
        ids = []
        for x, y in train:
            ids.append(np.array(x["sample_id"]))
            np.testing.assert_array_equal(y, digits.train.labels[ids[-1]])
            original, image = digits.train.images[ids[-1]], np.array(x["image"])
            same = (original == image).all((1, 2, 3))
            flipped = (original[:, :, ::-1] == image).all((1, 2, 3))
            assert (same | flipped).all()
        orders.append(np.concatenate(ids))
        assert sorted(orders[-1]) == list(range(1438))
    assert (orders[0] != orders[1]).any()


def test_batches_have_no_tuning_that_delays_an_epochs_end(digits):
    train = kd.data.batches(digits.train, 64)
    assert train.options().autotune.enabled is False
    mapped = train.map(lambda x, y: (x, y)).prefetch(2)
    assert mapped.options().autotune.enabled is False


def test_sizes(digits):
    assert len(kd.data.batches(digits.train, 100)) == 15
    assert len(kd.data.batches(digits.train, 100, drop_remainder=True)) == 14
    with pytest.raises(ValueError, match="got no samples"):
        kd.data.batches(digits.train[:0])
    with pytest.raises(ValueError, match="same length"):
        kd.data.Samples(digits.train.images, digits.test.labels)


def test_an_unknown_dataset_is_an_error(tmp_path):
    message = r"'no_such_set' could not be loaded.*TFDS_DATA_DIR"
    with pytest.raises(ValueError, match=message):
        kd.data.load("no_such_set", data_dir=str(tmp_path))


@pytest.mark.long
def test_mnist_by_name():
    import tensorflow_datasets as tfds

    try:
        tfds.builder("mnist").as_dataset(split="test[:1]")
    except Exception:
        pytest.skip("MNIST is not prepared here; set TFDS_DATA_DIR to a folder with it")
    mnist = kd.data.load("mnist")
    assert mnist.input_shape == (28, 28, 1) and len(mnist.train) == 60_000
    assert mnist.train.images.max() == 1.0 and (mnist.test.labels == 3).sum() == 1010


def test_augmentation_repeats_with_its_seed(digits):
    """Random numbers must not depend on the order of threads."""

    def draw():
        jitter = keras.layers.RandomTranslation(0.5, 0.5, seed=1)
        train = kd.data.batches(digits.train, 16, shuffle=True, seed=2, augment=jitter)
        return np.concatenate([x.numpy() for x, _ in train])

    first = draw()
    for _ in range(3):
        np.testing.assert_array_equal(draw(), first)


def test_batches_without_tensorflow_name_it(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(
        ImportError, match=r"pip install \"keras-distill\[tensorflow\]\""
    ):
        kd.data.batches(digits.train)
