"""Raw batches as what each model takes, once its own preprocessing has run."""

from collections.abc import Callable, Mapping, Sequence

import keras

from keras_distill.data.entry import (
    IDS,
    SHARED,
    STUDENT,
    TEACHER,
    WEIGHT,
    WHOLE,
    Entry,
    is_random,
    lists_to_tuples,
)
from keras_distill.data.preprocessing import fingerprint, preprocessing_of
from keras_distill.data.selection import layers_in
from keras_distill.taps.tracing import input_of

_MEMBER = "kd_member_{}"


class Preparation:
    """From a raw batch `(x, y, sample_weight)` to one that a step takes.

    Each model's own preprocessing runs on its part of the raw inputs, equal ones once.
    Labels and weights that preprocessing makes are the student's.

    Args:
        entry: of the distiller.
        training: the form in which layers of the selections run.
        teach: whether the teacher takes part.
    """

    def __init__(self, entry: Entry, *, training: bool, teach: bool):
        self.entry, self.training, self.teach = entry, training, teach
        models = [*entry.students, *(entry.teachers if teach else ())]
        self.kinds = {id(model): fingerprint(model) for model in models}

    def __call__(self, x, y=None, sample_weight=None) -> tuple:
        """Return the batch as a tuple of one to three, as `fit` takes it."""
        entry, runs = self.entry, {}
        x = entry.enter(x, self.training) if self.teach else x
        prepared, y, sample_weight = self._of_student(x, y, sample_weight, runs)
        if self.teach:
            if not entry.one_sided:
                prepared |= self._of_teacher(x, runs)
            if entry.sample_ids is not None:
                prepared[IDS] = entry.ids(x)
            if not {STUDENT, *([] if entry.one_sided else [TEACHER])} <= set(prepared):
                is_entered = isinstance(x, Mapping) and SHARED in x
                kept = (WHOLE, SHARED)
                prepared |= {k: x[k] for k in kept} if is_entered else {WHOLE: x}
        if y is None and sample_weight is not None:
            prepared[WEIGHT], sample_weight = sample_weight, None
        packed = keras.utils.pack_x_y_sample_weight(prepared, y, sample_weight)
        return lists_to_tuples(packed if isinstance(packed, tuple) else (packed,))

    def random_layers(self) -> list[str]:
        """Return the names of the layers that draw before the step."""
        entry, parts = self.entry, [self.entry.inputs, self.entry.common]
        if any(map(preprocessing_of, entry.students)):
            parts.append(entry.student)
        return [layer.name for layer in layers_in(*parts) if is_random(layer)]

    def _of_student(self, x, y, sample_weight, runs: dict) -> tuple:
        entry = self.entry
        if not any(map(preprocessing_of, entry.students)):
            if self.teach and entry.student_runs_in_step:
                return {}, y, sample_weight
            inputs = self._student_part(x)
            _check_not_strings(entry.students, inputs)
            return {STUDENT: inputs}, y, sample_weight
        inputs = self._student_part(x)
        batches = self._run(entry.students, inputs, (y, sample_weight), runs)
        inputs, y, sample_weight = _of_all(batches)
        return {STUDENT: inputs}, y, sample_weight

    def _student_part(self, x):
        if self.teach:
            return self.entry.student_part(x, self.training)
        return self.entry.student_alone(x, self.training)

    def _of_teacher(self, x, runs: dict) -> dict:
        entry = self.entry
        if not entry.teachers:
            return {TEACHER: _without_strings(entry.teacher_part(x))}
        if not any(map(preprocessing_of, entry.teachers)):
            if entry.teacher_runs_in_step:
                return {}
            inputs = entry.teacher_part(x)
            _check_not_strings(entry.teachers, inputs)
            return {TEACHER: inputs}
        inputs = entry.teacher_part(x)
        batches = self._run(entry.teachers, inputs, (None, None), runs)
        return {TEACHER: by_member([batch[0] for batch in batches])}

    def _run(self, models: Sequence, inputs, labels: tuple, runs: dict) -> list[tuple]:
        """Return the batch of each model; equal preprocessing runs once."""
        batches = []
        for model in models:
            key = self.kinds[id(model)], id(inputs)
            if key not in runs:
                runs[key] = inputs, _preprocess(model, inputs, *labels)
            batches.append(runs[key][1])
        return batches


def _without_strings(x):
    """Leave out texts, which only preprocessing takes, beside knowledge in the data."""
    if not isinstance(x, Mapping):
        return x
    return {key: part for key, part in x.items() if not _is_string(part)}


def _is_string(x) -> bool:
    name = str(getattr(getattr(x, "dtype", None), "name", type(x).__name__))
    return name.startswith("str") or name in ("bytes", "object")


def _check_not_strings(models: Sequence, inputs) -> None:
    """Check that models without preprocessing, which declare numbers, get no strings."""
    if not any(map(_is_string, keras.tree.flatten(inputs))):
        return
    for model in models:
        declared = getattr(model, "inputs", None) or []
        if declared and not any(x.dtype == "string" for x in declared):
            raise TypeError(
                f"The inputs are strings, but '{model.name}' has no preprocessor of its "
                "own and takes numbers. Give it a preprocessor, or set that of all models "
                "to None and pass tokens."
            )


def _preprocess(model, inputs, y, sample_weight) -> tuple:
    function = preprocessing_of(model)
    if function is None:
        _check_not_strings([model], inputs)
        return inputs, y, sample_weight
    batch = function(inputs, y, sample_weight)
    x, made_y, made_weight = keras.utils.unpack_x_y_sample_weight(batch)
    if made_y is None and made_weight is None:
        # Keras packs no weights where there are no labels.
        made_weight = sample_weight
    return x, made_y, made_weight


def _of_all(batches: Sequence[tuple]) -> tuple:
    """Return the inputs of all students, and the labels that must be those of each."""
    inputs, labels, weights = zip(*batches, strict=True)
    shapes = [keras.tree.map_structure(_shape, y) for y in labels]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            f"The peers' preprocessors make labels of different shapes, {shapes}. Give "
            "them one sequence length and one tokenizer."
        )
    return by_member(inputs), labels[0], weights[0]


def _shape(leaf):
    return str(getattr(leaf, "shape", None))


def by_member(inputs: Sequence):
    """Return inputs that are the same for all models, else a dict of each model's."""
    if all(x is inputs[0] for x in inputs):
        return inputs[0]
    return {_MEMBER.format(index): x for index, x in enumerate(inputs)}


def inputs_of_models(models: Sequence):
    """Return specs of what models declare as inputs, None if one declares none.

    They are those of the first, or a dict of each model's where they differ.
    """
    specs = [input_of(model) for model in models]
    if not specs or any(x is None for x in specs):
        return next(iter(specs), None)
    shapes = [[x.shape for x in keras.tree.flatten(spec)] for spec in specs]
    same = all(shape == shapes[0] for shape in shapes)
    return specs[0] if same else by_member(specs)


def of_member(inputs, index: int):
    """Return the inputs of one of several models, which may have different ones."""
    key = _MEMBER.format(index)
    apart = isinstance(inputs, Mapping) and key in inputs
    return inputs[key] if apart else inputs


def preparation_of(entry: Entry, *, training: bool, teach: bool) -> Callable | None:
    """Return the preparation of raw batches; None where no model preprocesses."""
    models = [*entry.students, *(entry.teachers if teach else ())]
    if not any(map(preprocessing_of, models)):
        return None
    return Preparation(entry, training=training, teach=teach)
