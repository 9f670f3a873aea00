"""Modules of the tests run in processes of their own."""

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
    """Run a module of the tests on a backend until it ends; return what it printed."""
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
    """Start workers that write results and logs to a folder.

    Args:
        module: a module of the tests; its first argument is the file of its result.
        folder: gets `0.npz`, `0.log` and so on.
        count: number of workers; a single one gets no TF_CONFIG.
        arguments: further arguments of every worker.
        last: further arguments of the last worker.
        backend: the Keras backend.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    workers = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": addresses}, "task": task}
        of_worker = [folder / f"{index}.npz", *arguments]
        of_worker += last if index == count - 1 else ()
        workers.append(
            subprocess.Popen(
                _command(module, of_worker),
                env=_environment(
                    backend, TF_CONFIG=json.dumps(config) if count > 1 else ""
                ),
                stdout=subprocess.DEVNULL,
                stderr=(folder / f"{index}.log").open("w"),
            )
        )
    return workers


def start_each(module, arguments, folder, backend):
    """Start unconnected processes, one for each list of arguments.

    They write their logs to a folder, as `0.log` and so on.
    """
    return [
        subprocess.Popen(
            _command(module, of_process),
            env=_environment(backend),
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"{index}.log").open("w"),
        )
        for index, of_process in enumerate(arguments)
    ]


def results(folder, workers):
    """Wait until the workers succeed; return the result of each."""
    for index, worker in enumerate(workers):
        log = folder / f"{index}.log"
        assert worker.wait(timeout=240) == 0, log.read_text()[-3000:]
    return [dict(np.load(folder / f"{index}.npz")) for index in range(len(workers))]


def _command(module, arguments):
    return [sys.executable, "-m", module, *map(str, arguments)]


def _environment(backend, **more):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    more = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", **more}
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for socket_ in sockets:
        socket_.bind(("127.0.0.1", 0))
    ports = [socket_.getsockname()[1] for socket_ in sockets]
    for socket_ in sockets:
        socket_.close()
    return ports
