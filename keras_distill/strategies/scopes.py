"""Strategies by name, created from the devices and the environment."""

import contextlib
import functools
import json
import os

import keras

KINDS = ("one", "mirrored", "multiworker", "tpu", "auto")


def scope(kind: str = "auto"):
    """Build, compile and fit on the devices or machines that a name stands for.

    Nothing else changes: the batch size is global and split over the replicas, and an
    update equals that of one device on the whole batch. The devices found are printed.

    - `"one"`: one device.
    - `"mirrored"`: all GPUs of this machine; without any, the logical CPU devices.
    - `"multiworker"`: this process and those that `TF_CONFIG` names (TensorFlow), or
      that `keras.distribution.initialize` finds (JAX).
    - `"tpu"`: the TPU that `TPU_NAME` names, or that of this machine.
    - `"auto"`: the TPU if there is one, else the machines of `TF_CONFIG`, else the GPUs
      of this machine if there are several, else one device.

    On TensorFlow it enters a `tf.distribute` strategy, on JAX
    `keras.distribution.DataParallel`; on torch there is one device. Calling it again
    with the same kind reuses the strategy.

    Args:
        kind: one of the five names. Default `"auto"`.

    Yields:
        The strategy or distribution; None on torch and for one device on JAX.

    Raises:
        ValueError: no such kind, or the devices or settings that it needs are missing.

    Example:
        >>> with kd.strategies.scope("mirrored"):
        ...     distiller = kd.Distiller(make_student(), teacher)
        ...     distiller.compile("adam", loss)
        ...     distiller.fit(train, epochs=2)
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}; got '{kind}'.")
    scopes = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return scopes[keras.backend.backend()](kind)


@contextlib.contextmanager
def _tensorflow(kind):
    import tensorflow as tf

    if kind == "auto":
        kind = _detect_kind()
    if kind == "one":
        print("Strategy: one device.")
        yield tf.distribute.get_strategy()
        return
    create = {"mirrored": _mirrored, "multiworker": _multiworker, "tpu": _tpu}
    strategy = create[kind]()
    with strategy.scope():
        yield strategy


def _detect_kind() -> str:
    if os.environ.get("TPU_NAME") or os.path.exists("/dev/accel0"):
        return "tpu"
    # Checked before any device: workers must find each other before TensorFlow starts.
    if os.environ.get("TF_CONFIG"):
        return "multiworker"
    import tensorflow as tf

    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "one"


# Two strategies of one process over the same devices would interfere.
@functools.cache
def _mirrored():
    import tensorflow as tf

    kinds = (tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU"))
    devices = [device.name for device in next(filter(None, kinds))]
    print(f"Strategy: mirrored over {len(devices)} device(s), {', '.join(devices)}.")
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _multiworker():
    import tensorflow as tf

    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    except ValueError:
        config = {}
    if "cluster" not in config or "task" not in config:
        raise ValueError(
            "'multiworker' needs the environment variable TF_CONFIG, set before "
            'TensorFlow starts: {"cluster": {"worker": ["host:port", ...]}, "task": '
            '{"type": "worker", "index": 0}}, with a different index in each process; '
            f"got {os.environ.get('TF_CONFIG')!r}."
        )
    workers, index = config["cluster"]["worker"], config["task"]["index"]
    print(f"Strategy: worker {index} of {len(workers)}, {', '.join(workers)}.")
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ValueError(
            "Workers must find each other before TensorFlow starts: enter the scope "
            f"before any tensor, dataset or model is created; got '{error}'."
        ) from error


@functools.cache
def _tpu():
    import tensorflow as tf

    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:
        raise ValueError(
            f"TPU '{name}' is not available ({type(error).__name__}): run on a TPU machine "
            "with TensorFlow for TPU installed, or set TPU_NAME to the TPU's name."
        ) from error
    strategy = tf.distribute.TPUStrategy(resolver)
    print(f"Strategy: TPU '{name}', {strategy.num_replicas_in_sync} cores.")
    return strategy


# The same distribution each time, as of the strategies above.
_distribution = functools.cache(keras.distribution.DataParallel)


@contextlib.contextmanager
def _jax(kind):
    import jax

    if kind == "multiworker" and not jax.distributed.is_initialized():
        keras.distribution.initialize()
    devices = jax.devices()
    if kind == "tpu" and devices[0].platform != "tpu":
        raise ValueError(
            f"No TPU was found; JAX's devices are {', '.join(map(str, devices))}. "
            "Install jax[tpu] on a TPU machine."
        )
    if kind == "one" or (kind == "auto" and len(devices) == 1):
        print(f"Strategy: one device, {devices[0]}.")
        distribution = None
    else:
        print(f"Strategy: data parallel over {', '.join(map(str, devices))}.")
        distribution = _distribution()
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(distribution)
    try:
        yield distribution
    finally:
        keras.distribution.set_distribution(before)


@contextlib.contextmanager
def _torch(kind):
    if kind not in ("one", "auto"):
        raise ValueError(
            f"'{kind}' is for TensorFlow and JAX; with torch Keras trains on one device. "
            "Set KERAS_BACKEND to 'tensorflow' or 'jax', or use 'one'."
        )
    print("Strategy: one device.")
    yield None
