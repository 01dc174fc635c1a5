"""Batcher.map and Batcher.amap: a stream of requests, of which so many are under way at once."""

from __future__ import annotations

import contextlib
import operator
import time
import warnings
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._arguments import flag, integer, mapping
from ._errors import QueueFullError
from ._tasks import news, reading, sleep

if TYPE_CHECKING:
    from ._batcher import Batcher
    from ._core import Ticket
    from ._tasks import News, Reading

__all__ = ["MapOptions", "amapped", "mapped"]

_PAUSE = 0.001  # seconds between two attempts at a full queue of which no more is known
_LONGEST_PAUSE = 0.1
_END = object()
_UNTIL = "answers are there: use batcher.amap() instead"
_CALLER = 3  # the frame that goes through map(), seen from the functions that its generator calls


class MapOptions:
    """The arguments of both, checked."""

    def __init__(
        self,
        batcher: Batcher,
        *,
        max_outstanding: int | None,
        timeout: float | None,
        priority: int,
        client: str | None,
        tags: Mapping[str, str] | None,
        return_exceptions: bool,
        progress: bool,
    ) -> None:
        if max_outstanding is None:
            max_outstanding = _window(batcher)
        self.batcher = batcher
        self.max_outstanding = integer(max_outstanding, "max_outstanding", 1)
        self.return_exceptions = flag(return_exceptions, "return_exceptions")
        self.progress = flag(progress, "progress")
        self.keywords: dict[str, Any] = {}
        if timeout is not None:
            self.keywords["timeout"] = timeout
        if priority != 0:
            self.keywords["priority"] = priority
        if client is not None:
            self.keywords["client"] = client
        if tags is not None:
            self.keywords["tags"] = mapping(tags, "tags", "a mapping of str to str")

    def submit(self, row: tuple[Any, ...]) -> Ticket:
        return self.batcher.submit(*row, **self.keywords)

    def bar(self, total: int | None) -> _Bar:
        return _Bar(total, self.batcher.name) if self.progress else _no_bar


def _window(batcher: Batcher) -> int:
    """As many as keep every batch full while the answers of the one before are taken; no more than the queue holds."""
    wanted = batcher.max_batch_size * (batcher._limits["max_concurrent"] + 1)
    return min(wanted, batcher._limits["max_queue_size"] or wanted)


class _Bar:
    """A bar of tqdm's, where that is installed."""

    def __init__(self, total: int | None, name: str) -> None:
        try:
            tqdm = import_module("tqdm.auto").tqdm
        except ImportError:
            warnings.warn("no progress is shown: that needs the package tqdm", RuntimeWarning, stacklevel=4)
            self.update: Callable[[], object] = _nothing
            self.close: Callable[[], object] = _nothing
            return
        bar = tqdm(total=total, desc=name, unit="row")
        self.update, self.close = bar.update, bar.close


def _nothing() -> None:
    pass


class _NoBar(_Bar):
    def __init__(self) -> None:
        self.update = self.close = _nothing


_no_bar = _NoBar()


def _length(iterables: Iterable[object]) -> int | None:
    """Tell how many rows are to come, where that is known."""
    lengths = [operator.length_hint(iterable, -1) for iterable in iterables if not isinstance(iterable, AsyncIterable)]
    known = [length for length in lengths if length >= 0]
    return min(known) if known else None


def _refusal(ticket: Ticket) -> QueueFullError | None:
    """Say whether others have filled the queue; does not send what a loop's tick has gathered, as done() does."""
    error = ticket.exception() if ticket._rejected() else None
    return error if isinstance(error, QueueFullError) else None


def _pause(refusal: QueueFullError, attempt: int) -> float:
    """Seconds until the next attempt: what the queue says, or longer each time."""
    return min(refusal.retry_after or _PAUSE * 2.0**attempt, _LONGEST_PAUSE)


def mapped(options: MapOptions, iterables: tuple[Iterable[Any], ...]) -> Iterator[Any]:
    """Give the answers to the rows of the iterables, in their order."""
    for iterable in iterables:
        if isinstance(iterable, AsyncIterable) and not isinstance(iterable, Iterable):
            raise TypeError(f"map() goes through iterables; amap() takes a {type(iterable).__name__}, too")
    total = _length(iterables)
    return _mapped(options, zip(*_iterators("map", iterables), strict=False), total)


def _iterators(function: str, iterables: tuple[Any, ...]) -> list[Any]:
    """Begin each of them, or say what is none; those that are asynchronous stay as they are."""
    if not iterables:
        raise TypeError("an iterable is needed for each input of the model, or one of dicts")
    found = []
    for number, given in enumerate(iterables, 1):
        kind = type(given).__name__
        if isinstance(given, Mapping):
            raise TypeError(
                f"{function}() takes an iterable for each input of the model, or one of dicts; got a {kind}"
            )
        if hasattr(given, "columns") and hasattr(given, "to_numpy"):  # of pandas or polars
            raise TypeError(f"{function}() goes through rows, and a {kind} gives its columns: give its to_numpy()")
        if isinstance(given, AsyncIterable):
            found.append(given)
            continue
        try:
            found.append(iter(given))
        except TypeError as error:
            if isinstance(given, Iterable) and not hasattr(given, "ndim"):
                raise  # its own error
            hint = ": give itertools.repeat(value) where every row has the same" if len(iterables) > 1 else ""
            raise TypeError(
                f"{function}() takes an iterable for each input of the model, or one of dicts; argument {number} "
                f"is of type {kind}, which has no items{hint}"
            ) from error
    return found


def _mapped(options: MapOptions, rows: Iterator[tuple[Any, ...]], total: int | None) -> Iterator[Any]:
    window: deque[Ticket] = deque()
    bar = options.bar(total)
    broken: Exception | None = None  # the iterable is, and is not asked again
    over = False
    try:
        while not over or window:
            if not over and len(window) < options.max_outstanding:
                try:
                    row = next(rows)
                except StopIteration:
                    over = True
                except Exception as error:  # told in its place: after the answers to the rows before it
                    broken, over = error, True
                else:
                    window.append(_admitted(options, row, window))
                if not window or not window[0].done():
                    continue  # to read on: what has its answer is not kept waiting for a slow iterable
            answer = _answer(options, window[0])
            window.popleft()
            bar.update()
            yield answer
        if broken is not None:
            raise broken
    finally:
        _cancel(window)
        bar.close()


def _admitted(options: MapOptions, row: tuple[Any, ...], window: deque[Ticket]) -> Ticket:
    """Submit a row; where others have filled the queue, when it has room again."""
    ticket = options.submit(row)
    attempt = 0
    while refusal := _refusal(ticket):
        pending = next((other for other in window if not other.done()), None)
        pause = _pause(refusal, attempt)
        options.batcher._may_block("batcher.map()", _UNTIL, _CALLER)
        if pending is None:
            time.sleep(pause)
        else:
            with contextlib.suppress(TimeoutError):
                pending._wait(pause)
        attempt = min(attempt + 1, 10)
        ticket = options.submit(row)
    return ticket


def _answer(options: MapOptions, ticket: Ticket) -> Any:
    if not ticket.done():
        options.batcher._may_block("batcher.map()", _UNTIL, _CALLER)
        ticket._wait()
    if not options.return_exceptions:
        return ticket.result()
    error = ticket.exception()
    if error is None:
        return ticket.result()
    if isinstance(error, Exception):
        return error
    raise error  # of a callable that asks the program to stop


def _cancel(window: deque[Ticket]) -> None:
    for ticket in window:
        ticket.cancel()


class _Source:
    """Rows of iterables of both kinds, zipped; `reading` is the step that is under way, where one has to be awaited."""

    def __init__(self, iterables: tuple[Any, ...]) -> None:
        self.total = _length(iterables)
        self.is_async = any(isinstance(iterable, AsyncIterable) for iterable in iterables)
        self.reading: Reading | None = None
        begun = _iterators("amap", iterables)
        self._rows: Iterator[tuple[Any, ...]] = iter(()) if self.is_async else zip(*begun, strict=False)
        self._iterators: list[AsyncIterator[Any] | Iterator[Any]] = []
        if self.is_async:
            self._iterators = [aiter(i) if isinstance(i, AsyncIterable) else i for i in begun]

    def next(self) -> tuple[Any, ...] | None:
        """Give the next row of iterables that need not be awaited; None at their end."""
        return next(self._rows, None)

    async def anext(self) -> tuple[Any, ...] | None:
        row = []
        for iterator in self._iterators:
            item = await anext(iterator, _END) if isinstance(iterator, AsyncIterator) else next(iterator, _END)
            if item is _END:
                return None
            row.append(item)
        return tuple(row)

    async def close(self) -> None:
        if self.reading is not None:
            await self.reading.stop()


def amapped(options: MapOptions, iterables: tuple[Any, ...]) -> AsyncGenerator[Any, None]:
    """Do the same for tasks of asyncio or trio."""
    return _amapped(options, _Source(iterables))


async def _amapped(options: MapOptions, source: _Source) -> AsyncGenerator[Any, None]:
    window: deque[Ticket] = deque()
    told = news()
    watched: Ticket | None = None  # the last whose end is to be news
    bar = options.bar(source.total)
    broken: Exception | None = None
    over = False
    answered = 0
    try:
        while not over or window:
            if not over and len(window) < options.max_outstanding:
                try:
                    row = await _next_row(source, told)
                except Exception as error:
                    broken, over = error, True
                else:
                    if row is not None:
                        window.append(await _aadmitted(options, row))
                    elif source.reading is None:
                        over = True
                # Rows that need not be awaited all go out in one turn of the loop: done() would send each by itself.
                if not (window and source.is_async and window[0].done()):
                    if source.reading is not None:
                        if window and watched is not window[0]:
                            watched = window[0]
                            watched.add_done_callback(lambda _: told.set())
                        await told.wait()
                        told.clear()
                    continue
            answer = await _aanswer(options, window[0])
            window.popleft()
            bar.update()
            yield answer
            answered += 1
            if answered % options.max_outstanding == 0:
                await sleep(0)  # where no answer has to be waited for, others have their turn as well
        if broken is not None:
            raise broken
    finally:
        _cancel(window)
        bar.close()
        await source.close()


async def _next_row(source: _Source, told: News) -> tuple[Any, ...] | None:
    """Give the next row; None at the end, and while ``source.reading`` goes on, which is news when it is over."""
    if not source.is_async:
        return source.next()
    if source.reading is None:
        source.reading = reading(source.anext, told)
    if not source.reading.done():
        return None
    over, source.reading = source.reading, None
    row: tuple[Any, ...] | None = over.result()
    return row


async def _aadmitted(options: MapOptions, row: tuple[Any, ...]) -> Ticket:
    ticket = options.submit(row)
    attempt = 0
    while refusal := _refusal(ticket):
        await sleep(_pause(refusal, attempt))
        attempt = min(attempt + 1, 10)
        ticket = options.submit(row)
    return ticket


async def _aanswer(options: MapOptions, ticket: Ticket) -> Any:
    try:
        return await ticket
    except Exception as error:
        if options.return_exceptions and ticket.done():
            return error
        raise
