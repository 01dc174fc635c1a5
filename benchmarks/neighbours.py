"""Two models share the cores, one of them heavy: what the light one's callers notice of the other.

python benchmarks/neighbours.py --seconds 4

A light model (some 0.1 ms) gets requests at random, as an open loop; a heavy one (some milliseconds) is kept busy by
clients that wait for their answers. Each has a batcher of its own. Printed, as medians of --rounds rounds: p50 and p99
of the light one alone and beside the heavy one, and what the heavy one answers in a second. Every answer is compared
with the model's own. "Within" is from the request's submission to its answer, by the ticket's timing; the rest of what
the light one's caller waits is for the GIL, which the heavy one's clients want as well, and for a core of its own.

With --usual the light one's workers keep the slice of a core that the kernel gives by itself, as they would on a kernel
that cannot be asked: it is set back before the measurement starts.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import struct
import threading
import time

import numpy as np

import inferkit
from common import mlp, progress, require_release

HEAVY, LIGHT = (1024, *[2048] * 6, 16), (128, 512, 512, 16)
CLIENTS, EACH = 8, 8  # of the heavy one, and what each has under way


class Neighbours:
    def __init__(self, workers: int, rate: float) -> None:
        self.rate = rate
        self.heavy = inferkit.Model.load(mlp(HEAVY), threads=1)
        self.light = inferkit.Model.load(mlp(LIGHT), threads=1)
        self.busy = inferkit.Batcher(self.heavy, workers=workers, max_batch_size=32)
        others = set(os.listdir("/proc/self/task"))
        self.quick = inferkit.Batcher(self.light)
        self.threads = set(os.listdir("/proc/self/task")) - others
        rng = np.random.default_rng(0)
        self.x_heavy, self.x_light = rng.random(HEAVY[0], np.float32), rng.random(LIGHT[0], np.float32)
        self.y_heavy, self.y_light = self.heavy(self.x_heavy), self.light(self.x_light)
        self.wrong = 0

    def keep_usual_slices(self) -> None:
        """Take back what the light one's workers have asked for; they do not ask twice for the same."""
        number = {"x86_64": 314, "aarch64": 274}[platform.machine()]
        libc = ctypes.CDLL(None, use_errno=True)
        attributes = struct.pack("IIQiIQQQ", 48, 0, 1, 0, 0, 0, 0, 0)
        for thread in self.threads:
            if libc.syscall(number, int(thread), attributes, 0):
                raise OSError(ctypes.get_errno(), "sched_setattr")

    def measure(self, seconds: float, beside: bool) -> tuple[float, float, float, float]:
        """p50, p99 and p99 within of the light one, in milliseconds, and answers of the heavy one in a second."""
        stop, answered = threading.Event(), [0] * CLIENTS

        def pound(client: int) -> None:
            while not stop.is_set():
                for ticket in [self.busy.submit(self.x_heavy) for _ in range(EACH)]:
                    self.wrong += not np.array_equal(ticket.result(), self.y_heavy)
                    answered[client] += 1

        clients = [threading.Thread(target=pound, args=(i,)) for i in range(CLIENTS if beside else 0)]
        for client in clients:
            client.start()
        time.sleep(0.3)
        rng, took, within, before = np.random.default_rng(1), [], [], sum(answered)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            time.sleep(rng.exponential(1 / self.rate))
            start = time.perf_counter()
            ticket = self.quick.submit(self.x_light)
            answer = ticket.result()
            took.append(time.perf_counter() - start)
            within.append(ticket.timing.finished - ticket.timing.enqueued)
            self.wrong += not np.array_equal(answer, self.y_light)
        rate = (sum(answered) - before) / seconds
        stop.set()
        for client in clients:
            client.join()
        p50, p99 = np.percentile(took, [50, 99]) * 1e3
        return p50, p99, np.percentile(within, 99) * 1e3, rate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each figure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of the heavy one")
    parser.add_argument("--rate", type=float, default=250.0, help="requests a second for the light one")
    parser.add_argument("--usual", action="store_true", help="set the light one's slices back to the kernel's own")
    arguments = parser.parse_args()
    require_release()
    pair = Neighbours(arguments.workers, arguments.rate)
    pair.measure(arguments.seconds / 4, beside=False)  # they learn what runs take
    pair.measure(arguments.seconds / 4, beside=True)
    if arguments.usual:
        pair.keep_usual_slices()
    alone, beside = [], []
    for number in range(arguments.rounds):
        progress(f"round {number + 1} of {arguments.rounds}")
        alone.append(pair.measure(arguments.seconds, beside=False))
        beside.append(pair.measure(arguments.seconds, beside=True))
    progress("")
    slices = "the kernel's own" if arguments.usual else f"{pair.quick.stats().slice_ms:.1f} ms"
    print(f"slices of the light one: {slices}\n")
    print("| the light one | p50 ms | p99 ms | p99 within, ms | heavy answers a second |")
    print("| --- | --- | --- | --- | --- |")
    for name, figures in (("alone", alone), ("beside the heavy one", beside)):
        p50, p99, within, rate = np.median(figures, axis=0)
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {within:.2f} | {rate:.0f} |")
    if pair.wrong:
        print(f"{pair.wrong} WRONG ANSWERS")
    return pair.wrong > 0


if __name__ == "__main__":
    raise SystemExit(main())
