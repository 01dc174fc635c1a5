"""Options that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["sizes", "whole"]

_MOST = 2**31 - 1


def whole(least: int, most: int = _MOST) -> Callable[[str], int]:
    """Make what reads a whole number, so that argparse names the option of one that does not fit."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            bounds = f"of at least {least}" if most == _MOST else f"between {least} and {most}"
            raise argparse.ArgumentTypeError(f"expected a whole number {bounds}, got {text!r}")
        return number

    return read


def sizes(text: str) -> list[int]:
    """Read ``1,8,64``."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected whole numbers of at least 1, as in 1,8,64; got {text!r}")
    return found
