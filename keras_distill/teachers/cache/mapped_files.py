"""Files that are read through memory maps, a bounded number of which are open."""

import os
import pathlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

# Open maps of a process at most; a process may have 1,024 open files by default.
MOST = 256


class MappedFile:
    """A file whose bytes are mapped when they are read, and closed when others are.

    A map holds its file open, so all maps of a process share a limit: those that were
    used longest ago are closed first, and those of an object that is gone at once.

    Args:
        path: of the file.
        view: function from the file's bytes to arrays that view them.

    Raises:
        ValueError: the file is not the one that was opened first, when it is opened
            again.
        OSError: it can't be opened.
    """

    def __init__(self, path: pathlib.Path, view: Callable):
        self.path, self.view, self._key = path, view, object()
        self._version = _version(os.stat(path))
        weakref.finalize(self, _MAPS.pop, self._key, None).atexit = False

    def arrays(self):
        """Return what `view` returns; the file is read as the arrays are."""
        with _LOCK:
            found = _MAPS.get(self._key)
            if found is not None:
                _MAPS.move_to_end(self._key)
                return found
            limit = _limit()
            while len(_MAPS) >= limit:
                _MAPS.popitem(last=False)
            found = _MAPS[self._key] = self._map()
        return found

    def close(self) -> None:
        """Close the file until it is read again."""
        with _LOCK:
            _MAPS.pop(self._key, None)

    def _map(self):
        with open(self.path, "rb") as file:
            if _version(os.fstat(file.fileno())) != self._version:
                raise ValueError(
                    f"'{self.path}' has changed since it was opened. Open the cache again."
                )
            return self.view(np.memmap(file, mode="r"))


_MAPS: OrderedDict = OrderedDict()
_LOCK = threading.RLock()


def _limit() -> int:
    """Return the number of maps that may be open: at most a quarter of all files."""
    try:
        import resource
    except ImportError:
        # On Windows, where there is no such limit.
        return MOST
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else max(1, min(MOST, soft // 4))


def _version(status: os.stat_result) -> tuple:
    return status.st_ino, status.st_size, status.st_mtime_ns
