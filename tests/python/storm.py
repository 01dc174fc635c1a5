"""A storm on batchers: threads and event loops at once, every kind of request, every answer compared, none lost.

    python tests/python/storm.py --count 10_000_000 [--seed N]

Threads and asyncio tasks send single rows, batches and several lengths to three batchers whose options are drawn anew
for each round. They wait, cancel, time out, lose interest, send what is invalid and what makes the model fail. Every
answer is compared with the model's own to that request alone, bit for bit. At the end of a round the batchers are
closed while requests still arrive, and the ends that the callers saw are compared with the batchers' own counts: each
request is completed, failed, cancelled, expired, rejected or invalid, exactly once. The seed that is printed repeats
what is sent, not how threads take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import itertools
import random
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import inferkit

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"
ENDS = ("completed", "failed", "cancelled", "expired", "rejected", "invalid")
OF_REQUESTS = {"request", "batch input", "batch output", "caller output"}  # buffers
THREADS, LOOPS, TASKS = 4, 2, 24
ROUND = 250_000  # requests
CHUNK = 64  # requests that a client takes at a time
PATIENCE = 60.0  # seconds without a single end: something is lost


class WrongError(AssertionError):
    """What the storm looks for."""


@dataclass(frozen=True)
class Case:
    """One request and what may come of it, besides being cancelled, expired or rejected."""

    inputs: tuple[Any, ...]
    answer: tuple[bytes, ...] = ()
    error: type[Exception] | None = None


@dataclass
class Target:
    model: inferkit.Model
    cases: list[Case]


@dataclass
class Client:
    """One caller's stream of decisions, and the ends that it saw: one count for each batcher."""

    random: random.Random
    ends: list[Counter[str]] = field(default_factory=list)


def as_bytes(answer: Any) -> tuple[bytes, ...]:
    return tuple(part.tobytes() for part in answer) if isinstance(answer, tuple) else (answer.tobytes(),)


def lengths_model() -> bytes:
    """Two outputs of (batch, length) and (batch, 1): each length is a plan, and a batch, of its own."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Tanh", ["x"], ["y"]),
        helper.make_node("Mul", ["y", "x"], ["z"]),
        helper.make_node("ReduceMean", ["z"], ["mean"], axes=[1], keepdims=1),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", dim])
        for name, dim in (("x", "length"), ("y", "length"), ("mean", 1))
    ]
    graph = helper.make_graph(nodes, "lengths", ports[:1], ports[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()  # type: ignore[no-any-return]


def sometimes_fails(x: np.ndarray) -> np.ndarray:
    if (x == -1).any():
        raise ValueError("poison")
    y: np.ndarray = x * 2 + 1
    y[x[:, 0] == -2] = np.nan
    return y


def targets(rng: np.random.Generator) -> list[Target]:
    digits = inferkit.Model.load(DIGITS, max_plans=4)
    lengths = inferkit.Model.load(lengths_model())
    port = [("x", "float32", (None, 3))]
    fails = inferkit.Model.from_callable(sometimes_fails, inputs=port, outputs=port)

    def good(model: inferkit.Model, shapes: list[tuple[int, ...]]) -> Iterator[Case]:
        for shape in shapes:
            x = rng.random(shape, np.float32)
            yield Case((x,), as_bytes(model(x)))

    def bad(error: type[Exception], *inputs: np.ndarray) -> Iterator[Case]:
        for x in inputs:
            yield Case((x,), error=error)

    one, nan = np.ones(64, np.float32), np.full((2, 64), np.nan, np.float32)
    wrong = [nan, one[:63], one.astype(np.float64), np.empty((0, 64), np.float32), np.ones((101, 64), np.float32)]
    infinite, poison, silent = (
        np.full(shape, value, np.float32) for shape, value in (((1, 5), np.inf), (3, -1), ((2, 3), -2))
    )
    images = [(64,)] * 24 + [(rows, 64) for rows in (1, 2, 3, 4, 7)] * 6
    rows_and_lengths = [(rows, length) for rows in (1, 2, 5) for length in (1, 2, 3, 5, 8, 13, 21, 34)]
    return [
        Target(digits, [*good(digits, images), *bad(inferkit.ValidationError, *wrong)]),
        Target(lengths, [*good(lengths, rows_and_lengths), *bad(inferkit.ValidationError, infinite)]),
        Target(
            fails,
            [
                *good(fails, [(3,)] * 12 + [(1, 3), (2, 3), (3, 3)]),
                *bad(inferkit.InferenceError, poison),
                *bad(inferkit.OutputError, silent),
                *bad(inferkit.ValidationError, one),
            ],
        ),
    ]


def options(draw: random.Random) -> dict[str, Any]:
    return {
        "max_batch_size": draw.choice([8, 64, 100]),
        "max_delay": draw.choice([0.0, 0.0, 2e-4]),
        "ageing": draw.choice([10.0, 1e-3, 0.0, None]),
        "max_queue_size": draw.choice([16, 256, None]),
        "workers": draw.choice([1, 2]),
        "on_full": draw.choice(["reject", "reject", "wait"]),
        "full_timeout": 1.0,
        "caller_runs": draw.random() < 0.7,
        "inline_limit": draw.choice([0.0, 100e-6]),
    }


class Storm:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.draw = random.Random(seed)
        self.targets = targets(np.random.default_rng(seed))
        self.batchers: list[inferkit.Batcher] = []
        self.total: Counter[str] = Counter()
        self.ended = 0  # in earlier rounds
        self.clients: list[Client] = []
        self.wrong: list[BaseException] = []

    # One request, whoever sends it.

    def pick(self, client: Client) -> tuple[int, Case, dict[str, Any]]:
        which = client.random.choices((0, 1, 2), (6, 3, 2))[0]
        case = client.random.choice(self.targets[which].cases)
        how: dict[str, Any] = {}
        kind = client.random.randrange(16)
        if kind == 0:
            how["timeout"] = client.random.choice([0.0, 1e-6, 1e-4, 1e-3])
        elif kind < 3:
            how["timeout"] = 30.0
        elif kind < 6:
            how["priority"] = client.random.randrange(-100, 101)
        if client.random.randrange(4) == 0:  # more sets than are told apart by default
            how["tags"] = {"kind": str(kind), "n": str(client.random.randrange(20))}
        return which, case, how

    def check(self, case: Case, answer: Any) -> str:
        if case.error is not None:
            raise WrongError(f"{case.inputs} was answered: {answer}")
        if as_bytes(answer) != case.answer:
            raise WrongError(f"{case.inputs} was answered {answer}, not as when it is alone")
        return "completed"

    def blame(self, case: Case, how: dict[str, Any], error: BaseException, cancelled: bool = False) -> str:
        """The end that an error means; raises where it is not one that this request may have."""
        if isinstance(error, (inferkit.QueueFullError, inferkit.ClosedError)):
            return "rejected"
        if isinstance(error, inferkit.DeadlineError) and "timeout" in how:
            return "expired"
        if cancelled and isinstance(error, (inferkit.RequestCancelledError, asyncio.CancelledError)):
            return "cancelled"
        if case.error is not None and isinstance(error, case.error):
            return "invalid" if isinstance(error, inferkit.ValidationError) else "failed"
        raise WrongError(f"{case.inputs} with {how} ended with {error!r}") from error

    def end_of(self, ticket: inferkit.Ticket, case: Case, how: dict[str, Any], cancelled: bool) -> str:
        try:
            answer = ticket.result(PATIENCE)
        except TimeoutError as error:
            if not isinstance(error, inferkit.DeadlineError):
                raise WrongError(f"{ticket} has no end after {PATIENCE} s") from error
            return self.blame(case, how, error)
        except Exception as error:
            return self.blame(case, how, error, cancelled)
        return self.check(case, answer)

    # Threads.

    def thread(self, client: Client, chunks: Iterator[int]) -> None:
        kept: list[tuple[int, inferkit.Ticket, Case, dict[str, Any], bool]] = []

        def settle(leave: int) -> None:
            while len(kept) > leave:
                which, ticket, case, how, cancelled = kept.pop(client.random.randrange(len(kept)))
                end = self.end_of(ticket, case, how, cancelled)
                if client.random.randrange(64) == 0 and end != self.end_of(ticket, case, how, cancelled):
                    raise WrongError(f"{ticket} ended as {end}, and otherwise when asked again")
                client.ends[which][end] += 1

        for _ in itertools.takewhile(lambda n: n > 0 and not self.wrong, chunks):
            for _ in range(CHUNK):
                which, case, how = self.pick(client)
                batcher, kind = self.batchers[which], client.random.randrange(12)
                try:
                    if kind < 4:
                        client.ends[which][self.check(case, batcher(*case.inputs, **how))] += 1
                        continue
                    ticket = batcher.submit(*case.inputs, **how)
                except inferkit.InferkitError as error:
                    client.ends[which][self.blame(case, how, error)] += 1
                    continue
                # Nobody will ever ask; of one that was refused the end is known already.
                if kind == 4 and ticket.timing.finished is None:
                    client.ends[which]["forgotten"] += 1
                    continue
                cancelled = kind == 5
                if cancelled and ticket.cancel() != ticket.cancelled():
                    raise WrongError(f"cancel() of {ticket} says otherwise than cancelled()")
                kept.append((which, ticket, case, how, cancelled))
                if len(kept) > 24:
                    settle(client.random.randrange(24))
        settle(0)

    # Event loops.

    async def task(self, client: Client, chunks: Iterator[int]) -> None:
        loop = asyncio.get_running_loop()
        for _ in itertools.takewhile(lambda n: n > 0 and not self.wrong, chunks):
            for number in range(CHUNK):
                which, case, how = self.pick(client)
                kind, cancelled = client.random.randrange(12), False
                try:
                    ticket = self.batchers[which].submit(*case.inputs, **how)
                    if kind == 0 and ticket.timing.finished is None:
                        client.ends[which]["forgotten"] += 1
                        continue
                    if kind == 1:  # before, at or after its end
                        cancelled = True
                        client.random.choice([loop.call_soon, lambda cancel: loop.call_later(1e-4, cancel)])(
                            ticket.cancel
                        )
                    if kind == 2:  # by its task
                        cancelled = True
                        end = await self.by_task(client, ticket, case)
                    else:
                        end = self.check(case, await ticket)
                except (inferkit.InferkitError, asyncio.CancelledError) as error:
                    end = self.blame(case, how, error, cancelled)
                client.ends[which][end] += 1
                if number % 16 == 0:
                    await asyncio.sleep(0)

    async def by_task(self, client: Client, ticket: inferkit.Ticket, case: Case) -> str:
        async def wait() -> Any:
            return await ticket

        waiting = asyncio.ensure_future(wait())
        for _ in range(client.random.randrange(3)):
            await asyncio.sleep(0)
        waiting.cancel()
        try:
            return self.check(case, await waiting)
        except asyncio.CancelledError:
            # A task that was cancelled has no answer, whichever end its request had.
            if not ticket.done():
                ticket.cancel()
            return self.check(case, ticket.result(0))

    async def loop(self, clients: list[Client], chunks: Iterator[int]) -> None:
        await asyncio.gather(*(self.task(client, chunks) for client in clients))

    # Rounds.

    def guarded(self, work: Callable[..., Any], *args: Any) -> Callable[[], None]:
        def run() -> None:
            try:
                work(*args)
            except BaseException as error:
                self.wrong.append(error)

        return run

    def round(self, count: int, close: Callable[[inferkit.Batcher], None], progress: Callable[[int], None]) -> None:
        drawn = [options(self.draw) for _ in self.targets]
        self.batchers = [inferkit.Batcher(t.model, **o) for t, o in zip(self.targets, drawn, strict=True)]

        def client() -> Client:
            return Client(random.Random(self.draw.getrandbits(64)), [Counter() for _ in self.targets])

        threads = [client() for _ in range(THREADS)]
        loops = [[client() for _ in range(TASKS)] for _ in range(LOOPS)]
        self.clients = threads + [c for clients in loops for c in clients]
        # A generator cannot be asked by two threads at once; the iterators of C can.
        chunks = itertools.chain(range(max(1, round(count / CHUNK)), 0, -1), itertools.repeat(0))
        work = [self.guarded(self.thread, c, chunks) for c in threads]
        work += [self.guarded(lambda cs: asyncio.run(self.loop(cs, chunks)), cs) for cs in loops]
        runners = [threading.Thread(target=run, daemon=True) for run in work]
        for runner in runners:
            runner.start()
        last, since, closed = -1, time.monotonic(), False
        while any(runner.is_alive() for runner in runners):
            runners[0].join(0.05)
            seen = sum(sum(c.ends[i].values()) for c in self.clients for i in range(len(self.targets)))
            progress(self.ended + seen)
            if not closed and seen > 0.97 * count:
                closed = True
                for batcher in self.batchers:
                    close(batcher)
            if seen != last:
                last, since = seen, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                faulthandler.dump_traceback(all_threads=True)
                raise WrongError(f"nothing has ended for {PATIENCE} s; options {drawn}")
        for batcher in self.batchers:
            close(batcher)
        if self.wrong:
            raise self.wrong[0]
        for which, batcher in enumerate(self.batchers):
            self.settle(batcher, sum((c.ends[which] for c in self.clients), Counter()), drawn[which])

    def settle(self, batcher: inferkit.Batcher, seen: Counter[str], drawn: dict[str, Any]) -> None:
        """Compare what the callers saw with what the batcher counted."""
        stats = batcher.stats()
        counted = {end: getattr(stats, end) for end in ENDS}
        unseen = {end: counted[end] - seen[end] for end in ENDS}
        text = f"callers saw {dict(seen)}, {batcher.name} counted {counted}, options {drawn}"
        if min(unseen.values()) < 0 or sum(unseen.values()) != seen["forgotten"]:
            raise WrongError(f"not every request ended once: {text}")
        if unseen["cancelled"] or unseen["invalid"]:
            raise WrongError(f"what nobody cancelled, or nobody could have refused later: {text}")
        tagged = {end: sum(getattr(one, end) for one in stats.tags) for end in ENDS}
        if any(tagged[end] > counted[end] for end in ENDS):
            raise WrongError(f"of those with tags, more are counted: {tagged}; {text}")
        if stats.queue_depth or stats.in_flight:
            raise WrongError(f"{stats.queue_depth} wait and {stats.in_flight} run after the end: {text}")
        self.total.update(counted)
        self.ended += sum(counted.values())

    def run(self, count: int, progress: Callable[[int], None] = lambda ended: None) -> Counter[str]:
        """Send about `count` requests; the ends of all."""
        for number in itertools.count():
            left = count - self.ended
            if left <= 0:
                break
            rounds = max(2 - number, round(left / ROUND), 1)
            self.round(left // rounds, closers[number % len(closers)], progress)
        self.batchers, self.clients = [], []
        gc.collect()
        left = [leak for leak in inferkit.BufferPool.default().leaks() if leak.tag in OF_REQUESTS]
        if left:
            raise WrongError(f"{len(left)} buffers of requests are still out: {left[:4]}")
        return self.total


def drain_then_close(batcher: inferkit.Batcher) -> None:
    if not batcher.drain(PATIENCE):
        raise WrongError(f"{batcher.name} has not drained after {PATIENCE} s: {batcher.stats()}")
    batcher.close()


closers: list[Callable[[inferkit.Batcher], None]] = [drain_then_close, lambda batcher: batcher.close(drain=False)]


def shown(count: int, start: float, every: float) -> Callable[[int], None]:
    """Say how far it is: in place where a person watches, now and then in a log."""
    next_time = [start + every]

    def progress(ended: int) -> None:
        now = time.monotonic()
        if now < next_time[0]:
            return
        next_time[0] = now + every
        rate = ended / (now - start)
        text = f"{ended:,} of {count:,} requests, {rate:,.0f}/s, {(count - ended) / max(rate, 1):.0f} s left"
        with contextlib.suppress(OSError):
            print(f"\r\033[K{text}" if sys.stderr.isatty() else text, end="", file=sys.stderr, flush=True)
            if not sys.stderr.isatty():
                print(file=sys.stderr)

    return progress


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    arguments = parser.parse_args()
    print(f"--seed {arguments.seed}", flush=True)
    start = time.monotonic()
    every = 0.5 if sys.stderr.isatty() else 30.0
    total = Storm(arguments.seed).run(arguments.count, shown(arguments.count, start, every))
    seconds = time.monotonic() - start
    print(f"\n{total.total():,} requests in {seconds:.0f} s, none wrong, none lost: {dict(total)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
