"""Where a batch enters a distiller: what student, teacher and losses take of it.

A batch walks: raw inputs -> `inputs` -> the parts of student and teacher -> each model's
own preprocessing -> the step. What is known before the step is in a dict of the keys
below, in place of the batch's inputs.
"""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_distill.data.preprocessing import preprocessing_of
from keras_distill.data.selection import (
    Selection,
    callables_in,
    check_parts,
    for_model,
    is_in,
    layers_in,
    select,
)
from keras_distill.taps.tracing import trace

STUDENT, TEACHER, IDS = "kd_student", "kd_teacher", "kd_sample_ids"
WHOLE, SHARED, WEIGHT = "kd_inputs", "kd_shared", "kd_sample_weight"
_KEYS = {STUDENT, TEACHER, IDS, WHOLE, SHARED, WEIGHT}


class Entry:
    """Which part of a batch the models take.

    Args:
        inputs: what both models select from. Default: the batch's inputs.
        student, teacher: each model's part of that.
        sample_ids: key or index of the sample ids in the batch's inputs.
        students, teachers: the models that take the parts, in whose structure each is.
        one_sided: whether the knowledge comes from the students' own run.
    """

    def __init__(
        self,
        inputs: Selection,
        student: Selection,
        teacher: Selection,
        sample_ids: str | int | None,
        students: Sequence[keras.Model] = (),
        teachers: Sequence[keras.Model] = (),
        one_sided: bool = False,
    ):
        self.sample_ids, self.one_sided = sample_ids, one_sided
        first = next(iter(students), None) if student is None else None
        self.inputs = for_model(inputs, first)
        self.student = for_model(student, next(iter(students), None))
        self.teacher = for_model(teacher, next(iter(teachers), None))
        self.students, self.teachers = students, teachers

    @property
    def common(self) -> list[Callable]:
        """The layers and functions that are on both sides, which run once for both."""
        of_teacher = callables_in(self.teacher)
        return [run for run in callables_in(self.student) if is_in(run, of_teacher)]

    def enter(self, x, training: bool):
        """Return a batch's inputs once what both models share has run."""
        whole, common = x, self.common
        if is_wrapped(x):
            if WHOLE not in x or SHARED in x:
                return x
            whole = x[WHOLE]
        if self.inputs is None and not common:
            return x
        result = dict(x) if is_wrapped(x) else {}
        if self.sample_ids is not None and IDS not in result:
            result[IDS] = select(whole, self.sample_ids)
        whole = select(whole, self.inputs, training)
        shared = [select(whole, run, training) for run in common]
        by_number = {str(number): value for number, value in enumerate(shared)}
        return {**result, WHOLE: whole, SHARED: by_number}

    def student_part(self, x, training: bool):
        """Return what the student takes of a batch that has entered."""
        return self._part(x, STUDENT, self.student, training)

    def teacher_part(self, x):
        """Return what the teacher takes of a batch that has entered."""
        if self.one_sided:
            return self.student_part(x, False)
        return self._part(x, TEACHER, self.teacher, False)

    def ids(self, x):
        """Return the sample ids of a batch that has entered, or None."""
        if self.sample_ids is None:
            return None
        return self._part(x, IDS, self.sample_ids, False)

    def student_alone(self, x, training: bool = False):
        """Return what the student takes of inputs that no teacher sees.

        A student that takes one part of a batch also takes that part by itself.
        """
        if is_wrapped(x) and (STUDENT in x or SHARED in x):
            return self.student_part(x, training)
        x = x[WHOLE] if is_wrapped(x) else x
        keys = [part for part in (self.inputs, self.student) if part is not None]
        if not isinstance(x, Mapping) and all(isinstance(key, str) for key in keys):
            return x
        return select(select(x, self.inputs, training), self.student, training)

    def whole(self, x):
        """Return the inputs of a batch that has entered, as far as they are known."""
        return x.get(WHOLE, x.get(STUDENT)) if is_wrapped(x) else x

    def taught(self, x):
        """Return what the teacher takes of a batch that has not entered."""
        return self.teacher_part(self.enter(x, training=False))

    def reaches_teacher(self, x) -> bool:
        """Whether a batch has what the teacher takes, which an evaluation may lack."""
        if is_wrapped(x):
            return self.one_sided or WHOLE in x or TEACHER in x
        try:
            self.check(x)
        except ValueError:
            return False
        return True

    def check(self, x) -> None:
        """Check that a batch has all parts, and that no layer's weights would be ignored.

        Raises:
            ValueError: it has not, or a layer that a teacher's inputs pass is trained.
        """
        x = x.get(WHOLE) if is_wrapped(x) else x
        if x is not None:
            of_both = self.sample_ids, self.inputs
            check_parts(x, *of_both)
            if self.inputs is None:
                check_parts(x, self.student, self.teacher)
                if self.student is None:
                    _check_whole_is_taken(x, "student", self.students)
        for layer in layers_in(self.inputs, self.teacher):
            if layer.trainable_variables:
                raise ValueError(
                    f"The layer '{layer.name}' computes the teacher's inputs, and no "
                    "gradient trains it. Set its trainable to False, or, for a layer of "
                    "the student alone, put it into the student."
                )

    def warn_of_random_layers(self) -> None:
        """Warn if student and teacher see differently augmented inputs."""
        self._warn_of_hidden_layers()
        sides = [
            [x.name for x in _layers_run_by(side, self.common) if is_random(x)]
            for side in (self.student, self.teacher)
        ]
        if all(sides):
            warnings.warn(
                f"The random layers {sides[0]} of student_inputs and {sides[1]} of "
                "teacher_inputs draw apart, so that student and teacher see different "
                "inputs. Pass one layer as inputs=, which runs once for both.",
                stacklevel=4,
            )

    def _warn_of_hidden_layers(self) -> None:
        """Warn of random layers that functions call, whose seeds no step of JAX moves."""
        if keras.backend.backend() != "jax":
            return
        given = self.inputs, self.student, self.teacher
        tracked = {id(layer) for layer in layers_in(*given)}
        hidden = [
            layer.name
            for selection in given
            for layer in _layers_run_by(selection, [])
            if is_random(layer) and id(layer) not in tracked
        ]
        if hidden:
            warnings.warn(
                f"The random layers {hidden} are called in a function, where JAX draws the "
                "same numbers in every step. Pass the layer itself, or a keras.Sequential "
                "of it, in place of the function.",
                stacklevel=5,
            )

    @property
    def preprocesses(self) -> bool:
        """Whether a model has preprocessing of its own, which runs before the step."""
        return any(map(preprocessing_of, [*self.students, *self.teachers]))

    @property
    def student_runs_in_step(self) -> bool:
        """Whether a layer or function computes the student's inputs, in the step."""
        return _has_callables(self.student)

    @property
    def teacher_runs_in_step(self) -> bool:
        """Whether a layer or function computes the teacher's inputs, in the step."""
        return _has_callables(self.teacher)

    def build(self, x) -> None:
        """Build the layers of the selections, by a batch that has not entered."""
        parts = layers_in(self.inputs, self.student, self.teacher)
        if not all(layer.built for layer in parts):
            trace(lambda x: self.student_part(self.enter(x, False), False), x)
            trace(self.taught, x)

    def _part(self, x, key: str, selection: Selection, training: bool):
        if not is_wrapped(x):
            return select(x, selection, training)
        if key in x:
            return x[key]
        shared = x.get(SHARED, {})
        known = [(run, shared[str(n)]) for n, run in enumerate(self.common)]
        return select(x[WHOLE], selection, training, known)


def _check_whole_is_taken(x, side: str, models: Sequence) -> None:
    """Check that models of one input are not given a dict of several.

    Keras takes a dict for a functional model if it has the name of the input.
    """
    for model in models:
        inputs = getattr(model, "inputs", None) or []
        if not isinstance(x, Mapping) or len(inputs) != 1 or len(x) == 1:
            continue
        is_stack = isinstance(model, keras.Sequential)
        takes_it = not is_stack and inputs[0].name in x
        if not takes_it and preprocessing_of(model) is None:
            raise ValueError(
                f"The {side} '{model.name}' takes one input, but the inputs of a batch "
                f"are a dict of {list(x)}. Name its part, as in "
                f"{side}_inputs={next(iter(x))!r}."
            )


def is_wrapped(x) -> bool:
    """Whether inputs are those of a batch of which something is known before the step."""
    return isinstance(x, Mapping) and not _KEYS.isdisjoint(x)


def unwrap_weight(batch: tuple) -> tuple:
    """Return inputs, labels and weights of a batch, where the inputs may hold the weights."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    if is_wrapped(x) and WEIGHT in x:
        x = dict(x)
        sample_weight = x.pop(WEIGHT)
        x = x[WHOLE] if set(x) == {WHOLE} else x
    return x, y, sample_weight


def lists_to_tuples(x):
    """Return inputs with tuples for lists, which `tf.data` would stack."""
    if isinstance(x, Mapping):
        return {key: lists_to_tuples(part) for key, part in x.items()}
    return tuple(map(lists_to_tuples, x)) if isinstance(x, (tuple, list)) else x


def _has_callables(selection: Selection) -> bool:
    return any(map(callable, keras.tree.flatten(selection)))


def _layers_run_by(selection: Selection, common: list) -> list[keras.Layer]:
    """Return the layers of one side alone, and those that its functions refer to."""
    found = []
    for run in callables_in(selection):
        if is_in(run, common):
            continue
        if inspect.isfunction(run):
            names = inspect.getclosurevars(run)
            found += layers_in(*names.globals.values(), *names.nonlocals.values())
        elif isinstance(run, keras.Layer):
            found.append(run)
    return list({id(layer): layer for layer in found}.values())


def is_random(layer: keras.Layer) -> bool:
    """Whether a layer draws numbers, in training form."""
    return any(v.name == "seed_generator_state" for v in layer.variables)
