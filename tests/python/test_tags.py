"""Tags of requests: what is counted by them, how many sets are told apart, where they are shown, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import pickle
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import Client, tracing
from inferkit.metrics import _ended
from inferkit.testing import FakeModel, ManualClock

pytestmark = pytest.mark.usefixtures("no_buffer_left")

OUTCOMES = ("completed", "failed", "cancelled", "expired", "rejected", "invalid")
OVERFLOW = {"overflow": "true"}


def row(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


class Gate:
    """A model that holds its first run until it is opened; fails where a row is 13."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.entered.set()
        assert self.opened.wait(60)
        if (x == 13).any():
            raise RuntimeError("thirteen")
        return x


@contextlib.contextmanager
def busy(clock: ManualClock | None = None, **options: Any) -> Iterator[tuple[inferkit.Batcher, Gate]]:
    """Give a batcher that runs something, which has no tags, until the gate is opened, which is done at the end."""
    gate = Gate()
    with (clock or ManualClock()).batcher(FakeModel(answer=gate), **options) as batcher:
        batcher.submit(row(-1))
        gate.entered.wait()
        try:
            yield batcher, gate
        finally:
            gate.opened.set()


def counts(batcher: inferkit.Batcher) -> dict[tuple[tuple[str, str], ...], dict[str, int]]:
    """What is not 0, by the tags."""
    return {
        tuple(one.tags.items()): {o: getattr(one, o) for o in OUTCOMES if getattr(one, o)}
        for one in batcher.stats().tags
    }


def only(batcher: inferkit.Batcher) -> inferkit.TagStats:
    (one,) = batcher.stats().tags
    return one


# What is counted


@pytest.mark.parametrize("way", ["call", "submit", "task", "map", "amap"])
def test_the_tags_of_a_request_however_it_went(way: str) -> None:
    tags = {"endpoint": "search", "tenant": "a"}
    clock = ManualClock()

    def slow(x: np.ndarray) -> np.ndarray:
        clock.advance(0.25)
        return x

    x = np.ones((3, 2), np.float32)
    with clock.batcher(FakeModel(answer=slow)) as batcher:
        if way == "call":
            batcher(x, tags=tags)
        elif way == "submit":
            batcher.submit(x, tags=tags).result()
        elif way == "map":
            list(batcher.map([x], tags=tags))
        else:

            async def main() -> None:
                if way == "task":
                    await batcher.submit(x, tags=tags)
                else:
                    assert [answer async for answer in batcher.amap([x], tags=tags)]

            asyncio.run(main())
        stats = only(batcher)
        batcher.drain()
        (record,) = tracing.snapshot(batcher).requests
    assert stats == inferkit.TagStats(
        tags=tags, completed=1, failed=0, cancelled=0, expired=0, rejected=0, invalid=0, rows=3, seconds=0.25
    )
    assert record.tags == tags


def test_the_order_of_the_tags_and_the_kind_of_mapping_make_no_difference() -> None:
    class Other(Mapping[str, str]):
        def __getitem__(self, name: str) -> str:
            return {"a": "1", "b": "2"}[name]

        def __iter__(self) -> Iterator[str]:
            return iter("ba")

        def __len__(self) -> int:
            return 2

    class Name(str):
        __slots__ = ()

    same: list[Any] = [
        {"a": "1", "b": "2"}, {"b": "2", "a": "1"}, Other(), MappingProxyType({"b": "2", "a": "1"}),
        Counter({"a": "1", "b": "2"}), {Name("a"): Name("1"), "b": Name("2")},  # type: ignore[dict-item]
    ]  # fmt: skip
    with inferkit.Batcher(FakeModel()) as batcher:
        for tags in same:
            batcher(row(1), tags=tags)
            batcher.submit(row(1), tags=tags).result()
        assert counts(batcher) == {(("a", "1"), ("b", "2")): {"completed": 2 * len(same)}}


def test_sets_that_look_alike_are_told_apart() -> None:
    """However a value is written, and whatever bytes it has."""
    alike: list[dict[str, str]] = [
        {"a": "1"}, {"a": "1 "}, {"a": "b=2", "c": "3"}, {"a": "b", "c": "3"}, {"a": "1\0", "b": "2"},
        {"a": "1\0b\0002"}, {"a": "=\x01x"}, {"a": "=", "b": "x"}, {"A": "1"}, {"a": "é"}, {"a": "e\u0301"},
        {"a": "x" * 127}, {"a": "x" * 128}, {"a" * 64: "é" * 64}, {"_": "\x01"}, {"_": "\n"}, {"_": "\x02b"},
    ]  # fmt: skip
    with inferkit.Batcher(FakeModel()) as batcher:
        for number, tags in enumerate(alike, 1):
            for _ in range(number):
                batcher(row(1), tags=tags)
        found = batcher.stats().tags
    assert [(one.tags, one.completed) for one in found] == [(tags, n) for n, tags in enumerate(alike, 1)]


def test_no_tags_are_no_set() -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        batcher(row(1))
        batcher(row(1), tags=None)
        batcher(row(1), tags={})
        batcher.submit(row(1), tags=MappingProxyType({})).result()
        assert batcher.stats().tags == ()
        batcher.drain()  # a record is written just after its caller is woken
        assert [r.tags for r in tracing.snapshot(batcher).requests] == [{}] * 4


def test_every_end_is_counted_once() -> None:
    """All requests but the first have tags, so the counts of the sets are in all those of the batcher."""
    clock = ManualClock()
    limits = {"slow": Client(rate=0.01, burst=1)}
    with busy(clock, max_batch_size=1, max_queue_size=6, clients=limits) as (batcher, gate):
        batcher.submit(row(1), tags={"end": "invalid", "why": "no array"}).cancel()
        batcher.submit(row(1), tags={"end": "cancelled"}).cancel()
        for wrong in (np.ones(3, np.float32), object(), row(np.nan), np.ones((0, 2), np.float32)):
            batcher.submit(wrong, tags={"end": "invalid"})
            with pytest.raises(inferkit.ValidationError):
                batcher(wrong, tags={"end": "invalid"})
        batcher.submit(row(1), timeout=0.0, tags={"end": "expired"})
        late = batcher.submit(row(1), timeout=1.0, tags={"end": "expired"})
        clock.advance(2.0)
        assert isinstance(late.exception(60), inferkit.DeadlineError)
        batcher.submit(row(1), client="slow", tags={"end": "completed"})
        refused = batcher.submit(row(1), client="slow", tags={"end": "rejected"})
        assert isinstance(refused.exception(0), inferkit.QueueFullError)
        batcher.submit(row(13), tags={"end": "failed"})
        batcher.submit(row(1), tags={"end": "completed"})
        batcher.submit(row(1), tags={"end": "completed"})
        batcher.submit(row(1), tags={"end": "rejected"})
        with pytest.raises(inferkit.QueueFullError):
            batcher(row(1), tags={"end": "rejected"})
        gate.opened.set()
        batcher.drain()
        assert isinstance(batcher.submit(row(1), tags={"end": "rejected"}).exception(0), inferkit.ClosedError)
        stats = batcher.stats()
    found = {one.tags["end"]: one for one in stats.tags if "why" not in one.tags}
    for end, one in found.items():
        assert {o for o in OUTCOMES if getattr(one, o)} == {end}
    assert {end: getattr(one, end) for end, one in found.items()} == {
        "completed": 3, "failed": 1, "cancelled": 1, "expired": 2, "rejected": 4, "invalid": 8,
    }  # fmt: skip
    assert found["completed"].rows == 3
    for outcome in OUTCOMES:
        first = outcome == "completed"
        assert sum(getattr(one, outcome) for one in stats.tags) == getattr(stats, outcome) - first, outcome


@pytest.mark.parametrize("drain", [True, False])
def test_closing_counts_too(drain: bool) -> None:
    with busy(max_batch_size=1) as (batcher, gate):
        tickets = [batcher.submit(row(0), tags={"a": "1"}) for _ in range(3)]
        closing = threading.Thread(target=batcher.close, kwargs={"drain": drain})
        closing.start()
        if drain:
            gate.opened.set()
        for ticket in tickets:
            assert drain == (ticket.exception(60) is None)
        gate.opened.set()
        closing.join(60)
        assert counts(batcher) == {(("a", "1"),): {"completed" if drain else "rejected": 3}}


def test_a_failed_output_check_and_an_invalid_shape() -> None:
    """Both end in a batch of several, and in a run of the caller's."""
    model = FakeModel(answer=lambda x: np.where(x == 7, np.nan, x).astype(np.float32))
    with ManualClock().batcher(model) as batcher:
        with pytest.raises(inferkit.OutputError):
            batcher(row(7), tags={"a": "1"})
        with pytest.raises(inferkit.OutputError):
            batcher.submit(row(7), tags={"a": "2"}).result()
        batcher(row(8), tags={"a": "1"})
        assert counts(batcher) == {(("a", "1"),): {"completed": 1, "failed": 1}, (("a", "2"),): {"failed": 1}}


def test_of_equal_requests_each_counts_for_its_own_tags() -> None:
    with busy(max_batch_size=1, coalesce=True, result_cache=1 << 20, cache_callables=True) as (batcher, gate):
        leader = batcher.submit(row(1), tags={"who": "leader"})
        followers = [batcher.submit(row(1), tags={"who": who}) for who in ("follower", "follower", "other")]
        followers[2].cancel()
        gate.opened.set()
        for ticket in (leader, *followers[:2]):
            ticket.result()
        batcher.submit(row(1), tags={"who": "later"}).result()
        stats = batcher.stats()
        assert (stats.coalesced, stats.cache_hits) == (3, 1)
        assert counts(batcher) == {
            (("who", "leader"),): {"completed": 1},
            (("who", "follower"),): {"completed": 2},
            (("who", "other"),): {"cancelled": 1},
            (("who", "later"),): {"completed": 1},
        }


def test_an_heir_keeps_its_own_tags() -> None:
    with busy(max_batch_size=1, coalesce=True) as (batcher, gate):
        leader = batcher.submit(row(1), tags={"who": "leader"})
        heir = batcher.submit(row(1), tags={"who": "heir"})
        leader.cancel()
        gate.opened.set()
        heir.result()
        assert counts(batcher) == {(("who", "leader"),): {"cancelled": 1}, (("who", "heir"),): {"completed": 1}}


def test_swapping_keeps_the_counts() -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        batcher(row(1), tags={"a": "1"})
        batcher.swap(FakeModel(), batch_sizes=())
        batcher(row(1), tags={"a": "1"})
        assert counts(batcher) == {(("a", "1"),): {"completed": 2}}


def test_a_child_of_a_fork() -> None:
    with busy(max_batch_size=1) as (batcher, _):
        ticket = batcher.submit(row(0), tags={"a": "1"})
        pid = os.fork()
        if pid == 0:
            ok = False
            with contextlib.suppress(BaseException):
                late = batcher.submit(row(0), tags={"a": "2"})
                ok = isinstance(ticket.exception(60), inferkit.ClosedError)
                ok = ok and isinstance(late.exception(60), inferkit.ClosedError)
                with contextlib.suppress(inferkit.ClosedError):
                    batcher(row(0), tags={"a": "2"})
                    ok = False
                with contextlib.suppress(ValueError):
                    batcher.submit(row(0), tags={"a": ""})
                    ok = False
                ok = ok and batcher.stats().tags == ()
                with inferkit.Batcher(FakeModel()) as own:
                    own(row(1), tags={"a": "3"})
                    ok = ok and counts(own) == {(("a", "3"),): {"completed": 1}}
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert counts(batcher) == {(("a", "1"),): {}}


def test_many_threads_agree_on_what_a_set_is() -> None:
    threads, each, sets = 8, 120, 40
    with inferkit.Batcher(FakeModel(), max_tag_sets=sets // 2) as batcher:

        def work(number: int) -> None:
            for i in range(each):
                batcher.submit(row(1), tags={"set": str((i + number) % sets)}).result()

        workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        found = batcher.stats().tags
    assert len(found) == sets // 2 + 1
    assert len({tuple(one.tags.items()) for one in found}) == len(found)
    assert sum(one.completed for one in found) == threads * each
    assert {one.completed for one in found[:-1]} == {threads * each // sets}


# The bound


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_the_first_sets_are_told_apart_and_the_others_counted_together(most: int) -> None:
    with inferkit.Batcher(FakeModel(), max_tag_sets=most, trace_size=4096) as batcher:
        for number in itertools.chain(range(most + 5), range(most + 5)):
            batcher(row(1), tags={"user": str(number)})
        found = batcher.stats().tags
        assert [one.tags for one in found] == [*({"user": str(n)} for n in range(most)), OVERFLOW]
        assert [one.completed for one in found] == [2] * most + [10]
        batcher.drain()
        traced = [r.tags for r in tracing.snapshot(batcher).requests]
        assert traced == [{"user": str(n)} if n < most else OVERFLOW for n in range(most + 5)] * 2


def test_within_the_bound_there_is_no_overflow() -> None:
    with inferkit.Batcher(FakeModel(), max_tag_sets=2) as batcher:
        for tags in ({"a": "1"}, {"a": "2"}, {"a": "1"}):
            batcher(row(1), tags=tags)
        assert [one.tags for one in batcher.stats().tags] == [{"a": "1"}, {"a": "2"}]


def test_by_default_a_hundred_sets_are_told_apart() -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        for number in range(102):
            batcher(row(1), tags={"user": str(number)})
        assert len(batcher.stats().tags) == 101


# What is refused


@pytest.mark.parametrize(
    ("tags", "kind", "message"),
    [
        (5, TypeError, "tags must be a mapping of str to str, got int"),
        ("a=b", TypeError, "tags must be a mapping of str to str, got str"),
        ([("a", "b")], TypeError, "tags must be a mapping of str to str, got list"),
        (dict, TypeError, "tags must be a mapping of str to str, got type"),
        ({1: "a"}, TypeError, "tags must be a mapping of str to str, got one with int"),
        ({"a": 1}, TypeError, "tags must be a mapping of str to str, got one with int"),
        ({"a": None}, TypeError, "tags must be a mapping of str to str, got one with NoneType"),
        ({b"a": "1"}, TypeError, "tags must be a mapping of str to str, got one with bytes"),
        ({"": "1"}, ValueError, "tag '': its name must be made of letters"),
        ({"1a": "1"}, ValueError, "tag '1a': its name must be made of letters"),
        ({"a-b": "1"}, ValueError, "tag 'a-b': its name must be made of letters"),
        ({"a b": "1"}, ValueError, "tag 'a b': its name must be made of letters"),
        ({"a:b": "1"}, ValueError, "tag 'a:b': its name must be made of letters"),
        ({"é": "1"}, ValueError, "tag 'é': its name must be made of letters"),
        ({"a\0": "1"}, ValueError, "its name must be made of letters"),
        ({"__a": "1"}, ValueError, "tag '__a': its name must be made of letters"),
        ({"a" * 65: "1"}, ValueError, "its name has at most 64 characters, got 65"),
        ({"batcher": "1"}, ValueError, "tag 'batcher': the metrics have a label of this name"),
        ({"outcome": "1"}, ValueError, "tag 'outcome': the metrics have a label of this name"),
        ({"overflow": "true"}, ValueError, "tag 'overflow': the metrics have a label of this name"),
        ({"a": ""}, ValueError, "tag 'a': its value must not be empty"),
        ({"a": "x" * 129}, ValueError, "tag 'a': its value has at most 128 bytes of UTF-8, got 129"),
        ({"a": "é" * 65}, ValueError, "tag 'a': its value has at most 128 bytes of UTF-8, got 130"),
        ({"a": "\ud800"}, ValueError, "the value of a tag holds a lone surrogate"),
        ({"\udfff": "a"}, ValueError, "the name of a tag holds a lone surrogate"),
        ({f"a{i}": "1" for i in range(9)}, ValueError, "a request has at most 8 tags"),
    ],
)
def test_wrong_tags(tags: Any, kind: type[Exception], message: str) -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        for call in (batcher, batcher.submit, lambda x, tags: next(batcher.map([x], tags=tags))):
            with pytest.raises(kind, match=message):
                call(row(1), tags=tags)
        assert batcher.stats().tags == ()
        batcher(row(1), tags={f"a{i}": "x" * 128 for i in range(8)})  # as many, and as long, as may be


def test_tags_that_are_equal_as_text_and_not_as_keys() -> None:
    class Odd(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return self is other

        def __hash__(self) -> int:
            return id(self)

    with inferkit.Batcher(FakeModel()) as batcher, pytest.raises(ValueError, match="tag 'a' is given twice"):
        batcher(row(1), tags={Odd("a"): "1", Odd("b"): "2", Odd("a"): "3"})


def test_a_mapping_that_raises_or_changes_what_it_is_asked_for() -> None:
    class Raising(dict[str, str]):
        pass

    class Broken(Mapping[str, str]):
        def __getitem__(self, name: str) -> str:
            raise ZeroDivisionError(name)

        def __iter__(self) -> Iterator[str]:
            return iter("ab")

        def __len__(self) -> int:
            return 2

    with inferkit.Batcher(FakeModel()) as batcher:
        for call in (batcher, batcher.submit):
            with pytest.raises(ZeroDivisionError):
                call(row(1), tags=Broken())
        batcher(row(1), tags=Raising(a="1"))
        assert counts(batcher) == {(("a", "1"),): {"completed": 1}}


@pytest.mark.parametrize(
    ("most", "kind", "message"),
    [
        (0, ValueError, "max_tag_sets must be between 1 and 1000, got 0"),
        (1001, ValueError, "max_tag_sets must be between 1 and 1000, got 1001"),
        (None, TypeError, "max_tag_sets must be an integer"),
        (1.5, TypeError, "max_tag_sets must be an integer"),
        (True, TypeError, "max_tag_sets must be an integer"),
    ],
)
def test_wrong_bounds(most: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        inferkit.Batcher(FakeModel(), max_tag_sets=most)


@pytest.mark.parametrize("kind", ["map", "amap"])
def test_map_refuses_what_is_no_mapping_before_anything_is_read(kind: str) -> None:
    def unread() -> Iterator[np.ndarray]:
        raise AssertionError("read")
        yield

    with inferkit.Batcher(FakeModel()) as batcher, pytest.raises(TypeError, match="tags must be a mapping of str"):
        getattr(batcher, kind)(unread(), tags=["a"])


# Nothing is kept of what came from Python


def test_the_strings_of_a_caller_are_let_go() -> None:
    name, value = str(b"name", "ascii"), str(b"value", "ascii")
    tags = {name: value}
    before = [sys.getrefcount(one) for one in (name, value, tags)]
    with inferkit.Batcher(FakeModel()) as batcher:
        for _ in range(50):
            batcher(row(1), tags=tags)
            batcher.submit(row(1), tags=tags).result()
        assert [sys.getrefcount(one) for one in (name, value, tags)] == before
        tags[name] = "other"  # is nobody else's
        assert only(batcher).tags == {"name": "value"}


# Traces


def test_whoever_ends_a_request_its_record_has_its_tags() -> None:
    with busy(max_batch_size=1, max_queue_size=1, clients={"slow": Client(rate=0.01, burst=1)}) as (batcher, gate):
        batcher.submit(row(1), request_id="cancelled", tags={"of": "cancelled"}).cancel()
        batcher.submit(row(1), request_id="expired", timeout=0.0, tags={"of": "expired"})
        batcher.submit(row(1), request_id="completed", client="slow", tags={"of": "completed"})
        batcher.submit(row(1), request_id="rate", client="slow", tags={"of": "rate"})
        batcher.submit(row(1), request_id="full", tags={"of": "full"})
        gate.opened.set()
        batcher.drain()
        found = {r.request_id: r.tags for r in tracing.snapshot(batcher).requests}
    assert {name: found[name] for name in found if isinstance(name, str)} == {
        name: {"of": name} for name in ("cancelled", "expired", "completed", "rate", "full")
    }


def test_a_record_can_be_kept_in_sets_and_in_pickles() -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        batcher(row(1), tags={"a": "1"})
        batcher.drain()
        (record,) = tracing.snapshot(batcher).requests
    assert pickle.loads(pickle.dumps(record)) == record
    assert record in {record}


def test_perfetto_and_log_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        with caplog.at_level(logging.DEBUG, "inferkit.request"), tracing.log_requests():
            batcher(row(1), request_id="tagged", tags={"a": "1\n2"})
            batcher(row(1), request_id="plain")
            batcher.drain()
        tracing.export_perfetto(tmp_path / "trace.json", batcher)
    lines = {r.__dict__["request_id"]: r for r in caplog.records if r.name == "inferkit.request"}
    assert lines["tagged"].__dict__["tags"] == {"a": "1\\n2"}
    assert "\n" not in lines["tagged"].getMessage()
    assert "tags" not in lines["plain"].__dict__
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    shown = {e["args"]["request_id"]: e["args"].get("tags") for e in events if "outcome" in e.get("args", {})}
    assert shown == {"tagged": {"a": "1\\n2"}, "plain": None}


# Metrics


def series(text: str) -> dict[str, float]:
    """What is not 0 of the metrics of tags; without empty labels, which are none."""
    found = {}
    for line in text.splitlines():
        if line.startswith("inferkit_tagged") and float(line.rpartition(" ")[2]):
            name, _, labels = line.rpartition(" ")[0].partition("{")
            labels = ",".join(part for part in labels.rstrip("}").split(",") if not part.endswith('=""'))
            assert found.setdefault(f"{name}{{{labels}}}", float(line.rpartition(" ")[2]))
    return found


@pytest.fixture
def scrape() -> Callable[[], dict[str, float]]:
    prometheus_client = pytest.importorskip("prometheus_client")
    registry = prometheus_client.CollectorRegistry()
    inferkit.metrics.register(registry)
    return lambda: series(prometheus_client.generate_latest(registry).decode())


def test_the_labels_of_a_metric(scrape: Callable[[], dict[str, float]]) -> None:
    clock = ManualClock()

    def mine() -> dict[str, float]:
        return {name: count for name, count in scrape().items() if 'batcher="of tags"' in name}

    def slow(x: np.ndarray) -> np.ndarray:
        clock.advance(0.5)
        return x

    scrape()
    with clock.batcher(FakeModel(answer=slow), name="of tags", max_tag_sets=2) as batcher:
        batcher(np.ones((3, 2), np.float32), tags={"endpoint": "a"})
        batcher(row(1), tags={"tenant": 'b"\n', "endpoint": "b"})
        batcher.submit(np.ones(5, np.float32), tags={"endpoint": "a"})
        for user in "xyz":
            batcher(row(1), tags={"user": user})
        wanted = {
            'inferkit_tagged_requests_total{batcher="of tags",endpoint="a",outcome="completed"}': 1,
            'inferkit_tagged_requests_total{batcher="of tags",endpoint="a",outcome="invalid"}': 1,
            'inferkit_tagged_requests_total{batcher="of tags",endpoint="b",outcome="completed",tenant="b\\"\\\\n"}': 1,
            'inferkit_tagged_requests_total{batcher="of tags",outcome="completed",overflow="true"}': 3,
            'inferkit_tagged_rows_total{batcher="of tags",endpoint="a"}': 3,
            'inferkit_tagged_rows_total{batcher="of tags",endpoint="b",tenant="b\\"\\\\n"}': 1,
            'inferkit_tagged_rows_total{batcher="of tags",overflow="true"}': 3,
            'inferkit_tagged_seconds_total{batcher="of tags",endpoint="a"}': 0.5,
            'inferkit_tagged_seconds_total{batcher="of tags",endpoint="b",tenant="b\\"\\\\n"}': 0.5,
            'inferkit_tagged_seconds_total{batcher="of tags",overflow="true"}': 1.5,
        }
        assert mine() == wanted
    assert mine() == wanted  # what it counted stays when it is closed
    with clock.batcher(FakeModel(answer=slow), name="of tags") as batcher:
        batcher(row(1), tags={"endpoint": "a"})
        found = mine()
    assert found['inferkit_tagged_requests_total{batcher="of tags",endpoint="a",outcome="completed"}'] == 2
    assert found['inferkit_tagged_seconds_total{batcher="of tags",endpoint="a"}'] == 1.0
    assert len(found) == len(wanted)


def test_values_that_are_shown_alike_are_one_series(scrape: Callable[[], dict[str, float]]) -> None:
    with inferkit.Batcher(FakeModel(), name="alike") as batcher:
        for value in ("\n", "\\n"):
            batcher(row(1), tags={"a": value})
        assert len(batcher.stats().tags) == 2
        assert scrape()['inferkit_tagged_requests_total{a="\\\\n",batcher="alike",outcome="completed"}'] == 2


def test_batchers_that_come_and_go_do_not_pile_up_sets(
    scrape: Callable[[], dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ended, "_MOST_TAG_SETS", 5)
    scrape()
    for number in range(20):
        with inferkit.Batcher(FakeModel(), name="piling up") as batcher:
            batcher(row(1), tags={"number": str(number)})
    found = {name: count for name, count in scrape().items() if 'batcher="piling up"' in name and "requests" in name}
    assert len(found) == 6
    assert found['inferkit_tagged_requests_total{batcher="piling up",outcome="completed",overflow="true"}'] == 15


@pytest.mark.parametrize(
    "tags",
    [
        {"1a": "x"}, {"__a": "x"}, {'a="",b': "x"}, {"a\n": "x"}, {"é": "x"}, {"batcher": "x"}, {"outcome": "x"},
        {"a": 5}, {"a": None}, {"a": "\udcff"}, ["a"], "a", None,
    ],
)  # fmt: skip
def test_files_of_other_processes_with_tags_that_are_none(
    tags: Any, tmp_path: Path, scrape: Callable[[], dict[str, float]]
) -> None:
    from inferkit.metrics._figures import process_figures

    with inferkit.Batcher(FakeModel(), name="shared tags") as batcher:
        batcher(row(1), tags={"a": "x"})
        figures = json.loads(json.dumps(process_figures()))
    mine = next(one for one in figures["batchers"] if one["name"] == "shared tags")
    (tmp_path / "inferkit_1000001_1.json").write_text(json.dumps({**figures, "pid": 1_000_001}))
    mine["tags"][0]["tags"] = tags
    (tmp_path / "inferkit_1000002_1.json").write_text(json.dumps({**figures, "pid": 1_000_002}))
    text = inferkit.metrics.exposition(directory=tmp_path)[0].decode()
    assert "inferkit_shared_files_skipped 1.0" in text
    assert series(text)['inferkit_tagged_requests_total{a="x",batcher="shared tags",outcome="completed"}'] >= 1


def test_spans_have_them_however_many_there_are() -> None:
    pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.instrument(provider)
    try:
        with inferkit.Batcher(FakeModel(), max_tag_sets=1) as batcher:
            for user in "abc":
                batcher.submit(row(1), tags={"user": user}).result()
            batcher(row(1), tags=MappingProxyType({"user": "d"}))
            for wrong in (5, {"user": 1}, {1: "user"}, ["user"]):
                with pytest.raises(TypeError, match="tags must be a mapping of str to str"):
                    batcher(row(1), tags=wrong)  # type: ignore[arg-type]
            assert tracing.flush()
    finally:
        tracing.uninstrument()
    found = [
        {name: value for name, value in s.attributes.items() if ".tags" in name}
        for s in sorted(exporter.get_finished_spans(), key=lambda s: s.start_time)
        if s.name == "inferkit.request"
    ]
    assert found == [*({"inferkit.tags.user": user} for user in "abcd"), {}, {}, {}, {}]


def test_figures_are_json() -> None:
    with inferkit.Batcher(FakeModel()) as batcher:
        batcher(row(1), tags={"a": "1"})
        figures = json.loads(json.dumps(batcher.stats().as_dict()))
    assert figures["tags"][0]["tags"] == {"a": "1"}
    assert figures["tags"][0]["completed"] == 1
    assert figures["tags"][0]["seconds"] > 0
