"""One file of a shared folder: a process's figures, or something that is skipped."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._foreign import figures_from
from .._text import NAME_LIMIT, printable
from ._ended import STAGES
from ._figures import Figures

__all__ = ["ForeignFileError", "read_figures"]

_MOST_BYTES = 16 << 20  # a process with a hundred batchers writes some hundred kilobytes


class ForeignFileError(Exception):
    """Says of a file that it holds no figures that can be counted, and why."""


def read_figures(path: Path, pid: int, buckets: Sequence[float]) -> Figures:
    """Read what a process has written; whoever uses it finds numbers where there are some.

    Raises
    ------
    ForeignFileError
        It is anything else: the folder may be one that many programs, and people, write to.
    """
    try:
        figures = figures_from(_content(path))
        if type(figures["pid"]) is not int or figures["pid"] != pid:
            raise ValueError("its name and its content are of different processes")
        if figures["buckets"] != list(buckets):
            raise ValueError("has other histogram buckets: give share() and Collector the same ones")
        names = [printable(_text(batcher["name"]), NAME_LIMIT) for batcher in figures["batchers"]]
        if len(set(names)) < len(names):
            raise ValueError("two batchers have one name")
        ended = figures.get("ended", [])  # which earlier versions did not write
        for batcher in (*figures["batchers"], *ended):
            _check_histograms(batcher["histograms"], len(buckets))
        batchers = [{**batcher, "name": name} for batcher, name in zip(figures["batchers"], names, strict=True)]
        ended = [{**batcher, "name": printable(_text(batcher["name"]), NAME_LIMIT)} for batcher in ended]
    # Gone meanwhile or not to be opened; cut short, no JSON, or JSON of something else.
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ForeignFileError(f"{type(error).__name__}: {error}") from None
    return {**figures, "batchers": batchers, "ended": ended}


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError("a batcher's name is no text")
    return name


def _content(path: Path) -> bytes:
    """Read a plain file of somebody who is trusted, without waiting, as for a pipe's other end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("not a plain file")
        if found.st_uid not in (os.geteuid(), 0, path.parent.stat().st_uid):
            raise ValueError(f"belongs to user {found.st_uid}, who is neither ours nor the folder's")
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"is larger than {_MOST_BYTES} bytes")
    return content


def _check_histograms(histograms: dict[str, Any], bounds: int) -> None:
    """See that counts go up from bucket to bucket: added to those of others, they would spoil them."""
    if set(histograms) != set(STAGES):
        raise ValueError(f"has histograms of {sorted(histograms)}, not of {sorted(STAGES)}")
    for stage, one in histograms.items():
        counts = [*one["at_most"], one["count"]]
        if len(counts) != bounds + 1 or any(below > above for below, above in itertools.pairwise(counts)):
            raise ValueError(f"the histogram of '{stage}' does not count up from bucket to bucket")
