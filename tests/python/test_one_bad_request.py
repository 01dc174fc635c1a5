"""One request at which a callable misbehaves, in whatever way, fails alone: the others of its batch are answered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import inferkit

Array = np.ndarray[Any, Any]
BAD = 777.0


def raises(x: Array) -> Any:
    raise ZeroDivisionError("row 777")


def one_row_less(x: Array) -> Any:
    return x[:-1] * 2


def nothing(x: Array) -> Any:
    return None


def another_type(x: Array) -> Any:
    return (x * 2).astype(np.float64)


def another_width(x: Array) -> Any:
    return np.zeros((len(x), 3), np.float32)


def all_of_it_nan(x: Array) -> Any:
    return x * np.float32(np.nan)


def only_one_row(x: Array) -> Any:
    return x[:1] * 2


WAYS = [raises, one_row_less, nothing, another_type, another_width, all_of_it_nan]
Way = Callable[[Array], Any]


class Service:
    """A callable that doubles, and goes wrong by `way` where a row of the batch is BAD; blocked until all are there."""

    def __init__(self, way: Way) -> None:
        self.way, self.runs = way, list[int]()
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, x: Array) -> Any:
        self.entered.set()
        self.go.wait(30)
        self.runs.append(len(x))
        return self.way(x) if (x == BAD).any() else x * 2

    def batcher(self, **options: Any) -> inferkit.Batcher:
        ports = ("x", "float32", (None, 2)), ("y", "float32", (None, 2))
        model = inferkit.Model.from_callable(self, inputs=[ports[0]], outputs=[ports[1]])
        return inferkit.Batcher(model, inline_limit=0, caller_runs=False, **options)


def row(value: float, n: int = 1) -> Array:
    return np.full((n, 2), value, np.float32)


def ask(service: Service, batcher: inferkit.Batcher, values: list[float]) -> list[Any]:
    """Tickets of what waits together behind a first request."""
    first = batcher.submit(row(0))
    assert service.entered.wait(30)
    tickets = [batcher.submit(row(value, 1 + i % 3)) for i, value in enumerate(values)]
    service.go.set()
    first.result(30)
    return tickets


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("place", [0, 3, 6])
def test_it_fails_alone(way: Way, place: int) -> None:
    service, values = Service(way), [float(i) for i in range(7)]
    held = inferkit.BufferPool.default().stats().outstanding  # by others
    values[place] = BAD
    with service.batcher() as batcher:
        tickets = ask(service, batcher, values)
        for i, (ticket, value) in enumerate(zip(tickets, values, strict=True)):
            if value == BAD:
                with pytest.raises(inferkit.InferkitError):
                    ticket.result(30)
            else:
                np.testing.assert_array_equal(ticket.result(30), row(2 * value, 1 + i % 3))
        assert batcher.drain(30)  # the last answer comes a moment before its batch is over
        stats = batcher.stats()
    assert (stats.completed, stats.failed) == (7, 1)
    assert (stats.queue_depth, stats.in_flight, stats.pool.outstanding) == (0, 0, held)


def test_alone_it_is_what_the_model_says_of_it_alone() -> None:
    """Of a batch it gives one row, and so it does of one row."""
    service = Service(only_one_row)
    with service.batcher() as batcher:
        tickets = ask(service, batcher, [1.0, BAD])
        np.testing.assert_array_equal(tickets[0].result(30), row(2))
        with pytest.raises(inferkit.OutputError):
            tickets[1].result(30)  # of its two rows, one


def test_whoever_wants_no_second_run_gets_none() -> None:
    service = Service(all_of_it_nan)
    with service.batcher(isolate_failures=False) as batcher:
        for ticket in ask(service, batcher, [1.0, BAD, 2.0]):
            with pytest.raises(inferkit.OutputError):
                ticket.result(30)
    assert service.runs == [1, 6]


def test_a_batch_of_one_is_not_run_again() -> None:
    service = Service(all_of_it_nan)
    with service.batcher() as batcher:
        for ticket in ask(service, batcher, [BAD]):
            with pytest.raises(inferkit.OutputError):
                ticket.result(30)
    assert service.runs == [1, 1]
