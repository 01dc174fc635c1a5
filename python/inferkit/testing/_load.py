"""Load: when requests come, and what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arguments import integer, number, seconds
from .._stats import Latency

if TYPE_CHECKING:
    from .._ticket import Ticket

__all__ = ["LoadReport", "adrive", "bursts", "drive", "poisson"]

_Requests = Sequence[Any] | Callable[[int], Any]


def _positive(value: float, name: str) -> float:
    got = number(value, name)
    if not 0 < got < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {got:g}")
    return got


def poisson(rate: float, duration: float, *, seed: int = 0) -> list[float]:
    """Say when requests come that know nothing of each other.

    Parameters
    ----------
    rate : float
        Requests per second, on average.
    duration : float
        Seconds from the first moment to the last.
    seed : int
        The same seed gives the same times.

    Returns
    -------
    list of float
        Seconds from the start, in order.

    Examples
    --------
    >>> from inferkit.testing import poisson
    >>> times = poisson(1000.0, 2.0, seed=7)
    >>> times == poisson(1000.0, 2.0, seed=7), 1800 < len(times) < 2200, max(times) < 2.0
    (True, True, True)
    """
    rate, until = _positive(rate, "rate"), seconds(duration, "duration")
    source = random.Random(integer(seed, "seed"))
    gaps = iter(lambda: source.expovariate(rate), None)
    return list(itertools.takewhile(lambda at: at < until, itertools.accumulate(gaps)))


def bursts(size: int, every: float, duration: float, *, spread: float = 0.0, seed: int = 0) -> list[float]:
    """Say when requests come in crowds.

    Parameters
    ----------
    size : int
        Requests in a burst.
    every : float
        Seconds from one burst to the next; the first is at 0.
    duration : float
        Seconds from the first moment to the last.
    spread : float
        Seconds that the requests of a burst are strewn over.
    seed : int
        Of where they fall.

    Returns
    -------
    list of float
        Seconds from the start, in order. ``sorted(poisson(...) + bursts(...))`` is both.

    Examples
    --------
    >>> from inferkit.testing import bursts
    >>> bursts(2, 0.5, 1.2)
    [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    """
    size, every, until = integer(size, "size", 1), _positive(every, "every"), seconds(duration, "duration")
    spread = seconds(spread, "spread")
    source = random.Random(integer(seed, "seed"))
    starts = itertools.takewhile(lambda at: at < until, (every * n for n in itertools.count()))
    times = [start + spread * source.random() for start in starts for _ in range(size)]
    return sorted(at for at in times if at < until)


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of a load.

    Parameters
    ----------
    offered, completed : int
        Requests that were submitted, and those that got an answer.
    errors : mapping of str to int
        How the others ended, by the name of the error's class.
    seconds : float
        From the start to the last end.
    latency_ms : Latency
        Of those that got an answer: from the moment that a request was due (and not that at which a late generator sent
        it) to its end.
    lateness : float
        Seconds that the generator was late at worst: where that is much, the machine is too busy to make this load.
    """

    offered: int
    completed: int
    errors: Mapping[str, int]
    seconds: float
    latency_ms: Latency
    lateness: float

    @property
    def goodput(self) -> float:
        """Answers per second."""
        return self.completed / self.seconds if self.seconds else 0.0


class _Score:
    """Of a load that is under way; tickets are let go of as they end."""

    def __init__(self, requests: _Requests, options: Mapping[str, Any]) -> None:
        if not callable(requests) and not (hasattr(requests, "__len__") and hasattr(requests, "__getitem__")):
            raise TypeError(f"requests must be a sequence or a function, got {type(requests).__name__}")
        if not callable(requests) and not len(requests):
            raise ValueError("requests must not be empty")
        self.requests = requests
        self.options = options
        self.start = time.monotonic()
        self.last = self.start
        self.lateness = 0.0
        self.offered = 0
        self.open: deque[tuple[float, Ticket]] = deque()
        self.errors: Counter[str] = Counter()
        self.latencies: list[float] = []

    def send(self, submit: Callable[..., Ticket], at: float) -> None:
        due = self.start + at
        self.lateness = max(self.lateness, time.monotonic() - due)
        n, of = self.offered, self.requests
        request = of(n) if callable(of) else of[n % len(of)]
        inputs = request if isinstance(request, tuple) else (request,)
        self.offered += 1
        ticket = submit(*inputs, **self.options)
        if not hasattr(ticket, "timing"):
            raise TypeError(
                f"submit must give a Ticket, as batcher.submit does; what it gave is of type {type(ticket).__name__}"
            )
        self.open.append((due, ticket))

    def take_ended(self) -> None:
        while self.open and self.open[0][1].timing.finished is not None:
            self.take()

    def take(self) -> None:
        """Take the oldest, which has ended."""
        due, ticket = self.open.popleft()
        error = ticket.exception()
        finished = ticket.timing.finished or due
        self.last = max(self.last, finished)
        if error is None:
            self.latencies.append(finished - due)
        else:
            self.errors[type(error).__name__] += 1

    def report(self) -> LoadReport:
        return LoadReport(
            offered=self.offered,
            completed=len(self.latencies),
            errors=dict(self.errors),
            seconds=self.last - self.start,
            latency_ms=_latency(self.latencies),
            lateness=self.lateness,
        )


def _latency(values: Iterable[float]) -> Latency:
    ms = 1e3 * np.array(list(values) or [0.0])
    shares = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "p999": 99.9}
    percentiles = {name: float(np.percentile(ms, share)) for name, share in shares.items()}
    return Latency(**percentiles, max=float(ms.max()), mean=float(ms.mean()), count=len(list(values)))


def _waits(score: _Score, arrivals: Iterable[float]) -> Iterator[tuple[float, float]]:
    """Each arrival, and how many seconds it is away; to be asked for when the one before has been sent."""
    for arrival in arrivals:
        at = seconds(arrival, "an arrival")
        yield at, score.start + at - time.monotonic()


def drive(submit: Callable[..., Ticket], requests: _Requests, arrivals: Iterable[float], **options: Any) -> LoadReport:
    """Submit requests when they are due, whether those before have answers or not, and wait for what becomes of them.

    Such an open loop shows what a closed one hides: callers do not wait for each other, and what comes too fast piles
    up.

    Parameters
    ----------
    submit : callable
        A batcher's ``submit``.
    requests : sequence or callable
        What to submit: taken in turn, or ``requests(n)`` for the nth. A tuple holds several inputs.
    arrivals : iterable of float
        When, in seconds from the start: from :func:`poisson`, :func:`bursts`, or recorded.
    **options
        For each submission: ``timeout=``, ``priority=``.

    Returns
    -------
    LoadReport

    Examples
    --------
    >>> import inferkit, numpy as np
    >>> from inferkit.testing import FakeModel, drive, poisson
    >>> with inferkit.Batcher(FakeModel(0.001)) as batcher:
    ...     report = drive(batcher.submit, [np.ones(2, np.float32)], poisson(200.0, 0.2), timeout=5.0)
    >>> report.completed == report.offered, report.errors
    (True, {})
    """
    score = _Score(requests, options)
    for at, left in _waits(score, arrivals):
        if left > 0:
            time.sleep(left)
        score.send(submit, at)
        score.take_ended()
    while score.open:
        score.open[0][1].exception()
        score.take()
    return score.report()


async def adrive(
    submit: Callable[..., Ticket], requests: _Requests, arrivals: Iterable[float], **options: Any
) -> LoadReport:
    """Do what :func:`drive` does, from a task of the running event loop.

    Examples
    --------
    >>> import asyncio, inferkit, numpy as np
    >>> from inferkit.testing import FakeModel, adrive, bursts
    >>> async def main():
    ...     async with inferkit.Batcher(FakeModel(0.001)) as batcher:
    ...         return await adrive(batcher.submit, [np.ones(2, np.float32)], bursts(8, 0.05, 0.2))
    >>> asyncio.run(main()).completed
    32
    """
    score = _Score(requests, options)
    for at, left in _waits(score, arrivals):
        if left > 0:
            await asyncio.sleep(left)
        score.send(submit, at)
        score.take_ended()
    while score.open:
        with contextlib.suppress(Exception):
            await score.open[0][1]
        score.take()
    return score.report()
