"""Lines for the loggers ``inferkit.*``, without importing :mod:`logging` for those who do not."""

from __future__ import annotations

import sys
from typing import Any

from ._text import field, printable

__all__ = ["log"]

_quiet = False


def log(area: str, event: str, fields: dict[str, Any], level: str = "DEBUG") -> None:
    """Write one line to the logger ``inferkit.<area>``; every field is also an attribute of the record.

    Texts come from callers and files, so both show them as :func:`printable` makes them: a line stays one line.
    Where nobody has imported :mod:`logging` there is nobody to read it.

    Examples
    --------
    >>> from inferkit._log import log
    >>> log("batcher", "made", {"batcher": "scorer-1"})
    """
    logging = sys.modules.get("logging")
    if logging is None or not hasattr(logging, "NullHandler"):  # absent, or still being imported
        return
    global _quiet
    if not _quiet:
        logging.getLogger("inferkit").addHandler(logging.NullHandler())
        _quiet = True
    logger = logging.getLogger(f"inferkit.{area}")
    number = getattr(logging, level)
    if logger.isEnabledFor(number):
        text = " ".join(f"{name}={field(value)}" for name, value in fields.items())
        safe = {name: printable(value, 1000) if isinstance(value, str) else value for name, value in fields.items()}
        logger.log(number, "%s %s", event, text, extra={"event": event, **safe})
