"""Distillation on a TPU, or on other devices, with the same code.

    python examples/tpu.py                    # a TPU if there is one, else other devices
    python examples/tpu.py --strategy tpu     # fails without a TPU
    TPU_NAME=my-tpu python examples/tpu.py --strategy tpu

A TPU needs one compiled step with static shapes: all batches have the same size, and
several steps run per call. `--batch-size` is the global batch size.
"""

import argparse
import pathlib

import keras

import keras_distill as kd


def fit(model, train, epochs, steps_at_once):
    steps = epochs * len(train)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    # `jit_compile` is XLA, which Keras does not use with torch.
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=steps_at_once,
        jit_compile="auto" if keras.backend.backend() == "torch" else True,
    )
    model.fit(train, epochs=epochs, verbose=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--batch-size", type=int, default=128, help="global batch size")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--steps-at-once", type=int, default=4)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/tpu")
    args = parser.parse_args()
    with kd.strategies.scope(args.strategy):
        data = kd.data.load(args.dataset)
        samples = data.train[:256] if args.smoke else data.train
        epochs = 1 if args.smoke else args.epochs
        train = kd.data.batches(
            samples, args.batch_size, shuffle=True, drop_remainder=True
        )
        keras.utils.set_random_seed(0)
        shape = data.input_shape, data.classes
        teacher = kd.models.conv_net(*shape, filters=(32, 64), name="teacher")
        student = kd.models.conv_net(*shape, filters=(8, 16), name="student")
        fit(teacher, train, epochs, args.steps_at_once)
        soft = kd.Term(kd.losses.SoftTarget(temperature=4.0), weight=0.9)
        distiller = kd.Distiller(student, teacher, terms=[soft], label_weight=0.1)
        fit(distiller, train, epochs, args.steps_at_once)
        rows = [
            {"model": net.name, "errors": int(kd.analysis.wrong(net, data.test).sum())}
            for net in (teacher, student)
        ]
    print(kd.analysis.table(rows))
    args.out.mkdir(parents=True, exist_ok=True)
    student.save(args.out / "student.keras")


if __name__ == "__main__":
    main()
