"""A teacher whose knowledge is in the data."""

from collections.abc import Iterable, Mapping, Sequence

from keras import ops

from keras_distill.taps import Tap
from keras_distill.teachers.base_teacher import BaseTeacher, Request, check_known


class GivenTeacher(BaseTeacher):
    """A teacher whose knowledge is in columns of the data, and that runs no model.

    What a teacher knows may have been computed elsewhere: by another framework, on other
    machines, by an API. The inputs of a batch then hold it beside those of the student.
    The student takes `student_inputs`, or all other columns: the only one, or a dict of
    several, without the sample ids. `evaluate`, `predict` and `validation_data` need no
    knowledge: they take the student's inputs alone, too.

    Columns have no mask: padding counts if the student's tensor has none either, and is
    left out by the `mask` of a `kd.Term`, as in `kd.Term(loss, mask="padding_mask")`.

    Peers of a `MutualDistiller` teach each other, and can't have a given teacher.

    Args:
        **columns: for each tap of the teacher, the key or index, from 0, of its column,
            batch first: `logits` for the prediction, or any name by which terms tap it. Write
            `**{"backbone/stack2": "column"}` for a name with a slash.

    Raises:
        ValueError: no columns, or a negative index; in a distiller, its `sample_ids` are
            a negative index, a term taps what is not given, or, before the first step,
            the data lack a column.

    Example:
        >>> teacher = kd.GivenTeacher(logits="teacher_logits")
        >>> distiller = kd.Distiller(student, teacher)
        >>> distiller.compile("adam", loss)
        >>> distiller.fit({"image": images, "teacher_logits": logits}, labels)
        >>> distiller.predict(images)
    """

    adapts_to_data = True

    def __init__(self, **columns: str | int):
        super().__init__()
        if not columns:
            raise ValueError(
                "A given teacher needs the columns of the data that it is, as in "
                "kd.GivenTeacher(logits='teacher_logits')."
            )
        for name, column in columns.items():
            _check_index(f"kd.GivenTeacher({name}={column!r})", column)
        self.columns = {Tap(name): column for name, column in columns.items()}

    def __call__(self, inputs, taps: Iterable[Tap], scores=None) -> dict[Tap, object]:
        """Return the columns of the taps, without gradient."""
        self.adapt(inputs)
        known = {tap: ops.convert_to_tensor(inputs[self.columns[tap]]) for tap in taps}
        return {tap: ops.stop_gradient(tensor) for tap, tensor in known.items()}

    def check(self, requests: Sequence[Request]) -> None:
        """Check that terms tap what is given."""
        super().check(requests)
        check_known(requests, self.columns, "The data give")

    def adapt(self, inputs) -> None:
        """Check that a batch has all columns."""
        for tap, column in self.columns.items():
            if not _has(inputs, column):
                parts = _parts_of(inputs)
                raise ValueError(
                    f"The data have no column {column!r}, which kd.GivenTeacher takes for "
                    f"'{tap}'; they have {parts}. Put it into the inputs of each batch, "
                    "beside the student's. With validate_terms=True validation data need "
                    "it too; leave that out to evaluate the student alone."
                )

    def student_selection(self, selection, sample_ids=None):
        """Return what the student takes of a batch with or without the columns."""
        if selection is not None and not _is_of_keys(selection):
            return selection
        _check_index(f"sample_ids={sample_ids!r} beside a kd.GivenTeacher", sample_ids)
        return Beside(self.columns.values(), selection, sample_ids)


class Beside:
    """Selects the student's part of inputs that may have columns for its teacher.

    Args:
        columns: keys or indices of the teacher's.
        selection: the student's keys, None for all others.
        sample_ids: key or index of the ids, which is no input of the student.
    """

    def __init__(self, columns: Iterable, selection, sample_ids=None):
        self.columns, self.selection = tuple(columns), selection
        self.others = {*self.columns, sample_ids} - {None}

    def __call__(self, x):
        if self.selection is None:
            return self._rest(x)
        is_list = isinstance(self.selection, (list, tuple))
        keys = self.selection if is_list else [self.selection]
        has_columns = any(_has(x, column) for column in self.columns)
        if not has_columns and not all(_has(x, key) for key in keys):
            return x
        parts = [_part(x, key) for key in keys]
        return parts if is_list else parts[0]

    def _rest(self, x):
        if isinstance(x, Mapping):
            rest = {key: part for key, part in x.items() if key not in self.others}
            return next(iter(rest.values())) if len(rest) == 1 else rest
        if isinstance(x, (list, tuple)):
            rest = [part for i, part in enumerate(x) if i not in self.others]
            return rest[0] if len(rest) == 1 else rest
        return x


def _check_index(text: str, key) -> None:
    """Check that a key is no index from the end, where inputs may lack columns."""
    if isinstance(key, int) and key < 0:
        raise ValueError(
            f"{text} is an index from the end, which is another part of inputs with and "
            "without the teacher's columns. Pass the index from 0, or inputs in a dict "
            "and their keys."
        )


def _has(x, key) -> bool:
    if isinstance(x, Mapping):
        return key in x
    is_index = isinstance(key, int) and isinstance(x, (list, tuple))
    return is_index and -len(x) <= key < len(x)


def _parts_of(x) -> str:
    """Return what inputs have, for an error."""
    if isinstance(x, Mapping):
        return f"{list(x)}"
    return f"{len(x)} parts" if isinstance(x, (list, tuple)) else "one array of inputs"


def _part(x, key):
    if not _has(x, key):
        parts = _parts_of(x)
        raise ValueError(
            f"The batch's inputs have no part {key!r}; they are {parts}. Name one of them "
            "in student_inputs."
        )
    return x[key]


def _is_of_keys(selection) -> bool:
    keys = selection if isinstance(selection, (list, tuple)) else [selection]
    return all(isinstance(key, (str, int)) for key in keys)
