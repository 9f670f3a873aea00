"""Which axes of a model's tensors vary with which of its inputs, and what masks them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras

PADDING_MASK = "padding_mask"


class Group(NamedTuple):
    """Inputs that vary in size together.

    Args:
        axes: of each input, by its position among all.
        mask: position of the one that is their padding mask, or None.
        varies: whether the model declares that their sizes vary.
    """

    axes: Mapping[int, tuple[int, ...]]
    mask: int | None
    varies: bool


class PaddingMask(NamedTuple):
    """An input that says which steps are not padding.

    Args:
        position: among all inputs.
        length: of the batch that was traced.
    """

    position: int
    length: int


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Shapes of tapped tensors, by the tap's text, and what their lengths come from.

    Args:
        sizes: their shapes, batch first, at the sizes that were traced.
        shapes: the same with None for a size that varies between batches.
        groups: indices of the groups of inputs that axis 1 varies with.
        masks: of sequences; several where it is unclear which one it is.
    """

    sizes: Mapping[str, list] = dataclasses.field(default_factory=dict)
    shapes: Mapping[str, list] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, frozenset] = dataclasses.field(default_factory=dict)
    masks: Mapping[str, tuple[PaddingMask, ...]] = dataclasses.field(
        default_factory=dict
    )

    def are_apart(self, name: str, other: str) -> bool:
        """Whether two sequences vary in length with other inputs of the model."""
        groups = self.groups.get(name), self.groups.get(other)
        return all(groups) and groups[0].isdisjoint(groups[1])


def lengths_of(shapes_at: Callable, specs, model: keras.Model | None = None) -> Lengths:
    """Return the shapes of tensors, and find which inputs their lengths come from.

    Each group of inputs is halved in size, to find the axes that change with it. This
    separates the tensors of an encoder from those of a decoder.

    Args:
        shapes_at: from specs of the inputs to the shapes of tensors by a name.
        specs: of the inputs, with all sizes but that of the batch.
        model: which declares some of the sizes as unknown. Default: all are known.
    """
    sizes = shapes_at(specs)
    shapes = {name: list(shape) for name, shape in sizes.items()}
    found = Lengths(sizes, shapes, {name: frozenset() for name in sizes}, {})
    groups = _groups(specs, model)
    undivided = []
    for index, group in enumerate(groups):
        changed = _changed(shapes_at, specs, group, sizes)
        if changed is not None:
            _note(found, index, group, changed, specs)
        elif group.mask is None:
            undivided.append(group)
        else:
            _note_equal(found, group, specs)
    if len(undivided) > 1:
        axes = {i: axes for group in undivided for i, axes in group.axes.items()}
        together = Group(axes, None, any(group.varies for group in undivided))
        changed = _changed(shapes_at, specs, together, sizes)
        _note(found, len(groups), together, changed or {}, specs)
    return found


def _note(found: Lengths, index: int, group: Group, changed: dict, specs) -> None:
    """Note which axes changed with a group of inputs."""
    for name, axes in changed.items():
        if 1 in axes:
            found.groups[name] |= {index}
        if 1 in axes and group.mask is not None and len(found.shapes[name]) > 2:
            mask = _padding_mask(group, specs)
            found.masks.setdefault(name, (mask,))
        if group.varies:
            for axis in axes:
                found.shapes[name][axis] = None


def _note_equal(found: Lengths, group: Group, specs) -> None:
    """Note the mask of sequences of its length, for a model that takes no other length."""
    mask = _padding_mask(group, specs)
    for name, shape in found.sizes.items():
        if len(shape) > 2 and shape[1] == mask.length:
            found.masks[name] = (*found.masks.get(name, ()), mask)


def _padding_mask(group: Group, specs) -> PaddingMask:
    length = keras.tree.flatten(specs)[group.mask].shape[1]
    return PaddingMask(group.mask, length)


def _changed(shapes_at, specs, group: Group, sizes: dict) -> dict | None:
    """Return the axes that change when a group is halved; None if it can't be."""
    leaves = keras.tree.flatten(specs)
    for index, axes in group.axes.items():
        shape = list(leaves[index].shape)
        if any(shape[axis] < 2 for axis in axes):
            return None
        for axis in axes:
            shape[axis] //= 2
        leaves[index] = keras.KerasTensor(shape, leaves[index].dtype)
    try:
        others = shapes_at(keras.tree.pack_sequence_as(specs, leaves))
    except Exception:
        # Whatever a model raises at a size that it does not take.
        return None
    return {
        name: {axis for axis, size in enumerate(shape) if size != others[name][axis]}
        for name, shape in sizes.items()
    }


def _groups(specs, model) -> list[Group]:
    """Return the inputs that may vary, those of a padding mask together with it."""
    names, leaves = _names(specs, model), keras.tree.flatten(specs)
    unknown = _unknown(names, leaves, model)
    prefixes = {
        i: name.removesuffix(PADDING_MASK)
        for i, name in enumerate(names)
        if name.endswith(PADDING_MASK) and len(leaves[i].shape) == 2
    }
    groups, left = [], set(range(len(leaves)))
    # An empty prefix takes what the others leave.
    for mask in sorted(prefixes, key=lambda i: -len(prefixes[i])):
        length = leaves[mask].shape[1]
        same = {
            i
            for i in left
            if names[i].startswith(prefixes[mask])
            and len(leaves[i].shape) in (2, 3)
            and leaves[i].shape[1] == length
        }
        left -= same
        axes = dict.fromkeys(same, (1,))
        groups.append(Group(axes, mask, any(1 in unknown[i] for i in same)))
    rest = [Group({i: unknown[i]}, None, True) for i in sorted(left) if unknown[i]]
    return groups + rest


def _names(specs, model) -> list[str]:
    """Return the path of each input, by the names that the model declares if it has none."""
    paths = [path for path, _ in keras.tree.flatten_with_path(specs)]
    declared = getattr(model, "inputs", None) or ()
    named = any(isinstance(part, str) for path in paths for part in path)
    if not named and len(declared) == len(paths):
        return [x.name for x in declared]
    return ["/".join(map(str, path)) for path in paths]


def _unknown(names: Sequence[str], leaves: Sequence, model) -> list[tuple[int, ...]]:
    """Return the axes of each input whose size the model declares as unknown."""
    declared = getattr(model, "inputs", None) or ()
    by_name = {x.name: x for x in declared}
    found = []
    for index, (name, leaf) in enumerate(zip(names, leaves, strict=True)):
        like = by_name.get(name.split("/")[-1])
        if like is None and len(declared) == len(leaves):
            like = declared[index]
        shape = () if like is None or len(like.shape) != len(leaf.shape) else like.shape
        found.append(tuple(a for a, n in enumerate(shape) if a and n is None))
    return found
