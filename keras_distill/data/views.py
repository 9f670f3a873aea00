"""Reproducible random augmentation: a fixed number of views of each sample."""

import dataclasses
from collections.abc import Callable

from keras_distill._backend.number_checks import check_integers
from keras_distill._backend.optional import require


@dataclasses.dataclass(frozen=True)
class Views:
    """A number of augmented views of each sample, each reproducible at any time.

    A view depends only on the sample's id, the view's number and the seed, so that the
    student gets exactly the image that the teacher got, in any order, in another
    process or a year later. `augment` must draw all random numbers from the seed that
    it is passed, as TensorFlow's stateless operations do.

    Args:
        augment: function from an image `(H, W, C)` and a seed `(2,)`, int64, to an
            image; called in the `tf.data` pipeline.
        count: number of views of each sample, 1 or more.
        seed: seed of the views. Default 0.

    Raises:
        TypeError: `augment` is not callable.
        ValueError: `count` is below 1.

    Example:
        >>> def augment(image, seed):
        ...     image = tf.image.stateless_random_flip_left_right(image, seed)
        ...     return tf.image.stateless_random_brightness(image, 0.1, seed)
        >>> views = kd.data.Views(augment, 8)
        >>> train = kd.data.batches(digits.train, 128, shuffle=True, augment=views)

    Source:
        Beyer et al. 2022, Knowledge distillation: a good teacher is patient and
        consistent.
    """

    augment: Callable
    count: int
    seed: int = 0

    def __post_init__(self):
        """Check the arguments."""
        if not callable(self.augment):
            raise TypeError(
                "augment is a function of an image and a seed; got "
                f"{type(self.augment).__name__}."
            )
        check_integers(0, seed=self.seed)
        check_integers(1, count=self.count)

    def drawn(self, dataset, image: str = "image", sample_id: str = "sample_id"):
        """Augment single elements, with a view that each pass draws at random.

        Args:
            dataset: a `tf.data.Dataset` of elements, not batches: a dict with an image
                and a sample id, or a tuple that begins with such a dict.
            image: key of the image.
            sample_id: key of the id.

        Returns:
            A `tf.data.Dataset` of the same, with the number of the view as `"view"`.
        """
        tf = require("tensorflow", "kd.data.Views")

        numbers = tf.data.Dataset.random(self.seed, rerandomize_each_iteration=True)
        views = numbers.map(lambda number: number % self.count)
        return self._augmented(dataset, views, image, sample_id)

    def only(
        self, dataset, view: int, image: str = "image", sample_id: str = "sample_id"
    ):
        """Augment single elements, with the same view number for all.

        Args:
            dataset, image, sample_id: as in `drawn`.
            view: number of the view, from 0.
        """
        tf = require("tensorflow", "kd.data.Views")

        views = tf.data.Dataset.from_tensors(tf.constant(view, "int64")).repeat()
        return self._augmented(dataset, views, image, sample_id)

    def _augmented(self, dataset, views, image, sample_id):
        tf = require("tensorflow", "kd.data.Views")

        def augment(element, view):
            x = dict(element[0] if isinstance(element, tuple) else element)
            sample = tf.cast(x[sample_id], "int64")
            seed = tf.stack([self.seed * self.count + view, sample])
            x.update({image: self.augment(x[image], seed), "view": view})
            return (x, *element[1:]) if isinstance(element, tuple) else x

        pairs = tf.data.Dataset.zip(dataset, views)
        return pairs.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
