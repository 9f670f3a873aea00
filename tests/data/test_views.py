"""Views are reproducible: the id, the number and the seed determine an image."""

import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd


def noisy(image, seed):
    return image + tf.random.stateless_uniform(tf.shape(image), seed)


def samples(count=40):
    images = np.arange(count, dtype="float32").reshape(-1, 1, 1, 1) * np.ones((2, 2, 1))
    return kd.data.Samples(
        images.astype("float32"), np.zeros(count, "int32"), np.arange(count) + 1000
    )


def shown(views, data=None, **arguments):
    data = samples() if data is None else data
    batches = kd.data.batches(data, 7, augment=views, sample_ids=True, **arguments)
    return {
        (int(i), int(v)): image
        for x, _ in batches
        for i, v, image in zip(
            x["sample_id"].numpy(), x["view"].numpy(), x["image"].numpy(), strict=True
        )
    }


def test_a_view_is_the_same_in_any_order_and_selection():
    views = kd.data.Views(noisy, 4)
    first = {}
    for seed in range(12):
        found = shown(views, samples()[seed % 3 :: 2], shuffle=True, seed=seed)
        assert all(np.array_equal(first.setdefault(k, x), x) for k, x in found.items())
    # Every id, every view, no two equal.
    assert len(first) > 120
    noise = {tuple((x - x.astype(int)).ravel().tolist()) for x in first.values()}
    assert len(noise) == len(first)


def test_each_pass_draws_other_views():
    views = kd.data.Views(noisy, 3, seed=1)
    batches = kd.data.batches(samples(), 40, augment=views, sample_ids=True)
    passes = [next(iter(batches))[0]["view"].numpy() for _ in range(2)]
    assert (passes[0] != passes[1]).any()
    counts = np.bincount(np.concatenate(passes), minlength=3)
    assert counts.min() > 10


def test_a_single_view_equals_the_drawn_one():
    views = kd.data.Views(noisy, 2, seed=3)
    drawn = shown(views)
    x = {"image": samples().images, "sample_id": samples().ids}
    for view in range(2):
        only = views.only(tf.data.Dataset.from_tensor_slices(x), view)
        for element in only.as_numpy_iterator():
            assert element["view"] == view
            key = int(element["sample_id"]), view
            if key in drawn:
                np.testing.assert_array_equal(element["image"], drawn[key])


def test_another_seed_gives_other_views():
    one, other = (shown(kd.data.Views(noisy, 1, seed=seed)) for seed in (0, 1))
    assert set(one) == set(other)
    assert not any(np.array_equal(one[key], other[key]) for key in one)


def test_without_ids_batches_are_images_and_labels():
    batches = kd.data.batches(samples(), 8, augment=kd.data.Views(noisy, 2))
    image, label = next(iter(batches))
    assert image.shape == (8, 2, 2, 1) and label.shape == (8,)


def test_bad_arguments():
    with pytest.raises(TypeError, match="a function of an image and a seed; got int"):
        kd.data.Views(3, 2)
    with pytest.raises(
        ValueError, match="count must be an integer of 1 or more; got 0"
    ):
        kd.data.Views(noisy, 0)
