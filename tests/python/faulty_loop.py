"""An asyncio event loop in which something goes wrong, or something else happens, at the n-th call of the batcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal


class SoftError(Exception):
    """What a signal handler raises: a soft time limit, for example."""


class Interrupt(KeyboardInterrupt):
    """A Ctrl-C that only the test sends."""


FAULTS: list[type[BaseException]] = [SoftError, Interrupt, MemoryError]


def is_ours(callback: Any) -> bool:
    """Whether the batcher made it."""
    owner = type(getattr(callback, "__self__", None))
    return type(callback).__module__ == "inferkit._core" or "pybind11" in f"{owner.__module__}.{owner.__name__}"


class FaultyLoop(asyncio.SelectorEventLoop):
    """Calls ``strike`` at the call of number ``at``, before or after the call takes effect.

    Counted are the calls that the batcher makes: with a callback of ours, and within :meth:`submitting` all others that
    the loop gets. What asyncio itself does goes on as ever.
    """

    def __init__(
        self,
        at: int | None = None,
        strike: Callable[[], object] = lambda: None,
        when: Literal["before", "after"] = "before",
    ) -> None:
        self.at, self.strike, self.when = at, strike, when
        self.calls: list[str] = []
        self.raised: list[BaseException] = []
        self.submits = 0
        super().__init__()
        self.set_exception_handler(lambda _, context: self.raised.append(context.get("exception")))

    @property
    def struck(self) -> bool:
        """Whether there was a call of that number."""
        return self.at is not None and len(self.calls) > self.at

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """Around a call of ``submit``, in which no asyncio code runs but what the batcher calls."""
        self.submits += 1
        try:
            yield
        finally:
            self.submits -= 1

    def _count(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls.append(name)
        strikes = len(self.calls) - 1 == self.at
        if strikes and self.when == "before":
            self._strike()
        result = call()
        if strikes and self.when == "after":
            self._strike()
        return result

    def _strike(self) -> None:
        inside, self.submits = self.submits, 0
        try:
            self.strike()
        finally:
            self.submits = inside

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        def real() -> Any:
            return super(FaultyLoop, self).call_soon(callback, *args, context=context)

        return self._count("call_soon", real) if is_ours(callback) else real()

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        def real() -> Any:
            return super(FaultyLoop, self).call_later(delay, callback, *args, context=context)

        return self._count("call_later", real) if is_ours(callback) else real()

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        def real() -> Any:
            return super(FaultyLoop, self).add_reader(fd, callback, *args)

        return self._count("add_reader", real) if self.submits else real()

    def get_debug(self) -> bool:
        real = super().get_debug
        return bool(self._count("get_debug", real) if self.submits else real())

    def is_closed(self) -> bool:
        real = super().is_closed
        return bool(self._count("is_closed", real) if self.submits else real())

    def finish(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run to the end, however often a Ctrl-C leaves the loop meanwhile."""
        task = self.create_task(main)
        while True:
            try:
                return self.run_until_complete(task)
            except Interrupt as error:  # noqa: PERF203
                self.raised.append(error)
                if task.done():
                    return task.result()
