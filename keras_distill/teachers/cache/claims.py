"""Claims on shards, so that several processes can build one cache."""

import os
import pathlib
import socket


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

    def remove_parts(self) -> None:
        """Remove incomplete files that dead processes of this machine left behind."""
        # NAME.HOST.PID.part.SUFFIX, as `write_then_rename` names them.
        for path in self.folder.glob(f"*.{socket.gethostname()}.*.part*"):
            process = path.name.rpartition(".part")[0].rpartition(".")[2]
            if not _is_alive(process):
                path.unlink(missing_ok=True)

    def _path(self, shard: int) -> pathlib.Path:
        return self.folder / f"shard-{shard:05d}.claim"

    def _expired(self, path: pathlib.Path) -> bool:
        clock = self.folder / f"clock-{os.getpid()}"
        try:
            host, _, process = path.read_text().partition(" ")
            if host == socket.gethostname() and not _is_alive(process):
                return True
            clock.touch()
            return clock.stat().st_mtime - path.stat().st_mtime > self.patience
        except FileNotFoundError:
            return False
        finally:
            clock.unlink(missing_ok=True)


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        pass
    return True
