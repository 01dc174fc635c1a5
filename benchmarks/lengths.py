"""Requests of mixed lengths: a batcher that pads, against one whose batches hold one length each.

python benchmarks/lengths.py --seconds 10

Closed loop: clients that wait for their answers send texts of 8 to 512 tokens to MiniLM (tests/zoo), of any length
alike (`uniform`), or of any order of magnitude alike (`short`), as texts usually are. Rounds follow one another, the
two batchers in turn; printed are the medians: requests a second, milliseconds at p50 and p99 of the texts of up to 32
tokens, rows in a batch, and what share of the work was padding. Every answer is compared, to the bit, with the model's
own. The last column is what one text of 32 tokens takes alone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from dataclasses import astuple, dataclass

import numpy as np

import inferkit
from common import progress, require_release
from served import minilm, texts

PAD = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (1, 0))
SHORT = 32


@dataclass
class Point:
    """One round."""

    per_second: float
    short_p50_ms: float
    short_p99_ms: float
    rows: float
    padding: float


def lengths_of(kind: str, count: int) -> list[int]:
    rng = np.random.default_rng(0)
    if kind == "uniform":
        return [int(n) for n in rng.integers(8, 513, count)]
    return [int(n) for n in np.exp(rng.uniform(np.log(8), np.log(512), count))]


class Lengths:
    def __init__(self, kind: str, clients: int, workers: int, max_plans: int) -> None:
        self.model = minilm(threads=1, max_plans=max_plans)
        self.clients, self.workers = clients, workers
        self.texts = texts(lengths_of(kind, 96))
        self.expected = [self.model.run(text) for text in self.texts]
        self.wrong = 0

    def batcher(self, pad: bool) -> inferkit.Batcher:
        options = {"pad": PAD, "pad_to": 512} if pad else {}
        return inferkit.Batcher(
            self.model, max_batch_size=32, max_batch_elements=4096, workers=self.workers, caller_runs=False, **options
        )

    def check(self, i: int, answer: dict[str, np.ndarray]) -> None:
        self.wrong += not all(answer[name].tobytes() == want.tobytes() for name, want in self.expected[i].items())

    def start(self, batcher: inferkit.Batcher) -> None:
        """One by one, so that the first of each length have been compared before anything is measured."""
        for i, feeds in enumerate(self.texts):
            self.check(i, batcher(feeds))

    async def round(self, batcher: inferkit.Batcher, seconds: float) -> Point:
        """One batcher, for so long."""
        took: list[float] = []
        order = itertools.count()
        done = 0
        before = batcher.stats()
        begin = time.perf_counter()
        until = begin + seconds

        async def client() -> None:
            nonlocal done
            while (start := time.perf_counter()) < until:
                i = next(order) % len(self.texts)
                answer = await batcher.submit(self.texts[i])
                if self.texts[i]["input_ids"].shape[1] <= SHORT:
                    took.append(time.perf_counter() - start)
                done += 1
                self.check(i, answer)

        await asyncio.gather(*(client() for _ in range(self.clients)))
        passed = time.perf_counter() - begin
        after = batcher.stats()
        p50, p99 = np.percentile(took, (50, 99)) * 1e3
        return Point(
            done / passed,
            p50,
            p99,
            (after.rows - before.rows) / (after.batches - before.batches),
            (after.padding - before.padding) / max(1, after.elements - before.elements),
        )

    def alone(self) -> float:
        """Milliseconds of one text of 32 tokens."""
        ids = np.full((1, SHORT), 1000)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        times = []
        for _ in range(20):
            start = time.perf_counter()
            self.model.run(feeds)
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=["uniform", "short"], choices=["uniform", "short"])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max-plans", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    require_release()
    print(f"{args.clients} clients, {args.workers} workers")
    print("lengths   batches      requests/s   short p50   short p99   rows   padding   32 alone")
    for kind in args.kinds:
        progress(kind)
        bench = Lengths(kind, args.clients, args.workers, args.max_plans)
        points: dict[bool, list[Point]] = {True: [], False: []}
        with bench.batcher(True) as padded, bench.batcher(False) as one_length:
            for batcher in (padded, one_length):
                bench.start(batcher)
            for _ in range(args.rounds):
                for pad, batcher in ((False, one_length), (True, padded)):
                    points[pad].append(asyncio.run(bench.round(batcher, args.seconds)))
        alone = bench.alone()
        for pad, found in points.items():
            rate, p50, p99, rows, padding = (statistics.median(c) for c in zip(*map(astuple, found), strict=True))
            name = "padded" if pad else "one length"
            print(
                f"{kind:<10}{name:<12}{rate:>11.1f}{p50:>9.1f} ms{p99:>9.1f} ms{rows:>7.1f}{100 * padding:>9.1f}%"
                f"{alone:>8.1f} ms"
            )
        print(f"{bench.wrong} answers were wrong")


if __name__ == "__main__":
    main()
