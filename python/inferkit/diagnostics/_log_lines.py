"""Reads the log lines of a batcher's requests, and keeps them from everybody else's handlers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from .._batcher import Batcher
from ..tracing import RequestLog

__all__ = ["LogLines", "log_lines"]

_LOGGER = "inferkit.request"
_INTERVAL = 0.01


class LogLines(logging.Filter):
    """Takes what one thread writes to the logger of requests; made by :func:`log_lines`."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level  # below it, nobody else saw lines before we came
        self._writer: int | None = None
        self._records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line goes on to the handlers: those of others do, as ever."""
        if record.thread == self._writer:
            self._records.append(record)
            return False
        return record.levelno >= self._level

    def without_id(self, ids: Iterable[str | int], timeout: float = 1.0) -> list[str]:
        """Find those of `ids` about which there is no line that has them as a field and in its text.

        Requests are written down just after their callers are woken, so this waits a little for the last ones.
        """
        due = {str(one) for one in ids}
        end = time.monotonic() + timeout
        while True:
            for record in self._records:
                name = str(getattr(record, "request_id", ""))
                if name in due and f"request_id={name}" in record.getMessage().split():
                    due.discard(name)
            if not due or time.monotonic() > end:
                return sorted(due)
            time.sleep(_INTERVAL)

    def __len__(self) -> int:
        return len(self._records)


@contextmanager
def log_lines(batcher: Batcher) -> Iterator[LogLines]:
    """Have the lines of a batcher's requests written, for the length of a ``with`` block, and read them."""
    logger = logging.getLogger(_LOGGER)
    own_level = logger.level
    lines = LogLines(logger.getEffectiveLevel())
    logger.addFilter(lines)
    logger.setLevel(logging.DEBUG)
    log = RequestLog(None, _INTERVAL, batcher)
    lines._writer = log.thread
    try:
        yield lines
    finally:
        log.stop()
        logger.setLevel(own_level)
        logger.removeFilter(lines)
