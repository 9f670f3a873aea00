"""Replacing a method of instances, not of their class, within a `with` statement."""

import contextlib
import threading
from collections.abc import Callable, Iterable

_lock = threading.Lock()
_replacements: dict = {}


@contextlib.contextmanager
def replaced(objects: Iterable, name: str, make: Callable):
    """Replace a method of objects; the last thread to leave restores it.

    Replicas of one step run in threads that may share an object. `make` maps the bound
    method and the object to the replacement, and must be the same function in each.
    """
    objects = list({id(x): x for x in objects}.values())
    with _lock:
        for x in objects:
            if (id(x), make) not in _replacements:
                method = getattr(x, name)
                _replacements[id(x), make] = [vars(x).get(name), 0]
                vars(x)[name] = make(method, x)
            _replacements[id(x), make][1] += 1
    try:
        yield
    finally:
        with _lock:
            for x in objects:
                _replacements[id(x), make][1] -= 1
                previous, users = _replacements[id(x), make]
                if users:
                    continue
                del _replacements[id(x), make]
                if previous is None:
                    del vars(x)[name]
                else:
                    vars(x)[name] = previous
