"""What the reader brings to pages whose code goes on with models and data of their own."""

import types

import keras
import numpy as np
from keras import layers

import keras_distill as kd

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(64, 8, 8, 1)).astype("float32")
LABELS = np.arange(64) % 10


def net(outputs=10, layer="embedding", size=8, channels=1, name=None):
    x = inputs = keras.Input((size, size, channels))
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D(name=layer)(x)
    return keras.Model(inputs, layers.Dense(outputs)(x), name=name)


def pair(outputs=10):
    return {"student": net(outputs), "teacher": net(outputs)}


def binary(tmp_path):
    return {
        **pair(1),
        "train": kd.data.batches(kd.data.Samples(IMAGES, LABELS % 2), 32),
    }


def values(tmp_path):
    return {"student": net(2), "first": net(2), "second": net(2)}


def classes(tmp_path):
    return {"student": net(3), "teacher": net(1000)}


def arrays(tmp_path):
    return {
        **pair(),
        "images": IMAGES,
        "labels": LABELS,
        "test_images": IMAGES,
        "test_labels": LABELS,
        "other_images": IMAGES[:32],
        "logits": RNG.normal(size=(64, 10)).astype("float32"),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }


def not_keras(tmp_path):
    def f(x):
        return np.tile(x.mean((1, 2)), 10)

    session = types.SimpleNamespace(run=lambda names, inputs: [f(inputs["x"])])
    onnxruntime = types.SimpleNamespace(InferenceSession=lambda file: session)
    return {**arrays(tmp_path), "f": f, "onnxruntime": onnxruntime}


class Detector(keras.Model):
    """Stands in for a detector: losses of its own, and features but no logits."""

    def __init__(self):
        super().__init__()
        x = keras.Input((8, 8, 1))
        self.retina_net_backbone = keras.Model(x, layers.Conv2D(4, 3, name="fpn")(x))
        self.head = layers.Dense(4)
        self.build((None, 8, 8, 1))

    def call(self, x):
        return self.head(self.retina_net_backbone(x))

    def compile(self, optimizer="adam", box_loss=None, classification_loss=None):
        super().compile(optimizer)

    def compute_loss(self, x=None, y=None, y_pred=None, **kwargs):
        return keras.ops.mean(keras.ops.square(y_pred))


def detectors(tmp_path):
    return {"retina_net": Detector(), "larger_retina_net": Detector()}


def checkpoint(tmp_path):
    models = pair()
    distiller = kd.Distiller(models["student"], models["teacher"])
    distiller.compile("adam", "sparse_categorical_crossentropy")
    distiller.save("best.keras")
    return {}


def large_images(tmp_path):
    return {"teacher": net(size=32, channels=3)}


def replicas(tmp_path):
    start = arrays(tmp_path)
    samples = kd.data.Samples(IMAGES, LABELS)
    makers = {"make_student": net, "load_teacher": net, "net": net}
    return {**start, **makers, "train": kd.data.batches(samples, 32)}


def text_tasks(tmp_path):
    import keras_hub

    from tests import hub_tasks

    keras_hub = types.SimpleNamespace(
        models=types.SimpleNamespace(
            BertTextClassifier=types.SimpleNamespace(
                from_preset=lambda name, num_classes: hub_tasks.bert(1)
            ),
            GPT2CausalLM=keras_hub.models.GPT2CausalLM,
        )
    )
    return {"keras_hub": keras_hub, "labels": np.array([1, 0])}


def causal_models(tmp_path):
    import keras_hub

    backbones = [
        keras_hub.models.GPT2Backbone(
            vocabulary_size=50_257,
            num_layers=2,
            num_heads=2,
            hidden_dim=4,
            intermediate_dim=8,
            max_sequence_length=12,
        )
        for _ in range(2)
    ]
    teacher = keras_hub.models.GPT2CausalLM(backbones[1], preprocessor=None)
    return {"small_backbone": backbones[0], "teacher": teacher, "keras_hub": keras_hub}


# By the page and the heading under which its code stands.
SETUPS = {
    "guide/your_model.md": {
        "Binary classifiers": binary,
        "Regression": values,
        "Embeddings": arrays,
        "Some of the teacher's classes": classes,
        "A teacher that is not Keras": not_keras,
        "Logits you already have": arrays,
        "Your own subclass": detectors,
        "Without labels": arrays,
        "A student to deploy": checkpoint,
        "A distillation token": large_images,
        "Parts of a batch, and augmentation": arrays,
    },
    "guide/keras_hub.md": {
        "A text classifier": text_tasks,
        "A language model": causal_models,
    },
    "distribution.md": {"Multi-GPU and TPU training": replicas},
}
