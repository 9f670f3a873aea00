"""The first batch of data of any kind is looked at, and the data stay as they were."""

import random

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.training.first_batch import data_and_batch
from tests.linear import linear

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 24)
WRONG = {
    "inputs": (np.full_like(X, np.nan), Y, "x is not finite"),
    "labels": (X, Y + 3, r"Labels must lie in 0\.\.2"),
}


class Parts(keras.utils.PyDataset):
    """Three batches of arrays."""

    num_batches = 3

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __getitem__(self, index):
        return tuple(x[8 * index : 8 * index + 8] for x in self.arrays)


def dataset(*arrays):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(arrays).batch(8)


def loader(*arrays, **options):
    torch = pytest.importorskip("torch")
    samples = torch.utils.data.TensorDataset(*map(torch.tensor, arrays))
    return torch.utils.data.DataLoader(samples, 8, shuffle=True, **options)


KINDS = {"PyDataset": Parts, "tf.data": dataset, "DataLoader": loader}


def distiller():
    model = kd.Distiller(linear("student"), linear("teacher"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_is_refused(kind, wrong):
    *arrays, message = WRONG[wrong]
    data, model = KINDS[kind](*arrays), distiller()
    with pytest.raises(ValueError, match=message):
        model.fit(data, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.evaluate(data, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, validation_data=data, verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_right_is_evaluated_whole(kind):
    model = distiller()
    expected = model.evaluate(X, Y, verbose=0)
    found = model.evaluate(KINDS[kind](X, Y), verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("has_own", [False, True])
def test_no_generator_moves(has_own):
    torch = pytest.importorskip("torch")

    class Augmented(torch.utils.data.Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, index):
            noise = random.random() + np.random.normal() + torch.rand(())
            return torch.tensor(X[index]) + noise, int(Y[index])

    own = torch.Generator().manual_seed(3) if has_own else None
    data = torch.utils.data.DataLoader(Augmented(), 8, shuffle=True, generator=own)

    def states():
        found = [torch.get_rng_state(), own.get_state() if has_own else torch.ones(1)]
        numbers = random.getstate()[1], np.random.get_state()[1].tolist()
        return [*(x.tolist() for x in found), *numbers]

    before = states()
    _, (inputs, labels) = data_and_batch(data, None)
    assert states() == before
    assert inputs.shape == (8, 4) and labels.shape == (8,)


def test_a_loader_of_batches_and_one_that_reads_on():
    torch = pytest.importorskip("torch")

    class Batches(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.tensor(X[:8]), torch.tensor(Y[:8])

    class Read(torch.utils.data.IterableDataset):
        def __iter__(self):
            raise RuntimeError("was read")

    whole = torch.utils.data.DataLoader(Batches(), batch_size=None)
    _, (inputs, _) = data_and_batch(whole, None)
    np.testing.assert_array_equal(inputs, X[:8])
    assert data_and_batch(torch.utils.data.DataLoader(Read(), 8), None)[1] is None


def test_an_empty_loader_is_refused():
    with pytest.raises(ValueError, match="data are empty"):
        data_and_batch(loader(X[:4], Y[:4], drop_last=True), None)
