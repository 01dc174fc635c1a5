"""An hour of mixed requests, and what the process's memory did meanwhile: a table, and a picture for docs/.

python benchmarks/soak.py --seconds 3600 --plot docs/soak.svg

Threads and asyncio share one Batcher; requests have one to four rows, some are cancelled, some expire, some are
invalid; plans of new shapes come and go. Every answer is compared with the model's own. Exit code 1: an answer was
wrong, or missing, or memory still grows at the end (the slope of the second half, less its 95% interval, is above 1 MiB
an hour).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import inferkit

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples" / "digits.onnx"


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def slope_per_hour(samples: list[tuple[float, int]]) -> tuple[float, float]:
    """Memory over time: its slope in bytes an hour, and half the width of the 95% interval (ordinary least squares)."""
    t = np.array([s[0] for s in samples]) / 3600
    y = np.array([s[1] for s in samples], float)
    t0 = t - t.mean()
    slope = float((t0 * (y - y.mean())).sum() / (t0**2).sum())
    rest = y - y.mean() - slope * t0
    error = float(np.sqrt((rest**2).sum() / max(1, len(y) - 2) / (t0**2).sum()))
    return slope, 1.96 * error


class Soak:
    def __init__(self, rate: float) -> None:
        self.pause = 1 / rate
        self.model = inferkit.Model.load(MODEL, max_plans=4)
        width = self.model.inputs[0].shape[-1] or 1
        rng = np.random.default_rng(0)
        self.inputs = [rng.random((rows, width), np.float32) for rows in (1, 2, 3, 4) for _ in range(8)]
        self.expected = [self.model(x) for x in self.inputs]
        self.stop = threading.Event()
        self.lock = threading.Lock()  # guards counts
        self.counts = dict.fromkeys(("answered", "wrong", "cancelled", "expired", "refused", "unexpected"), 0)

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def check(self, i: int, answer: Any) -> None:
        self.count("answered" if np.array_equal(answer, self.expected[i]) else "wrong")

    def from_thread(self, batcher: inferkit.Batcher, seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not self.stop.is_set():
            i, kind = int(rng.integers(len(self.inputs))), int(rng.integers(20))
            try:
                if kind == 0:
                    self.count("cancelled" if batcher.submit(self.inputs[i]).cancel() else "answered")
                elif kind == 1:
                    self.check(i, batcher.submit(self.inputs[i], timeout=1e-6).result())
                elif kind == 2:
                    batcher(np.full_like(self.inputs[i], np.nan))
                else:
                    self.check(i, batcher(self.inputs[i]))
            except inferkit.DeadlineError:
                self.count("expired")
            except inferkit.ValidationError:
                self.count("refused")
            except Exception as error:
                self.count("unexpected")
                print(f"\n{error!r}", file=sys.stderr)
            time.sleep(self.pause)

    async def from_asyncio(self, batcher: inferkit.Batcher) -> None:
        async def client(seed: int) -> None:
            rng = np.random.default_rng(seed)
            while not self.stop.is_set():
                i = int(rng.integers(len(self.inputs)))
                self.check(i, await batcher.submit(self.inputs[i]))
                await asyncio.sleep(self.pause)

        await asyncio.gather(*(client(seed) for seed in range(100, 108)))

    def run(self, seconds: float, every: float) -> list[tuple[float, int]]:
        samples = []
        with inferkit.Batcher(self.model) as batcher:
            threads = [threading.Thread(target=self.from_thread, args=(batcher, seed)) for seed in range(4)]
            threads.append(threading.Thread(target=lambda: asyncio.run(self.from_asyncio(batcher))))
            for thread in threads:
                thread.start()
            start = time.monotonic()
            try:
                while time.monotonic() - start < seconds:
                    time.sleep(every)
                    samples.append((time.monotonic() - start, rss_bytes()))
                    done = f"{samples[-1][0]:.0f} of {seconds:.0f} s, {samples[-1][1] / 2**20:.1f} MiB"
                    print(f"\r{done}, {self.counts}", end="", file=sys.stderr, flush=True)
            finally:
                self.stop.set()
                for thread in threads:
                    thread.join()
        print(file=sys.stderr)
        return samples


def plot(samples: list[tuple[float, int]], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "inferkit"  # the same picture from the same figures
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.2))
    axes.plot([s[0] / 60 for s in samples], [s[1] / 2**20 for s in samples], linewidth=1.2)
    axes.set(xlabel="minutes", ylabel="resident memory, MiB", title=title)
    axes.set(ylim=(0, 1.3 * max(s[1] for s in samples) / 2**20))
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--every", type=float, default=5, help="seconds between samples")
    parser.add_argument("--rate", type=float, default=100, help="requests a second of each of the 12 clients")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    soak = Soak(options.rate)
    samples = soak.run(options.seconds, options.every)
    late = samples[len(samples) // 2 :]
    slope, error = slope_per_hour(late)
    pool = inferkit.BufferPool.default().stats()
    text = (
        f"{options.seconds / 60:.0f} minutes, {sum(soak.counts.values()):,} requests: "
        f"{slope / 2**20:+.2f} ± {error / 2**20:.2f} MiB an hour in the second half"
    )
    print(text, soak.counts, f"buffers out: {pool.outstanding}", sep="\n")
    if options.json:
        options.json.write_text(json.dumps({"samples": samples, "counts": soak.counts, "text": text}))
    if options.plot:
        plot(samples, text, options.plot)
    return 1 if soak.counts["wrong"] or soak.counts["unexpected"] or slope - error > 2**20 else 0


if __name__ == "__main__":
    sys.exit(main())
