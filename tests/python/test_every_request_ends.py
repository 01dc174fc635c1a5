"""Whatever is done to requests, in whatever order, from threads and a loop: each ends once, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import inferkit
from inferkit.testing import FakeModel

PATIENCE = 60
OURS = {"request", "batch input", "batch output", "caller output", "result cache"}
ENDS = {
    type(None): "completed",
    inferkit.InferenceError: "failed",
    inferkit.RequestCancelledError: "cancelled",
    asyncio.CancelledError: "cancelled",
    inferkit.DeadlineError: "expired",
    inferkit.QueueFullError: "rejected",
    inferkit.ClosedError: "rejected",
    inferkit.ValidationError: "invalid",
}
VALUES = st.sampled_from([1.0, 2.0, 3.0, -1.0, float("nan")])  # the model fails on -1
CLIENTS = st.sampled_from([None, None, "a", "b", "slow", "".join("x" for _ in range(200))])
WHICH = st.integers(0, 99)  # of those that there are: how many hangs on time, what hypothesis draws must not
TIMEOUTS = st.sampled_from([None, None, None, 0.0, 1e-6, 1e-3, 30.0])

LIMITS = {"a": inferkit.Client(weight=4.0), "slow": inferkit.Client(rate=0.01, burst=2)}


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


def tags_of(value: float) -> dict[str, str]:
    """One of more sets than the batcher tells apart."""
    return {"value": str(value)}


class Requests(RuleBasedStateMachine):
    """Those of one batcher, whose model runs while the gate is open. Each model that it is given has its own factor."""

    options: ClassVar[dict[str, Any]] = {}
    raised: ClassVar[tuple[type[BaseException], ...]] = (inferkit.InferkitError,)  # by map()

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.loops: set[int] = set()  # their threads
        self.factor = 2
        self.batcher = inferkit.Batcher(
            self.model(),
            max_batch_size=3,
            max_queue_size=4,
            caller_runs=False,
            clients=LIMITS,
            max_tag_sets=3,
            **self.options,
        )
        self.tickets: list[tuple[float, int, inferkit.Ticket]] = []  # with the factor that there was
        self.sent = 0
        self.read = 0  # rows, by map()
        self.called: Counter[int] = Counter()
        self.to_call: Counter[int] = Counter()
        self.perhaps: Counter[int] = Counter()  # added where something was raised
        self.lock = threading.Lock()
        self.spoilt = 0  # submissions that raised
        self.loop = self.new_loop()
        self.thread = threading.Thread(target=self.run_loop)
        self.thread.start()
        self.loops.add(self.thread.ident or 0)
        self.tasks: list[asyncio.Task[Any]] = []
        self.closed = False

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def run_loop(self) -> None:
        self.loop.run_forever()

    def model(self) -> FakeModel:
        return FakeModel(answer=self.answering(self.factor))

    def answering(self, factor: int) -> Callable[[np.ndarray], np.ndarray]:
        gate, loops = self.gate, self.loops

        def answer(x: np.ndarray) -> np.ndarray:
            # A loop that has seen short runs makes the next one itself: held, it would open the gate for nobody.
            if threading.get_ident() not in loops:
                gate.wait(PATIENCE)
            if (x == -1).any():
                raise ValueError("minus one")
            return x * np.float32(factor)

        return answer

    def on_loop(self, work: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE)

    def count(self, ticket: inferkit.Ticket) -> None:
        with self.lock:
            self.called[id(ticket)] += 1

    def add_callback(self, ticket: inferkit.Ticket, callback: Callable[[inferkit.Ticket], None] | None = None) -> None:
        ticket.add_done_callback(callback or self.count)
        self.to_call[id(ticket)] += 1

    @rule(value=VALUES, timeout=TIMEOUTS, priority=st.integers(-1, 1), callback=st.booleans(), client=CLIENTS)
    def submit(self, value: float, timeout: float | None, priority: int, callback: bool, client: str | None) -> None:
        self.sent += 1
        ticket = self.batcher.submit(row(value), timeout=timeout, priority=priority, client=client, tags=tags_of(value))
        self.tickets.append((value, self.factor, ticket))
        if callback:
            self.add_callback(ticket)

    def submit_there(self, value: float, timeout: float | None, client: str | None) -> inferkit.Ticket | None:
        """Submit on the loop's thread; None if that raised."""
        return self.batcher.submit(row(value), timeout=timeout, client=client, tags=tags_of(value))

    @rule(
        values=st.lists(VALUES, min_size=1, max_size=4),
        timeout=TIMEOUTS,
        callback=st.booleans(),
        task=st.booleans(),
        client=CLIENTS,
    )
    def submit_on_the_loop(
        self, values: list[float], timeout: float | None, callback: bool, task: bool, client: str | None
    ) -> None:
        self.sent += len(values)

        def work() -> None:
            for value in values:
                ticket = self.submit_there(value, timeout, client)
                if ticket is None:
                    continue
                self.tickets.append((value, self.factor, ticket))
                if callback:
                    self.add_callback(ticket)
                if task:
                    self.tasks.append(self.loop.create_task(ticket))

        self.on_loop(work)

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        if self.tickets:
            ticket = self.tickets[which % len(self.tickets)][2]
            if ticket.cancel():
                assert ticket.cancelled()

    @rule(which=WHICH)
    def cancel_a_task(self, which: int) -> None:
        if self.tasks:
            self.on_loop(self.tasks[which % len(self.tasks)].cancel)

    @rule()
    def hold(self) -> None:
        self.gate.clear()

    @rule()
    def let_go(self) -> None:
        self.gate.set()

    @rule(values=st.lists(VALUES, max_size=12), most=st.integers(1, 6), take=st.integers(0, 12), errors=st.booleans())
    def map(self, values: list[float], most: int, take: int, errors: bool) -> None:
        def rows() -> Iterator[np.ndarray]:
            for value in values:
                self.read += 1
                yield row(value)

        self.gate.set()
        last: BaseException | None = None
        answers = self.batcher.map(rows(), max_outstanding=most, return_exceptions=errors, tags={"by": "map"})
        try:
            for value, answer in zip(values[:take], answers, strict=False):
                self.check(value, self.factor, answer)
        except self.raised as error:
            last = error
        answers.close()
        assert not (errors and isinstance(last, inferkit.InferkitError))

    @rule()
    @precondition(lambda self: not self.closed)
    def swap(self) -> None:
        self.factor += 1
        self.batcher.swap(self.model(), batch_sizes=())

    @rule(drain=st.booleans())
    @precondition(lambda self: self.sent > 8)
    def close(self, drain: bool) -> None:
        self.gate.set()
        self.batcher.close(drain=drain)
        self.closed = True

    def check(self, value: float, factor: int, answer: Any) -> str:
        if isinstance(answer, np.ndarray):
            # Of the model that there was when it came, or of a later one.
            assert answer.tolist() in [[value * by] * 2 for by in range(factor, self.factor + 1)]
            answer[:] = -5  # its own: nobody else's changes
            return "completed"
        end = ENDS[type(answer)]
        assert (end == "invalid") <= np.isnan(value)
        assert (end == "failed") <= (value == -1)
        return end

    def teardown(self) -> None:
        self.gate.set()
        try:
            ends: Counter[str] = Counter()
            for value, factor, ticket in self.tickets:
                error = ticket.exception(PATIENCE)
                ends[self.check(value, factor, ticket.result() if error is None else error)] += 1
            self.on_loop(lambda: None)
            for task in self.tasks:
                asyncio.run_coroutine_threadsafe(asyncio.wait([task]), self.loop).result(PATIENCE)
                if not task.cancelled():
                    task.exception()  # looked at, or asyncio would say that nobody has
            assert self.batcher.drain(PATIENCE)
            self.batcher.close()
            stats = self.batcher.stats()
            counted = {end: getattr(stats, end) for end in set(ENDS.values())}
            of_map = {end: counted[end] - ends[end] for end in counted}
            assert min(of_map.values()) >= 0, (counted, ends)
            # What map() was refused it has sent again, or, of a closed batcher, given as that row's end.
            most = self.read + self.spoilt  # which may have been cancelled, or never came
            assert sum(of_map.values()) - of_map["rejected"] <= most, (counted, ends)
            assert self.read <= sum(of_map.values())
            assert (stats.queue_depth, stats.in_flight) == (0, 0)
            for end in counted:  # all requests have tags
                assert sum(getattr(one, end) for one in stats.tags) == counted[end], (end, stats.tags)
            for client in stats.clients.values():
                assert client.waiting == 0
                assert client.answered + client.refused <= client.submitted
            for _ in range(2000):
                with self.lock:
                    if self.to_call <= self.called:
                        break
                threading.Event().wait(0.005)
            assert self.to_call <= self.called <= self.to_call + self.perhaps  # each of them once
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(PATIENCE)
            self.loop.close()
            self.batcher.close()
        self.tickets.clear()
        self.to_call.clear()
        self.tasks.clear()
        gc.collect()
        assert [leak for leak in inferkit.BufferPool.default().leaks() if leak.tag in OURS] == []


class EqualRequests(Requests):
    """Of four values, many are equal."""

    options: ClassVar[dict[str, Any]] = {"coalesce": True}


class KeptAnswers(Requests):
    options: ClassVar[dict[str, Any]] = {"coalesce": True, "result_cache": 1500, "cache_callables": True}


class SharedCores(Requests):
    """Beside another batcher that wants the only core as well, under a limit that comes and goes."""

    options: ClassVar[dict[str, Any]] = {"workers": 2, "weight": 0.5}

    def __init__(self) -> None:
        inferkit.set_max_concurrent(1)
        super().__init__()
        self.other = inferkit.Batcher(self.model(), max_batch_size=1, workers=2)
        self.others: list[inferkit.Ticket] = []

    @rule()
    def submit_to_the_other(self) -> None:
        self.others.append(self.other.submit(row(1.0)))

    @rule(cores=st.sampled_from([None, 1, 1, 2]))
    def limit(self, cores: int | None) -> None:
        inferkit.set_max_concurrent(cores)

    def teardown(self) -> None:
        try:
            self.gate.set()
            for ticket in self.others:
                assert ticket.result(PATIENCE)[0] in range(2, self.factor + 1)
            super().teardown()
            assert self.other.drain(PATIENCE)
            # Whatever came in between, every core has been given back.
            inferkit.set_max_concurrent(1)
            with inferkit.Batcher(FakeModel()) as last:
                last.submit(np.zeros((1, 1), np.float32)).exception(PATIENCE)
        finally:
            self.other.close()
            inferkit.set_max_concurrent(None)
            self.others.clear()


TestRequests = Requests.TestCase
TestEqualRequests = EqualRequests.TestCase
TestKeptAnswers = KeptAnswers.TestCase
TestSharedCores = SharedCores.TestCase
for case in (TestRequests, TestEqualRequests, TestKeptAnswers, TestSharedCores):
    case.settings = settings(
        max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
del case  # which pytest would take for one more
