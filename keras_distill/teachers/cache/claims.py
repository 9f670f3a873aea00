"""Who makes which shard, when several processes make one cache."""

from __future__ import annotations

import os
import pathlib
import socket


class Claims:
    """Files that say who is at work on a shard; one that is not touched is void.

    Ages are taken between files of the one folder, so that the clocks of machines need
    not agree.

    Args:
        folder: that all processes see.
        patience: seconds after which a claim that nobody touches is void.
    """

    def __init__(self, folder: pathlib.Path, patience: float):
        self.folder, self.patience = folder, patience
        self.name = f"{socket.gethostname()} {os.getpid()}"

    def take(self, shard: int) -> bool:
        """Claim a shard; False if somebody who is alive has it."""
        path = self._path(shard)
        try:
            with open(path, "x") as file:
                file.write(self.name)
            return True
        except FileExistsError:
            pass
        if not self._void(path):
            return False
        path.write_text(self.name)
        return True

    def touch(self, shard: int) -> None:
        """Say that the work goes on."""
        self._path(shard).touch()

    def free(self, shard: int) -> None:
        """Give a shard back."""
        self._path(shard).unlink(missing_ok=True)

    def remove_parts(self) -> None:
        """Remove what processes of this machine that have died left half written."""
        for path in self.folder.glob(f"*.{socket.gethostname()}.*.part"):
            if not _alive(path.suffixes[-2].removeprefix(".")):
                path.unlink(missing_ok=True)

    def _path(self, shard: int) -> pathlib.Path:
        return self.folder / f"shard-{shard:05d}.claim"

    def _void(self, path: pathlib.Path) -> bool:
        clock = self.folder / f"clock-{os.getpid()}"
        try:
            host, _, process = path.read_text().partition(" ")
            if host == socket.gethostname() and not _alive(process):
                return True
            clock.touch()
            return clock.stat().st_mtime - path.stat().st_mtime > self.patience
        except FileNotFoundError:
            return False
        finally:
            clock.unlink(missing_ok=True)


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        pass
    return True
