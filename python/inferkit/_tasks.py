"""What waits in a task, of asyncio's or trio's: whichever runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _trio

if TYPE_CHECKING:
    import asyncio

# asyncio is imported where it is used: it would double the time that `import inferkit` takes.

__all__ = ["News", "Reading", "news", "reading", "sleep"]

_T = TypeVar("_T")


async def sleep(seconds: float) -> None:
    """Let other tasks run for so long."""
    if _trio.running():
        await _trio.sleep(seconds)
    else:
        import asyncio

        await asyncio.sleep(seconds)


class _Reading(Generic[_T]):
    """A step that is awaited beside the present task."""

    def __init__(self, step: Callable[[], Awaitable[_T]], news: asyncio.Event) -> None:
        import asyncio

        self._task = asyncio.ensure_future(step())
        self._task.add_done_callback(lambda _: news.set())

    def done(self) -> bool:
        return self._task.done()

    def result(self) -> _T:
        return self._task.result()

    async def stop(self) -> None:
        import asyncio

        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


if TYPE_CHECKING:
    News = _trio.News | asyncio.Event
    Reading = _trio.Reading[Any] | _Reading[Any]


def news() -> News:
    """Make an event that is set and taken back as often as there are news."""
    if _trio.running():
        return _trio.News()
    import asyncio

    return asyncio.Event()


def reading(step: Callable[[], Awaitable[Any]], when_done: News) -> Reading:
    """Begin a step, whose end sets the event."""
    return _trio.Reading(step, when_done) if isinstance(when_done, _trio.News) else _Reading(step, when_done)
