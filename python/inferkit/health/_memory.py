"""What the process's memory was in the last minutes, as far as somebody asked."""

from __future__ import annotations

import time
from collections import deque

from .._core import BufferPool, resident_bytes

__all__ = ["MemoryHistory", "memory"]

_SECONDS = 300
_APART = 0.9  # seconds: whoever asks more often adds nothing


class MemoryHistory:
    """A look at the memory with every probe, scrape and page; no thread of its own, and no cost where nobody asks."""

    def __init__(self) -> None:
        # When, resident, in use of the pool. Without a lock, for signals' handlers and children of fork(): a deque is
        # appended to, and copied, in one step.
        self._looks: deque[tuple[float, int, int]] = deque(maxlen=_SECONDS + 1)

    def look(self) -> None:
        """Note what it is now."""
        now = time.monotonic()
        if self._looks and now - self._looks[-1][0] < _APART:
            return
        self._looks.append((now, resident_bytes(), BufferPool.default().stats().in_use_bytes))

    def as_dict(self) -> dict[str, list[float]]:
        """Tell what it was: seconds ago, and bytes; the oldest first."""
        now = time.monotonic()
        looks = [look for look in self._looks.copy() if now - look[0] <= _SECONDS]
        return {
            "ago": [round(now - at, 3) for at, _, _ in looks],
            "rss_bytes": [rss for _, rss, _ in looks],
            "pool_in_use_bytes": [pool for _, _, pool in looks],
        }


memory = MemoryHistory()
