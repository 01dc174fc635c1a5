"""As test_every_request_ends.py, where the loop, callbacks and models raise, and the process forks meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from faulty_loop import FAULTS, FaultyLoop, Interrupt, SoftError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from test_every_request_ends import PATIENCE, VALUES, WHICH, Requests, row, tags_of

import inferkit
from inferkit.testing import FakeModel

THROWN = (SoftError, Interrupt, MemoryError)
FAULT = st.sampled_from(FAULTS)


class ThrowingRequests(Requests):
    """Of a loop that raises now and then where the batcher calls it, and a model that raises more than exceptions."""

    raised = (inferkit.InferkitError, SystemExit, Interrupt)
    loop: FaultyLoop

    def __init__(self) -> None:
        self.throws: type[BaseException] | None = None  # in the next run
        self.fails = False
        super().__init__()

    def new_loop(self) -> FaultyLoop:
        return FaultyLoop()

    def run_loop(self) -> None:
        while True:
            try:
                return self.loop.run_forever()
            except (*THROWN, SystemExit) as error:  # noqa: PERF203 - a Ctrl-C leaves the loop, and somebody runs it again
                self.loop.raised.append(error)

    def answering(self, factor: int) -> Callable[[np.ndarray], np.ndarray]:
        answer = super().answering(factor)

        def throwing(x: np.ndarray) -> np.ndarray:
            if threading.current_thread() is not threading.main_thread():  # there a Ctrl-C is the caller's
                error, self.throws = self.throws, None
                if error is not None:
                    raise error
            return answer(x)

        return throwing

    def add_callback(self, ticket: inferkit.Ticket, callback: Callable[[inferkit.Ticket], None] | None = None) -> None:
        try:
            super().add_callback(ticket, callback)
        except THROWN:
            self.perhaps[id(ticket)] += 1

    def submit_there(self, value: float, timeout: float | None, client: str | None) -> inferkit.Ticket | None:
        try:
            with self.loop.submitting():
                return super().submit_there(value, timeout, client)
        except THROWN:
            self.spoilt += 1
            return None

    @rule(calls=st.integers(0, 6), fault=FAULT, after=st.booleans())
    def raise_in_a_call_of_the_loop(self, calls: int, fault: type[BaseException], after: bool) -> None:
        """In one that the batcher is about to make."""

        def arm() -> None:
            self.loop.at = len(self.loop.calls) + calls
            self.loop.when = "after" if after else "before"
            self.loop.strike = strike

        def strike() -> None:
            raise fault

        self.on_loop(arm)

    @rule(error=st.sampled_from([MemoryError, SystemExit, Interrupt]))
    def raise_in_the_model(self, error: type[BaseException]) -> None:
        self.throws = error
        self.fails = True

    @rule(which=WHICH, fault=FAULT)
    def raise_in_a_callback(self, which: int, fault: type[BaseException]) -> None:
        def callback(ticket: inferkit.Ticket) -> None:
            self.count(ticket)
            raise fault

        if self.tickets:
            self.add_callback(self.tickets[which % len(self.tickets)][2], callback)

    @rule(values=st.lists(VALUES, min_size=2, max_size=6), cancel=st.booleans())
    def submit_from_threads(self, values: list[float], cancel: bool) -> None:
        self.sent += len(values)
        factor = self.factor

        def work(value: float) -> tuple[float, int, inferkit.Ticket]:
            ticket = self.batcher.submit(row(value), tags=tags_of(value))
            if cancel:
                ticket.cancel()
            return value, factor, ticket

        with ThreadPoolExecutor(3) as threads:
            self.tickets.extend(threads.map(work, values))

    @precondition(lambda _: "thread" not in inferkit.build_info()["sanitizers"])  # a child below TSan starts no threads
    @rule()
    def fork(self) -> None:
        """A child ends all that it has a copy of, and can make a batcher of its own; its parent does not notice."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 speaks of the threads that there are
            child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(PATIENCE)
            with contextlib.suppress(BaseException):
                os._exit(self.wrong_in_the_child())
            os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def wrong_in_the_child(self) -> int:
        for value, factor, ticket in self.tickets:
            error = ticket.exception(PATIENCE)
            if not isinstance(error, inferkit.ClosedError):
                self.check(value, factor, ticket.result() if error is None else error)
        if type(self.batcher.submit(row(1)).exception(PATIENCE)) is not inferkit.ClosedError:
            return 1
        if self.batcher.stats().state not in ("forked", "closed"):
            return 2
        self.batcher.close()
        with inferkit.Batcher(FakeModel(answer=lambda x: x * 3)) as own:
            return 0 if own.submit(row(1)).result(PATIENCE).tolist() == [3, 3] else 3

    def check(self, value: float, factor: int, answer: Any) -> str:
        # SystemExit and KeyboardInterrupt are everybody's of the batch; whatever else is the cause.
        if isinstance(answer, (SystemExit, Interrupt)) or isinstance(getattr(answer, "__cause__", None), MemoryError):
            assert self.fails
            return "failed"
        return super().check(value, factor, answer)

    def teardown(self) -> None:
        self.on_loop(lambda: setattr(self.loop, "at", None))
        super().teardown()


TestThrowingRequests = ThrowingRequests.TestCase
TestThrowingRequests.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
