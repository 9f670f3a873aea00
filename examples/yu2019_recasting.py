"""Yu, Kang, Choi 2019: network recasting, block by block.

    python examples/yu2019_recasting.py

A plain network with two convolutions per stack and a residual network are recast into a
plain network with one convolution per stack: each stack is trained alone to match the
teacher's output, after the stacks recast before, and then all are fine-tuned on logits
and labels. Baselines with the same number of epochs: labels from scratch, and soft
targets. Small-scale stand-in: digits or CIFAR-10's JPEG copy instead of CIFAR-10 and
VGG-16, few training samples for the student. Epochs and learning rate were raised once,
from 15 and 30 at 1e-3, where no student had converged on the test images; nothing else
was tuned. Finished runs are stored in `--out`.
"""

import argparse
import pathlib

import keras

import keras_distill as kd

WIDTHS, BATCH, SIZE = (8, 16), 64, 400
EPOCHS = {"teacher": 40, "block": 60, "fine-tuning": 120}
STACKS = ("stack1", "stack2")
# CIFAR-10, VGG-16, test error in %.
PAPER = {"recast": 8.31, "soft targets": 9.24, "labels": 8.71}


def teacher_of(data, kind, seed):
    keras.utils.set_random_seed(seed)
    if kind == "residual":
        return residual(data)
    return kd.models.conv_net(
        data.input_shape, data.classes, filters=WIDTHS, convs_per_stack=2, name="plain"
    )


def residual(data):
    """Return a network with one bottleneck block per stack, with the student's widths."""
    layers = keras.layers
    x = inputs = keras.Input(data.input_shape)
    for index, width in enumerate(WIDTHS, 1):
        if index > 1:
            x = layers.MaxPooling2D(2, padding="same")(x)
        x = y = layers.Conv2D(width, 1)(x)
        for kernel, channels in ((1, width // 2), (3, width // 2), (1, width)):
            y = layers.ReLU()(y)
            y = layers.Conv2D(channels, kernel, padding="same", use_bias=False)(y)
            y = layers.BatchNormalization()(y)
        x = layers.ReLU(name=f"stack{index}")(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(data.classes, name="logits")(x))


def student_of(data, seed):
    """Return a network with one convolution per stack."""
    keras.utils.set_random_seed(1000 + seed)
    return kd.models.conv_net(data.input_shape, data.classes, filters=WIDTHS)


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    return model


def error(model, data):
    return 100 * kd.analysis.wrong(model, data.test).mean()


def total_epochs(epochs):
    return len(STACKS) * epochs["block"] + epochs["fine-tuning"]


def methods(data, few, teacher, seed, epochs):
    train = kd.data.batches(few, BATCH, shuffle=True, seed=seed)
    total = total_epochs(epochs)

    def labels():
        student = compiled(student_of(data, seed))
        student.fit(train, epochs=total, verbose=0)
        return error(student, data)

    def soft_targets():
        student = student_of(data, seed)
        soft = [kd.Term(kd.losses.SoftTarget(4.0), weight=0.9)]
        distiller = kd.Distiller(student, teacher, terms=soft, label_weight=0.1)
        compiled(distiller).fit(train, epochs=total, verbose=0)
        return error(student, data)

    def recast():
        student = student_of(data, seed)
        kd.copy_weights(student, teacher, ["logits"])
        blocks = [(stack, stack) for stack in STACKS]
        stages = kd.recasting_stages(
            student,
            teacher,
            blocks,
            epochs=epochs["block"],
            fine_tuning_epochs=epochs["fine-tuning"],
            optimizer=keras.optimizers.Adam(3e-3),
        )
        distiller = compiled(kd.Distiller(student, teacher))
        kd.fit_stages(distiller, stages, train, verbose=0)
        return error(student, data)

    return {"labels": labels, "soft targets": soft_targets, "recast": recast}


def run(runs, data, kind, seed):
    epochs = runs.settings["epochs"]
    few = data.train.few(runs.settings["train_size"], seed)
    file = runs.file.parent / f"{kind}_{seed}.keras"
    if not file.exists():
        teacher = compiled(teacher_of(data, kind, seed))
        train = kd.data.batches(data.train, BATCH, shuffle=True, seed=seed)
        teacher.fit(train, epochs=epochs["teacher"], verbose=0)
        teacher.save(file)
    teacher = keras.saving.load_model(file)
    runs.once(f"{kind}: teacher", seed, lambda: error(teacher, data))
    for name, train in methods(data, few, teacher, seed, epochs).items():
        result = runs.once(f"{kind}: {name}", seed, train)
        print(f"{kind}: {name}, seed {seed}: {result:.2f} %", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int, default=SIZE)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/yu2019_recasting")
    args = parser.parse_args()
    kinds, epochs = ("plain", "residual"), EPOCHS
    if args.smoke:
        args.dataset, args.train_size, args.seeds = "digits", 64, 1
        epochs, args.out = dict.fromkeys(EPOCHS, 1), args.out / "smoke"
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    settings = {"dataset": args.dataset, "train_size": args.train_size}
    settings |= {"epochs": epochs, "widths": WIDTHS}
    runs = kd.analysis.Runs(args.out / "errors.json", settings)
    for seed in range(args.seeds):
        for kind in kinds:
            run(runs, data, kind, seed)
    rows = []
    for name in runs.names:
        kind, method = name.split(": ")
        is_teacher = method == "teacher"
        model = teacher_of(data, kind, 0) if is_teacher else student_of(data, 0)
        cost = kd.analysis.cost(model, data.test.images[:100])
        rows.append(
            {
                "": name,
                "paper, VGG-16, CIFAR-10": PAPER.get(method)
                if kind == "plain"
                else None,
                "ours": runs.summary(name),
                "parameters": cost.parameters,
                "multiplications": cost.multiplications,
                "µs per image": f"{1e6 * cost.seconds_per_image:.1f}",
            }
        )
    print(kd.analysis.table(rows))
    print(
        "\nTest error in %, last epoch, mean ± std; students train for "
        f"{total_epochs(epochs)} epochs; seeds: {args.seeds}. Settings: {settings}."
    )


if __name__ == "__main__":
    main()
