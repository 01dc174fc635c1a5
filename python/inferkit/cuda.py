"""CUDA devices: whether models can run on one here.

Importing inferkit, or this module, never touches the driver; these functions and ``Model.load(device="cuda")`` open it.
Kernels for CUDA have been compiled, and checked to the bit on a host emulator; they have not run on a device yet.

>>> import inferkit
>>> inferkit.cuda.is_available() == (inferkit.cuda.why_not() == "")
True
"""

from __future__ import annotations

from . import _core

__all__ = ["is_available", "why_not"]


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
