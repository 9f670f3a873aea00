"""Train on data that is sharded over workers, and record the samples of each step.

    python -m tests.distribution.shards RESULT FOLDER {file,element,array}

The environment variable TF_CONFIG names the other workers. FOLDER has the samples in
TFRecord files, which `file` reads; `element` and `array` create the samples again.
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
    """Write one file per count, with that many samples."""
    import tensorflow as tf

    whole = samples(sum(counts))
    for index, part in enumerate(np.split(whole.ids, np.cumsum(counts)[:-1])):
        with tf.io.TFRecordWriter(str(folder / f"{index}.tfrecord")) as file:
            for i in part:
                file.write(whole.images[i].tobytes() + whole.labels[i].tobytes())
                file.write(whole.ids[i].tobytes())


def from_files(folder):
    """Read the files in an unseeded random order."""
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
    """Return `x` and `y` of `fit`."""
    import tensorflow as tf

    if by == "file":
        x = from_files(folder)
    else:
        count = sum(file.stat().st_size for file in folder.glob("*.tfrecord")) // 300
        whole = samples(count)
        if by == "array":
            return {"image": whole.images, "sample_id": whole.ids}, whole.labels
        x = kd.data.batches(whole, BATCH, shuffle=True, sample_ids=True)
    options, policies = tf.data.Options(), tf.data.experimental.AutoShardPolicy
    policy = policies.FILE if by == "file" else policies.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return x.with_options(options), None


class RecordingDistiller(kd.Distiller):
    """Record the sample ids of each step of this worker."""

    steps = ()

    def train_step(self, data):
        import tensorflow as tf

        def record(ids):
            self.steps = [*self.steps, ids]

        tf.numpy_function(record, [data[0]["sample_id"]], [])
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
    distiller = RecordingDistiller(
        student, teacher, terms=terms, sample_ids="sample_id", **inputs
    )
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
    arrays = {f"weight {i}": value for i, value in enumerate(weights(distiller))}
    arrays |= {f"step {i}": ids for i, ids in enumerate(distiller.steps)}
    np.savez(result, **arrays, **logs)


if __name__ == "__main__":
    main(*sys.argv[1:])
