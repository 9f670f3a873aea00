"""Soft targets on a TPU, or on whatever a strategy finds, with nothing else changed.

    python examples/tpu.py                    # the TPU of this machine, else what there is
    python examples/tpu.py --strategy tpu     # an error where there is no TPU
    TPU_NAME=my-tpu python examples/tpu.py --strategy tpu

A TPU wants one compiled step with shapes that stay: batches are all of one size, and
several steps run at once without asking the host. The batch is the global one.
"""

import argparse
import pathlib

import keras

import keras_distill as kd


def fit(model, train, epochs, steps_at_once):
    steps = epochs * len(train)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    # Keras compiles with XLA; with torch it would need another compiler.
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
    parser.add_argument("--batch-size", type=int, default=128, help="of all cores")
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
            {"net": net.name, "errors": int(kd.analysis.wrong(net, data.test).sum())}
            for net in (teacher, student)
        ]
    print(kd.analysis.table(rows))
    args.out.mkdir(parents=True, exist_ok=True)
    student.save(args.out / "student.keras")


if __name__ == "__main__":
    main()
