"""A deadline for all that a block of code submits, wherever in it that happens."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from . import _core
from ._arguments import LONGEST, number
from ._initialised import says_if_not_initialised

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from typing_extensions import Self

    from .testing import ManualClock

__all__ = ["deadline"]

_At = tuple[int, "_core.ManualClock | None"]


def _now(clock: _core.ManualClock | None) -> int:
    return time.monotonic_ns() if clock is None else clock._nanos_after(0)


@says_if_not_initialised
class deadline:  # noqa: N801 - it reads as what it does: `with inferkit.deadline(0.2):`
    """A ``with`` block within which every request has to be answered until so many seconds after its beginning.

    What is submitted to any :class:`Batcher` within the block, by :meth:`~Batcher.submit`, :meth:`~Batcher.map` or a
    call, inherits the deadline, in the functions that are called as well. So a service says once, where a client's
    request comes in, until when its answer is of use, however many models take part. Of several deadlines the earliest
    counts: of nested blocks, and of a block and the `timeout` of a submission.

    It is a context variable. An asyncio task has the deadline of the place where it was made, also after the block has
    been left there, and so has :func:`asyncio.to_thread`; a plain thread has none, unless it runs in a copy of the
    context (:func:`contextvars.copy_context`). :meth:`~Batcher.map` submits while its answers are taken: the block
    must be around the loop. What runs on without a batcher, such as ``model(x)``, is not ended.

    Parameters
    ----------
    seconds : float
        From the beginning of the block on. If it is 0 or less, every request of the block is refused; with infinity,
        the block sets no deadline of its own.
    clock : ManualClock, optional
        The clock by which it goes in a test; by default that of :func:`time.monotonic`. To a batcher that goes by
        another clock it is as far away as it is here.

    Examples
    --------
    >>> import inferkit, numpy as np
    >>> model = inferkit.Model.from_callable(
    ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
    >>> def answer(batcher):  # knows of no deadline
    ...     return batcher(np.ones(2, np.float32)).tolist()
    >>> with inferkit.Batcher(model) as batcher:
    ...     with inferkit.deadline(10.0):
    ...         answer(batcher)
    ...     with inferkit.deadline(0.0):
    ...         try:
    ...             answer(batcher)
    ...         except inferkit.DeadlineError as error:
    ...             print(error)
    [2.0, 2.0]
    the request's deadline had passed when it was submitted
    """

    __slots__ = ("_at", "_clock", "_inside", "_nanos", "_token")

    def __init__(self, seconds: float, *, clock: ManualClock | None = None) -> None:
        if clock is not None and not isinstance(clock, _core.ManualClock):
            raise TypeError(f"clock must be a ManualClock, or None for the real one, got {type(clock).__name__}")
        given = number(seconds, "seconds", "a number of seconds")
        self._nanos = int(max(-LONGEST, min(given, LONGEST)) * 1e9) if given < LONGEST else None
        self._clock = clock
        self._at: _At | None = None  # within the block
        self._token: Token[_At] | None = None
        self._inside = False

    def __enter__(self) -> Self:
        """Begin the block: from now on it goes by the clock. An object is good for one block at a time."""
        if self._inside:
            raise RuntimeError("this deadline is in use: make one for each block")
        self._inside = True
        at = _core.context_deadline.get(None)
        if self._nanos is not None:
            own = (_now(self._clock) + self._nanos, self._clock)
            if at is None or _left(own) < _left(at):
                at = own
        self._at = at
        if at is not None:
            _core.use_context_deadline()
            self._token = _core.context_deadline.set(at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the block: what was in force before it is again."""
        token, self._token, self._inside = self._token, None, False
        if token is not None:
            _core.context_deadline.reset(token)

    def remaining(self) -> float:
        """Give the seconds that are left, for what has a timeout of its own, such as a request to another service.

        Those until the deadline that counts in the block, which may be that of a block around it; 0 once it has passed,
        and infinity where there is none, as before the block was entered.
        """
        return math.inf if self._at is None else max(0.0, _left(self._at) * 1e-9)


def _left(at: _At) -> int:
    nanos, clock = at
    return nanos - _now(clock)
