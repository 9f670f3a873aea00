"""Claims on shards, so that several processes can build one cache."""

import os
import pathlib
import socket
from collections.abc import Iterable

from keras_distill._backend import files


class Claims:
    """Files that record which process builds a shard; one that is not renewed expires.

    Ages are differences between files of the same folder, so the clocks of the machines
    need not agree. A claim that was not renewed for `patience` seconds expires.
    """

    def __init__(self, folder: pathlib.Path, patience: float):
        self.folder, self.patience = folder, patience
        self.name = f"{socket.gethostname()} {os.getpid()}"

    def acquire(self, shard: int) -> bool:
        """Claim a shard; return False if a process that is alive holds it."""
        path = self._path(shard)
        try:
            with open(path, "x") as file:
                file.write(self.name)
            return True
        except FileExistsError:
            pass
        if not self._expired(path):
            return False
        path.write_text(self.name)
        return True

    def renew(self, shard: int) -> None:
        """Record that the work continues."""
        self._path(shard).touch()

    def release(self, shard: int) -> None:
        """Release a shard."""
        self._path(shard).unlink(missing_ok=True)

    def remove_left_over(self, shards: Iterable[int]) -> None:
        """Remove what dead processes left behind: incomplete files, and claims.

        Args:
            shards: indices of the complete shards, which need no claim.
        """
        files.remove_left_over(self.folder)
        for shard in shards:
            path = self._path(shard)
            if path.exists() and self._expired(path):
                path.unlink(missing_ok=True)

    def _path(self, shard: int) -> pathlib.Path:
        return self.folder / f"shard-{shard:05d}.claim"

    def _expired(self, path: pathlib.Path) -> bool:
        host = socket.gethostname()
        # Named as the temporary files, so that it is removed with them.
        clock = self.folder / f"clock.{host}.{os.getpid()}.part"
        try:
            owner, _, process = path.read_text("utf-8", "replace").partition(" ")
            if owner == host and not files.is_alive(process):
                return True
            clock.touch()
            return clock.stat().st_mtime - path.stat().st_mtime > self.patience
        except FileNotFoundError:
            return False
        finally:
            clock.unlink(missing_ok=True)
