"""Tickets under trio, which knows no futures: a task waits for an event that the end of the request sets."""

from __future__ import annotations

import contextvars
import functools
import sys
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from ._core import Ticket

__all__ = ["Loop", "News", "Reading", "running", "running_loop", "sleep", "wait"]

_T = TypeVar("_T")


def running() -> bool:
    """Tell whether it is trio that runs the calling task."""
    return "trio" in sys.modules and _asks()()


@functools.cache
def _asks() -> Callable[[], bool]:
    try:
        from sniffio import thread_local  # which trio sets around each step, also beside asyncio on the same thread
    except ImportError:
        from trio.lowlevel import in_trio_task

        return in_trio_task
    return lambda: bool(thread_local.name == "trio")


def running_loop() -> Loop | None:
    """Return what the present run of trio has for a loop; None where trio does not run the calling task."""
    if not running():
        return None
    variable = _loop_of_run()
    try:
        return cast(Loop, variable.get())
    except LookupError:
        loop = Loop()
        variable.set(loop)
        return loop


@functools.cache
def _loop_of_run() -> Any:
    import trio

    return trio.lowlevel.RunVar("inferkit.loop")


class Loop:
    """A run of trio with as much of asyncio's interface as the core asks of a loop. It ends with the run."""

    def __init__(self) -> None:
        import trio

        self._lowlevel = trio.lowlevel
        self._sleep = trio.sleep
        self._soon = trio.lowlevel.current_trio_token().run_sync_soon
        self._next: list[tuple[Callable[..., object], tuple[object, ...], Context | None]] | None = None

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False  # nothing refers to it after the run

    def call_soon(self, callback: Callable[..., object], *args: object, context: Context | None = None) -> None:
        if self._next is not None:
            self._next.append((callback, args, context))
        else:
            self._soon(self._call, callback, args, context)

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> None:
        async def call() -> None:
            await self._sleep(delay)
            self._call(callback, args)

        self._lowlevel.spawn_system_task(call)

    def add_reader(self, descriptor: int, callback: Callable[[], object]) -> None:
        async def read() -> None:
            while True:
                await self._lowlevel.wait_readable(descriptor)
                self._call(callback, ())

        self._lowlevel.spawn_system_task(read)

    def _call(self, callback: Callable[..., object], args: tuple[object, ...], context: Context | None = None) -> None:
        """Call it, then what it asks to have called soon: another turn of trio's would take longer than a run."""
        self._next = []
        _guarded(callback, args, context)
        calls, self._next = self._next, None
        for call in calls:
            _guarded(*call)


def _guarded(callback: Callable[..., object], args: tuple[object, ...], context: Context | None) -> None:
    """Log what a callback raises, as asyncio does: it would end trio."""
    try:
        if context is None:
            callback(*args)
        else:
            context.run(callback, *args)
    except BaseException:
        import logging

        logging.getLogger("inferkit").exception("a callback of a ticket failed")


class News:
    """An event that is taken back when the task that waits for it has seen it."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        import trio

        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


async def wait(ticket: Ticket) -> Any:
    """Wait for the answer; a task that is cancelled meanwhile cancels the request."""
    import trio

    if ticket.done():
        await trio.lowlevel.checkpoint()
        return ticket.result()
    over = trio.Event()
    ticket.add_done_callback(lambda _: over.set())
    try:
        await over.wait()
    except BaseException:
        ticket.cancel()
        raise
    return ticket.result()


async def sleep(seconds: float) -> None:
    """Let other tasks run for so long."""
    import trio

    await trio.sleep(seconds)


class Reading(Generic[_T]):
    """What asyncio would have a task for: something awaited beside the present task, in a copy of its context."""

    def __init__(self, step: Callable[[], Awaitable[_T]], news: News) -> None:
        import trio

        self._scope = trio.CancelScope()
        self._over = trio.Event()
        self._news = news
        self._value: Any = None
        self._error: BaseException | None = None
        trio.lowlevel.spawn_system_task(self._run, step, context=contextvars.copy_context())

    async def _run(self, step: Callable[[], Awaitable[_T]]) -> None:
        import trio

        try:
            with self._scope:
                self._value = await step()
        except trio.Cancelled:  # the run is over
            raise
        except BaseException as error:  # the task that waits for it raises it; here it would be trio's own failure
            self._error = error
        finally:
            self._over.set()
            self._news.set()

    def done(self) -> bool:
        return bool(self._over.is_set())

    def result(self) -> _T:
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[no-any-return]

    async def stop(self) -> None:
        """Cancel it, and wait until it is over, also where the present task is cancelled itself."""
        import trio

        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._over.wait()
