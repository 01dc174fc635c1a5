"""The detector names the line that holds the loop, and is silent where nothing does."""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from inferkit import diagnostics
from inferkit.diagnostics import Stall, watch_loop
from inferkit.diagnostics._loop import recent_stalls

try:
    import uvloop
except ImportError:
    uvloop = None

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


def run_uvloop(main: Coroutine[Any, Any, Any]) -> Any:
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


LOOPS = [
    pytest.param(asyncio.run, id="asyncio"),
    pytest.param(run_uvloop, id="uvloop", marks=pytest.mark.skipif(uvloop is None, reason="uvloop is not installed")),
]
HERE = Path(__file__)


def line_of(marker: str) -> int:
    """The number of the line of this file that ends with the comment."""
    [line] = [i for i, text in enumerate(HERE.read_text().splitlines(), 1) if text.endswith(f"# {marker}")]
    return line


async def sleeper() -> None:
    time.sleep(0.3)  # blocks: asleep


async def computer() -> None:
    sum(i * i for i in range(3_000_000))  # blocks: computing


async def gil_keeper() -> None:
    sum(range(30_000_000))  # blocks: keeping the GIL


def helper() -> None:
    threading.Event().wait(0.3)  # blocks: below the standard library


async def caller() -> None:
    helper()


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize(
    ("coroutine", "function", "marker", "times"),
    [
        (sleeper, "sleeper", "blocks: asleep", 1),
        (computer, "<genexpr>", "blocks: computing", 1),
        # The watching thread sees its last line, if a core is free for it then.
        (gil_keeper, "gil_keeper", "blocks: keeping the GIL", 3),
        (caller, "helper", "blocks: below the standard library", 1),
    ],
    ids=["sleep", "compute", "gil", "nested"],
)
def test_names_the_line(
    run: Runner, coroutine: Callable[[], Coroutine[Any, Any, None]], function: str, marker: str, times: int
) -> None:
    async def main() -> diagnostics.LoopWatch:
        with watch_loop(threshold=0.05) as watch:
            for _ in range(times):
                await asyncio.sleep(0.05)
                await asyncio.create_task(coroutine())
                await asyncio.sleep(0.05)
        return watch

    watch = run(main())
    ours = [stall for stall in watch.stalls if stall.file == str(HERE)]
    assert ours, watch.stalls
    stall = max(ours, key=lambda stall: stall.duration)
    assert stall.line == line_of(marker)
    assert stall.function == function
    assert stall.source.endswith(marker)
    assert stall.duration >= 0.04
    assert any(f"in {function}" in site for site in stall.stack)
    assert watch.longest >= stall.duration


def test_the_duration_is_the_hold_s() -> None:
    async def main() -> float:
        with watch_loop(threshold=0.05) as watch:
            await asyncio.sleep(0.03)
            time.sleep(0.4)
            await asyncio.sleep(0.03)
        return watch.longest

    assert 0.38 <= asyncio.run(main()) < 1.5


@pytest.mark.parametrize("run", LOOPS)
def test_silent_where_nothing_holds(run: Runner) -> None:
    async def main() -> tuple[Stall, ...]:
        with watch_loop(threshold=1.0) as watch:
            for _ in range(20):
                await asyncio.sleep(0.005)
                time.sleep(0.001)
        return watch.stalls

    assert run(main()) == ()


def test_a_hold_that_reaches_the_end_of_the_block() -> None:
    async def main() -> tuple[Stall, ...]:
        with watch_loop(threshold=0.05) as watch:
            time.sleep(0.2)
        return watch.stalls

    [stall] = asyncio.run(main())
    assert stall.function == "main"
    assert stall.file == str(HERE)


def test_reports_by_log_and_callback(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Stall] = []

    async def main() -> None:
        with watch_loop(threshold=0.05, on_stall=told.append):
            await asyncio.create_task(sleeper())
            await asyncio.sleep(0.02)

    with caplog.at_level(logging.WARNING, logger="inferkit.diagnostics"):
        asyncio.run(main())
    stall = next(stall for stall in told if stall.function == "sleeper")
    record = next(r for r in caplog.records if getattr(r, "stall_line", None) == line_of("blocks: asleep"))
    assert record.name == "inferkit.diagnostics"
    assert f"{HERE}:{stall.line} in sleeper: time.sleep(0.3)" in record.getMessage()
    assert record.stall_seconds == stall.duration


def test_a_hold_that_does_not_end_is_reported_before(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def main() -> None:
        with watch_loop(threshold=0.05):
            await asyncio.sleep(0.02)
            end = time.monotonic() + 30
            while not seen and time.monotonic() < end:
                time.sleep(0.05)
                seen.extend(r.getMessage() for r in caplog.records if "still is" in r.getMessage())

    with caplog.at_level(logging.WARNING, logger="inferkit.diagnostics"):
        asyncio.run(main())
    assert seen
    assert "in main" in seen[0]


def test_a_callback_that_raises_does_not_end_the_watch() -> None:
    told: list[Stall] = []

    def angry(stall: Stall) -> None:
        told.append(stall)
        raise RuntimeError("no")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        with watch_loop(threshold=0.05, on_stall=angry):
            for _ in range(2):
                await asyncio.sleep(0.03)
                time.sleep(0.2)
                await asyncio.sleep(0.03)

    asyncio.run(main())
    assert len(told) >= 2


def test_the_thread_ends_with_the_block() -> None:
    async def main() -> None:
        before = threading.active_count()
        with watch_loop():
            assert threading.active_count() == before + 1
        assert threading.active_count() == before

    asyncio.run(main())


def test_a_watch_that_stays_on_keeps_only_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferkit.diagnostics._loop._KEPT", 3)

    async def main() -> diagnostics.LoopWatch:
        with watch_loop(threshold=0.01) as watch:
            for hold in (0.2, 0.02, 0.02, 0.02, 0.02, 0.02):
                await asyncio.sleep(0.01)
                time.sleep(hold)
                await asyncio.sleep(0.01)
        return watch

    watch = asyncio.run(main())
    assert len(watch.stalls) == 3
    assert watch.longest >= 0.19  # that hold itself is forgotten


def test_others_may_look_while_holds_are_added() -> None:
    done, errors = threading.Event(), []

    def look(watch: diagnostics.LoopWatch) -> None:
        try:
            while not done.is_set():
                recent_stalls(60.0)
                assert len(watch.stalls) <= 1000
        except Exception as error:
            errors.append(error)

    async def main() -> None:
        with watch_loop(threshold=0.001) as watch:
            threads = [threading.Thread(target=look, args=(watch,)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for _ in range(100):
                time.sleep(0.002)
                with watch_loop(threshold=1.0):
                    await asyncio.sleep(0)
            done.set()
            for thread in threads:
                thread.join()

    asyncio.run(main())
    assert not errors


def test_misuse() -> None:
    with pytest.raises(ValueError, match="threshold"):
        watch_loop(threshold=0.0)
    with pytest.raises(RuntimeError, match="inside a coroutine"), watch_loop():
        pass

    async def twice() -> None:
        watch = watch_loop()
        with watch:
            pass
        with watch:
            pass

    with pytest.raises(RuntimeError, match="used already"):
        asyncio.run(twice())


def test_the_watching_thread_outlives_a_log_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("inferkit.diagnostics._loop")
    monkeypatch.setattr(module, "_HUNG", 0.0)
    raised = threading.Event()

    class Raises:
        def warning(self, *_: object, **__: object) -> None:
            raised.set()
            raise RuntimeError("a filter")

    async def main() -> bool:
        watch = watch_loop(threshold=0.01)
        watch._log = Raises()  # type: ignore[assignment]
        with watch:
            await asyncio.sleep(0.01)
            assert raised.wait(30)  # holds the loop until the watching thread has said so
            watch._log = None
            assert watch._watcher is not None
            return watch._watcher.is_alive()

    assert asyncio.run(main())
