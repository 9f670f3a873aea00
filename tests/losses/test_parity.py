"""Losses against what their papers' authors compute, written again in plain PyTorch.

Each function in torch states the computation of a file of the authors' repository, at the
settings of their scripts, and each test the exact factor between it and ours, of values
and of gradients by the student's tensor.
"""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_distill import adapters, losses, targets
from tests.differentiation import differentiate

torch = pytest.importorskip("torch")
F = torch.nn.functional

LABELS = np.array([0, 9, 2, 1, 7, 3, 3, 5])
numbers = ops.convert_to_numpy


def draw(*shape, seed=0, scale=3.0):
    """Return a teacher's and a student's tensor."""
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(2, *shape)).astype("float32")


def in_torch(function, student):
    """Return the authors' value and its gradient, in float64."""
    leaf = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.item(), gradient.numpy()


def check(ours, theirs, student, factor=1.0, offset=0.0):
    """Check that ours is theirs times a factor, and a number that has no gradient."""
    value, (gradient,) = differentiate(ours, ops.convert_to_tensor(student))
    expected, slope = in_torch(theirs, student)
    np.testing.assert_allclose(numbers(value), factor * expected + offset, rtol=2e-5)
    largest = np.abs(factor * slope).max()
    assert largest > 0
    np.testing.assert_allclose(
        numbers(gradient), factor * slope, rtol=1e-4, atol=1e-5 * largest
    )


def tensor(array):
    return torch.tensor(array, dtype=torch.float64)


def kd(teacher, student, temperature):
    """The divergence of a batch: summed over the classes, its mean, times T^2."""
    log_q = F.log_softmax(student / temperature, 1)
    p = F.softmax(teacher / temperature, 1)
    return temperature**2 * F.kl_div(log_q, p, reduction="batchmean")


def dkd_of_samples(teacher, student, labels, temperature, alpha, beta):
    """Decoupled targets, a value each."""
    is_label = F.one_hot(labels, teacher.shape[1]).bool()
    two, rest = [], []
    for z in (teacher / temperature, student / temperature):
        p = F.softmax(z, 1)[is_label]
        two.append(torch.stack([p, 1 - p], 1).log())
        rest.append(F.log_softmax(z[~is_label].view(len(z), -1), 1))
    terms = (
        weight * F.kl_div(q, p, reduction="none", log_target=True).sum(1)
        for weight, (p, q) in ((alpha, two), (beta, rest))
    )
    return temperature**2 * sum(terms)


def test_logit_standardization():
    """sunshangquan/logit-standardization-KD: mdistiller/distillers/KD.py, DKD.py.

    T = 2; decoupled, its tools/train.py leaves T = 4 and comes to the weights 9 and 81.
    """
    teacher, student = draw(8, 10)
    labels = torch.tensor(LABELS)

    def standardized(z):
        return (z - z.mean(-1, keepdim=True)) / (1e-7 + z.std(-1, keepdim=True))

    loss = losses.StandardizedLogits(losses.SoftTarget(2.0))
    check(
        lambda z: loss(teacher, z),
        lambda z: kd(standardized(tensor(teacher)), standardized(z), 2.0),
        student,
    )
    loss = losses.StandardizedLogits(losses.DecoupledTarget(4.0, alpha=9.0, beta=81.0))

    def decoupled(z):
        sides = standardized(tensor(teacher)), standardized(z)
        return dkd_of_samples(*sides, labels, 4.0, 9.0, 81.0).mean()

    check(lambda z: loss(teacher, z, labels=LABELS), decoupled, student)


def test_multi_level_logits():
    """Jin-Ying/Multi-Level-Logit-Distillation: mdistiller/distillers/KD_ours.py.

    Its parts of one view. Each is the number of the whole batch, times a mask of the
    samples or classes up to the median of the teacher's confidence, whose mean follows:
    with even counts it halves them.
    """
    teacher, student = draw(8, 10)

    def theirs(z_s):
        z_t = tensor(teacher)
        sure = F.softmax(z_t, 1)
        confidence = sure.max(1).values
        samples = (confidence <= np.percentile(confidence.numpy(), 50)).double()
        confidence = sure.sum(0)
        classes = (confidence <= np.percentile(confidence.numpy(), 50)).double()
        total = 0.0
        for temperature in (4.0, 3.0, 5.0, 2.0, 6.0):
            p, q = (F.softmax(z / temperature, 1) for z in (z_t, z_s))
            between_classes = (p.T @ p - q.T @ q).square().sum() / p.shape[1]
            between_samples = (p @ p.T - q @ q.T).square().sum() / p.shape[0]
            total += (kd(z_t, z_s, temperature) * samples).mean()
            total += (between_classes * classes).mean()
            total += (between_samples * samples).mean()
        return total

    loss = losses.MultiLevelLogits()
    check(lambda z: loss(teacher, z), theirs, student, factor=2.0)


@pytest.mark.parametrize("weighted", [False, True], ids=["ttm", "wttm"])
def test_transformed_teacher_matching(weighted):
    """zkxufo/TTM: distiller_zoo/ttm.py, wttm.py; 0.1 and 0.2 are its README's."""
    teacher, student = draw(8, 10)
    power = 0.2 if weighted else 0.1

    def theirs(z):
        powers = F.softmax(tensor(teacher), 1) ** power
        sums = powers.sum(1, keepdim=True)
        values = F.kl_div(F.log_softmax(z, 1), powers / sums, reduction="none").sum(1)
        return (sums[:, 0] * values if weighted else values).mean()

    loss = losses.SoftTarget(1.0, target=targets.PowerTransform(power))
    if weighted:
        loss = losses.PowerWeightedTarget(power)
    check(lambda z: loss(teacher, z), theirs, student)


def test_weighted_soft_labels():
    """bellymonster/Weighted-Soft-Label-Distillation: knowledge_distiller.py.

    It has the cross-entropy with the soft labels: the divergence and their entropy,
    which has no gradient.
    """
    teacher, student = draw(8, 10)
    z_t, labels = tensor(teacher), torch.tensor(LABELS)
    p = F.softmax(z_t / 2.0, 1)

    def weights(z):
        ours = F.cross_entropy(z.detach(), labels, reduction="none")
        ratio = ours / (F.cross_entropy(z_t, labels, reduction="none") + 1e-7)
        return 1 - torch.exp(-ratio.clamp(min=0.0))

    def theirs(z):
        values = -(p * F.log_softmax(z / 2.0, 1)).sum(1)
        return 2.0**2 * (weights(z) * values).mean()

    entropies = -(p * p.log()).sum(1)
    offset = -(2.0**2 * (weights(tensor(student)) * entropies).mean()).item()
    loss = losses.WeightedSoftTarget(2.0)
    check(lambda z: loss(teacher, z, labels=LABELS), theirs, student, offset=offset)


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_one_for_all(power):
    """Hao840/OFAKD: distillers/ofa.py. Ours is the paper's formula.

    The code lacks the cross-entropy with the label, and raises the probabilities of the
    other classes too, which is the same at 1.
    """
    teacher, student = draw(8, 10)
    p, is_label = F.softmax(tensor(teacher), 1), F.one_hot(torch.tensor(LABELS), 10)

    def theirs(z):
        enhanced = (p + is_label) ** power - is_label
        return -(enhanced * F.log_softmax(z, 1)).sum(1).mean()

    def missing(z):
        others = (1 - is_label) * (p - p**power)
        return -((is_label + others) * F.log_softmax(z, 1)).sum(1).mean()

    loss = losses.EnhancedTarget(power)
    check(
        lambda z: loss(teacher, z, labels=LABELS),
        lambda z: theirs(z) + missing(z),
        student,
    )


def test_orthogonal_projections():
    """roymiles/VkD: engine.py, train.py.

    It normalizes the teacher over the channels, and ours, as its code for detection,
    over the batch: here the rows and columns are permutations of each other, which makes
    both the same. Its smooth distance is half the square where the gap is below 1.
    """
    width, narrow = 8, 7
    torch.manual_seed(0)
    vector = np.random.default_rng(0).normal(size=width)
    teacher = np.stack([np.roll(vector, i) for i in range(width)]).astype("float32")
    linear = torch.nn.Linear(narrow, width, bias=False, dtype=torch.float64)
    linear = torch.nn.utils.parametrizations.orthogonal(linear)
    matrix = linear.weight.detach().numpy()
    target = (teacher - teacher.mean()) / teacher.std()
    student = (0.8 * target @ matrix).astype("float32")

    def theirs(f):
        normalized = F.layer_norm(tensor(teacher), (width,))
        assert (linear(f) - normalized).abs().max() < 1.0
        return F.smooth_l1_loss(linear(f), normalized)

    projection = adapters.OrthogonalProjection(width)
    projection.build((None, narrow))
    projection.free.assign(matrix)
    np.testing.assert_allclose(numbers(projection.matrix), matrix.T, atol=1e-6)
    loss = losses.OrthogonalHint()
    check(lambda f: loss(teacher, projection(f)), theirs, student, factor=2.0)


def test_normalized_features():
    """roymiles/Simple-Recipe-Distillation: imagenet/torchdistill/losses/single.py."""
    teacher, _ = draw(16, 6)
    _, student = draw(16, 4)
    torch.manual_seed(0)
    embed = torch.nn.Linear(4, 6, dtype=torch.float64)
    norms = [
        torch.nn.BatchNorm1d(6, eps=1e-4, affine=False, dtype=torch.float64)
        for _ in range(2)
    ]
    kernel, bias = (x.detach().numpy() for x in (embed.weight.T, embed.bias))

    def theirs(f):
        gap = norms[0](embed(f)) - norms[1](tensor(teacher))
        return torch.log(gap.abs().pow(4.0).sum())

    projection = keras.layers.Dense(6)
    projection.build((None, 4))
    projection.set_weights([kernel, bias])
    loss = losses.NormalizedHint()
    check(lambda f: loss(teacher, projection(f)), theirs, student)


def test_inter_channel_correlation():
    """ADLab-AutoDrive/ICKD: Cifar100/distiller_zoo/ICKD.py, behind its embedding."""
    teacher, student = draw(3, 4, 5, 6)

    def theirs(f_s):
        sides = []
        for f in (tensor(teacher), f_s):
            channels = f.permute(0, 3, 1, 2).flatten(2)
            products = torch.bmm(channels, channels.transpose(1, 2))
            sides.append(F.normalize(products, dim=2))
        return (sides[1] - sides[0]).square().sum() / (3 * 6)

    loss = losses.ChannelCorrelation()
    check(lambda f: loss(teacher, f), theirs, student)


@pytest.mark.parametrize("epoch", [3, 10, 40])
def test_curriculum_temperature(epoch):
    """zhengli97/CTKD: distiller_zoo/KD.py, helper/loops.py, train_student.py.

    The gradients by the logits, and by the number behind the temperature, at the
    strength of an epoch.
    """
    teacher, student = draw(8, 10)
    strength = -1.0 + (math.cos(min(epoch, 10) * math.pi / 10) + 1.0) * 0.5
    z = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    raw = torch.ones(1, dtype=torch.float64, requires_grad=True)
    expected = kd(tensor(teacher), z, 1.0 + 20.0 * torch.sigmoid(raw)).sum()
    by_logits, by_raw = torch.autograd.grad(expected, (z, raw))

    loss = losses.CurriculumTemperature(10 * 7)
    learned = adapters.LearnedTemperature()

    def ours(logits, number):
        with keras.StatelessScope(state_mapping=[(learned.raw, number)]):
            return loss(teacher, learned(logits), step=7 * epoch)

    learned.build((None, 10))
    inputs = (ops.convert_to_tensor(student), ops.ones(()))
    value, found = differentiate(ours, *inputs)
    np.testing.assert_allclose(numbers(value), expected.item(), rtol=2e-5)
    np.testing.assert_allclose(numbers(found[0]), by_logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(numbers(found[1]), strength * by_raw.item(), rtol=1e-4)


def test_cosine_of_hidden_states():
    """huggingface/transformers: research_projects/distillation/distiller.py."""
    teacher, student = draw(4, 6, 5)
    mask = np.arange(6) < np.array([[6], [2], [3], [1]])

    def theirs(f):
        rows = f[torch.tensor(mask)], tensor(teacher)[torch.tensor(mask)]
        return torch.nn.CosineEmbeddingLoss()(*rows, torch.ones(int(mask.sum())))

    loss = losses.CosineDistance()
    check(lambda f: loss(teacher, f, mask=mask), theirs, student)


class Regions:
    """Maps and last layers of a teacher that is right on each image, and a student."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.heads = [
            (rng.normal(size=(width, 10)), rng.normal(size=10)) for width in (6, 4)
        ]
        self.heads = [tuple(np.float32(x) for x in head) for head in self.heads]
        teacher, _ = draw(8, 8, 8, 6)
        _, student = draw(8, 8, 8, 4)
        self.maps = teacher, student
        self.labels = self.logits(tensor(teacher), 0)[:, 0].argmax(1)

    def logits(self, maps, side):
        """Those of 1, 2 x 2 and 4 x 4 regions, each pooled from the 4 x 4."""
        kernel, bias = map(tensor, self.heads[side])
        fine = F.adaptive_avg_pool2d(maps.permute(0, 3, 1, 2), 4)
        parts = [F.adaptive_avg_pool2d(fine, s).flatten(2) for s in (1, 2, 4)]
        return torch.cat(parts, 2).transpose(1, 2) @ kernel + bias

    def theirs(self, values_of, maps):
        z_t, z_s = self.logits(tensor(self.maps[0]), 0), self.logits(maps, 1)
        labels = self.labels.repeat_interleave(21)
        values = values_of(z_t.flatten(0, 1), z_s.flatten(0, 1), labels).view(8, 21)
        right = z_t.argmax(2) == self.labels[:, None]
        weights = torch.where(right == right[:, :1], 1.0, 2.0)
        assert 0.2 < (weights == 1.0).double().mean() < 0.8
        return (weights * values).sum() / (8 * 21)

    def ours(self, loss, maps, **context):
        heads = [tuple(ops.convert_to_tensor(x) for x in head) for head in self.heads]
        teacher = ops.convert_to_tensor(self.maps[0])
        sides = ((f, ops.mean(f, axis=(1, 2))) for f in (teacher, maps))
        return loss(*sides, teacher_head=heads[0], student_head=heads[1], **context)


def test_scale_decoupled_soft_targets():
    """shicaiwei123/SDD-CVPR2024: mdistiller/distillers/KD.py, models/cifar/utils.py."""
    regions = Regions()

    def values(teacher, student, labels):
        log_q, p = F.log_softmax(student / 4.0, 1), F.softmax(teacher / 4.0, 1)
        return 4.0**2 * F.kl_div(log_q, p, reduction="none").sum(1)

    loss = losses.ScaleDecoupledLogits(losses.SoftTarget(4.0))
    check(
        lambda f: regions.ours(loss, f),
        lambda f: regions.theirs(values, f),
        regions.maps[1],
    )


def test_scale_decoupled_dkd():
    """shicaiwei123/SDD-CVPR2024: mdistiller/distillers/SDD_DKD.py."""
    regions = Regions()

    def values(teacher, student, labels):
        return dkd_of_samples(teacher, student, labels, 4.0, 1.0, 8.0)

    loss = losses.ScaleDecoupledLogits(losses.DecoupledTarget(4.0, alpha=1.0, beta=8.0))
    labels = regions.labels.numpy()
    check(
        lambda f: regions.ours(loss, f, labels=labels),
        lambda f: regions.theirs(values, f),
        regions.maps[1],
    )


def test_deit():
    """facebookresearch/deit: losses.py.

    Its soft distillation is divided by the number of logits, not of samples.
    """
    teacher, student = draw(8, 10)

    def hard(z):
        return F.cross_entropy(z, tensor(teacher).argmax(1))

    def soft(z):
        log_p, log_q = (F.log_softmax(x / 3.0, 1) for x in (tensor(teacher), z))
        values = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
        return values * 3.0**2 / z.numel()

    loss = losses.SoftTarget(1.0, target=targets.HardLabel())
    check(lambda z: loss(teacher, z), hard, student)
    loss = losses.SoftTarget(3.0)
    check(lambda z: loss(teacher, z), soft, student, factor=10.0)
