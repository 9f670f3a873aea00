"""Distill a convolutional network into a perceptron on digits, in under two minutes.

    python examples/quickstart.py

The table compares a convolutional teacher, a perceptron trained on labels alone, and the
same perceptron distilled. The student and its terms were chosen on a held-out fifth of
the training images, over three seeds.
"""

import argparse
import pathlib

import keras
import numpy as np

import keras_distill as kd

TEACHER_FILTERS, STUDENT_UNITS = (32, 64, 128), (64, 64)
TEACHER_EPOCHS, EPOCHS, BATCH = 40, 60, 64


def fit(model, samples, epochs, learning_rate, seed):
    train = kd.data.batches(
        samples, BATCH, shuffle=True, seed=seed, drop_remainder=True
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate, epochs * len(train)
    )
    model.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=len(train),
    )
    model.fit(train, epochs=epochs, verbose=0)


def train_all(data, seed, smoke):
    """Train the teacher, and two students from the same initial weights."""
    teacher_epochs, epochs = (1, 1) if smoke else (TEACHER_EPOCHS, EPOCHS)
    keras.utils.set_random_seed(seed)
    teacher = kd.models.conv_net(
        data.input_shape, data.classes, filters=TEACHER_FILTERS
    )
    fit(teacher, data.train, teacher_epochs, 3e-3, seed)

    alone = kd.models.mlp(data.input_shape, data.classes, units=STUDENT_UNITS)
    student = keras.models.clone_model(alone)
    student.set_weights(alone.get_weights())
    fit(alone, data.train, epochs, 5e-3, seed)

    distiller = kd.Distiller(
        student,
        teacher,
        terms=[
            kd.Term(kd.losses.SoftTarget(temperature=4.0), weight=0.9),
            kd.Term(kd.losses.Hint(), student="hidden1", teacher="pool", weight=10.0),
        ],
        label_weight=0.1,
    )
    fit(distiller, data.train, epochs, 5e-3, seed)
    return {"teacher": teacher, "student alone": alone, "student distilled": student}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/quickstart")
    args = parser.parse_args()
    data = kd.data.load(args.dataset)

    counts = {}
    for seed in range(args.seeds):
        models = train_all(data, seed, args.smoke)
        for name, model in models.items():
            wrong = kd.analysis.wrong(model, data.test)
            counts.setdefault(name, []).append(int(wrong.sum()))
    args.out.mkdir(parents=True, exist_ok=True)
    models["student distilled"].save(args.out / "student.keras")

    costs = {
        name: kd.analysis.cost(model, data.test.images[:256])
        for name, model in models.items()
    }
    teacher = costs["teacher"]
    rows = [
        {
            "model": name,
            f"errors of {len(data.test)}": f"{np.mean(errors):.1f}"
            + (f" ± {np.std(errors):.1f}" if args.seeds > 1 else ""),
            "parameters": costs[name].parameters,
            "multiplications": costs[name].multiplications,
            "µs per image": round(1e6 * costs[name].seconds_per_image, 1),
            "multiplications, teacher / model": round(
                teacher.multiplications / costs[name].multiplications, 1
            ),
        }
        for name, errors in counts.items()
    ]
    print(kd.analysis.table(rows))
    print(f"\n{args.seeds} seed(s), last epoch. Student saved in {args.out}.")


if __name__ == "__main__":
    main()
