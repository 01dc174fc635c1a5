"""The errors of inferkit.

::

    InferkitError
    ├── ValidationError (ValueError)       .reason   the input is wrong                     400
    ├── OutputError                        .reason   the model's answer fails its checks    500
    ├── ModelError                                   the file is malformed                  500
    │   └── UnsupportedOpError (NotImplementedError) needs what inferkit lacks              500
    ├── InferenceError                               a run failed                           500
    ├── QueueFullError                               admission refused                      429
    ├── DeadlineError (TimeoutError)                 no answer in time                      504
    ├── ClosedError                                  draining or closed                     503
    ├── NotReadyError                                not loaded or warmed up                503
    ├── RequestCancelledError                        the caller cancelled                   499
    ├── PoolExhaustedError (MemoryError)             the buffer pool reached its cap        503
    └── DeviceError                                  a device is not there, or failed       503

The core has one code for each class; ``tests/python/test_errors.py`` holds the two tables together.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ClosedError",
    "DeadlineError",
    "DeviceError",
    "InferenceError",
    "InferkitError",
    "ModelError",
    "NotReadyError",
    "OutputError",
    "PoolExhaustedError",
    "QueueFullError",
    "RequestCancelledError",
    "UnsupportedOpError",
    "ValidationError",
]


class InferkitError(Exception):
    """Base of every error that inferkit raises on purpose.

    Attributes
    ----------
    http_status : int
        The status that an HTTP server should answer with.
    retry_after : float or None
        Seconds after which another attempt may fare better, by what the queue knows, as in HTTP's header of that name:
        of a :class:`QueueFullError`, until there is likely to be room; of a :class:`DeadlineError` that was foreseen,
        until what is in the way has run. None where that is not known, or waiting would not help.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.QueueFullError("the queue is full").retry_after is None
    True
    """

    http_status: ClassVar[int] = 500
    retry_after: float | None = None


class _ReasonedError(InferkitError):
    """An error whose cause a program can read from ``reason``."""

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args[0] if self.args else "", self.reason))


def _rebuild(cls: type[_ReasonedError], message: str, reason: str) -> _ReasonedError:
    return cls(message, reason=reason)


class ValidationError(_ReasonedError, ValueError):
    """The input is wrong.

    Attributes
    ----------
    reason : str
        One of ``empty``, ``too_large``, ``non_finite``, ``dtype``, ``shape``, ``name``.
    """

    http_status = 400


class OutputError(_ReasonedError):
    """The model's answer fails its checks.

    Attributes
    ----------
    reason : str
        One of ``non_finite``, ``all_zero``, ``shape``, ``not_normalized``.
    """

    http_status = 500


class ModelError(InferkitError):
    """The model file is malformed or contradicts itself."""


class UnsupportedOpError(ModelError, NotImplementedError):
    """The model needs operators, attributes or types that inferkit does not support; the message lists all of them."""


class InferenceError(InferkitError):
    """A run failed. If a wrapped callable raised an exception, it is the ``__cause__``."""


class QueueFullError(InferkitError):
    """The queue is full, or the client of the request has used up its rate: the request was not admitted."""

    http_status = 429


class DeadlineError(InferkitError, TimeoutError):
    """The deadline of the request passed before there was an answer, or would have passed."""

    http_status = 504


class ClosedError(InferkitError):
    """The batcher is draining or closed."""

    http_status = 503


class NotReadyError(InferkitError):
    """The model is not loaded or not warmed up.

    For a service to raise where a request comes too early: inferkit itself does not, as a batcher without a model
    does not exist.
    """

    http_status = 503


class RequestCancelledError(InferkitError):
    """The request was cancelled by its caller."""

    http_status = 499


class PoolExhaustedError(InferkitError, MemoryError):
    """The buffer pool reached its cap."""

    http_status = 503


class DeviceError(InferkitError):
    """The device that was asked for is not there, or it failed.

    The message says why. :func:`inferkit.cuda.is_available` tells before a model is loaded.
    """

    http_status = 503
