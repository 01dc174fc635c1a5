"""Where a thread is: the sites of its frames, and the one to name."""

from __future__ import annotations

import sysconfig
from types import FrameType

__all__ = ["Site", "blamed", "sites"]

Site = tuple[str, int, str]  # file, line, function

_STDLIB = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
_PACKAGES = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def sites(frame: FrameType | None) -> tuple[Site, ...]:
    """List them, the outermost first."""
    stack: list[Site] = []
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return tuple(stack[::-1])


def blamed(stack: tuple[Site, ...]) -> Site:
    """Choose the frame to name: what the standard library does is done for somebody."""
    for site in reversed(stack):
        library = site[0].startswith(_STDLIB) and not site[0].startswith(_PACKAGES)
        if not library and not site[0].startswith("<frozen"):
            return site
    return stack[-1]
