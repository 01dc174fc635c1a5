"""What this build is, and a warning where it is not one to measure with."""

from __future__ import annotations

import warnings
from typing import Any

from . import _core

__all__ = ["BF16_INSTRUCTIONS", "build_info", "supported_ops"]

#: What CPUs have for bf16, by the names of the kernels that use it; others have none.
BF16_INSTRUCTIONS = {"avx512amx": "AMX", "avx512bf16": "AVX512-BF16"}


def build_info() -> dict[str, Any]:
    """Tell how the native core was built and which code it runs.

    Returns
    -------
    dict
        ``version``, ``build_type``, ``debug``, ``compiler``, ``flags`` and ``sanitizers``; ``isa_available`` (the
        instruction-set tiers that this machine can run), ``isa`` (the tier in use), ``isa_reason`` (why) and
        ``isa_features`` (what the CPU has besides, and kernels may use: ``vnni``, ``bf16``, ``amx-int8``,
        ``amx-bf16``); ``kernels`` (for each family of kernels, the tier for which its code was compiled; where that
        has the tiles of AMX, this asks Linux for them, as the first model that needs them would); ``cpus``
        (how many CPUs this process may use); ``time_slices`` (``yes`` where workers of short runs can ask the kernel to
        go before those of long ones, else ``no`` and why); ``cuda`` (whether kernels for CUDA are in it) and
        ``cuda_targets`` (what they are compiled for, such as ``sm_90``; whether a device is there,
        :func:`inferkit.cuda.is_available` tells).

    Examples
    --------
    >>> import inferkit
    >>> inferkit.build_info()["isa"] in ("baseline", "avx2", "avx512")
    True
    """
    return {**built(), "kernels": _core.active_kernels()}


def built() -> dict[str, Any]:
    """As :func:`build_info`, without its ``kernels``: to name these, Linux is asked for the tiles of AMX."""
    return _core.build_info()


def supported_ops() -> list[tuple[str, str, int, int]]:
    """List the operators that models may use, as ``(domain, name, first opset, last opset)``.

    Examples
    --------
    >>> import inferkit
    >>> any(name == "Gemm" for _, name, *_ in inferkit.supported_ops())
    True
    """
    return [(domain, name, since, until) for domain, name, since, until, _ in _core.supported_ops()]


if built()["debug"]:
    warnings.warn(
        "this inferkit is a debug build: correct, but far too slow to measure; "
        "install it with `pip install .` for an optimised one",
        RuntimeWarning,
        stacklevel=3,
    )
