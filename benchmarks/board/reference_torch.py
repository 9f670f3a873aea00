"""The board's first rows in plain PyTorch, without Keras, to compare with.

    python benchmarks/board/reference_torch.py --data FILE.npz --minutes 150

The same networks, images, augmentation, optimizer, schedule and rule for weights as
`run.py`, written by hand: the student alone, KD and AT, each with three seeds, and with
`--teacher` the teacher. Without it, the teacher is the board's, read from its file. Cells
are those of `cells/`, of the pair `resnet20-resnet8-torch`. `FILE.npz` has `x_train`,
`y_train`, `x_test` and `y_test` (uint8 images, `(N, 32, 32, 3)`).
"""

import argparse
import copy
import json
import math
import pathlib
import time

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HERE = pathlib.Path(__file__).parent
PAIR, IMAGES, EPOCHS, TEACHER_EPOCHS, BATCH = (
    "resnet20-resnet8-torch",
    25_000,
    20,
    60,
    128,
)
RATE, MOMENTUM, PENALTY, TEMPERATURE = 0.1, 0.9, 5e-4, 4.0
MEAN, DEVIATION = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


def conv(inputs, outputs, kernel, stride):
    """Return a convolution without bias, initialized as Keras's `he_normal`."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, bias=False)
    deviation = math.sqrt(2 / (inputs * kernel**2)) / 0.87962566103423978
    bounds = {"a": -2 * deviation, "b": 2 * deviation}
    nn.init.trunc_normal_(layer.weight, std=deviation, **bounds)
    return layer


def same(x, kernel, stride):
    """Pad as TensorFlow's "same" does: for stride 2, more at the end."""
    total = max(kernel - stride, 0) if x.shape[-1] % stride == 0 else kernel - 1
    before = total // 2
    return F.pad(x, (before, total - before, before, total - before))


class ConvNorm(nn.Module):
    """A convolution and a batch normalization."""

    def __init__(self, inputs, outputs, kernel, stride):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = conv(inputs, outputs, kernel, stride)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.1)

    def forward(self, x):
        """Return the normalized map."""
        return self.norm(self.conv(same(x, self.kernel, self.stride)))


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.a = ConvNorm(inputs, outputs, 3, stride)
        self.b = ConvNorm(outputs, outputs, 3, 1)
        changes = stride != 1 or inputs != outputs
        self.shortcut = ConvNorm(inputs, outputs, 1, stride) if changes else None

    def forward(self, x):
        """Return the map after the addition."""
        y = self.b(F.relu(self.a(x)))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """He et al.'s network for small images; returns logits and the ends of stages."""

    def __init__(self, depth, width=16):
        super().__init__()
        self.stem, inputs, stages = ConvNorm(3, width, 3, 1), width, []
        for stage in range(3):
            blocks = []
            for index in range((depth - 2) // 6):
                outputs = width * 2**stage
                stride = 2 if stage and not index else 1
                blocks.append(Block(inputs, outputs, stride))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.logits = nn.Linear(inputs, 10)
        nn.init.xavier_uniform_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def forward(self, x):
        """Return logits and maps."""
        x, maps = F.relu(self.stem(x)), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.logits(x.mean((2, 3))), maps


def load_teacher(file) -> ResNet:
    """Return the board's teacher, its weights copied from Keras's file by their order."""
    net = ResNet(20)
    units = [net.stem]
    for stage in net.stages:
        for block in stage:
            parts = block.a, block.b, block.shortcut
            units += [part for part in parts if part is not None]
    with h5py.File(file) as saved:
        layers = saved["layers"]
        for index, unit in enumerate(units):
            end = f"_{index}" if index else ""
            kernel = layers[f"conv2d{end}/vars/0"][()]
            unit.conv.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1))
            norm = layers[f"batch_normalization{end}/vars"]
            parts = unit.norm.weight, unit.norm.bias
            parts += unit.norm.running_mean, unit.norm.running_var
            for number, part in enumerate(parts):
                part.data.copy_(torch.tensor(norm[str(number)][()]))
        net.logits.weight.data = torch.tensor(layers["dense/vars/0"][()].T)
        net.logits.bias.data = torch.tensor(layers["dense/vars/1"][()])
    return net.eval()


def normalized(images):
    """Return float images `(B, 3, H, W)` of mean 0 and deviation 1 by channel, about."""
    x = (images.astype("float32") / 255.0 - MEAN) / DEVIATION
    return torch.tensor(x.astype("float32").transpose(0, 3, 1, 2))


def augmented(images, rng):
    """Crop normalized images from padded ones, and mirror them, at random."""
    x, size = F.pad(images, (4, 4, 4, 4)), images.shape[-1]
    rows, columns = rng.integers(0, 9, (2, len(x)))
    parts = [
        part[:, i : i + size, j : j + size]
        for part, i, j in zip(x, rows, columns, strict=True)
    ]
    flipped = rng.integers(0, 2, len(x))
    return torch.stack(
        [part.flip(-1) if f else part for part, f in zip(parts, flipped, strict=True)]
    )


def distillation(method, student, teacher):
    """Return the loss of a row from logits and maps of both, None for the student alone."""
    (z_s, maps_s), (z_t, maps_t) = student, teacher
    if method == "KD":
        p, log_q = (z_t / TEMPERATURE).softmax(-1), (z_s / TEMPERATURE).log_softmax(-1)
        return [TEMPERATURE**2 * F.kl_div(log_q, p, reduction="batchmean")]
    return [
        (attention(a) - attention(b)).square().mean(-1).mean()
        for a, b in zip(maps_s, maps_t, strict=True)
    ]


def attention(maps):
    """Return normalized maps of the sum of squares over the channels, `(B, H W)`."""
    return F.normalize(maps.square().sum(1).flatten(1))


def balanced(method, student, teacher, batches) -> list[float]:
    """Return weights with which each term pulls as hard as the labels, over batches."""
    norms = []
    probe = copy.deepcopy(student).train()
    for x, y in batches:
        out = probe(x)
        with torch.no_grad():
            known = teacher(x)
        parts = [F.cross_entropy(out[0], y), *distillation(method, out, known)]
        weights = list(probe.parameters())
        found = [
            torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
            for part in parts
        ]
        norms.append(
            [sum(g.square().sum() for g in gs if g is not None) ** 0.5 for gs in found]
        )
    mean = torch.tensor(norms).mean(0)
    return [float(mean[0] / norm) for norm in mean[1:]]


def train(net, images, labels, epochs, seed, method=None, teacher=None) -> list[float]:
    """Train a network; return the weights of the terms."""
    rng, steps = np.random.default_rng(seed), len(labels) // BATCH
    rate = torch.optim.SGD(net.parameters(), RATE, MOMENTUM, nesterov=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(rate, epochs * steps)
    kernels = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]
    weights = []
    if method is not None:
        first = range(0, min(4 * BATCH, len(labels)), BATCH)
        few = [slice(i, i + BATCH) for i in first]
        batches = [(augmented(images[i], rng), labels[i]) for i in few]
        weights = balanced(method, net, teacher, batches)
    for _ in range(epochs):
        net.train()
        order = rng.permutation(len(labels))[: steps * BATCH].reshape(steps, BATCH)
        for rows in order:
            x = augmented(images[rows], rng)
            out = net(x)
            loss = F.cross_entropy(out[0], labels[rows])
            loss = loss + PENALTY * sum(w.square().sum() for w in kernels)
            if method is not None:
                with torch.no_grad():
                    known = teacher(x)
                parts = distillation(method, out, known)
                loss = loss + sum(w * p for w, p in zip(weights, parts, strict=True))
            rate.zero_grad()
            loss.backward()
            rate.step()
            cosine.step()
    return weights


def accuracy(net, images, labels) -> float:
    """Return the accuracy in % in inference form."""
    net.eval()
    with torch.no_grad():
        parts = [net(x)[0].argmax(-1) for x in images.split(1000)]
    return round(100 * float((torch.cat(parts) == labels).float().mean()), 2)


def write(file, method, seed, begin, **found) -> None:
    """Write a cell."""
    record = {"method": method, "pair": PAIR, "seed": seed, **found}
    record |= {"seconds": round(time.time() - begin), "backend": "plain torch"}
    record |= {"torch": torch.__version__, "machine": "cpu"}
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    beside.replace(file)
    print(found["accuracy"], file.stem, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=150.0)
    parser.add_argument("--teacher", action="store_true", help="train the teacher too")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "cells")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    args = parser.parse_args()
    end, arrays = time.time() + 60 * args.minutes, np.load(args.data)
    (x, y), (x_test, y_test) = (
        (normalized(arrays[f"x_{s}"]), torch.tensor(arrays[f"y_{s}"]).long())
        for s in ("train", "test")
    )
    args.out.mkdir(parents=True, exist_ok=True)
    if args.teacher:
        torch.manual_seed(0)
        teacher, begin = ResNet(20), time.time()
        train(teacher, x, y, TEACHER_EPOCHS, 0)
        found = {"accuracy": accuracy(teacher, x_test, y_test)}
        write(args.out / f"{PAIR}.teacher.0.json", "teacher", 0, begin, **found)
    teacher = load_teacher(args.out / "resnet20.weights.h5")
    x, y = x[: args.images], y[: args.images]
    settings = {"epochs": args.epochs, "images": args.images}
    for method in (None, "KD", "AT"):
        for seed in range(args.seeds):
            name = method or "alone"
            file = args.out / f"{PAIR}.{name}.{seed}.json"
            if file.exists() or time.time() > end:
                continue
            torch.manual_seed(1000 + seed)
            student, begin = ResNet(8), time.time()
            weights = train(student, x, y, args.epochs, seed, method, teacher)
            found = {"balanced": weights, "settings": settings}
            found["accuracy"] = accuracy(student, x_test, y_test)
            write(file, name, seed, begin, **found)


if __name__ == "__main__":
    main()
