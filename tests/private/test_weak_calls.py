"""Graphs that call Python keep nothing alive but what belongs to them."""

import gc
import weakref

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill._backend.weak_calls import weakly
from keras_distill.teachers.cache import joining
from keras_distill.teachers.cache.reading import Reader
from tests.teachers.cache.test_faults import cache, samples


class Doubling:
    def call(self, x):
        return 2 * x


@pytest.mark.long
def test_a_weak_call_does_not_keep_its_owner():
    owner = Doubling()
    reference, call = weakref.ref(owner), weakly(owner, Doubling.call)
    assert call(3) == 6
    del owner
    gc.collect()
    assert reference() is None
    with pytest.raises(
        RuntimeError, match="The Doubling that this graph calls is gone"
    ):
        call(3)


def student():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(4)(inputs))


def trained(teacher, data, **arguments):
    distiller = kd.Distiller(student(), teacher, label_weight=0.0, **arguments)
    distiller.compile("sgd")
    distiller.fit(data, verbose=0)


@pytest.mark.parametrize("limit", [joining.LIMIT, 0], ids=["in memory", "on disk"])
def test_a_reader_dies_with_its_cache(tmp_path, limit, monkeypatch):
    monkeypatch.setattr(joining, "LIMIT", limit)
    readers, create = [], Reader.__init__

    def noted(reader, *arguments):
        create(reader, *arguments)
        readers.append(weakref.ref(reader))

    monkeypatch.setattr(Reader, "__init__", noted)

    def use():
        cached = cache(tmp_path / "c")
        train = cached.join(kd.data.batches(samples(), 4, sample_ids=True))
        trained(cached, train, student_inputs="image")

    use()
    gc.collect()
    assert readers and not any(reader() for reader in readers)


@pytest.mark.parametrize("limit", [joining.LIMIT, 0], ids=["in memory", "on disk"])
def test_a_dataset_keeps_the_reader_of_a_cache_that_is_gone(
    tmp_path, limit, monkeypatch
):
    monkeypatch.setattr(joining, "LIMIT", limit)

    def joined():
        train = kd.data.batches(samples(), 4, sample_ids=True)
        return cache(tmp_path / "c").join(train).repeat(2).prefetch(1)

    iterator = iter(joined())
    gc.collect()
    assert sum(1 for _ in iterator) == 6


def test_a_function_dies_with_its_teacher():
    def functions():
        function = lambda x: np.zeros((len(x), 4), "float32")  # noqa: E731
        trained(kd.FunctionTeacher(function), samples().images)
        return weakref.ref(function)

    function = functions()
    gc.collect()
    assert function() is None
