"""CUDA devices: whether models can run on one here.

Importing inferkit, or this module, never touches the driver; these functions and ``Model.load(device="cuda")`` open it.

>>> import inferkit
>>> inferkit.cuda.is_available() == (inferkit.cuda.why_not() == "")
True
"""

from __future__ import annotations

from dataclasses import dataclass

from . import _core
from ._core import DeviceArray, LeakRow, PoolStats

__all__ = [
    "DeviceActivity",
    "DeviceArray",
    "DeviceMemory",
    "activity",
    "is_available",
    "leaks",
    "limit_memory",
    "memory",
    "trim",
    "why_not",
]

DeviceArray.__module__ = __name__  # as help() shows it


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """What the models of this process hold of a device, from :func:`memory`.

    Parameters
    ----------
    device : PoolStats
        The pool of the device's memory, weights included. ``cached_bytes`` are free, and kept for the next run that
        needs memory.
    pinned : PoolStats
        The pool of the host's memory that the device reaches: inputs and outputs pass through it.
    weight_bytes : int
        The bytes of weights on the device. Those of all models of the process that are the same are there once.
    """

    device: PoolStats
    pinned: PoolStats
    weight_bytes: int


@dataclass(frozen=True, kw_only=True)
class DeviceActivity:
    """What a device has done for the models of this process, from :func:`activity`.

    All of it is counted by inferkit, from the start of the process. All but ``running`` only grow.

    Parameters
    ----------
    launches : int
        Graphs that were launched: one for each run of a model, or one for each stretch of steps of the device where
        others fall back to the CPU.
    failures : int
        Runs that failed on the device.
    in_bytes, out_bytes : int
        What those graphs copied to the device, and from it.
    uploaded_bytes : int
        Weights that were brought to the device.
    busy_seconds : float
        How long a graph was under way, one or several at a time, from its launch until it was known to have ended.
    running : int
        Graphs that are under way now.
    """

    launches: int
    failures: int
    in_bytes: int
    out_bytes: int
    uploaded_bytes: int
    busy_seconds: float
    running: int


def is_available(device: int = 0) -> bool:
    """Tell whether models can run on a CUDA device.

    Parameters
    ----------
    device : int
        The number of the device, as the driver counts.

    Returns
    -------
    bool
        True where this build has kernels for CUDA, the driver can be opened, and it has that device.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.cuda.is_available() in (True, False)
    True
    """
    return not why_not(device)


def why_not(device: int = 0) -> str:
    """Tell why no model can run on a CUDA device.

    The first call opens the driver, which takes some tenths of a second where there is one.

    Parameters
    ----------
    device : int
        The number of the device, as the driver counts.

    Returns
    -------
    str
        The reason; empty where models can run.

    Examples
    --------
    >>> import inferkit
    >>> isinstance(inferkit.cuda.why_not(), str)
    True
    """
    return _core.why_no_cuda(device)


def memory(device: int = 0) -> DeviceMemory:
    """Tell what the models of this process hold of a device.

    Memory is kept in a pool when it is not needed any more, up to 256 MiB: a driver that gets some back may wait for
    all that runs on the device.

    Parameters
    ----------
    device : int
        The number of the device, as the driver counts.

    Returns
    -------
    DeviceMemory

    Raises
    ------
    DeviceError
        If no model can run on that device.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.cuda.memory().device.outstanding if inferkit.cuda.is_available() else 0
    0
    """
    pool, pinned, weight_bytes = _core.cuda_memory(device)
    return DeviceMemory(device=pool, pinned=pinned, weight_bytes=weight_bytes)


def activity(device: int = 0) -> DeviceActivity:
    """Tell what a device has done for the models of this process.

    The utilisation in an interval is the growth of ``busy_seconds`` over its length.

    Parameters
    ----------
    device : int
        The number of the device, as the driver counts.

    Returns
    -------
    DeviceActivity

    Raises
    ------
    DeviceError
        If no model can run on that device.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.cuda.activity().running if inferkit.cuda.is_available() else 0
    0
    """
    return DeviceActivity(**_core.cuda_activity(device))


def leaks(device: int = 0) -> list[LeakRow]:
    """List who has memory of a device: ``"run"`` for models that have run, ``"weights"``; most bytes first.

    Parameters
    ----------
    device : int
        The number of the device, as the driver counts.

    Returns
    -------
    list of LeakRow

    Raises
    ------
    DeviceError
        If no model can run on that device.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.cuda.leaks() if inferkit.cuda.is_available() else []
    []
    """
    return _core.cuda_leaks(device)


def trim(device: int = 0) -> int:
    """Give what is free of a device's memory, and of pinned memory, back to the driver.

    Parameters
    ----------
    device : int
        The number of the device, as the driver counts.

    Returns
    -------
    int
        How many bytes went back.

    Raises
    ------
    DeviceError
        If no model can run on that device.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.cuda.trim() if inferkit.cuda.is_available() else 0
    0
    """
    return _core.cuda_trim(device)


def limit_memory(max_bytes: int | None, device: int = 0) -> None:
    """Set how much of a device's memory the models of this process hold at most, in use and free together.

    A run that needs more fails with ``PoolExhaustedError``, and the next one works. What is in use stays.

    Parameters
    ----------
    max_bytes : int or None
        At least 256; None for no cap, as it is at first.
    device : int
        The number of the device, as the driver counts.

    Raises
    ------
    DeviceError
        If no model can run on that device.
    ValueError
        If ``max_bytes`` is less than 256.

    Examples
    --------
    >>> import inferkit
    >>> if inferkit.cuda.is_available():
    ...     inferkit.cuda.limit_memory(8 << 30)
    """
    _core.cuda_limit(max_bytes, device)
