"""Step 4: serving from asyncio never holds the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..._background import started
from ..._errors import InferkitError
from ..._text import counted
from .._loop import Stall, watch_loop
from .._patient import Finder, Patient
from .._report import Check

__all__ = ["Hold", "examine", "measure"]

_check = Finder(4)
_ROUNDS = 3
_BEAT = 0.001
_STEAL = 0.01  # from one look at what was stolen to the next: what a hold is forgiven may be that much older


@dataclass
class Hold:
    """The longest time in one round that the loop did not turn."""

    # Without the time that the thread waited for a CPU, and that the machine's CPUs were not there, where the kernel
    # tells it.
    seconds: float = 0.0
    beats: int = 0
    requests: int = 0
    stalls: list[Stall] = field(default_factory=list)


def _waited_for_cpu() -> float:
    """Seconds that this thread was ready to run and did not, so far."""
    try:
        text = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text(encoding="ascii")
        return int(text.split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return 0.0


@dataclass(frozen=True)
class Steal:
    """What a hypervisor kept each of this machine's CPUs from it, so far, as the kernel prints it."""

    text: bytes
    cpu: bytes  # the line of the CPU that this thread runs on begins with

    @classmethod
    def now(cls) -> Steal:
        try:
            with open("/proc/stat", "rb") as file:
                text = file.read()
            with open(f"/proc/self/task/{threading.get_native_id()}/stat", "rb") as file:
                cpu = file.read().rpartition(b")")[2].split()[36]
        except (OSError, IndexError):
            return cls(b"", b"")
        return cls(text, b"cpu" + cpu + b" ")

    def seconds(self, cpu: bytes) -> float:
        line = next((line for line in self.text.splitlines() if line.startswith(cpu)), b"") if cpu else b""
        fields = line.split()
        return int(fields[8]) / os.sysconf("SC_CLK_TCK") if len(fields) > 8 else 0.0

    def since(self, before: Steal) -> float:
        """Seconds that this thread's CPU was gone; where it moved to another one, of that which lost less."""
        return min(self.seconds(cpu) - before.seconds(cpu) for cpu in (self.cpu, before.cpu))


async def _round(patient: Patient, seconds: float) -> Hold:
    hold = Hold()
    end = time.perf_counter() + seconds
    served = asyncio.Event()

    async def client(number: int) -> None:
        while time.perf_counter() < end:
            try:
                await patient.ask(number)
            except (InferkitError, TimeoutError):
                await asyncio.sleep(0.01)
            hold.requests += 1

    async def beat() -> None:
        last, waited = time.perf_counter(), _waited_for_cpu()
        looked, steal = last, Steal.now()
        while not served.is_set():  # until the last answer: on a busy machine all the work may come after `end`
            await asyncio.sleep(_BEAT)
            now, waiting = time.perf_counter(), _waited_for_cpu()
            held = now - last - _BEAT
            if held > patient.limits.loop_hold or now - looked > _STEAL:
                before, steal, looked = steal, Steal.now(), now
                gone = steal.since(before)
            else:
                gone = 0.0
            # Waits may have the time in them that the CPU was gone.
            hold.seconds = max(hold.seconds, held - max(waiting - waited, gone))
            hold.beats += 1
            last, waited = now, waiting

    watch = watch_loop(threshold=patient.limits.loop_hold)
    watch._log = None  # what counts is in the report
    with watch:
        beats = asyncio.create_task(beat())
        await asyncio.gather(*(client(i) for i in range(8)))
        served.set()
        await beats
    hold.stalls = list(watch.stalls)
    return hold


def measure(patient: Patient, seconds: float) -> Hold:
    """Serve from a loop of our own, on a thread of our own: the caller's thread may run one already."""
    found: list[Hold] = []
    problem: list[BaseException] = []

    def work() -> None:
        try:
            found.append(asyncio.run(_round(patient, seconds)))
        except BaseException as error:  # a thread's error would only be printed
            problem.append(error)

    started(work, "inferkit-doctor-loop", "the doctor's event loop", daemon=False).join()
    if problem:
        raise problem[0]
    return found[0]


def examine(patient: Patient) -> Iterator[Check]:
    """Serve from asyncio and see how long the loop goes without turning; the best of three rounds, for the noise."""
    rounds: list[Hold] = []
    for number in range(_ROUNDS):
        patient.say(f"an asyncio service, round {number + 1}")
        rounds.append(measure(patient, max(0.1, min(0.5, patient.seconds / 4))))
        if rounds[-1].seconds <= patient.limits.loop_hold:
            break
    best = min(rounds, key=lambda hold: hold.seconds)
    limit = patient.limits.loop_hold
    held = best.seconds > limit
    why = "while the loop is held no other task runs: health checks, timeouts and every other request stand still"
    remedy = ""
    if held:
        remedy = "let the batcher's worker run the model (inline_limit=0)"
        if not patient.model._is_native:
            remedy = "the wrapped callable holds the GIL: release it, or run it in another process; and inline_limit=0"
        named = next((stall for stall in best.stalls if stall.file), None)
        if named is not None:
            remedy += f". Seen there: {named.file}:{named.line} in {named.function}"
    yield _check(
        "loop never held",
        "fail" if held else "pass",
        f"longest hold {best.seconds * 1e3:.1f} ms (limit {limit * 1e3:.0f} ms) in {counted(best.requests, 'request')}",
        why,
        remedy,
    )
