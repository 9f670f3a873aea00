"""Teachers: a cache, an ensemble, a frozen one, a function."""

import pathlib

import keras
import numpy as np

import keras_distill as kd


def cache(teacher: keras.Model, samples: kd.data.Samples) -> kd.CachedTeacher:
    """Cache a teacher and read it."""
    cached = kd.CachedTeacher(
        pathlib.Path("cache"),
        teacher,
        taps=["logits", kd.Tap("stack2")],
        top_k=5,
        temperature=4.0,
    )
    cached.build(samples, 64, verbose=0)
    train = cached.join(kd.data.batches(samples, 64, sample_ids=True))
    arrays = cached.join({"image": samples.images, "sample_id": samples.ids})
    values: np.ndarray = cached.read(np.array([3, 1]))["logits"]["all"]
    student = keras.models.clone_model(teacher)
    distiller = kd.Distiller(student, cached, student_inputs="image")
    distiller.fit(train, epochs=1)
    distiller.fit(arrays, samples.labels)
    print(values.shape, cached.distance, cached.bytes_per_sample)
    return cached


def teachers(models: list[keras.Model], student: keras.Model) -> list[kd.BaseTeacher]:
    """Return a teacher of each kind."""
    frozen: keras.Model = kd.freeze(models[0], np.zeros((8, 28, 28, 1)))
    return [
        kd.Teacher(frozen, portions=4),
        kd.freeze(kd.EnsembleTeacher(models), np.zeros((8, 28, 28, 1))),
        kd.EnsembleTeacher(models),
        kd.MeanTeacher(student, decay=0.99),
        kd.FunctionTeacher(lambda x: np.zeros((len(x), 10)), shapes=(10,)),
        kd.GivenTeacher(logits="teacher_logits"),
    ]
