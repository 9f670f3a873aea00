"""Train on data that workers share out, and note which samples each step took.

    python -m tests.distribution.shards RESULT FOLDER {file,element,array}

The environment variable TF_CONFIG says who the others are. FOLDER holds the samples in
TFRecord files, which are read as such or, for the others, made again.
"""

import pathlib
import sys

import keras
import numpy as np

import keras_distill as kd
from tests.nets import conv_pair

BATCH, EPOCHS = 12, 2


def samples(count):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(count, 8, 8, 1)).astype("float32")
    return kd.data.Samples(images, rng.integers(0, 3, count).astype("int32"))


def write(folder, counts):
    """Write a file of so many samples each."""
    import tensorflow as tf

    every = samples(sum(counts))
    for number, part in enumerate(np.split(every.ids, np.cumsum(counts)[:-1])):
        with tf.io.TFRecordWriter(str(folder / f"{number}.tfrecord")) as file:
            for i in part:
                file.write(every.images[i].tobytes() + every.labels[i].tobytes())
                file.write(every.ids[i].tobytes())


def from_files(folder):
    """Read the files in an order that no seed decides."""
    import tensorflow as tf

    def parse(records):
        image = tf.io.decode_raw(tf.strings.substr(records[0], 0, 256), "float32")
        label = tf.io.decode_raw(tf.strings.substr(records[0], 256, 4), "int32")
        number = tf.io.decode_raw(records[1], "int64")
        inputs = {"image": tf.reshape(image, (8, 8, 1)), "sample_id": number[0]}
        return inputs, label[0]

    files = sorted(map(str, folder.glob("*.tfrecord")))
    records = tf.data.TFRecordDataset(files).batch(2, drop_remainder=True)
    return records.map(parse).shuffle(100).batch(BATCH)


def data(folder, by):
    """Give `x` and `y` of fit."""
    import tensorflow as tf

    if by == "file":
        x = from_files(folder)
    else:
        count = sum(file.stat().st_size for file in folder.glob("*.tfrecord")) // 300
        every = samples(count)
        if by == "array":
            return {"image": every.images, "sample_id": every.ids}, every.labels
        x = kd.data.batches(every, BATCH, shuffle=True, sample_ids=True)
    options, policies = tf.data.Options(), tf.data.experimental.AutoShardPolicy
    policy = policies.FILE if by == "file" else policies.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return x.with_options(options), None


class Noting(kd.Distiller):
    """Keep the ids of the samples of each step of this worker."""

    taken = ()

    def train_step(self, data):
        import tensorflow as tf

        def note(ids):
            self.taken = [*self.taken, ids]

        tf.numpy_function(note, [data[0]["sample_id"]], [])
        return super().train_step(data)


def make():
    keras.utils.set_random_seed(1)
    student, teacher = conv_pair(norm=False)
    terms = [
        kd.Term(kd.losses.SoftTarget(4.0)),
        kd.Term(kd.losses.Hint(), student="stack1", teacher="stack2", weight=1.0),
        kd.Term(kd.losses.HardRank(), student="stack2", teacher="stack2", weight=1.0),
    ]
    inputs = {"student_inputs": "image", "teacher_inputs": "image"}
    distiller = Noting(student, teacher, terms=terms, sample_ids="sample_id", **inputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"]
    )
    return distiller


def weights(distiller):
    return [keras.ops.convert_to_numpy(x) for x in distiller.variables]


def main(result, folder, by):
    with kd.strategies.scope("auto"):
        distiller = make()
        x, y = data(pathlib.Path(folder), by)
        logs = distiller.fit(x, y, epochs=EPOCHS, verbose=0).history
    kept = {f"weight {i}": value for i, value in enumerate(weights(distiller))}
    kept |= {f"step {i}": ids for i, ids in enumerate(distiller.taken)}
    np.savez(result, **kept, **logs)


if __name__ == "__main__":
    main(*sys.argv[1:])
