"""Calls that would block the event loop of their thread."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit.testing import FakeModel

X = np.ones(2, np.float32)
TOLD = r"{} blocks the event loop of this thread until {} instead"
ANSWER = r"the answer is there: await batcher\.submit\(x\)"


@dataclass(frozen=True)
class Way:
    """What blocks, and what it says of that."""

    call: Callable[[inferkit.Batcher], Any]
    told: str
    file: str = "test_blocking_on_loop.py"


def left_by(batcher: inferkit.Batcher) -> None:
    with batcher:
        batcher.submit(X)


def drained(batcher: inferkit.Batcher, **options: Any) -> bool:
    batcher.submit(X)
    return batcher.drain(**options)


def closed(batcher: inferkit.Batcher, **options: Any) -> bool:
    batcher.submit(X)
    return batcher.close(**options)


def warmed_up(batcher: inferkit.Batcher) -> None:
    batcher.submit(X)
    batcher.warm_up()


def swapped(batcher: inferkit.Batcher) -> None:
    batcher.submit(X)
    batcher.swap(FakeModel())


MAP = TOLD.format(r"batcher\.map\(\)", r"answers are there: use batcher\.amap\(\)")
CLOSE = TOLD.format(r"batcher\.close\(\)", r"its requests have ended: await batcher\.aclose\(\)")
DRAIN = TOLD.format(
    r"batcher\.drain\(\)",
    r"its requests have ended: await batcher\.aclose\(\), or asyncio\.to_thread\(batcher\.drain\),",
)
RUN = r"the model has run for each batch size: await asyncio\.to_thread\({}\),"
WAYS = {
    "call": Way(lambda batcher: batcher(X), TOLD.format(r"batcher\(x\)", ANSWER)),
    "result": Way(lambda batcher: batcher.submit(X).result(60), TOLD.format(r"ticket\.result\(\)", ANSWER)),
    "exception": Way(lambda batcher: batcher.submit(X).exception(), TOLD.format(r"ticket\.exception\(\)", ANSWER)),
    "map": Way(lambda batcher: list(batcher.map([X])), MAP),
    "map_with_errors": Way(lambda batcher: list(batcher.map([X], return_exceptions=True)), MAP),
    "drain": Way(drained, DRAIN),
    "drain_in_time": Way(lambda batcher: drained(batcher, timeout=60), DRAIN),
    "close": Way(closed, CLOSE),
    "close_in_time": Way(lambda batcher: closed(batcher, timeout=60), CLOSE),
    "warm_up": Way(warmed_up, TOLD.format(r"batcher\.warm_up\(\)", RUN.format(r"batcher\.warm_up"))),
    "swap": Way(swapped, TOLD.format(r"batcher\.swap\(\)", RUN.format(r"batcher\.swap, model"))),
    "with": Way(left_by, CLOSE, "_batcher.py"),
}


def on_a_loop(how: str, debug: bool = False, **options: Any) -> Any:
    async def main() -> Any:
        async with inferkit.Batcher(FakeModel(0.01), inline_limit=0, **options) as batcher:
            return WAYS[how].call(batcher)

    return asyncio.run(main(), debug=debug)


@pytest.mark.parametrize("how", WAYS)
def test_they_are_refused_by_choice(how: str) -> None:
    with pytest.raises(RuntimeError, match=WAYS[how].told):
        on_a_loop(how, blocking_on_loop="refuse")


@pytest.mark.parametrize("how", WAYS)
def test_they_warn_by_choice_and_in_debug_mode(how: str) -> None:
    with pytest.warns(RuntimeWarning) as told:
        on_a_loop(how, blocking_on_loop="warn")
    assert len(told) == 1
    assert re.match(WAYS[how].told, str(told[0].message))
    assert told[0].filename.endswith(WAYS[how].file)
    with pytest.warns(RuntimeWarning, match=WAYS[how].told):
        on_a_loop(how, debug=True)


@pytest.mark.parametrize("how", WAYS)
def test_else_they_are_allowed(how: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        on_a_loop(how)
        on_a_loop(how, debug=True, blocking_on_loop="allow")


def test_a_map_that_waits_for_room_is_refused_too() -> None:
    """Others have filled the queue, and nothing of its own is under way."""
    opened = threading.Event()
    model = FakeModel(answer=lambda x: (opened.wait(30), x)[1])

    async def main() -> None:
        async with inferkit.Batcher(
            model, inline_limit=0, max_batch_size=1, max_queue_size=1, blocking_on_loop="refuse"
        ) as batcher:
            tickets = [batcher.submit(X)]
            while not batcher.stats().in_flight:
                await asyncio.sleep(0.001)
            tickets.append(batcher.submit(X))
            try:
                with pytest.raises(RuntimeError, match=MAP):
                    next(batcher.map([X]))
            finally:
                opened.set()
            await asyncio.gather(*tickets)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_refused_close_changes_nothing() -> None:
    async def main() -> None:
        async with inferkit.Batcher(FakeModel(0.01), inline_limit=0, blocking_on_loop="refuse") as batcher:
            ticket = batcher.submit(X)
            for how in (batcher.close, batcher.drain):
                with pytest.raises(RuntimeError, match="blocks the event loop"):
                    how()
            assert (await ticket).tolist() == [2, 2]
            assert (await batcher.submit(X)).tolist() == [2, 2]

    asyncio.run(main())


def test_who_closes_without_a_wait_blocks_no_loop() -> None:
    """Nothing is under way, no time is given, or what waits is not waited for."""

    def made(**options: Any) -> inferkit.Batcher:
        return inferkit.Batcher(FakeModel(**options), inline_limit=0, blocking_on_loop="refuse")

    async def main() -> None:
        idle = made()
        idle.warm_up()
        idle.swap(FakeModel())
        assert (await idle.submit(X)).tolist() == [2, 2]
        assert idle.drain()
        assert idle.close()
        assert idle.close()
        with made():
            pass
        opened = threading.Event()
        hangs = made(answer=lambda x: (opened.wait(30), x)[1])
        ticket = hangs.submit(X)
        try:
            assert not hangs.drain(timeout=0)
            assert not await hangs.aclose(timeout=0.01)
            assert not hangs.close(drain=False, timeout=0)
        finally:
            opened.set()
        with pytest.raises(inferkit.ClosedError):
            await ticket
        assert await hangs.aclose()

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("how", WAYS)
def test_without_a_loop_nothing_blocks_one(how: str) -> None:
    with inferkit.Batcher(FakeModel(), blocking_on_loop="refuse") as batcher:

        async def main() -> Any:
            ticket = batcher.submit(X)
            await ticket
            assert ticket.result().tolist() == [2, 2]  # is there already
            with contextlib.suppress(TimeoutError):
                batcher.submit(X).result(0)  # does not wait
            return await asyncio.to_thread(WAYS[how].call, batcher)

        asyncio.run(main())
    with inferkit.Batcher(FakeModel(), blocking_on_loop="refuse") as batcher:
        WAYS[how].call(batcher)


def test_trio_has_a_loop_too() -> None:
    trio = pytest.importorskip("trio")

    async def main() -> None:
        async with inferkit.Batcher(FakeModel(), blocking_on_loop="refuse") as batcher:
            with pytest.raises(RuntimeError, match=WAYS["call"].told):
                batcher(X)
            assert (await batcher.submit(X)).tolist() == [2, 2]

    trio.run(main)


def test_python_s_own_debug_mode_warns(fresh_python: Callable[..., Any]) -> None:
    script = """
import asyncio, sys, warnings
import numpy as np, inferkit
from inferkit.testing import FakeModel
batcher = inferkit.Batcher(FakeModel())  # made where no loop runs
async def main():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        batcher(np.ones(2, np.float32))
    print(len(told))
asyncio.run(main())
batcher.close()
"""
    assert fresh_python(script).stdout == "0\n"
    assert fresh_python(script, env={"PYTHONDEVMODE": "1"}).stdout == "1\n"
    assert fresh_python(script, env={"PYTHONASYNCIODEBUG": "1"}).stdout == "1\n"


def test_the_choice_is_checked() -> None:
    with pytest.raises(ValueError, match="blocking_on_loop must be"):
        inferkit.Batcher(FakeModel(), blocking_on_loop="no")  # type: ignore[arg-type]
