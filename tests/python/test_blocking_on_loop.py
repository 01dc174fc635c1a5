"""Calls that would block the event loop of their thread."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit.testing import FakeModel

X = np.ones(2, np.float32)
TOLD = r"blocks the event loop of this thread until the answer is there: await batcher\.submit\(x\)"

WAYS: dict[str, Callable[[inferkit.Batcher], Any]] = {
    "call": lambda batcher: batcher(X),
    "result": lambda batcher: batcher.submit(X).result(60),
    "exception": lambda batcher: batcher.submit(X).exception(),
    "map": lambda batcher: list(batcher.map([X])),
}


def on_a_loop(how: str, debug: bool = False, **options: Any) -> Any:
    async def main() -> Any:
        async with inferkit.Batcher(FakeModel(), inline_limit=0, **options) as batcher:
            return WAYS[how](batcher)

    return asyncio.run(main(), debug=debug)


@pytest.mark.parametrize("how", WAYS)
def test_they_are_refused_by_choice(how: str) -> None:
    with pytest.raises(RuntimeError, match=TOLD):
        on_a_loop(how, blocking_on_loop="refuse")


@pytest.mark.parametrize("how", WAYS)
def test_they_warn_by_choice_and_in_debug_mode(how: str) -> None:
    with pytest.warns(RuntimeWarning, match=TOLD) as told:
        on_a_loop(how, blocking_on_loop="warn")
    assert told[0].filename.endswith(("test_blocking_on_loop.py", "_map.py"))
    with pytest.warns(RuntimeWarning, match=TOLD):
        on_a_loop(how, debug=True)


@pytest.mark.parametrize("how", WAYS)
def test_else_they_are_allowed(how: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        on_a_loop(how)
        on_a_loop(how, debug=True, blocking_on_loop="allow")


@pytest.mark.parametrize("how", WAYS)
def test_without_a_loop_nothing_blocks_one(how: str) -> None:
    with inferkit.Batcher(FakeModel(), blocking_on_loop="refuse") as batcher:
        WAYS[how](batcher)

        async def main() -> Any:
            ticket = batcher.submit(X)
            await ticket
            assert ticket.result().tolist() == [2, 2]  # is there already
            with contextlib.suppress(TimeoutError):
                batcher.submit(X).result(0)  # does not wait
            return await asyncio.to_thread(WAYS[how], batcher)

        asyncio.run(main())


def test_trio_has_a_loop_too() -> None:
    trio = pytest.importorskip("trio")

    async def main() -> None:
        async with inferkit.Batcher(FakeModel(), blocking_on_loop="refuse") as batcher:
            with pytest.raises(RuntimeError, match=TOLD):
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
