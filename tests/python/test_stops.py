"""What asks the program to stop, and MemoryError, go through wherever a caller's object is asked for something."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import inferkit

X = np.ones((2, 4), np.float32)
SPEC = ("float32", (None, 4))


class Stop(BaseException):
    pass


STOPS = [KeyboardInterrupt, SystemExit, Stop]


class HasNot:
    """Raises where an attribute is looked for."""

    def __init__(self, error: type[BaseException], name: str) -> None:
        self.error = error
        self.name = name

    def __getattr__(self, name: str) -> Any:
        raise self.error if name == self.name else AttributeError(name)


class Capsule:
    """Raises where the memory is asked for."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __dlpack__(self, **_: object) -> Any:
        raise self.error

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def echo() -> inferkit.Model:
    return inferkit.Model.from_callable(lambda x: x, inputs=[("x", *SPEC)], outputs=[("y", *SPEC)])


CALLS: list[Callable[[inferkit.Model, inferkit.Batcher, Any], Any]] = [
    lambda model, batcher, x: model(x),
    lambda model, batcher, x: model.run({"x": x}),
    lambda model, batcher, x: batcher(x),
    lambda model, batcher, x: batcher.submit({"x": x}).result(),
]


@pytest.mark.parametrize("call", CALLS)
def test_inputs(call: Callable[..., Any]) -> None:
    with inferkit.Batcher(echo()) as batcher:
        for error in (*STOPS, MemoryError):
            for x in (Capsule(error), HasNot(error, "__dlpack__")):
                with pytest.raises(error) as caught:
                    call(batcher.model, batcher, x)
                assert caught.type is error
        assert batcher.stats().invalid == 0
        for x in (Capsule(ValueError), HasNot(ValueError, "__dlpack__"), HasNot(AttributeError, "__dlpack__")):
            with pytest.raises(inferkit.ValidationError, match="'x'"):
                call(batcher.model, batcher, x)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_outputs(error: type[BaseException]) -> None:
    for made in (Capsule(error), HasNot(error, "__dlpack__"), [HasNot(error, "__dlpack__")]):
        model = inferkit.Model.from_callable(lambda x, made=made: made, inputs=[("x", *SPEC)], outputs=[("y", *SPEC)])
        with pytest.raises(error):
            model(X)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_error_that_is_being_described(error: type[BaseException]) -> None:
    class LoudError(Exception):
        def __str__(self) -> str:
            raise error

    def fail(_: object = None, **__: object) -> Any:
        raise LoudError

    model = inferkit.Model.from_callable(fail, inputs=[("x", *SPEC)], outputs=[("y", *SPEC)])
    with pytest.raises(error):
        model(X)
    with inferkit.Batcher(model) as batcher, pytest.raises(error):
        batcher(X)
    capsule = Capsule(LoudError)
    with pytest.raises(error):
        echo()(capsule)


@pytest.mark.parametrize("error", [*STOPS, MemoryError, OSError])
def test_paths(error: type[BaseException]) -> None:
    class Path:
        def __fspath__(self) -> str:
            raise error

    for use in (inferkit.Model.load, inferkit.Weights.open):
        with pytest.raises(error):
            use(Path())  # type: ignore[operator]


@pytest.mark.parametrize("error", STOPS)
def test_keys(error: type[BaseException]) -> None:
    class Key:
        def __repr__(self) -> str:
            raise error

    with inferkit.Batcher(echo()) as batcher:
        for call in (batcher.model.run, batcher, batcher.submit):
            with pytest.raises(error):
                call({"x": X, Key(): X})  # type: ignore[operator]


class FullLoop(asyncio.SelectorEventLoop):
    """Takes no callbacks while `full`."""

    full = False

    def call_soon(self, *args: Any, **kwargs: Any) -> Any:
        if self.full:
            raise OSError("full")
        return super().call_soon(*args, **kwargs)


def test_the_second_of_two_errors() -> None:
    """A loop that delivers several answers at once can raise one error: the one that is to stop the program."""
    opened = threading.Event()
    model = inferkit.Model.from_callable(
        lambda x: x if opened.wait() else None, inputs=[("x", *SPEC)], outputs=[("y", *SPEC)]
    )
    batcher = inferkit.Batcher(model, inline_limit=0.0)
    loop = FullLoop()
    woken = []

    def wakes(error: BaseException) -> Callable[[object], None]:
        def wake(_: object) -> None:
            woken.append(error)
            loop.full = len(woken) == 1
            raise error

        return wake

    async def main() -> None:
        waiters = [next(batcher.submit(X).__await__()) for _ in range(2)]
        for waiter, error in zip(waiters, (ValueError("first"), KeyboardInterrupt()), strict=True):
            waiter.add_done_callback(wakes(error), context=contextvars.copy_context())
        await asyncio.sleep(0)  # they are queued at the end of the tick
        opened.set()
        while batcher.stats().completed < 2:
            time.sleep(0.001)  # both end within one turn of the loop
        await asyncio.sleep(10)

    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(main())
        assert len(woken) == 2
    finally:
        opened.set()
        loop.full = False
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        batcher.close()
