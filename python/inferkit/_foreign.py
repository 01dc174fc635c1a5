"""What other processes say in files and on sockets: JSON, of which every number is one that can be counted with."""

from __future__ import annotations

import json
from typing import Any, NoReturn

__all__ = ["MOST", "figures_from"]

# No count, size or duration of ours is larger, and sums over any number of processes stay far below what a float holds.
MOST = 2**64


def figures_from(content: bytes) -> Any:
    """Read JSON; ValueError where a number is negative, too large or none.

    Examples
    --------
    >>> from inferkit._foreign import figures_from
    >>> figures_from(b'{"completed": 3, "mean_ms": 0.5}')
    {'completed': 3, 'mean_ms': 0.5}
    >>> figures_from(b'{"completed": -3}')
    Traceback (most recent call last):
    ValueError: -3 is no figure of ours: those are from 0 to 2**64
    """
    return json.loads(content, parse_int=_integer, parse_float=_float, parse_constant=_refuse)


def _refuse(text: str) -> NoReturn:
    shown = text if len(text) <= 40 else f"{text[:40]}..."
    raise ValueError(f"{shown} is no figure of ours: those are from 0 to 2**64")


def _integer(text: str) -> int:
    # Of thousands of digits Python takes a long time to make a number, or refuses.
    value = int(text) if len(text) <= 20 else -1
    return value if 0 <= value <= MOST else _refuse(text)


def _float(text: str) -> float:
    value = float(text)
    return value if 0 <= value <= MOST else _refuse(text)
