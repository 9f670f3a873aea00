"""Scripts of the tests, each in a process of its own."""

import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run(module, backend, *arguments, timeout=300, **environment):
    """Run a module of the tests on a backend to its end; give what it printed."""
    done = subprocess.run(
        _command(module, arguments),
        capture_output=True,
        text=True,
        env=_environment(backend, **environment),
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def start(module, folder, count, arguments=(), last=(), backend="tensorflow"):
    """Start workers, whose results and logs go to a folder.

    Args:
        module: of the tests; its first argument is the file of the result.
        folder: gets `0.npz`, `0.log` and so on.
        count: of the workers; one has no TF_CONFIG.
        arguments: of all.
        last: arguments of the last one alone.
        backend: of Keras.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    workers = []
    for place in range(count):
        task = {"type": "worker", "index": place}
        config = {"cluster": {"worker": addresses}, "task": task}
        own = [folder / f"{place}.npz", *arguments]
        own += last if place == count - 1 else ()
        workers.append(
            subprocess.Popen(
                _command(module, own),
                env=_environment(
                    backend, TF_CONFIG=json.dumps(config) if count > 1 else ""
                ),
                stdout=subprocess.DEVNULL,
                stderr=(folder / f"{place}.log").open("w"),
            )
        )
    return workers


def start_each(module, arguments, folder, backend):
    """Start processes that know nothing of each other, each with arguments of its own.

    Their logs go to a folder, as `0.log` and so on.
    """
    return [
        subprocess.Popen(
            _command(module, own),
            env=_environment(backend),
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"{place}.log").open("w"),
        )
        for place, own in enumerate(arguments)
    ]


def results(folder, workers):
    """Wait for the workers to end well; give what each one kept."""
    for place, worker in enumerate(workers):
        log = folder / f"{place}.log"
        assert worker.wait(timeout=240) == 0, log.read_text()[-3000:]
    return [dict(np.load(folder / f"{place}.npz")) for place in range(len(workers))]


def _command(module, arguments):
    return [sys.executable, "-m", module, *map(str, arguments)]


def _environment(backend, **more):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    own = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return {**os.environ, "PYTHONPATH": str(ROOT), **own, **more}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
