"""Pairs of a teacher and a student, and the settings in which all rows are trained."""

import dataclasses

import keras

import keras_distill as kd

SHAPE, CLASSES, BATCH = (32, 32, 3), 10, 128
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@dataclasses.dataclass(frozen=True)
class Net:
    """A network: its name, which of `kd.models`, and with what arguments."""

    name: str
    kind: str
    settings: dict = dataclasses.field(default_factory=dict)

    def build(self, seed: int) -> keras.Model:
        """Create the network with weights drawn from a seed."""
        keras.utils.set_random_seed(seed)
        make = getattr(kd.models, self.kind)
        return make(SHAPE, CLASSES, name=self.name, weight_decay=DECAY, **self.settings)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A teacher, a student, and what each is trained on.

    Args:
        teacher, student: the networks.
        images: of the student; the teacher has all 50,000.
        epochs: of the student; the teacher has 60.
        stages: pairs of layers to compare, the last of each stage.
    """

    teacher: Net
    student: Net
    images: int = 25_000
    epochs: int = 20
    stages: tuple = tuple((f"stack{i}", f"stack{i}") for i in (1, 2, 3))


# Rate of SGD with Nesterov's momentum, which falls to 0 by a cosine, and L2 penalty.
RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-4
TEACHER_EPOCHS = 60
RESNET8 = Net("resnet8", "resnet", {"depth": 8})
RESNET20 = Net("resnet20", "resnet", {"depth": 20})
RESNET56 = Net("resnet56", "resnet", {"depth": 56})
WRN16X1 = Net("wrn16x1", "wide_resnet", {"depth": 16, "widen": 1})
WRN16X2 = Net("wrn16x2", "wide_resnet", {"depth": 16, "widen": 2})
CONV = Net("conv", "conv_net", {"filters": (16, 32, 64)})
PAIRS = {
    "resnet20-resnet8": Pair(RESNET20, RESNET8),
    "wrn16x2-wrn16x1": Pair(WRN16X2, WRN16X1),
    "resnet20-conv": Pair(RESNET20, CONV),
}
# For one GPU.
FULL = {"images": 50_000, "epochs": 60}
GPU_PAIRS = {
    "wrn16x2-wrn16x1-full": Pair(WRN16X2, WRN16X1, **FULL),
    "wrn16x2-resnet8-full": Pair(WRN16X2, RESNET8, **FULL),
    "resnet56-resnet20-full": Pair(RESNET56, RESNET20, **FULL),
}
NETS = {net.name: net for net in (RESNET20, WRN16X2, RESNET56)}


def optimizer(epochs: int, images: int) -> keras.optimizers.Optimizer:
    """Return the optimizer of a training."""
    return keras.optimizers.SGD(rate(epochs, images), MOMENTUM, nesterov=True)


def rate(epochs: int, images: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate of a training, a cosine."""
    return keras.optimizers.schedules.CosineDecay(RATE, epochs * (images // BATCH))
