"""Kim, Rush 2016: word-level and sequence-level distillation of a language model.

    python examples/kim2016_sequences.py
    python examples/kim2016_sequences.py --dataset tiny_shakespeare

Lines of text, character by character, padded to one length under a mask. Word level:
soft targets at each character. Sequence level: the student learns from lines that the
teacher wrote, in place of the data. The stand-in protocol: recurrent nets of one layer
that continue text in place of translation, lines drawn from the teacher in place of its
beam. The default text is that of Python's own manual, which needs no network. The
paper's figures are of translation and are not shown. Nothing was tuned.
"""

import argparse
import pathlib

import keras
import numpy as np

import keras_distill as kd

LENGTH, BATCH, PAD = 64, 64, 0
UNITS = {"teacher": 128, "student": 32}
LINES, EPOCHS = 4000, {"teacher": 20, "student": 20}
METHODS = ("labels", "word level", "sequence level", "both")


def text(dataset):
    """Give the training and the test text."""
    if dataset == "tiny_shakespeare":
        import tensorflow_datasets as tfds

        loaded = tfds.as_numpy(tfds.load(dataset, batch_size=-1))
        return [loaded[split]["text"][0].decode() for split in ("train", "test")]
    from pydoc_data.topics import topics

    whole = "\n".join(topics[name] for name in sorted(topics))
    return whole[: -len(whole) // 10], whole[-len(whole) // 10 :]


def encode(lines, alphabet):
    """Give lines as numbers `(N, LENGTH + 1)`; 0 pads, and a line's end is 1."""
    code = {letter: place for place, letter in enumerate(alphabet, start=2)}
    found = np.full((len(lines), LENGTH + 1), PAD, "int32")
    for row, line in zip(found, lines, strict=True):
        numbers = [code[letter] for letter in line if letter in code][: LENGTH - 1]
        row[: len(numbers) + 2] = [1, *numbers, 1]
    return found


def load(dataset, count, seed=0):
    """Give training and test lines as numbers, and how many numbers there are."""
    sides = [
        [line for line in part.splitlines() if len(line) > 8] for part in text(dataset)
    ]
    rng = np.random.default_rng(seed)
    train = [sides[0][i] for i in rng.permutation(len(sides[0]))[:count]]
    alphabet = sorted(set("".join(train)))
    return (
        encode(train, alphabet),
        encode(sides[1][:count], alphabet),
        len(alphabet) + 2,
    )


def net(seed, letters, units, name):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(letters, units, mask_zero=True, name="letters")(inputs)
    x = keras.layers.GRU(units, return_sequences=True, name="memory")(x)
    return keras.Model(inputs, keras.layers.Dense(letters, name="logits")(x), name=name)


def fit(model, lines, epochs):
    steps = epochs * -(-len(lines) // BATCH)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    given, asked = lines[:, :-1], lines[:, 1:]
    # The mask follows what is given; after a line's end nothing is asked either.
    real = (asked != PAD).astype("float32")
    model.fit(given, asked, BATCH, epochs, verbose=0, sample_weight=real)


def written_by(teacher, count, seed):
    """Draw lines from a teacher, a letter of all lines at a time."""
    rng = np.random.default_rng(seed)
    lines = np.full((count, LENGTH + 1), PAD, "int32")
    lines[:, 0] = 1
    for place in range(LENGTH):
        logits = teacher.predict(lines[:, :-1], 1000, verbose=0)[:, place]
        logits[:, PAD] = -np.inf
        drawn = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
        ended = (place > 0) & (lines[:, place] <= 1)
        lines[:, place + 1] = np.where(ended, PAD, drawn)
    return lines


def bits(model, lines):
    """Give the bits a character that a model takes to write lines."""
    logits = keras.ops.cast(model.predict(lines[:, :-1], 1000, verbose=0), "float32")
    chances = keras.ops.log_softmax(logits)
    known = keras.ops.take_along_axis(chances, lines[:, 1:, None], axis=-1)[..., 0]
    real = lines[:, 1:] != PAD
    return -float(np.sum(np.array(known) * real) / real.sum() / np.log(2))


def trained_student(method, teacher, lines, letters, units, epochs, seed):
    student = model = net(1000 + seed, letters, units, "student")
    if method in ("sequence level", "both"):
        lines = written_by(teacher, len(lines), seed)
    if method in ("word level", "both"):
        word = kd.Term(kd.losses.SoftTarget(temperature=1.0), weight=0.5)
        model = kd.Distiller(student, teacher, terms=[word], label_weight=0.5)
    fit(model, lines, epochs)
    return student


def run(runs, data, units, seed):
    """Fill the cells of one seed."""
    (train, test, letters), epochs = data, runs.settings["epochs"]
    file = runs.file.parent / f"teacher_{seed}.keras"
    if not file.exists():
        teacher = net(seed, letters, units["teacher"], "teacher")
        fit(teacher, train, epochs["teacher"])
        teacher.save(file)
    teacher = keras.saving.load_model(file)
    models = {"teacher": lambda: teacher}
    for method in METHODS:
        models[method] = lambda method=method: trained_student(
            method, teacher, train, letters, units["student"], epochs["student"], seed
        )
    for name, train_model in models.items():
        found = runs.once(name, seed, lambda made=train_model: bits(made(), test))
        print(f"{name}, seed {seed}: {found:.3f} bits", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="manual")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/kim2016_sequences")
    args = parser.parse_args()
    lines, units, epochs = LINES, UNITS, EPOCHS
    if args.smoke:
        lines, args.seeds, args.out = 2 * BATCH, 1, args.out / "smoke"
        units, epochs = dict.fromkeys(UNITS, 8), dict.fromkeys(EPOCHS, 1)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"dataset": args.dataset, "lines": lines, "epochs": epochs}
    runs = kd.analysis.Runs(args.out / "bits.json", settings)
    data = load(args.dataset, lines)
    for seed in range(args.seeds):
        run(runs, data, units, seed)
    title = f"bits a character, {args.dataset}"
    print(
        kd.analysis.table(
            [{"model": name, title: runs.summary(name, 3)} for name in runs.names]
        )
    )
    seeds = len(runs["teacher"])
    print(f"\nTest text, last epoch; seeds: {seeds}. Stand-in: {settings}.")


if __name__ == "__main__":
    main()
