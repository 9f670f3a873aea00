"""A distiller and a cache on a backend alone: nothing optional can be imported."""

import sys

import numpy as np

OPTIONAL = {"tensorflow", "tensorflow_datasets", "importlib_resources", "sklearn"}
OPTIONAL |= {"matplotlib"}


class Without:
    """A finder of modules that finds none of some packages, as if not installed."""

    def __init__(self, finder, packages):
        self.finder, self.packages = finder, packages

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.packages:
            return None
        return self.finder.find_spec(name, path, target)


def hide(packages):
    """Make packages look as if they were not installed."""
    sys.meta_path[:] = [Without(finder, set(packages)) for finder in sys.meta_path]


def train(kd, keras, folder):
    """Fit, evaluate and save, then go on from the file with a cache of arrays."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 6)).astype("float32")
    data = kd.data.Samples(x, rng.integers(0, 3, 32))
    student, teacher = (kd.models.mlp((6,), 3, units=(width,)) for width in (4, 8))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller = kd.Distiller(student, teacher)
    distiller.compile("adam", loss, metrics=["accuracy"])
    history = distiller.fit(x, data.labels, epochs=2, verbose=0).history
    assert np.isfinite(distiller.evaluate(x, data.labels, verbose=0)).all()
    assert np.isfinite(history["soft_target"]).all()
    student.save(f"{folder}/student.keras")
    distiller.save(f"{folder}/distiller.keras")
    student = keras.saving.load_model(f"{folder}/student.keras")
    cached = kd.CachedTeacher(f"{folder}/cache", teacher)
    cached.build(data, verbose=0)
    from_cache = kd.Distiller(student, cached, student_inputs="image")
    from_cache.compile("adam", loss)
    inputs = cached.join({"image": x, "sample_id": data.ids})
    history = from_cache.fit(inputs, data.labels, verbose=0).history
    assert np.isfinite(history["soft_target"]).all()
    assert 0 <= kd.analysis.agreement(student, teacher=teacher, samples=data).top <= 1
    return data, student


def errors(kd, data, model):
    """Print the error of each function that needs an optional package."""
    calls = {
        "data.batches": lambda: kd.data.batches(data),
        "data.Views": lambda: kd.data.Views(lambda x, seed: x, 2).drawn(None),
        "data.load": lambda: kd.data.load("mnist"),
        "data.load digits": lambda: kd.data.load("digits"),
        "cluster_classes": lambda: kd.cluster_classes(np.eye(4), 2),
        "plots": lambda: kd.analysis.plot_reliability(
            {"student": kd.analysis.calibration(model, data)}
        ),
    }
    for name, call in calls.items():
        try:
            call()
        except ImportError as error:
            print(f"{name}: {error}")


if __name__ == "__main__":
    hide(OPTIONAL)
    import keras

    import keras_distill as kd

    errors(kd, *train(kd, keras, sys.argv[1]))
