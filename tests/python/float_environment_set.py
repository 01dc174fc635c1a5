"""The floating-point environment of the calling thread, set as another library would leave it: through glibc's libm."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

X86 = platform.machine() == "x86_64"
#: The rounding modes of fesetround() by their names, and flushing of subnormals, which rounds to nearest.
MODES = {
    "x86_64": {"upward": 0x800, "downward": 0x400, "toward zero": 0xC00, "flushing": 0},
    "aarch64": {"upward": 0x400000, "downward": 0x800000, "toward zero": 0xC00000},
}.get(platform.machine(), {})
NAMES = ("upward", "downward", "toward zero", "flushing")
ROUNDINGS = NAMES[:3]
#: MXCSR: subnormal operands are zero, and so are subnormal results; what has happened since the flags were cleared.
FLUSHING, FLAGS = 0x8040, 0x3F

ONE, SMALL, TINY = (np.full(8, value, np.float32) for value in (1, 1e-12, 1e-40))


@functools.cache
def libm() -> ctypes.CDLL:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("fenv_t is known of glibc alone")
    return ctypes.CDLL("libm.so.6")


def _state() -> bytearray:
    """fenv_t: on x86 28 bytes of the x87 and MXCSR; elsewhere FPCR comes first."""
    room = ctypes.create_string_buffer(64)
    assert libm().fegetenv(room) == 0
    return bytearray(room.raw)


def word() -> int:
    """MXCSR with its flags, or FPCR, of this thread."""
    state = _state()
    return int.from_bytes(state[28:32] if X86 else state[:4], "little")


def set_word(value: int) -> None:
    """Set MXCSR."""
    state = _state()
    state[28:32] = value.to_bytes(4, "little")
    assert libm().fesetenv(bytes(state)) == 0


def observed() -> str:
    """What arithmetic shows of the environment of this thread."""
    if not (TINY * ONE).view(np.uint32).any():
        return "flushing"
    above, below = (ONE + SMALL > ONE).all(), (-ONE - SMALL < -ONE).all()
    if above or below:
        return "upward" if above else "downward"
    return "toward zero" if (ONE - SMALL < ONE).all() else "to nearest"


@contextmanager
def environment(name: str) -> Iterator[int]:
    """Within it this thread has that environment, with all flags raised on x86; gives its word."""
    if name not in MODES:
        pytest.skip(f"how this processor is set to {name} is not known here")
    before = _state()
    assert observed() == "to nearest"
    try:
        assert libm().fesetround(MODES[name]) == 0
        if X86:
            set_word(word() | FLAGS | (FLUSHING if name == "flushing" else 0))
        assert observed() == name
        yield word()
    finally:
        assert libm().fesetenv(bytes(before)) == 0
        assert observed() == "to nearest"
