"""Named clients: shares by weight, rates, places in the queue, what is counted of them, and what is said."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import Client
from inferkit.testing import FakeModel, ManualClock

pytestmark = pytest.mark.usefixtures("no_buffer_left")


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


class Gate:
    """A model that holds its first run until it is opened; knows the rows in the order in which they ran."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.batches.append([int(value) for value in x[:, 0]])
        self.entered.set()
        assert self.opened.wait(60)
        return x


@contextlib.contextmanager
def busy(**options: Any) -> Iterator[tuple[inferkit.Batcher, Gate]]:
    """Give a batcher that runs something until the gate is opened, which is done at the end."""
    gate = Gate()
    with ManualClock().batcher(FakeModel(answer=gate), **options) as batcher:
        batcher.submit(row(-1))
        gate.entered.wait()
        try:
            yield batcher, gate
        finally:
            gate.opened.set()


def shares(gate: Gate, batches: int) -> Counter[int]:
    """Count whose rows ran in the first batches; a row's value is the number of its client."""
    return Counter(value for batch in gate.batches[1 : 1 + batches] for value in batch)


def test_ten_clients_one_of_them_greedy() -> None:
    with busy(max_batch_size=20, max_queue_size=None) as (batcher, gate):
        for _ in range(900):
            batcher.submit(row(0), client="greedy")
        for _ in range(50):
            for number in range(1, 10):
                batcher.submit(row(number), client=f"client {number}")
    # 50 rows of each of the others: ten clients are backlogged for 25 batches.
    counted = shares(gate, 24)
    assert sum(counted.values()) == 480
    assert all(abs(counted[number] - 48) <= 4.8 for number in range(10)), counted
    # Nothing is held back for them afterwards.
    assert sum(len(batch) for batch in gate.batches) == 1 + 900 + 9 * 50


@pytest.mark.parametrize("wide", [1, 3])
def test_weights(wide: int) -> None:
    weights = {"a": Client(weight=1.0), "b": Client(weight=2.0), "c": Client(weight=4.0)}
    with busy(max_batch_size=21, max_queue_size=None, clients=weights) as (batcher, gate):
        for _ in range(240):
            for number, name in enumerate(weights):
                # In rows: who sends larger requests has fewer of them answered.
                batcher.submit(np.full((wide if name == "b" else 1, 2), number, np.float32), client=name)
    counted = shares(gate, 15)
    total = sum(counted.values())
    for number, weight in enumerate((1, 2, 4)):
        assert counted[number] == pytest.approx(total * weight / 7, rel=0.1), counted


def test_requests_without_a_client_are_one_client() -> None:
    with busy(max_batch_size=10, max_queue_size=None, clients={"a": Client(weight=4.0)}) as (batcher, gate):
        for _ in range(100):
            batcher.submit(row(0))
            batcher.submit(row(1), client="a")
    assert shares(gate, 10) == {0: 20, 1: 80}


def test_without_names_nothing_changes() -> None:
    with busy(max_batch_size=1) as (batcher, gate):
        for number in range(20):
            batcher.submit(row(number))
        assert batcher.stats().clients == {}
    assert gate.batches == [[-1], *([number] for number in range(20))]


def test_priority_comes_before_fairness() -> None:
    with busy(max_batch_size=1) as (batcher, gate):
        for number, (client, priority) in enumerate([("a", 0), ("b", 0), ("a", 1), ("a", 1), ("b", 1), ("a", 0)]):
            batcher.submit(row(number), client=client, priority=priority)
    # Priority 1: a, then b, then a again. Then 0, in the same way.
    assert gate.batches[1:] == [[2], [4], [3], [0], [1], [5]]


def test_deadlines_are_within_a_client() -> None:
    with busy(max_batch_size=1) as (batcher, gate):
        batcher.submit(row(0), client="a")
        batcher.submit(row(1), client="a", timeout=9.0)
        batcher.submit(row(2), client="a", timeout=8.0)
        batcher.submit(row(3), client="b", timeout=9.5)
        batcher.submit(row(4), client="b")
    assert gate.batches[1:] == [[2], [3], [1], [4], [0]]


def test_cancelled_requests_take_no_share() -> None:
    with busy(max_batch_size=10, max_queue_size=None) as (batcher, gate):
        of_a = [batcher.submit(row(0), client="a") for _ in range(40)]
        for _ in range(40):
            batcher.submit(row(1), client="b")
        assert all(ticket.cancel() for ticket in of_a[::2])
    assert shares(gate, 4) == {0: 20, 1: 20}
    assert batcher.stats().clients["a"].answered == 20


# Rates


def test_a_rate() -> None:
    clock = ManualClock()
    limited = {"a": Client(rate=10.0, burst=3)}
    with clock.batcher(FakeModel(), clients=limited) as batcher:
        for submit in (batcher, lambda x, client=None: batcher.submit(x, client=client).result(60)):
            for _ in range(3):
                submit(row(1), client="a")
            with pytest.raises(inferkit.QueueFullError, match=r"client 'a' .* rate of 10 .*burst=3") as refused:
                submit(row(1), client="a")
            assert refused.value.retry_after == pytest.approx(0.1)
            submit(row(1), client="b")
            submit(row(1))
            clock.advance(0.04)
            assert batcher.submit(row(1), client="a").exception().retry_after == pytest.approx(0.06)  # type: ignore[union-attr]
            clock.advance(0.06)
            batcher(row(1), client="a")
            clock.advance(1.0)  # the bucket holds three, however long the pause
        stats = batcher.stats()
    assert stats.clients["a"] == inferkit.ClientStats(submitted=12, answered=8, refused=4, rows=8, waiting=0)
    assert stats.clients["b"].answered == 2
    assert stats.rejected == 4


def test_a_wait_is_told_in_three_digits() -> None:
    with ManualClock().batcher(FakeModel(), clients={"a": Client(rate=3.0, burst=1)}) as batcher:
        batcher(row(0), client="a")
        with pytest.raises(inferkit.QueueFullError, match=r"try again in 0\.333 s$"):
            batcher(row(0), client="a")


def test_a_rate_for_everybody_else() -> None:
    with ManualClock().batcher(FakeModel(), clients={"a": Client()}, default_client=Client(rate=1.0)) as batcher:
        for _ in range(5):
            batcher(row(1), client="a")
            batcher(row(1))
        for name in ("b", "c"):
            batcher(row(1), client=name)
            with pytest.raises(inferkit.QueueFullError, match=rf"client '{name}' .*1 request a second"):
                batcher(row(1), client=name)


def test_wrong_inputs_cost_no_rate() -> None:
    with ManualClock().batcher(FakeModel(), clients={"a": Client(rate=1.0)}) as batcher:
        for _ in range(3):
            with pytest.raises(inferkit.ValidationError):
                batcher(np.zeros((1, 2, 3), np.float32), client="a")
        batcher(row(1), client="a")


def test_map_waits_for_the_rate() -> None:
    with inferkit.Batcher(FakeModel(), clients={"a": Client(rate=200.0, burst=2)}) as batcher:
        answers = list(batcher.map([row(i) for i in range(6)], client="a"))

        async def main() -> list[Any]:
            return [answer async for answer in batcher.amap([row(i) for i in range(6)], client="a")]

        assert [a.tolist() for a in answers] == [a.tolist() for a in asyncio.run(main())]
        stats = batcher.stats().clients["a"]
    assert stats.answered == 12
    assert stats.refused == stats.submitted - 12


# Places in the queue


def test_a_client_leaves_room_for_others() -> None:
    with busy(max_batch_size=1, max_queue_size=12) as (batcher, _):
        of_a = [batcher.submit(row(0), client="a") for _ in range(20)]
        assert sum(not ticket.done() for ticket in of_a) == 6
        error = of_a[-1].exception()
        assert isinstance(error, inferkit.QueueFullError)
        assert "client 'a' may have no more places in the queue than are free, and has 6" in str(error)
        of_b = [batcher.submit(row(1), client="b") for _ in range(20)]
        assert sum(not ticket.done() for ticket in of_b) == 3
        without = [batcher.submit(row(2)) for _ in range(20)]
        assert sum(not ticket.done() for ticket in without) == 2
        assert "the requests without a client" in str(without[-1].exception())
        stats = batcher.stats()
        assert stats.clients["a"] == inferkit.ClientStats(submitted=20, answered=0, refused=14, rows=0, waiting=6)
        assert stats.queue_depth == 11
    batcher.close()
    assert batcher.stats().clients["a"].answered == 6
    assert batcher.stats().clients["a"].waiting == 0


def test_one_waits_for_room_where_the_batcher_says_so() -> None:
    with busy(max_batch_size=1, max_queue_size=2, on_full="wait") as (batcher, gate):
        done: list[Any] = []
        threads = [
            threading.Thread(target=lambda name: done.append(batcher(row(0), client=name)), args=[name])
            for name in "aaabbb"
        ]
        for thread in threads:
            thread.start()
        gate.opened.set()
        for thread in threads:
            thread.join(60)
    assert len(done) == 6


# Deadlines


def test_a_forecast_counts_what_goes_before_in_the_order_of_clients() -> None:
    """Who has no queue is not refused for the queue of another, and is answered next."""
    clock = ManualClock()
    model = FakeModel(duration=0.01, clock=clock)

    async def run() -> None:
        await asyncio.to_thread(clock.wait_for_sleepers)
        clock.advance(0.01)

    async def main() -> None:
        async with clock.batcher(model, max_batch_size=1, max_queue_size=None) as batcher:
            for _ in range(20):  # it learns how long a run takes
                ticket = batcher.submit(row(0))
                await run()
                await ticket
            flood = [batcher.submit(row(0), client="greedy", timeout=0.5) for _ in range(100)]
            refused = [ticket for ticket in flood if ticket.done()]
            assert 40 <= len(refused) <= 60  # the others take half a second
            await asyncio.to_thread(clock.wait_for_sleepers)  # all of them are in the queue, and the first one runs
            assert isinstance(batcher.submit(row(0), client="greedy", timeout=0.5).exception(0), inferkit.DeadlineError)
            light = batcher.submit(row(1), client="light", timeout=0.5)
            await asyncio.sleep(0)
            await run()
            await run()
            assert (await asyncio.wait_for(light, 60)).tolist() == [2, 2]
            assert [ticket.done() for ticket in flood[:2]] == [True, False]
            await batcher.aclose(drain=False, timeout=0)
            clock.advance(1.0)

    asyncio.run(main())


# Names


def test_forgotten_names() -> None:
    with ManualClock().batcher(FakeModel(), clients={"kept": Client()}) as batcher:
        for number in range(5000):
            batcher(row(1), client=str(number))
        clients = batcher.stats().clients
    assert "kept" in clients
    assert "4999" in clients
    assert len(clients) <= 4097


def test_too_many_names_at_once() -> None:
    clock = ManualClock()
    with clock.batcher(FakeModel(), default_client=Client(rate=1.0)) as batcher:
        for number in range(4096):
            batcher(row(1), client=str(number))
        ticket = batcher.submit(row(1), client="one more")
        error = ticket.exception()
        assert isinstance(error, inferkit.QueueFullError)
        assert "client 'one more' is one too many: 4096 others" in str(error)
        with pytest.raises(inferkit.QueueFullError, match="one too many"):
            batcher(row(1), client="one more")
        assert batcher.stats().rejected == 2
        batcher(row(1))
        clock.advance(1.0)
        batcher(row(1), client="one more")


@pytest.mark.parametrize(
    ("client", "kind", "message"),
    [
        (1, TypeError, "client must be a str, got int"),
        (b"a", TypeError, "client must be a str, got bytes"),
        ("", ValueError, "the name of a client must not be empty"),
        ("x" * 257, ValueError, "the name of a client has at most 256 bytes of UTF-8, got 257"),
        ("\ud800", ValueError, "client holds a lone surrogate"),
    ],
)
def test_wrong_names(client: Any, kind: type[Exception], message: str) -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        for call in (batcher, batcher.submit, lambda x, client: next(batcher.map([x], client=client))):
            with pytest.raises(kind, match=message):
                call(row(1), client=client)


@pytest.mark.parametrize(
    ("keywords", "kind", "message"),
    [
        ({"weight": 0}, ValueError, "weight must be between 0.001 and 1000, got 0"),
        ({"weight": math.inf}, ValueError, "weight must be between 0.001 and 1000, got inf"),
        ({"weight": math.nan}, ValueError, "weight must be a number, got NaN"),
        ({"weight": "1"}, TypeError, "weight must be a number, got str"),
        ({"weight": True}, TypeError, "weight must be a number, got bool"),
        ({"rate": 0}, ValueError, "rate must be between 1e-06 and 1e"),
        ({"rate": 1.0, "burst": 0.5}, ValueError, "burst must be between 1 and 1e"),
        ({"burst": 5}, ValueError, "give a rate as well"),
    ],
)
def test_wrong_settings(keywords: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Client(**keywords)


def test_wrong_clients() -> None:
    for clients, message in (
        ([("a", Client())], "clients must map names to Client, got list"),
        ({"a": 1.0}, "clients must map names to Client, got a mapping with float"),
        ({1: Client()}, "clients must map names to Client, got a mapping with int"),
    ):
        with pytest.raises(TypeError, match=message):
            inferkit.Batcher(FakeModel(), clients=clients)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"default_client must be an inferkit.Client, got float"):
        inferkit.Batcher(FakeModel(), default_client=1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the name of a client must not be empty"):
        inferkit.Batcher(FakeModel(), clients={"": Client()})


# Ends


def test_closing_ends_those_of_clients_too() -> None:
    with busy(max_batch_size=1) as (batcher, gate):
        tickets = [batcher.submit(row(0), client=name) for name in "aab"]
        closing = threading.Thread(target=batcher.close, kwargs={"drain": False})
        closing.start()
        for ticket in tickets:
            assert isinstance(ticket.exception(60), inferkit.ClosedError)
        late = batcher.submit(row(0), client="c").exception(60)
        assert isinstance(late, inferkit.ClosedError)
        gate.opened.set()
        closing.join(60)
        assert [client.waiting for client in batcher.stats().clients.values()] == [0, 0, 0]


def test_a_child_of_a_fork() -> None:
    with busy(max_batch_size=1) as (batcher, _):
        ticket = batcher.submit(row(0), client="a")
        pid = os.fork()
        if pid == 0:
            ok = False
            with contextlib.suppress(BaseException):
                ok = (
                    isinstance(ticket.exception(60), inferkit.ClosedError)
                    and isinstance(batcher.submit(row(0), client="a").exception(60), inferkit.ClosedError)
                    and batcher.stats().clients == {}
                )
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_swapping_keeps_the_accounts() -> None:
    with busy(max_batch_size=2, clients={"a": Client(weight=3.0)}) as (batcher, gate):
        for _ in range(40):
            batcher.submit(row(0), client="a")
            batcher.submit(row(1), client="b")
        order: list[int] = []
        batcher.swap(FakeModel(answer=lambda x: (order.extend(int(v) for v in x[:, 0]), x)[1]), batch_sizes=())
        gate.opened.set()
        batcher.drain()
    assert Counter(order[:40]) == {0: 30, 1: 10}


# Metrics


def test_metrics_are_of_configured_clients_alone() -> None:
    prometheus_client = pytest.importorskip("prometheus_client")
    registry = prometheus_client.CollectorRegistry()
    inferkit.metrics.register(registry)
    with ManualClock().batcher(FakeModel(), name="clients", clients={"a": Client(rate=1.0)}) as batcher:
        batcher(np.zeros((3, 2), np.float32), client="a")
        with pytest.raises(inferkit.QueueFullError):
            batcher(row(1), client="a")
        batcher(row(1), client="somebody")

        def value(name: str, **labels: str) -> float | None:
            got: float | None = registry.get_sample_value(f"inferkit_client_{name}", {"batcher": "clients", **labels})
            return got

        def check() -> None:
            assert value("submissions_total", client="a") == 2
            assert value("requests_total", client="a", outcome="answered") == 1
            assert value("requests_total", client="a", outcome="refused") == 1
            assert value("rows_total", client="a") == 3
            assert b"somebody" not in prometheus_client.generate_latest(registry)

        check()
        assert value("waiting", client="a") == 0
        assert batcher.stats().clients["somebody"].answered == 1
    check()  # what it counted stays when it is closed
