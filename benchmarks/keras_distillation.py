"""What `keras.distillation` and this package do with the same networks and data.

    python benchmarks/keras_distillation.py --json table.json

Each row of the table is measured on small random data; the expected value of the first is
computed in NumPy. The cost of a step is that of `step_time.py`, from its stored results.
"""

import argparse
import json
import pathlib
import tempfile

import keras
import numpy as np
from keras import distillation, layers

import keras_distill as kd

RESULTS = pathlib.Path(__file__).parent / "results"
TEMPERATURE, SAMPLES, FEATURES, CLASSES = 3.0, 64, 20, 5


class PassCounter(layers.Layer):
    """Counts its calls."""

    calls = 0

    def call(self, inputs):
        """Return the inputs."""
        self.calls += 1
        return inputs


def net(units: int, name: str) -> keras.Model:
    """Return a network with a layer `hidden`, which counts its passes."""
    inputs = keras.Input((FEATURES,))
    x = layers.Dense(units, "relu", name="hidden")(PassCounter(name="passes")(inputs))
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x), name=name)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Return random inputs and labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, FEATURES)).astype("float32")
    return x, rng.integers(0, CLASSES, SAMPLES)


def of_keras(student, teacher, feature: bool = False, label_weight: float = 0.5):
    """Return Keras's distiller, with soft targets and maybe a compared layer."""
    parts = [distillation.LogitsDistillation(temperature=TEMPERATURE)]
    if feature:
        parts.append(
            distillation.FeatureDistillation(
                teacher_layer_name="hidden", student_layer_name="hidden"
            )
        )
    return distillation.Distiller(
        teacher, student, parts, student_loss_weight=label_weight
    )


def of_package(student, teacher, feature: bool = False, label_weight: float = 0.5):
    """Return this package's distiller, with the same terms."""
    terms = [kd.Term(kd.losses.SoftTarget(TEMPERATURE), weight=1.0)]
    if feature:
        terms.append(kd.Term(kd.losses.Hint(), "hidden", "hidden", weight=1.0))
    return kd.Distiller(student, teacher, terms=terms, label_weight=label_weight)


def fitted(
    make, units: int = 16, large: int = 16, sample_weight=None, steps=1, **arguments
):
    """Return a distiller and the logs of the first step."""
    keras.utils.set_random_seed(0)
    distiller = make(net(units, "student"), net(large, "teacher"), **arguments)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.01), loss, run_eagerly=True)
    history = distiller.fit(
        *data(),
        batch_size=SAMPLES,
        epochs=steps,
        verbose=0,
        sample_weight=sample_weight,
    )
    return distiller, {name: values[0] for name, values in history.history.items()}


def expected_loss() -> float:
    """Return the soft targets' loss before the first step, in NumPy."""
    keras.utils.set_random_seed(0)
    student, teacher = net(16, "student"), net(16, "teacher")
    log_p, log_q = (
        _log_softmax(model.predict(data()[0], verbose=0).astype("float64"))
        for model in (teacher, student)
    )
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()
    return TEMPERATURE**2 * divergence


def _log_softmax(logits):
    scaled = logits / TEMPERATURE
    return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


def loss_at_start(make) -> float:
    """Return the loss of soft targets alone, in the first step."""
    return fitted(make, label_weight=0.0)[1]["loss"]


def student_passes(make) -> int:
    """Return how often the student runs in a step that compares a layer too."""
    one, two = (
        fitted(make, feature=True, steps=steps)[0].student.get_layer("passes").calls
        for steps in (1, 2)
    )
    return two - one


def other_width(make) -> str:
    """Return what happens to layers of 8 and of 16 units."""
    try:
        distiller, _ = fitted(make, units=8, feature=True)
    except Exception as error:
        return f"{type(error).__name__} in the first step"
    extra = len(distiller.trainable_variables) - len(
        distiller.student.trainable_variables
    )
    return f"{extra} trained weights of an adapter"


def file_size(make) -> str:
    """Return the size of a saved distiller whose teacher has 4 million weights."""
    distiller, _ = fitted(make, large=150_000)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "distiller.keras"
        distiller.save(file)
        return f"{file.stat().st_size / 1e6:.2f} MB"


def loss_without_weight(make) -> float:
    """Return the loss where every sample has a weight of 0."""
    return fitted(make, sample_weight=np.zeros(SAMPLES))[1]["loss"]


def parts_in_logs(make) -> int:
    """Return the number of the two terms' values in the logs of a step."""
    logs = fitted(make, feature=True)[1]
    return sum(name in logs for name in ("distillation_loss", "soft_target", "hint"))


def losses(make) -> int:
    """Return the number of losses that compare a teacher and a student."""
    if make is of_keras:
        return len(
            {"LogitsDistillation", "FeatureDistillation"} & set(dir(distillation))
        )
    members = [getattr(kd.losses, name) for name in kd.losses.__all__]
    return sum(_is_loss(member) for member in members)


def _is_loss(member) -> bool:
    bases = kd.losses.DistillationLoss, kd.losses.Divergence
    return (
        isinstance(member, type)
        and issubclass(member, bases[0])
        and member not in bases
    )


def cost_of_step(variant: str) -> str:
    """Return the cost of a step by `step_time.py`, without and with compared layers."""
    rows = json.loads((RESULTS / "step_time.json").read_text())
    ratios = [
        float(row["ratio to by hand"])
        for row in rows
        if row["nets"] == "conv" and row["variant"] == variant
    ]
    return " and ".join(f"{ratio:.2f}" for ratio in ratios)


def rows() -> list[dict]:
    """Return the rows of the table."""
    measures = {
        f"default loss ({expected_loss():.4f} in NumPy)": loss_at_start,
        "passes of the student in a step that compares a layer": student_passes,
        "layers of 8 and 16 units": other_width,
        "file of a distiller whose teacher has 4 million weights": file_size,
        "loss where all sample weights are 0": loss_without_weight,
        "entries in the logs for two terms": parts_in_logs,
        "losses to choose from": losses,
    }
    package = f"keras.distillation {keras.__version__}"
    found = [
        {"": name, package: measure(of_keras), "keras_distill": measure(of_package)}
        for name, measure in measures.items()
    ]
    cost = "time of a step by a hand-written loop: soft targets, with three layers"
    steps = {
        package: cost_of_step("Keras's"),
        "keras_distill": cost_of_step("Distiller"),
    }
    return [*found, {"": cost, **steps}]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="the same: it is quick")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    table = rows()
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))
    print(kd.analysis.table(table))


if __name__ == "__main__":
    main()
