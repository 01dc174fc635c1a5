"""What the steps of a diagnosis share: the batcher, requests for it, limits, and the traffic that they send."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .. import _limits
from .._background import started
from .._batcher import Batcher
from .._errors import QueueFullError
from .._model import Model
from .._stats import BatcherStats
from .._ticket import Ticket
from ._report import Check, Status
from ._samples import Feeds

__all__ = ["Finder", "Limits", "Patient", "Step", "Traffic", "silent"]


WINDOW = 8  # requests of a burst that are on their way at one time


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where a figure becomes a finding; durations in seconds."""

    queue_depth: int = _limits.QUEUE_DEPTH
    oldest_wait: float = _limits.OLDEST_WAIT
    error_rate: float = _limits.ERROR_RATE
    unserved_rate: float = _limits.UNSERVED_RATE
    invalid_rate: float = _limits.INVALID_RATE
    hung_after: float = _limits.HUNG_AFTER
    loop_hold: float = 0.010
    growth_bytes: int = 1 << 20  # of the RSS over the whole of the memory check, by its confidence interval's lower end


@dataclass
class Finder:
    """Makes the checks of one step."""

    step: int

    def __call__(self, name: str, status: Status, figure: str, why: str, remedy: str = "") -> Check:
        """Make one."""
        return Check(step=self.step, name=name, status=status, figure=figure, why=why, remedy=remedy)


@dataclass
class Traffic:
    """What came of requests that were sent."""

    tickets: list[tuple[int, Ticket]] = field(default_factory=list)  # with the index of the sample
    errors: list[BaseException] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)  # the ids that we gave
    seconds: float = 0.0

    def most_in_flight(self) -> int:
        """Count the batches that ran at one time, at most, by the requests' stamps."""
        spans: dict[int, tuple[float, float]] = {}
        for _, ticket in self.tickets:
            t = ticket.timing
            if t.batch_id is not None and t.started is not None and t.finished is not None:
                start, end = spans.get(t.batch_id, (t.started, t.finished))
                spans[t.batch_id] = (min(start, t.started), min(end, t.finished))
        # Ends before starts where they fall together.
        events = sorted([(start, 1) for start, _ in spans.values()] + [(end, -1) for _, end in spans.values()])
        running = itertools.accumulate(step for _, step in events)
        return max(running, default=0)


def silent(_: str) -> None:
    """Say nothing."""


@dataclass
class Patient:
    """A batcher under examination."""

    batcher: Batcher
    samples: list[Feeds]
    first_stats: BatcherStats  # before any request of ours
    seconds: float = 2.0  # for each step that takes time
    timeout: float = 5.0  # for one request
    limits: Limits = field(default_factory=Limits)
    say: Callable[[str], None] = silent
    once: float = 0.0  # seconds that one request takes, alone
    answers: bool = True  # whether requests come back at all
    works: bool = True  # and whether they come back with an answer
    made_by: dict[str, str] = field(default_factory=dict)  # output -> the operator that makes it, where known

    @property
    def model(self) -> Model:
        """The model of the batcher."""
        return self.batcher.model

    def affordable(self, least: int, most: int) -> int:
        """Say how many requests fit the time for a step."""
        return int(min(max(self.seconds / max(self.once, 1e-6), least), most))

    def ask(self, index: int, **options: Any) -> Ticket:
        """Submit one sample, with a time limit."""
        return self.batcher.submit(self.samples[index % len(self.samples)], timeout=self.timeout, **options)

    def burst(self, count: int, window: int = WINDOW) -> None:
        """Send `count` requests from this thread, some at a time, and let go of their answers."""
        waiting: deque[Ticket] = deque()
        for number in range(count):
            if len(waiting) == window:
                waiting.popleft().exception(self.timeout + 1)
            ticket = self.ask(number)
            if not ticket.done() or not isinstance(ticket.exception(), QueueFullError):
                waiting.append(ticket)
            elif waiting:
                waiting.popleft().exception(self.timeout + 1)
        for ticket in waiting:
            ticket.exception(self.timeout + 1)

    def traffic(self, count: int, threads: int = 8, prefix: str | None = None) -> Traffic:
        """Send `count` requests from some threads, each waiting for an answer before it sends the next."""
        out = Traffic()
        numbers = iter(range(count))
        lock = threading.Lock()  # guards `numbers` and `out`

        def client() -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                name = None if prefix is None else f"{prefix}-{number}"
                ticket: Ticket | None
                problem: BaseException | None
                try:
                    ticket = self.ask(number, request_id=name)
                    problem = ticket.exception(self.timeout + 1)
                    if problem is not None and ticket.timing.total_time == 0:
                        ticket = None  # refused at the door: there is nothing to follow
                except Exception as error:  # it never ended, or what nobody has thought of: all of it is told
                    problem, ticket = error, None
                with lock:
                    if ticket is not None:
                        out.tickets.append((number % len(self.samples), ticket))
                        if name is not None:
                            out.asked.append(name)
                    if problem is not None:
                        out.errors.append(problem)

        start = time.perf_counter()
        clients: list[threading.Thread] = []
        for _ in range(min(threads, count)):
            try:
                clients.append(started(client, "inferkit-doctor", "the doctor's requests", daemon=False))
            except OSError:  # noqa: PERF203 - a handful
                if not clients:
                    raise
                break  # those that there are do the work
        for thread in clients:
            thread.join()
        out.seconds = time.perf_counter() - start
        return out


Step = Callable[[Patient], Iterator[Check]]
