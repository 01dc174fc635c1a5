"""How long inferkit takes on a device, from numpy to numpy, and its answers for what peers.py compares.

python benchmarks/gpu/ours.py --device cuda [--quick] [--out FILE] [--answers FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from models import Case, Mlp, to_time
from results import Results, measure

import inferkit


def requests_a_second(made: Mlp, device: str, seconds: float) -> float:
    """64 asyncio clients, each with one request at a time."""
    model = inferkit.Model.load(made.file(), device=device)
    (rows,) = made.inputs(64)

    async def run() -> float:
        done = 0
        with inferkit.Batcher(model, max_batch_size=64) as batcher:

            async def client(row: np.ndarray, until: float) -> int:
                count = 0
                while time.perf_counter() < until:
                    await batcher.submit(row)
                    count += 1
                return count

            for phase in (seconds / 4, seconds):  # the first warms up
                begin = time.perf_counter()
                done = sum(await asyncio.gather(*(client(row, begin + phase) for row in rows)))
                took = time.perf_counter() - begin
        return done / took

    return asyncio.run(run())


Bringer = Callable[[np.ndarray], object]


def torch_brings(device: str) -> Bringer:
    import torch

    return lambda x: torch.from_numpy(x).to(device)


def cupy_brings(device: str) -> Bringer:
    import cupy

    cupy.cuda.Device(int(device.partition(":")[2] or 0)).use()
    return cupy.asarray


def that_works(bring: Callable[[str], Bringer], device: str) -> Bringer | None:
    try:
        brings = bring(device)
        brings(np.zeros(1, np.float32))
    except Exception as error:
        print(f"{bring.__name__} nothing there: {type(error).__name__}: {error}", flush=True)
        return None
    return brings


def who_brings(device: str) -> Bringer | None:
    """Find a library that is here, sees the device, and brings arrays there."""
    for bring in (torch_brings, cupy_brings):
        if brings := that_works(bring, device):
            return brings
    return None


def timed_there(case: Case, device: str, brings: Bringer, seconds: float, results: Results) -> bool:
    """From the device to the device."""
    way = f"inferkit {device}, dev"
    try:
        model = inferkit.Model.load(case.made.file(), device=device, precision=case.precision)
        x = [brings(array) for array in case.made.inputs(case.batch)]
        results.put(case=case.name, way=way, **measure(lambda: model(*x), seconds))
    except Exception as error:
        traceback.print_exc()
        results.put(case=case.name, way=way, failed=f"{type(error).__name__}: {error}")
        return False
    return True


def timed(case: Case, way: str, seconds: float, keep: Path | None, results: Results) -> bool:
    try:
        model = inferkit.Model.load(case.made.file(), device=way, precision=case.precision)
        x = case.made.inputs(case.batch)
        answer = model(*x)
        if keep:
            np.save(keep / f"{case.name}.npy", answer)
        fewer = 1 if way != "cpu" else 3  # the CPU's times are for comparison
        results.put(case=case.name, way=f"inferkit {way}", **measure(lambda: model(*x), seconds / fewer))
    except Exception as error:
        traceback.print_exc()
        results.put(case=case.name, way=f"inferkit {way}", failed=f"{type(error).__name__}: {error}")
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small models, few calls: for an emulator")
    parser.add_argument("--out", type=Path, help="adds a line of JSON for each")
    parser.add_argument("--answers", type=Path, help="keeps what came out, for peers.py")
    arguments = parser.parse_args()
    results = Results(arguments.out)
    build = inferkit.build_info()
    if build["debug"] or build["sanitizers"]:
        print("this build of inferkit is not optimised: figures from it would mislead", file=sys.stderr)
        return 1
    seconds = 0.01 if arguments.quick else 1.0
    failed = 0
    for case in to_time(arguments.quick):
        for way in dict.fromkeys((arguments.device, "cpu")):
            keep = arguments.answers if way == arguments.device else None
            failed += not timed(case, way, seconds, keep, results)
    brings = who_brings(arguments.device) if arguments.device != "cpu" else None
    for case in to_time(arguments.quick) if brings else ():
        failed += not timed_there(case, arguments.device, brings, seconds, results)
    made = Mlp(4, 16, 3) if arguments.quick else Mlp(64, 256, 256, 10)
    for way in dict.fromkeys((arguments.device, "cpu")):
        rate = requests_a_second(made, way, 0.05 if arguments.quick else 2.0)
        results.put(case=f"{made.name}, 64 asyncio clients", way=f"inferkit {way}", a_second=round(rate))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
