"""What must hold on a CUDA device: the bits of the CPU, errors that say what happened, and life after them.

    python benchmarks/gpu/checks.py --device cuda [--quick] [--only NAME] [--but NAME] [--out FILE]

tests/python/test_gpu.py runs the same functions as tests marked `gpu`; benchmarks/gpu/run_all.sh runs this file, since
a machine with a GPU may lack pytest. Exit status: 1 where one failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from images import Images, small_cnn
from models import Digits, Encoder, Mlp, Swishes, Waves, to_check, wide_sum
from results import Results

import inferkit

Check = Callable[[str, bool], None]
CHECKS: dict[str, Check] = {}


class SkippedError(Exception):
    """Why something was not checked."""


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def expect(true: bool, what: str) -> None:
    if not true:
        raise AssertionError(what)


@contextlib.contextmanager
def raises(kind: type[Exception], *parts: str) -> Iterator[None]:
    try:
        yield
    except kind as error:
        for piece in parts:
            expect(piece in str(error), f"{kind.__name__} does not say {piece!r}: {error}")
    else:
        raise AssertionError(f"no {kind.__name__}")


def same(got: object, want: object, what: str) -> None:
    """To the bit, zeros' signs and all."""
    a, b = np.asarray(got), np.asarray(want)
    expect(a.dtype == b.dtype and a.shape == b.shape, f"{what}: {a.dtype}{a.shape} and not {b.dtype}{b.shape}")
    expect(not np.isnan(b).any(), f"{what}: the CPU's answer has NaN, which shows nothing")
    wrong = int((a.view(np.uint32) != b.view(np.uint32)).sum())
    largest = float(np.abs(a.astype(np.float64) - b).max()) if wrong else 0
    expect(wrong == 0, f"{what}: {wrong} of {a.size} elements differ from the CPU's, by up to {largest:.3g}")


def both(file: bytes, device: str) -> tuple[inferkit.Model, inferkit.Model]:
    return inferkit.Model.load(file, device=device), inferkit.Model.load(file)


def check_bits(made: Mlp | Encoder | Digits | Images | Swishes, batches: tuple[int, ...], device: str) -> None:
    there, here = both(made.file(), device)
    for batch in batches:
        for seed in (0, 1):
            x = made.inputs(batch, seed)
            same(there(*x), here(*x), f"{made.name}, batch {batch}, seed {seed}")
    alone = made.inputs(batches[-1], 0)
    row = tuple(x[:1] for x in alone)
    same(there(*row)[0], there(*alone)[0], f"{made.name}: row 0 alone and in a batch of {batches[-1]}")
    kinds = {step.device for step in there.explain().steps}
    expect(kinds == {device.partition(":")[0]}, f"{made.name}: steps ran on {kinds}")


def bits_of(name: str) -> Check:
    return lambda device, quick: check_bits(*to_check(quick)[name], device)


for _name in to_check(quick=True):
    CHECKS[f"the_bits_of: {_name}"] = bits_of(_name)


@check
def a_small_mlp_has_the_bits_of_the_cpu_in_every_batch(device: str, quick: bool) -> None:
    """One kernel for all of its layers, in blocks of one, four or eight rows; beyond 1024 rows, products."""
    made = Mlp(64, 256, 256, 10)
    check_bits(made, (1, 65) if quick else (*range(1, 71), 256, 257, 1024, 1025), device)
    if device != "cpu":
        there = inferkit.Model.load(made.file(), device=device)
        for rows, steps in ((1, ["inferkit.Mlp"]), (1024, ["inferkit.Mlp"]), (1025, ["inferkit.Linear"] * 3)):
            found = [step.operator for step in there.explain({"x": (rows, 64)}).steps]
            expect(found == steps, f"{made.name}: {rows} rows take the steps {found}")


def check_halves(made: Mlp | Encoder | Images, batch: int, precision: str, device: str) -> None:
    """Near float32 but not it, and rows that know nothing of their batch: no bits are promised beside the CPU's."""
    there = inferkit.Model.load(made.file(), device=device, precision=precision)
    x = made.inputs(batch, 3)
    what = f"{made.name} in {precision}"
    whole, want = np.asarray(there(*x)), np.asarray(inferkit.Model.load(made.file())(*x))
    error = float(np.linalg.norm(whole.astype(np.float64) - want) / np.linalg.norm(want))
    most = 0.03 if precision == "bf16" else 0.004
    expect(most / 1000 < error < most, f"{what}: the error in relation to float32 is {error:.2e}")
    for size in dict.fromkeys((1, 3, batch)):
        for first in range(0, min(batch, 4 * size), size):
            part = tuple(rows[first : first + size] for rows in x)
            same(there(*part), whole[first : first + size], f"{what}: {size} rows from {first}, and in {batch}")
    steps = {step.precision for step in there.explain().steps if step.operator.endswith(("MatMul", "Linear", "Conv"))}
    kept = {"float32"} if isinstance(made, Images) and device != "cpu" else set()  # convolutions of few filters
    expect(steps == {precision} | kept, f"{what}: products are in {steps}")
    report = there.compare_precision(*x)
    expect(report.precision == precision, f"{what}: compare_precision() speaks of {report.precision}")
    told = report.outputs[0].relative_error
    expect(most / 1000 < told < most, f"{what}: compare_precision() tells {told:.2e}")


@check
def halves_come_near_and_rows_do_not_know_their_batch(device: str, quick: bool) -> None:
    for precision in ("bf16",) if device == "cpu" else ("bf16", "float16"):
        for made, batch in (
            (Mlp(64, 256, 256, 10), 9 if quick else 512),
            (Encoder(1, 16, 2, 32, 4) if quick else Encoder(2, 384, 12, 1536, 16), 3 if quick else 64),
            (small_cnn(10) if quick else small_cnn(32), 3 if quick else 33),
        ):
            check_halves(made, batch, precision, device)


@check
def an_index_out_of_range_is_an_error_of_its_run(device: str, _quick: bool) -> None:
    made = Encoder(1, 16, 2, 32, 4)
    there, here = both(made.file(), device)
    (ids,) = made.inputs(2)
    wrong = ids.copy()
    wrong[1, 2] = made.words
    with raises(inferkit.InferenceError, "Gather", "out of range"):
        there(wrong)
    same(there(ids), here(ids), "after the error")


@check
def memory_that_runs_out_is_an_error_with_figures(device: str, _quick: bool) -> None:
    if device == "cpu":
        raise SkippedError("it is the memory of a device that runs out")
    rows = 1 << 24  # 256 GiB in the middle; 64 MiB go in and out
    there = inferkit.Model.load(wide_sum(), device=device, max_run_bytes=1 << 44)
    here = inferkit.Model.load(wide_sum())
    few = np.linspace(-1, 1, 9, dtype=np.float32)[:, None]
    same(there(few), here(few), "before")
    with raises(inferkit.PoolExhaustedError, "bytes left for a run", "are free"):
        there(np.zeros((rows, 1), np.float32))
    same(there(few), here(few), "after the error")


@check
def memory_of_the_device_is_counted_capped_and_given_back(device: str, _quick: bool) -> None:
    if device == "cpu":
        raise SkippedError("it is the memory of a device that is counted")
    number = int(device.partition(":")[2] or 0)
    gc.collect()  # models of other checks
    inferkit.cuda.trim(number)
    before = inferkit.cuda.memory(number)
    made = Digits()
    there, here = both(made.file(), device)
    (x,) = made.inputs(3)
    same(there(x), here(x), "once")
    one = inferkit.cuda.memory(number)
    expect(one.weight_bytes > before.weight_bytes, f"no weights are counted: {one}")
    expect(one.device.outstanding > before.device.outstanding, f"no memory is counted: {one}")
    expect(one.pinned.outstanding > before.pinned.outstanding, f"no pinned memory is counted: {one}")
    expect({row.tag for row in inferkit.cuda.leaks(number)} >= {"run", "weights"}, "leaks() names others")

    again = inferkit.Model.load(made.file(), device=device)
    same(again(x), here(x), "another model")
    two = inferkit.cuda.memory(number)
    expect(two.weight_bytes == one.weight_bytes, "a second model of the same weights has its own")

    inferkit.cuda.limit_memory(max(two.device.in_use_bytes, 256), number)
    try:
        with raises(inferkit.PoolExhaustedError, "of the cap of", "are in use by inferkit"):
            there(np.concatenate([x] * 40))
    finally:
        inferkit.cuda.limit_memory(None, number)
    more = np.concatenate([x] * 40)
    same(there(more), here(more), "after the error")

    del there, again
    gc.collect()
    last = inferkit.cuda.memory(number)
    expect(last.device.outstanding == before.device.outstanding, f"memory stays in use: {inferkit.cuda.leaks(number)}")
    expect(last.weight_bytes == before.weight_bytes, f"weights stay: {last}")
    expect(last.device.cached_bytes > 0, f"nothing is kept for the next model: {last}")
    inferkit.cuda.trim(number)
    left = inferkit.cuda.memory(number)
    expect(left.device.cached_bytes == 0, f"trim() leaves memory: {left}")
    expect(left.pinned.cached_bytes == 0, f"trim() leaves pinned memory: {left}")


@check
def what_a_device_does_is_counted(device: str, quick: bool) -> None:
    if device == "cpu":
        raise SkippedError("it is a device that is counted")
    number = int(device.partition(":")[2] or 0)
    made = Mlp(4, 16, 3)
    there = inferkit.Model.load(made.file(), device=device)
    (x,) = made.inputs(8)
    before, begin = inferkit.cuda.activity(number), time.monotonic()
    calls = 3 if quick else 1000
    for _ in range(calls):
        y = there(x)
    after, took = inferkit.cuda.activity(number), time.monotonic() - begin
    expect(after.launches - before.launches == calls, f"{calls} calls are counted so: {before}, {after}")
    expect(after.in_bytes - before.in_bytes == calls * x.nbytes, f"copies are counted so: {before}, {after}")
    expect(after.out_bytes - before.out_bytes == calls * y.nbytes, f"copies are counted so: {before}, {after}")
    expect(after.uploaded_bytes > before.uploaded_bytes, f"weights are counted so: {before}, {after}")
    busy = after.busy_seconds - before.busy_seconds
    expect(0 < busy <= took, f"busy for {busy} s of {took} s")
    expect(after.running == 0, f"something runs: {after}")
    expect(after.failures == before.failures, f"something failed: {after}")


@check
def answers_are_those_of_their_own_run(device: str, quick: bool) -> None:
    # The host polls for small answers: one that it takes too early would be the last run's.
    made = Mlp(64, 256, 256, 10)
    there, here = both(made.file(), device)
    for batch in (1, 20):
        inputs = [made.inputs(batch, seed) for seed in range(3)]
        want = [here(*x) for x in inputs]
        for i in range(6 if quick else 3000):
            same(there(*inputs[i % 3]), want[i % 3], f"batch {batch}, call {i}")


@check
def threads_and_models_share_a_device(device: str, quick: bool) -> None:
    models = [(made, *both(made.file(), device)) for made in (Mlp(4, 16, 3), Digits())]
    errors: list[str] = []

    def run(number: int) -> None:
        try:
            for i in range(3 if quick else 200):
                made, there, here = models[(number + i) % 2]
                x = made.inputs(1 + (number + i) % 4, number)
                same(there(*x), here(*x), f"thread {number}, call {i}")
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(not errors, "; ".join(errors))


@check
def a_batcher_gives_the_same_bits_and_counts(device: str, quick: bool) -> None:
    made = Digits()
    there, here = both(made.file(), device)
    (rows,) = made.inputs(8 if quick else 256)
    want = here(rows)

    async def ask(batcher: inferkit.Batcher) -> list[object]:
        return await asyncio.gather(*(batcher.submit(row) for row in rows))

    with inferkit.Batcher(there, max_batch_size=16) as batcher:
        got = asyncio.run(ask(batcher))
        stats = batcher.stats()
    for i, answer in enumerate(got):
        same(answer, want[i], f"request {i}")
    expect(stats.completed == len(rows), f"{stats.completed} of {len(rows)} requests are counted as completed")
    expect(stats.failed == 0, f"{stats.failed} requests are counted as failed")


@check
def what_a_device_lacks_runs_on_the_cpu(device: str, _quick: bool) -> None:
    if device == "cpu":
        raise SkippedError("a CPU lacks nothing")
    made = Waves(16)
    with raises(inferkit.UnsupportedOpError, "Shrink", "no lowering"):
        inferkit.Model.load(made.file(), device=device)
    there = inferkit.Model.load(made.file(), device=device, fallback="cpu")
    here = inferkit.Model.load(made.file())
    for batch in (1, 7):
        x = made.inputs(batch)
        for got, want, name in zip(there(*x), here(*x), ("y", "wave"), strict=True):
            same(got, want, f"{name}, batch {batch}")
    ran = {(step.operator, step.device, step.lowering) for step in there.explain().steps}
    kind = device.partition(":")[0]
    for step in (("Shrink", "cpu", "default"), ("copy", kind, "to the host"), ("copy", kind, "to the device")):
        expect(step in ran, f"explain() does not show {step}: {sorted(ran)}")


@check
def elementwise_operators_that_follow_each_other_are_one_kernel(device: str, _quick: bool) -> None:
    there = inferkit.Model.load(Swishes(16).file(), device=device)
    steps = [(step.operator, [launch.name for launch in step.kernels]) for step in there.explain().steps]
    chain = ("inferkit.Chain", [] if device == "cpu" else ["chain_f32"])
    expect(steps.count(chain) == 1 and len(steps) == 3, f"other steps than two products and a chain: {steps}")


@check
def a_profile_times_the_kernels_of_each_step(device: str, quick: bool) -> None:
    made = Digits()
    there, here = both(made.file(), device)
    x = made.inputs(2)
    found = there.profile(*x, runs=2 if quick else 20)
    times = {step.operator: step.measured_seconds for step in found.steps}
    expect((found.measured_seconds or 0) > 0, f"no time was measured: {times}")
    if device != "cpu":
        lacking = [step.operator for step in found.steps if step.kernel_calls and not step.kernels]
        expect(not lacking, f"explain() names no kernel of {lacking}")
        idle = [step.operator for step in found.steps if step.kernel_calls and not step.measured_seconds]
        expect(not idle, f"no time was measured of {idle}: {times}")
    expect((found.measured_seconds or 0) < 1, f"such a model does not take {found.measured_seconds} s")
    same(there(*x), here(*x), "beside a profile")


@check
def ctrl_c_ends_a_loop_of_calls(device: str, _quick: bool) -> None:
    made = Digits()
    there, here = both(made.file(), device)
    x = made.inputs(2)
    want = here(*x)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with raises(KeyboardInterrupt):  # type: ignore[arg-type]
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            end = time.monotonic() + 60
            while time.monotonic() < end:
                there(*x)
    finally:
        signal.signal(signal.SIGINT, before)
    same(there(*x), want, "after Ctrl-C")


@check
def a_child_of_fork_is_told(device: str, _quick: bool) -> None:
    if device == "cpu":
        raise SkippedError("a CPU survives a fork")
    made = Mlp(4, 16, 3)
    there = inferkit.Model.load(made.file(), device=device)
    there(*made.inputs(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's own, that other threads are not there in the child
        child = os.fork()
    if child == 0:
        try:
            with raises(inferkit.DeviceError, "forked off"):
                there(*made.inputs(1))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    expect(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child's call did not end as it should")


@check
def torch_and_its_captures_live_beside(device: str, _quick: bool) -> None:
    try:
        import torch
    except ImportError as error:
        raise SkippedError(f"torch cannot be imported: {error}") from None
    if not torch.cuda.is_available():
        raise SkippedError("torch sees no CUDA device")
    made = Digits()
    there, here = both(made.file(), device)
    x = torch.arange(8.0, device="cuda")
    begun, go_on = threading.Event(), threading.Event()
    graph = torch.cuda.CUDAGraph()
    failures: list[str] = []

    def capture() -> None:
        try:
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                y = x * 2 + 1
                begun.set()
                go_on.wait(60)
                y += 1
            graph.replay()
            torch.cuda.synchronize()
            expect(y.tolist() == [2.0 * i + 2 for i in range(8)], "torch's graph gives something else")
        except Exception as error:
            begun.set()
            failures.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=capture)
    thread.start()
    begun.wait(60)
    try:
        for batch in (1, 3):  # each allocates and captures while torch captures
            inputs = made.inputs(batch)
            same(there(*inputs), here(*inputs), f"while torch captures, batch {batch}")
    finally:
        go_on.set()
        thread.join()
    expect(not failures, f"the capture of torch: {failures}")


@check
def torch_gives_and_takes_arrays_there(device: str, quick: bool) -> None:
    try:
        import torch
    except ImportError as error:
        raise SkippedError(f"torch cannot be imported: {error}") from None
    if device == "cpu" or not torch.cuda.is_available():
        raise SkippedError("torch sees no CUDA device")
    made = Digits()
    there = inferkit.Model.load(made.file(), device=torch.device(device))
    here = inferkit.Model.load(made.file())
    busy = torch.ones((4096, 4096), device=device) / 4096
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        for batch in (1, 3, 200) * (1 if quick else 20):
            (x,) = made.inputs(batch, batch)
            given = torch.full(x.shape, float("nan"), device=device)
            held = torch.from_numpy(x).pin_memory()
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                for _ in range(4):  # so that what it computes comes late
                    busy = busy @ busy
                given.copy_(held, non_blocking=True)
                got = there(given)
                expect(isinstance(got, torch.Tensor), f"the answer is {type(got)}")
                expect(got.is_cuda, f"the answer is on {got.device}")
                for _ in range(2):
                    busy = busy @ busy
                kept = got + 0  # after that; then the answer's memory is let go
                del got
                again = there(given)
            stream.synchronize()
            same(kept.cpu().numpy(), here(x), f"batch {batch}")
            same(again.cpu().numpy(), here(x), f"batch {batch}, again")
    with raises(inferkit.ValidationError, "row-major"):
        there(torch.ones((64, 3), device=device).T)
    with raises(inferkit.ValidationError, "float64"):
        there(torch.ones((3, 64), device=device, dtype=torch.float64))
    wrong = torch.ones((3, 64), device=device)
    wrong[1, 5] = float("inf")
    with raises(inferkit.ValidationError, "index (1, 5)"):
        there(wrong)


@check
def cupy_gives_and_takes_arrays_there(device: str, quick: bool) -> None:
    try:
        import cupy
    except ImportError as error:
        raise SkippedError(f"cupy cannot be imported: {error}") from None
    number = int(device.partition(":")[2] or 0) if device != "cpu" else 0
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise SkippedError(f"cupy sees no device: {error}") from None
    if device == "cpu" or count <= number:
        raise SkippedError("cupy sees no such device")
    made = Digits()
    here = inferkit.Model.load(made.file())
    with cupy.cuda.Device(number) as on:
        there = inferkit.Model.load(made.file(), device=on)
        for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
            for batch in (1, 3, 200) * (1 if quick else 20):
                (x,) = made.inputs(batch, batch)
                with stream:
                    given = cupy.asarray(x)
                    got = there(given * 1)
                    expect(isinstance(got, cupy.ndarray), f"the answer is {type(got)}")
                    kept = got + 0
                    del got
                    same(cupy.asnumpy(there(given)), here(x), f"batch {batch}")
                same(cupy.asnumpy(kept, stream=stream), here(x), f"batch {batch}, kept")
        with raises(inferkit.ValidationError, "row-major"):
            there(cupy.ones((64, 3), cupy.float32).T)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small models, few calls: for an emulator")
    parser.add_argument("--only", default="", help="those whose names hold this; several with |")
    parser.add_argument("--but", help="none of those whose names hold this")
    parser.add_argument("--out", type=Path, help="adds a line of JSON for each")
    arguments = parser.parse_args()
    results = Results(arguments.out)
    if arguments.device != "cpu" and (why := inferkit.cuda.why_not()):
        print(f"no CUDA device: {why}", file=sys.stderr)
        return 1
    failed = 0
    for name, function in CHECKS.items():
        if not any(piece in name for piece in arguments.only.split("|")):
            continue
        if arguments.but and arguments.but in name:
            continue
        begin, state, why = time.perf_counter(), "ok", ""
        try:
            function(arguments.device, arguments.quick)
        except SkippedError as error:
            state, why = "skipped", str(error)
        except Exception as error:
            state, why = "FAILED", f"{type(error).__name__}: {error}"
            traceback.print_exc()
            failed += 1
        results.put(check=name, state=state, why=why, seconds=round(time.perf_counter() - begin, 2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
