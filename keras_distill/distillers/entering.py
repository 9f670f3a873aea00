"""Raw data on their way into a distiller, in `fit`, `evaluate`, `predict` and by batches."""

import math
from typing import Any

import keras

from keras_distill._backend.own_arrays import with_own_arrays
from keras_distill.data.entry import Entry, unwrap_weight
from keras_distill.data.pipeline import (
    is_batches,
    prepared_batch,
    prepared_data,
    weighted_inputs,
)
from keras_distill.data.preparation import preparation_of
from keras_distill.data.preprocessing import preprocessing_of
from keras_distill.data.selection import (
    callables_in,
    names_of_outputs,
    outputs_by_name,
    part_of_output,
)
from keras_distill.taps import Tap
from keras_distill.training import array_checks
from keras_distill.training.first_batch import batch_again
from keras_distill.training.label_shapes import check_label_shape, check_weight_shape


class Entering:
    """Take whatever the student's own `fit`, `evaluate` and `predict` take.

    A mixin in front of `Fitting`. A distiller has an `entry`, what its models take of a
    batch; `check_fit` and `check_test`, its checks of a batch. Where models have
    preprocessing of their own, raw data pass it on their way, each model's apart.
    """

    # Data that `fit` has prepared for the evaluations in it.
    prepared = None
    has_checked_test = has_checked_layers = False

    @property
    def entry(self) -> Entry:
        """What the models take of a batch."""
        raise NotImplementedError

    def enter(self, data, training: bool = True) -> tuple:
        """Return inputs, labels and weights of a batch as it enters a step."""
        x, y, sample_weight = unwrap_weight(data)
        return self.entry.enter(x, training), y, sample_weight

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        **arguments: Any,
    ) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does, once data and models are checked.

        Arrays are checked as a whole, other data on the first batch. Models with
        preprocessing of their own, as the tasks of keras_hub, take raw data, in the order
        that these have. Sample weights without labels weigh the terms. With
        `kd.BackupAndRestore`, a run that is called again continues after the last batch
        that was saved: a run that was killed ends equal, bit by bit, to one that was not,
        if a seed decides the order of its data and no `kd.RemotePeers` teach.

        Raises:
            ValueError: there is no teacher, the data are empty, labels lie outside the
                classes, the compiled loss takes probabilities, a backup is damaged, of
                another model, of data in an unknown order or behind random layers that
                run before the step, workers would shuffle data each for itself, or, while
                training, a part of the loss is not finite or a replica gets no samples.
        """
        array_checks.check_class_weight(arguments.get("class_weight"))
        prepare = preparation_of(self.entry, training=True, teach=True)
        self.drawn_before_step = tuple(prepare.random_layers() if prepare else ())
        self._warn_of_random_layers()
        if prepare is not None:
            # Others are checked as a whole once they are known to be arrays.
            self._check_arrays(x, y, arguments.get("sample_weight"), raw=True)
        self._check_validation_arrays(arguments.get("validation_data"))
        if prepare is None:
            x, weights = weighted_inputs(x, y, arguments.pop("sample_weight", None))
            arguments |= {"sample_weight": weights} if weights is not None else {}
            if arguments.get("validation_data") is not None:
                validation = self._weighted_validation(arguments["validation_data"])
                arguments["validation_data"] = validation
        else:
            data = x, y, arguments.pop("sample_weight", None)
            x = self._prepared_for_fit(data, prepare, batch_size, arguments)
            y = batch_size = None
        try:
            return super().fit(
                x, y, batch_size, epochs, verbose, callbacks, **arguments
            )
        finally:
            self.prepared = None

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        **arguments: Any,
    ) -> Any:
        """Evaluate the student as `keras.Model.evaluate` does; raw data as in `fit`."""
        prepare = self._for_evaluation(x)
        # Data that an evaluation in `fit` has seen before.
        if not arguments.get("_use_cached_eval_dataset") and x is not self.prepared:
            self._check_evaluation(x, y, sample_weight, prepare is not None)
        if prepare is not None:
            x = prepared_data((x, y, sample_weight), prepare, batch_size)
            y = batch_size = sample_weight = None
        elif self._teaches_in_evaluation():
            x, sample_weight = weighted_inputs(x, y, sample_weight)
        x = with_own_arrays(self, x)
        return super().evaluate(x, y, batch_size, verbose, sample_weight, **arguments)

    def predict(self, x: Any, batch_size: int | None = None, **arguments: Any) -> Any:
        """Return the student's predictions, as `keras.Model.predict`; raw data as in `fit`."""
        prepare = self._for_evaluation(x)
        if prepare is not None:
            x, batch_size = prepared_data((x, None, None), prepare, batch_size), None
        return super().predict(with_own_arrays(self, x), batch_size, **arguments)

    def train_on_batch(self, x, y=None, sample_weight=None, **arguments):
        """Take one step on a batch, checked before the first as `fit` checks it."""
        array_checks.check_class_weight(arguments.get("class_weight"))
        self._warn_of_random_layers()
        batch = x, y, sample_weight
        prepare = preparation_of(self.entry, training=True, teach=True)
        batch = batch if prepare is None else prepared_batch(batch, prepare)
        batch = keras.utils.unpack_x_y_sample_weight(batch)
        return super().train_on_batch(*batch, **arguments)

    def test_on_batch(self, x, y=None, sample_weight=None, **arguments):
        """Evaluate the student on a batch, checked before the first time."""
        batch, prepare = (x, y, sample_weight), self._for_evaluation(x)
        self._check_arrays(*batch, prepare is not None)
        batch = batch if prepare is None else prepared_batch(batch, prepare)
        batch = keras.utils.unpack_x_y_sample_weight(batch)
        if not self.has_checked_test or self.test_function is None:
            self.check_test(batch)
            self.has_checked_test = True
        return super().test_on_batch(*batch, **arguments)

    def predict_on_batch(self, x):
        """Return the student's predictions of a batch."""
        prepare = self._for_evaluation(x)
        if prepare is not None:
            x, *_ = prepared_batch((x, None, None), prepare)
        return super().predict_on_batch(x)

    def check_data(self, batch, sample_weight=None, device: bool = True) -> None:
        """Check what arrays have in them, before the first step and in each by hand."""
        x, y, own = unwrap_weight(batch)
        weight = own if sample_weight is None else sample_weight
        given = {"strings": self._takes_strings(), "device": device}
        array_checks.check_data(x, y, weight, shapes=self._output_shapes(), **given)
        array_checks.check_whole(y, self._loss_of_part, device)
        self._check_label_shapes(y, weight, device)

    def _check_arrays(self, x, y, sample_weight, raw: bool) -> None:
        """Check the arrays of an evaluation, or raw ones that models preprocess."""
        if x is None or is_batches(x):
            return
        x, y, own = unwrap_weight((x, y))
        weight = own if sample_weight is None else sample_weight
        given = {"strings": self._takes_strings(), "raw": raw}
        array_checks.check_data(x, y, weight, shapes=self._output_shapes(), **given)
        array_checks.check_whole(y, self._loss_of_part)
        if not raw:
            self._check_label_shapes(y, weight)

    def _check_evaluation(self, x, y, sample_weight, raw: bool) -> None:
        """Check arrays, or the first batch of data that can be read again."""
        batch = batch_again(x)
        if batch is not None:
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        self._check_arrays(x, y, sample_weight, raw)

    def _check_label_shapes(self, y, sample_weight, device: bool = True) -> None:
        """Check labels and weights against the outputs that the students declare."""
        for student in self.entry.students:
            for name, x in _declared_outputs(student):
                of_part = Tap.output(name), names_of_outputs(student)
                loss = part_of_output(self._loss_of_labels(), *of_part)
                labels = part_of_output(y, *of_part)
                check_label_shape(labels, loss, x.shape)
                array_checks.check_range(labels, loss, x.shape[-1], device)
                weight = part_of_output(sample_weight, *of_part)
                check_weight_shape(weight, loss, x.shape)

    def _check_validation_arrays(self, validation) -> None:
        if validation is not None:
            data = keras.utils.unpack_x_y_sample_weight(validation)
            self._check_evaluation(*data, self._for_evaluation(data[0]) is not None)

    def _loss_of_labels(self):
        """Return the loss that was compiled for labels; None for the students' own."""
        first = getattr(self, "members", [self])[0]
        return None if first.has_own_loss() else getattr(first, "loss", None)

    def _takes_strings(self) -> bool:
        """Whether a model or a selection may take strings."""
        entry = self.entry
        if callables_in(entry.inputs) or callables_in(entry.student):
            return True
        inputs = [getattr(model, "inputs", None) for model in entry.students]
        return None in inputs or any(
            x.dtype == "string" for part in inputs for x in part
        )

    def _output_shapes(self) -> list | None:
        """Return the shapes of the students' outputs, None if one is unknown."""
        outputs = [getattr(model, "outputs", None) for model in self.entry.students]
        return None if None in outputs else [x.shape for part in outputs for x in part]

    def _loss_of_part(self, key: str | int | None):
        """Return what was compiled for a key or an index of labels, None for all."""
        loss, names = self._loss_of_labels(), names_of_outputs(self.entry.students[0])
        return (
            loss if key is None else part_of_output(loss, Tap.output(str(key)), names)
        )

    def _for_evaluation(self, x):
        if x is None or x is self.prepared:
            return None
        teach = self._teaches_in_evaluation()
        return preparation_of(self.entry, training=False, teach=teach)

    def _teaches_in_evaluation(self) -> bool:
        members = getattr(self, "members", [self])
        return any(getattr(member, "validates_terms", False) for member in members)

    def _warn_of_random_layers(self) -> None:
        """Warn once of random layers that draw apart for student and teacher."""
        if not self.has_checked_layers:
            self.entry.warn_of_random_layers()
            self.has_checked_layers = True

    def _prepared_for_fit(self, data, prepare, batch_size, arguments: dict):
        """Return prepared data; the validation data of the arguments become prepared."""
        split = arguments.pop("validation_split", None)
        validation = arguments.get("validation_data")
        if validation is None and split:
            data, validation = _split(data, split)
        size = arguments.pop("validation_batch_size", None) or batch_size
        if validation is not None:
            arguments["validation_data"] = self._prepared_validation(validation, size)
        shuffle = bool(arguments.get("shuffle", True)) and not is_batches(data[0])
        # The fit of a task that preprocesses keeps the order of its data.
        shuffle &= not any(map(preprocessing_of, self.entry.students))
        arguments["shuffle"] = False
        return prepared_data(data, prepare, batch_size, shuffle)

    def _prepared_validation(self, validation, batch_size):
        data = keras.utils.unpack_x_y_sample_weight(validation)
        prepare = self._for_evaluation(data[0])
        if prepare is None:
            return self._weighted_validation(validation)
        size = None if is_batches(data[0]) else batch_size
        self.prepared = prepared_data(data, prepare, size)
        return self.prepared

    def _weighted_validation(self, validation):
        """Return validation data; without labels, the inputs hold the weights of terms."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(validation)
        if weights is None or y is not None or not self._teaches_in_evaluation():
            return validation
        return (weighted_inputs(x, y, weights)[0],)


def _declared_outputs(model) -> list:
    """Return the outputs that a model declares with their names."""
    outputs = getattr(model, "outputs", None) or []
    # A Sequential has no `output`.
    return outputs_by_name(model.output if len(outputs) > 1 else (*outputs, None)[0])


def _split(data: tuple, fraction: float) -> tuple:
    """Return arrays without their last part, and that part, as Keras divides them."""
    if is_batches(data[0]):
        raise ValueError(
            f"validation_split divides arrays; got a {type(data[0]).__name__}. Pass "
            "validation_data."
        )
    parts = [leaf for part in data for leaf in _leaves(part)]
    first = math.floor(len(parts[0]) * (1.0 - fraction))
    if not 0 < first < len(parts[0]):
        raise ValueError(
            f"validation_split={fraction} of {len(parts[0])} samples leaves a part empty."
        )
    return _taken(data, slice(first)), _taken(data, slice(first, None))


def _leaves(part) -> list:
    if isinstance(part, dict):
        return [leaf for x in part.values() for leaf in _leaves(x)]
    if isinstance(part, tuple):
        return [leaf for x in part for leaf in _leaves(x)]
    return [] if part is None else [part]


def _taken(part, rows: slice):
    if isinstance(part, dict):
        return {key: _taken(x, rows) for key, x in part.items()}
    if isinstance(part, tuple):
        return tuple(_taken(x, rows) for x in part)
    return None if part is None else part[rows]
