"""The dynamic batcher: many callers, few runs."""

from __future__ import annotations

import atexit
import itertools
import math
import os
import sys
import time
import warnings
import weakref
from _thread import RLock  # without the module threading, so that `import inferkit` stays cheap
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import _core
from ._arguments import sequence
from ._client import Client, named_client, named_clients
from ._initialised import says_if_not_initialised
from ._log import log
from ._map import MapOptions, amapped, mapped
from ._pad import NativePad, native_pad, pad_lengths, rows_of, rows_to_warm, shapes_of
from ._policy import Fixed, resolved
from ._signature import signature_differences
from ._stats import BatcherStats, stats_from
from ._tasks import sleep
from ._text import NAME_LIMIT, printable
from ._types import InputChecks, checks_by_name

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ._model import Model
    from .testing import ManualClock

__all__ = ["Batcher", "OutputChecks"]


@dataclass(frozen=True, kw_only=True)
class OutputChecks:
    """What is checked of an output before its request gets it.

    A request whose output fails gets an :class:`OutputError`; the other requests of its batch get their answers.

    Parameters
    ----------
    finite : bool
        There is no NaN and no infinity.
    shape : bool
        The dtype and the shape are those that the model declares.
    not_all_zero : bool
        At least one element is not zero.
    normalized : bool
        Along the last axis, no value is negative and the sum is 1, as for probabilities.
    tolerance : float
        How far from 1 a sum may be, and how far below 0 a value may be.

    Examples
    --------
    >>> import inferkit
    >>> inferkit.OutputChecks(normalized=True).tolerance
    0.001
    """

    finite: bool = True
    shape: bool = True
    not_all_zero: bool = False
    normalized: bool = False
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        self._native()  # checks each of them

    def _native(self) -> _core.OutputChecks:
        return _core.OutputChecks(
            finite=self.finite,
            not_all_zero=self.not_all_zero,
            shape=self.shape,
            normalized=self.normalized,
            tolerance=self.tolerance,
        )


@says_if_not_initialised
class Batcher(_core.Batcher):
    """Runs requests that arrive together as one batch, on native threads that take the GIL for wrapped callables alone.

    Call it as ``batcher(x)`` to wait for the answer, or use :meth:`submit` to get a ticket that threads and asyncio
    tasks can wait for. Every answer has the same bits as the model's answer to this request alone. Every request ends
    exactly once, and a bad request fails alone. A batcher is safe to use from any thread and any event loop. A process
    that forks needs a batcher of its own in each child. If a batcher is garbage-collected without having been closed
    while requests wait, Python shows a :class:`ResourceWarning`. Batchers that are open when the process exits are
    closed then; a daemon thread that still waits for an answer ends with :class:`SystemExit`, which Python does not
    print.

    Parameters
    ----------
    model : Model
        The first dimension of each of its inputs and outputs must be the batch. An input without dimensions, such as a
        sampling rate, is shared by all rows of a batch: requests with the same value run together. So is one of up to
        64 KiB whose shape the model file fixes while the first dimension of others is free, such as a table, where the
        model takes any number of rows beside it. If the model fixes the number of rows, batches that have fewer are
        filled up with copies of a row, and the answers to the copies are dropped. The first request that needs this
        runs twice more, beside other values. If its answer depends on them, or on its place in the batch, every request
        needs exactly that many rows, and others raise a :class:`ValidationError`.
    max_batch_size : int
        The most rows in a batch. A model that quantizes its inputs while it runs (``DynamicQuantizeLinear``) takes the
        range of all rows of a run together, so each request to such a model is a batch of its own.
    max_batch_elements : int, optional
        The most elements that the largest input of a batch has, its padding included (see `pad`): where rows differ in
        length, this bounds the memory and the duration of a run, which a number of rows does not. A batch of texts with
        ``max_batch_elements=4096`` has 8 rows of 512 tokens, or 128 of 32, if `max_batch_size` allows as many.
    max_delay : float, optional
        For how many seconds the oldest waiting request waits for others to join its batch, but not past its own
        timeout. With 0, a free worker takes what is there. By default `policy` decides.
    policy : "auto" or Fixed
        How batches are made. With ``"auto"``, as much as pays is batched, by what runs have been found to take: no more
        rows than make them cheaper, several smaller batches side by side where that is over sooner, and a worker that
        is free waits for a moment only where others have been found to come close behind. Until it has learnt that, it
        takes what is there up to `max_batch_size`, which is a bound in any case, as `max_delay` is where it is given.
        ``stats().policy`` says what it has come to. With a :class:`Fixed`, batches are as its numbers say.
    target_p99 : float, optional
        Within how many seconds 99% of the requests are to be answered. ``"auto"`` then chooses the rows of a batch, and
        how long it waits for others, by what runs take and by what comes: no batch that is too long for that, as long
        as smaller ones keep up with the load; and where there is time left, larger batches, which save work. It is an
        aim and no promise: requests that must not be late need a `timeout`. ``stats().policy`` says what was chosen,
        what it should bring, and whether the target can be kept.
    ageing : float or None
        How many seconds of waiting a level of priority is worth, so that no request waits without end: one goes before
        all of lower priority, unless they have waited `ageing` seconds longer for each level between. With ``None``,
        the highest priority always goes first, and under constant load the lowest may wait for ever. With 0, all
        requests go in the order in which they came, whatever their priorities and timeouts.
    weight : float
        Its share of the cores beside other batchers, from 0.001 to 1000: where :func:`set_max_concurrent` has set a
        limit and batches of several batchers wait for a core, each gets core time in proportion to its weight.
    max_queue_size : int or None
        How many requests may wait; ``None`` for any number.
    workers : int
        How many native threads run batches. Fewer, and one at least, where the user or the container may have no more
        threads.
    max_concurrent : int, optional
        How many batches may run at once, those on callers' threads included; by default as many as `workers`. For all
        batchers together there is :func:`set_max_concurrent`.
    on_full : {"reject", "wait"}
        What a submission to a full queue does: raise a :class:`QueueFullError`, or wait for room.
    full_timeout : float, optional
        For how many seconds it waits for room before it raises a :class:`QueueFullError`; by default without a limit.
    max_waiting : int or None
        How many submissions may wait for room at once; one more raises a :class:`QueueFullError`. This bounds how many
        requests asyncio tasks can pile up, since ``submit`` cannot block a task as it blocks a thread. ``None`` for any
        number.
    caller_runs : bool
        Whether a blocking caller that finds the batcher idle runs its request on its own thread, which saves the
        hand-over to a worker. Where the request has a deadline and the model is a wrapped callable, it does not: a
        callable that hangs would keep it past the deadline.
    isolate_failures : bool
        Whether the requests of a failed batch run again, in halves, so that only the bad ones fail: one of n is found
        with at most 2 log2(n) more runs, and each request that fails has failed alone. This is done if the model raised
        an error or returned a wrong shape or type; and, for a wrapped callable, if the outputs of some requests failed
        their checks.
    inline_limit : float
        The thread of an event loop itself runs batches that should take at most this many seconds. To hand a batch to a
        worker, and its answers back, takes two wake-ups, together 15 to 90 us; for shorter batches, running them is
        the shorter pause for the loop. A wrapped callable with requests that have deadlines always goes to a worker.
        0 turns this off.
    blocking_on_loop : {"allow", "warn", "refuse"}, optional
        What ``batcher(x)``, ``ticket.result()``, :meth:`map`, :meth:`drain` and :meth:`close` do on the thread of a
        running event loop before they wait for requests, which would block it: nothing, a ``RuntimeWarning``, or a
        ``RuntimeError``. So do :meth:`warm_up` and :meth:`swap` while requests are under way. By default they warn in
        debug mode: Python's (``python -X dev``), or asyncio's, if ``PYTHONASYNCIODEBUG`` is set or the loop that runs
        where the batcher is made has it on; else they allow it.
    clients : mapping of str to Client, optional
        Weights and rates of those who send requests (``client="a"`` at a submission), by name. Of one priority, clients
        that wait are served in proportion to their weights, in rows, whatever each of them sends; of one client, the
        earliest deadline goes first. Where a submission does not wait for room, a client may have no more places in the
        queue than are free, so that there is room for the others. Requests without a client share one of their own. As
        long as no client is named, none of this applies.
    default_client : Client, optional
        What holds for all other names; by default ``Client()``: weight 1, any rate. Up to 4096 of them are known at a
        time; those that have nothing waiting are forgotten for new ones.
    pad : mapping of str to (int, number), optional
        Inputs whose requests differ in length, with the axis along which they do, counted from the batch axis, 0, and
        the value to fill them up with: ``pad={"input_ids": (1, 0), "attention_mask": (1, 0)}``. So requests of nearly
        the same length share a batch; each answer is cut back to its request's own length, and is the same to the bit
        as without padding. That takes a model with a mask that leaves the padding out: it is tried when the batcher is
        made, in :meth:`warm_up`, and with the first requests of each length. Where answers differ, the first two raise
        a ``ValueError`` that says in what; found later, requests are no longer padded, and
        ``stats().padding_refused`` says why. Where padded batches turn out to cost more than their requests would by
        themselves, requests are not padded to that length for a while, and ``stats().padding_off`` has it.
    pad_to : int or iterable of int, optional
        To which lengths. By default 8, 10, 12, 14, 16, 20, 24, 28, 32 and so on, four for each power of two; with an
        integer, those up to it. Longer requests are not padded; no length is above 2**31 - 1.
    coalesce : bool
        Whether equal requests that are under way at the same time are computed once: those that have the same bytes in
        all inputs, and the same shapes. The first one runs, and each of the others gets a copy of its answer, or the
        same error. Each keeps its own timeout, and to cancel one ends no other. A request joins one that runs, or one
        that waits, if that is of the same client, is not behind it in order and has no later deadline; else it runs by
        itself. Requests that wait for another's answer take no room in the queue; there may be `max_queue_size` of
        them besides. A wrapped callable runs once for all of them, too. No caller runs its request itself (see
        `caller_runs`).
    result_cache : int, optional
        For how many bytes answers are kept, with the inputs of their requests, so that equal requests are answered at
        once; the one that was used longest ago goes first. No error is kept, and after :meth:`swap` no answer of the
        model before. The bytes come from the buffer pool and are counted as it counts them. No caller runs its request
        itself (see `caller_runs`).
    cache_callables : bool
        Whether answers of wrapped callables are kept as well: equal inputs must then always have equal answers. Without
        it, a `result_cache` for a callable raises a ``ValueError``, and is not used for one that :meth:`swap` puts in.
        Compiled models need no such word: even what they draw at random is the same in every run.
    trace_size : int
        How many of the last requests and batches :mod:`inferkit.tracing` keeps, at 128 bytes each; 0 for none.
    max_tag_sets : int
        How many different sets of tags (``tags={"endpoint": "search"}`` at a submission) are told apart in figures and
        traces, so that there are never more series than a metrics server can hold; at most 1000. The first ones that
        come are; all other requests with tags are counted together, as those with ``{"overflow": "true"}``.
    name : str, optional
        The name of the batcher in logs, traces and metrics; by default the name of the model's file, or ``batcher``,
        and a number. If an open batcher has the same name, a number is added. Characters that cannot be printed are
        escaped, and a long name is cut.
    input_checks : InputChecks or mapping of str to InputChecks, optional
        What is checked of inputs, instead of what the model was loaded with: of all of them, or by input name; for
        inputs that a mapping leaves out, the model's own checks hold. Requests without rows are always refused.
    output_checks : OutputChecks or mapping of str to OutputChecks, optional
        What is checked of outputs: of all of them, or by output name. By default every output must be finite and have
        the declared shape.

    Examples
    --------
    From threads:

    >>> import inferkit, numpy as np
    >>> model = inferkit.Model.from_callable(
    ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
    >>> with inferkit.Batcher(model, max_batch_size=8) as batcher:
    ...     batcher(np.ones(2, np.float32)).tolist()
    [2.0, 2.0]

    From asyncio:

    >>> import asyncio
    >>> async def main():
    ...     async with inferkit.Batcher(model) as batcher:
    ...         rows = [batcher.submit(np.full(2, i, np.float32)) for i in range(3)]
    ...         return [(await row).tolist() for row in rows]
    >>> asyncio.run(main())
    [[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]

    Who goes first: a higher priority, then the earliest deadline, then who came first.

    >>> order = []
    >>> model = inferkit.Model.from_callable(
    ...     lambda x: (order.append(int(x[0, 0])), x)[1],
    ...     inputs=[("x", "float32", (None, 1))], outputs=[("y", "float32", (None, 1))])
    >>> async def main():
    ...     async with inferkit.Batcher(model, max_batch_size=1, ageing=5.0) as batcher:
    ...         how = [{}, {"timeout": 9.0}, {"timeout": 3.0}, {"priority": 1}]
    ...         await asyncio.gather(*(batcher.submit([i], **options) for i, options in enumerate(how)))
    >>> asyncio.run(main())
    >>> order
    [3, 2, 0, 1]
    """

    __slots__ = ("_ended", "_gave_up", "_limits", "_max_elements", "_model", "_name", "_pad", "_warm")
    _model: Model
    _name: str
    _limits: dict[str, int]
    _max_elements: int | None
    _pad: NativePad
    _warm: bool

    def __init__(
        self,
        model: Model,
        *,
        max_batch_size: int = 64,
        max_batch_elements: int | None = None,
        max_delay: float | None = None,
        policy: Literal["auto"] | Fixed = "auto",
        target_p99: float | None = None,
        ageing: float | None = 10.0,
        weight: float = 1.0,
        max_queue_size: int | None = 1024,
        workers: int = 1,
        max_concurrent: int | None = None,
        on_full: Literal["reject", "wait"] = "reject",
        full_timeout: float | None = None,
        max_waiting: int | None = 1024,
        caller_runs: bool = True,
        isolate_failures: bool = True,
        inline_limit: float = 100e-6,
        blocking_on_loop: Literal["allow", "warn", "refuse"] | None = None,
        clients: Mapping[str, Client] | None = None,
        default_client: Client | None = None,
        pad: Mapping[str, tuple[int, float]] | None = None,
        pad_to: int | Iterable[int] | None = None,
        coalesce: bool = False,
        result_cache: int | None = None,
        cache_callables: bool = False,
        trace_size: int = 4096,
        max_tag_sets: int = 100,
        name: str | None = None,
        input_checks: InputChecks | Mapping[str, InputChecks] | None = None,
        output_checks: OutputChecks | Mapping[str, OutputChecks] | None = None,
        _clock: ManualClock | None = None,
    ) -> None:
        if not isinstance(model, _core.Model):
            raise TypeError(f"model must be an inferkit.Model, got {type(model).__name__}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, or None for one made up, got {type(name).__name__}")
        if on_full not in ("reject", "wait"):
            raise ValueError(f"on_full must be 'reject' or 'wait', got {on_full!r}")
        if blocking_on_loop not in (None, "allow", "warn", "refuse"):
            raise ValueError(f"blocking_on_loop must be 'allow', 'warn', 'refuse' or None, got {blocking_on_loop!r}")
        if default_client is not None and not isinstance(default_client, Client):
            raise TypeError(f"default_client must be an inferkit.Client, got {type(default_client).__name__}")
        auto, rows, delay, finds_delay, target = resolved(policy, max_batch_size, max_delay, target_p99)
        checks = checks_by_name(input_checks, model.inputs)
        padded = native_pad(pad, model.inputs)
        lengths, longest = pad_lengths(pad_to, bool(padded))
        super().__init__(
            model,
            max_batch_size=rows,
            max_batch_elements=max_batch_elements,
            max_delay=delay,
            auto_size=auto,
            auto_delay=finds_delay,
            target_p99=target,
            ageing=ageing,
            weight=weight,
            max_queue_size=max_queue_size,
            workers=workers,
            max_concurrent=max_concurrent,
            wait_when_full=on_full == "wait",
            full_timeout=full_timeout,
            max_waiting=max_waiting,
            caller_runs=caller_runs,
            isolate_failures=isolate_failures,
            inline_limit=inline_limit,
            trace_size=trace_size,
            max_tag_sets=max_tag_sets,
            inputs=[checks[spec.name]._native() if spec.name in checks else None for spec in model.inputs],
            outputs=_checks_by_output(model, output_checks),
            clients=named_clients(clients),
            default_client=named_client("", default_client or Client()),
            pad=padded,
            pad_to=lengths,
            pad_longest=longest,
            coalesce=coalesce,
            result_cache=result_cache,
            cache_callables=cache_callables,
            clock=_clock,
        )
        self._set_on_loop(
            blocking_on_loop == "warn" or (not blocking_on_loop and _debugs()), blocking_on_loop == "refuse"
        )
        self._pad = padded
        self._max_elements = max_batch_elements
        if padded:
            try:
                lengths = self._pad_lengths(40)
                few = [length for length in lengths if length <= 64] or lengths[:1]
                self._prove_padding(model, None, sorted({*few[:1], *few[-1:]}), brief=True)
            except BaseException:
                self._close(False, None)
                raise
        self._model = model
        self._name = _unique(name) if name else _new_name(model)
        self._warm = False
        self._ended = False
        self._gave_up = False  # close(timeout=) has, and leaving a `with` block waits no longer
        self._limits = {
            "max_queue_size": int(max_queue_size or 0),
            "workers": int(workers),
            "max_concurrent": int(max_concurrent or workers),
        }
        _open.add(self)
        _have_watched(model)
        log("batcher", "made", {"batcher": self._name, "max_batch_size": self._max_rows, **self._limits})

    @property
    def model(self) -> Model:
        """The model that it runs."""
        return self._model

    @property
    def name(self) -> str:
        """The name of the batcher in logs, traces and metrics."""
        return self._name

    @property
    def max_batch_size(self) -> int:
        """The most rows in a batch: the argument, or the size that the model fixes."""
        return self._max_rows

    @property
    def closed(self) -> bool:
        """Whether the batcher is closed: it takes no more requests."""
        return self._closed

    def map(
        self,
        *iterables: Iterable[Any],
        max_outstanding: int | None = None,
        timeout: float | None = None,
        priority: int = 0,
        client: str | None = None,
        tags: Mapping[str, str] | None = None,
        return_exceptions: bool = False,
        progress: bool = False,
    ) -> Iterator[Any]:
        """Run a request for each item of an iterable, however long it is; give the answers in its order.

        As with the builtin, a model of several inputs takes an iterable for each, or one of dicts. Nothing is read
        before the first answer is asked for, and then no more than `max_outstanding` items ahead of the answers taken.
        Who leaves early (``break``, an exception, ``close()`` of the iterator) cancels what is under way. A queue that
        others have filled makes it wait. On an event loop use :meth:`amap`: this would block it.

        Parameters
        ----------
        *iterables : iterable
            Arrays, one iterable for each input of the model; or a single one of dicts.
        max_outstanding : int, optional
            Requests under way at once, those included whose answers have not been taken; by default as many as keep
            full batches running, and no more than the queue has room for.
        timeout : float, optional
            Seconds for each request, as in :meth:`submit`.
        priority : int
            Of each request.
        client : str, optional
            Of each request, as in :meth:`submit`. Where it has used up its rate, the iterator waits.
        tags : mapping of str to str, optional
            Of each request, as in :meth:`submit`.
        return_exceptions : bool
            Give the error of a request in the place of its answer. By default the first one is raised in that place,
            and the rest cancelled.
        progress : bool
            Show a bar, where the package tqdm is installed.

        Returns
        -------
        iterator
            What ``batcher(item)`` would return, for each item. What an iterable itself raises is raised behind the
            answers to the items before.

        Examples
        --------
        >>> import inferkit, numpy as np
        >>> model = inferkit.Model.from_callable(
        ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
        >>> with inferkit.Batcher(model) as batcher:
        ...     sum(float(y[0]) for y in batcher.map(np.full(2, i, np.float32) for i in range(1000)))
        999000.0
        """
        options = MapOptions(
            self,
            max_outstanding=max_outstanding,
            timeout=timeout,
            priority=priority,
            client=client,
            tags=tags,
            return_exceptions=return_exceptions,
            progress=progress,
        )
        return mapped(options, iterables)

    def amap(
        self,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        max_outstanding: int | None = None,
        timeout: float | None = None,
        priority: int = 0,
        client: str | None = None,
        tags: Mapping[str, str] | None = None,
        return_exceptions: bool = False,
        progress: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """Run requests as :meth:`map` does, for a task of asyncio or trio: ``async for answer in batcher.amap(rows)``.

        The iterables may be asynchronous ones; while the next item is awaited, answers are given that are there. To
        leave early and have the rest cancelled at once, and not when the garbage collector comes, put it into
        ``contextlib.aclosing``.

        Examples
        --------
        >>> import asyncio, inferkit, numpy as np
        >>> model = inferkit.Model.from_callable(
        ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
        >>> async def rows():
        ...     for i in range(3):
        ...         yield np.full(2, i, np.float32)
        >>> async def main():
        ...     async with inferkit.Batcher(model) as batcher:
        ...         return [answer.tolist() async for answer in batcher.amap(rows())]
        >>> asyncio.run(main())
        [[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]
        """
        options = MapOptions(
            self,
            max_outstanding=max_outstanding,
            timeout=timeout,
            priority=priority,
            client=client,
            tags=tags,
            return_exceptions=return_exceptions,
            progress=progress,
        )
        return amapped(options, iterables)

    def stats(self) -> BatcherStats:
        """Take a snapshot of the figures.

        Returns
        -------
        BatcherStats
            Frozen.

        Examples
        --------
        >>> import inferkit, numpy as np
        >>> model = inferkit.Model.from_callable(
        ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
        >>> with inferkit.Batcher(model, max_batch_size=4) as batcher:
        ...     _ = batcher(np.ones((2, 2), np.float32))
        ...     stats = batcher.stats()
        >>> stats.completed, stats.mean_batch_size, stats.batch_fill_rate
        (1, 2.0, 0.5)
        """
        return stats_from(self._stats())

    def warm_up(
        self, batch_sizes: Iterable[int] | None = None, *, shapes: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        """Run the model for each batch size, so that the first requests find everything compiled.

        Compiled models run a few times, so that `policy` and deadlines know from the first request on what runs take:
        up to five times for each size, those after the first for no longer than 50 ms or one run.

        Until then, or until a request has run, the process is not ready for :mod:`inferkit.health`.

        Parameters
        ----------
        batch_sizes : iterable of int, optional
            The numbers of rows; by default the most that a batch may have and all powers of two below.
        shapes : mapping, optional
            As in :meth:`Model.warm_up`. What is padded is run at each of the lengths that it is padded to, up to the
            one that is given here or, without one, to the longest of `pad_to`.

        Raises
        ------
        ValueError
            As in :meth:`Model.warm_up`; or the answers to padded requests would not be those to the requests.
        """
        self._may_hold_up("batcher.warm_up()", "await asyncio.to_thread(batcher.warm_up)")
        self._warm_up(self._model, batch_sizes, shapes)
        self._warm = True

    def _may_hold_up(self, what: str, instead: str) -> None:
        """Before the caller runs a model while requests are under way: an event loop on its thread would wait."""
        if self._unanswered():
            self._may_block(what, f"the model has run for each batch size: {instead}, instead", 3)

    def _warm_up(
        self, model: Model, batch_sizes: Iterable[int] | None, shapes: Mapping[str, Sequence[int]] | None
    ) -> None:
        given = None if batch_sizes is None else sequence(batch_sizes, "batch_sizes", "an iterable of integers")
        shapes = shapes_of(shapes)
        if not self._pad:
            return self._warm_up_at(model, given, shapes)
        if given == []:
            return None
        lengths = self._lengths_to_warm(shapes)
        self._prove_padding(model, shapes, lengths)
        for length in lengths:
            rows = rows_to_warm(model.inputs, self._pad, shapes, length)
            self._warm_up_at(model, given, rows)
        return None

    def _warm_up_at(self, model: Model, given: list[int] | None, shapes: Mapping[str, Sequence[int]] | None) -> None:
        sizes = self._sizes(model, shapes) if given is None else given
        model.warm_up(sizes, shapes=shapes)
        for feeds in model._feeds(sorted((int(size) for size in sizes), reverse=True), shapes):
            self._teach(feeds, model)

    def _sizes(self, model: Model, shapes: Mapping[str, Sequence[int]] | None) -> list[int]:
        largest = self._max_rows
        if self._max_elements:
            row = max(math.prod(size for size in row if size > 0) for row in rows_of(model.inputs, shapes))
            largest = max(1, min(largest, int(self._max_elements) // row))
        return sorted({*(2**k for k in range(largest.bit_length())), largest})

    def _lengths_to_warm(self, shapes: Mapping[str, Sequence[int]] | None) -> list[int]:
        for row, spec, (axis, _) in zip(
            rows_of(self._model.inputs, shapes), self._model.inputs, self._pad, strict=True
        ):
            if axis and shapes and spec.name in shapes and axis <= len(row):
                return self._pad_lengths(max(1, row[axis - 1]))
        lengths = self._pad_lengths(0)
        if not lengths:
            raise ValueError(
                "requests of any length are padded, so nobody knows which lengths to warm up: give pad_to to the "
                "Batcher, or warm_up(shapes=...) with the longest"
            )
        return lengths

    def _prove_padding(
        self, model: Model, shapes: Mapping[str, Sequence[int]] | None, lengths: Sequence[int], *, brief: bool = False
    ) -> None:
        if why := self._pad_refusal(model, rows_of(model.inputs, shapes), list(lengths), brief):
            raise ValueError(
                f"requests to this model cannot be padded: {why}. Padding is for models with a mask that leaves it "
                "out: name the mask in pad as well, with the value that does so, or leave pad out"
            )

    def swap(
        self,
        model: Model,
        *,
        batch_sizes: Iterable[int] | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> Model:
        """Put another model in the place of the present one, while requests come; none is lost or refused for it.

        The other one is warmed up first, on the calling thread, as :meth:`warm_up` does it: until it is ready the
        present one answers. `policy` and deadlines then go by what the other's runs took there and take from then on,
        no longer by the present one's. A batch that runs then goes on to its end on the model that it began with, and
        each that begins later runs on the other, also with requests that were submitted before. The batcher keeps its
        name, its figures, its checks and its limits; what of the checks is left to the model (see :class:`InputChecks`)
        is left to the other one for requests from then on.

        Parameters
        ----------
        model : Model
            Its inputs and outputs have the names, types and shapes of the present one's.
        batch_sizes, shapes
            As in :meth:`warm_up`; no batch sizes (``()``) for no warm-up.

        Returns
        -------
        Model
            The one before.

        Raises
        ------
        ValueError
            The other's signature differs; the message says in what.
        ClosedError
            The batcher takes no more requests.

        Examples
        --------
        >>> import inferkit, numpy as np
        >>> def times(factor):
        ...     return inferkit.Model.from_callable(
        ...         lambda x: x * np.float32(factor),
        ...         inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
        >>> with inferkit.Batcher(times(2)) as batcher:
        ...     before = batcher.submit(np.ones(2, np.float32)).result()
        ...     _ = batcher.swap(times(3))
        ...     before.tolist(), batcher(np.ones(2, np.float32)).tolist()
        ([2.0, 2.0], [3.0, 3.0])
        """
        before = self._model
        if not isinstance(model, _core.Model):
            raise TypeError(f"model must be an inferkit.Model, got {type(model).__name__}")
        if differences := signature_differences(before, model):
            raise ValueError("the models differ, and requests that wait fit only one: " + "; ".join(differences))
        if self._closed:
            _core.refuse_closed("the batcher is draining or closed: it runs no other model any more")
        self._may_hold_up("batcher.swap()", "await asyncio.to_thread(batcher.swap, model)")
        self._warm_up(model, batch_sizes, shapes)
        with _ending:  # or another thread's model would be in one place, and this one in the other
            if self._closed:
                _core.refuse_closed("the batcher was closed while the model was warmed up")
            self._swap(model)
            before, self._model = self._model, model
        _have_watched(model)
        log("batcher", "swapped", {"batcher": self._name, "model": repr(model)})
        return before

    def drain(self, timeout: float | None = None) -> bool:
        """Take no more requests, and wait until those that were taken have ended.

        On the thread of an event loop, which that blocks, `blocking_on_loop` says what it does instead; a call that it
        refuses changes nothing.

        Parameters
        ----------
        timeout : float, optional
            For how many seconds to wait at most.

        Returns
        -------
        bool
            Whether all of them have ended. If a run of this batcher calls it, it does not wait and returns False.
        """
        return self._drain(timeout)

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Take no more requests, finish those that were taken, and stop the workers.

        If it is interrupted (Ctrl-C), the batcher takes no more requests, and may be closed again. When the process
        exits, every open batcher is closed without draining, and a batch that runs then gets 5 s to finish. On an event
        loop use :meth:`aclose`: where requests have not ended, this blocks it, if `blocking_on_loop` lets it; a call
        that it refuses changes nothing.

        Parameters
        ----------
        drain : bool
            With False, requests that do not run yet end with a :class:`ClosedError`; those that run finish.
        timeout : float, optional
            For how many seconds to wait at most; by default as long as it takes. Requests that have not ended by then
            end with a :class:`ClosedError`, even if their batch still runs: a model that hangs keeps its thread, and
            nobody waits for it.

        Returns
        -------
        bool
            Whether everything has stopped; False if a batch still runs. If a run of this batcher calls it (the wrapped
            callable, or a signal handler while the caller's thread runs a request), the batcher takes no more requests,
            and the call returns False at once: call it again afterwards. After a False for a ``timeout`` that passed,
            the end of a ``with`` block does not wait either.

        Examples
        --------
        >>> import inferkit
        >>> model = inferkit.Model.from_callable(
        ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
        >>> batcher = inferkit.Batcher(model)
        >>> batcher.close(timeout=5.0)
        True
        """
        stopped = self._close(drain, timeout)
        if stopped is None:
            return False  # the next call, or the exit, stops the workers
        self._gave_up = not stopped
        return self._note_closed(stopped)

    async def aclose(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Close as :meth:`close` does, without blocking the event loop.

        If the task is cancelled meanwhile, the batcher takes no more requests, and may be closed again.
        """
        self._begin_close(drain, timeout)
        until = math.inf if timeout is None else time.monotonic() + float(timeout)
        pause = 0.0005
        while not self._poll_close(drain):
            left = until - time.monotonic()
            if left <= 0:
                return self.close(drain=False, timeout=0.0)
            # No thread waits for it: one that does is what asyncio.run() itself would wait for at its end.
            await sleep(min(pause, left))
            pause = min(2 * pause, 0.02)
        return self._note_closed(True)

    def _note_closed(self, stopped: bool) -> bool:
        # None where __del__() of what the interpreter frees last closes it: modules are empty by then.
        if _open is not None and self in _open:
            global _closed_any
            _closed_any = True
            self._note_ended()
            log("batcher", "closed", {"batcher": self._name, "stopped": stopped})
        return stopped

    def _note_ended(self) -> None:
        with _ending:
            _open.discard(self)
            for note in [] if self._ended else _when_ended:
                note(self)
            self._ended = True

    def _dropped(self, _warn: Callable[..., None] = warnings.warn) -> None:
        """Warn where requests are lost with a batcher that nobody has closed: for ``__del__``, which the core has."""
        try:
            name = self._name
        except TypeError:  # __init__() has not come that far
            return
        if _when_ended:
            self._note_ended()
        if waiting := self._unanswered():
            told = f"unclosed batcher {name} is dropped, and {waiting} or more of its requests have no answer"
            _warn(f"{told}: close() it, or use it in a `with` block", ResourceWarning, stacklevel=2)

    def _forget(self) -> None:
        if _open is not None:
            _open.discard(self)

    def __enter__(self) -> Self:
        """Return the batcher, which the end of the block closes."""
        _ = self._name  # a batcher whose __init__ did not run says so here already
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; where the block ends by an exception, with ``drain=False``."""
        self.close(drain=kind is None, timeout=0.0 if self._gave_up else None)

    async def __aenter__(self) -> Self:
        """Return the batcher, which the end of the block closes."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it as a ``with`` block does, without holding the event loop."""
        await self.aclose(drain=kind is None, timeout=0.0 if self._gave_up else None)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<inferkit.Batcher of {self._model!r}, max_batch_size={self._max_rows}, {state}>"


def _debugs() -> bool:
    """Tell whether Python, or asyncio here, is in debug mode; nobody runs a loop who has not imported it."""
    if sys.flags.dev_mode or (os.environ.get("PYTHONASYNCIODEBUG") and not sys.flags.ignore_environment):
        return True
    asyncio = sys.modules.get("asyncio")
    loop = getattr(asyncio, "_get_running_loop", lambda: None)()
    return loop is not None and bool(loop.get_debug())


def _new_name(model: Model) -> str:
    path = getattr(model, "path", None)
    return f"{printable(os.path.basename(path), NAME_LIMIT) if path else 'batcher'}-{next(_numbers)}"


def _unique(name: str) -> str:
    # Here, so that two names that would be shown alike are told apart.
    name = printable(name, NAME_LIMIT)
    taken = {batcher._name for batcher in _open_batchers()}
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(candidate for candidate in names if candidate not in taken)


def _checks_by_output(
    model: Model, checks: OutputChecks | Mapping[str, OutputChecks] | None
) -> list[_core.OutputChecks]:
    if checks is None or isinstance(checks, OutputChecks):
        return [(checks or OutputChecks())._native()] * len(model.outputs)
    if not isinstance(checks, Mapping):
        raise TypeError(f"output_checks must be OutputChecks or a mapping of them, got {type(checks).__name__}")
    for name, check in checks.items():
        for one, kind in ((name, str), (check, OutputChecks)):
            if not isinstance(one, kind):
                raise TypeError(f"output_checks must map names to OutputChecks, got {type(one).__name__}")
    names = [spec.name for spec in model.outputs]
    unknown = set(checks) - set(names)
    if unknown:
        told = ", ".join(sorted(map(repr, unknown)))
        known = ", ".join(map(repr, names))
        raise ValueError(f"output_checks for {told}, which the model does not have; its outputs are {known}")
    return [checks.get(name, OutputChecks())._native() for name in names]


# Workers must be gone before the interpreter is: one that runs a wrapped callable would wait in vain for the GIL.
_open: weakref.WeakSet[Batcher] = weakref.WeakSet()
_when_ended: list[Callable[[Batcher], object]] = []  # told once of each batcher that is closed, or dropped
# Who has it finds a batcher open, or noted as ended, and with the model that it runs. Signal handlers close, too.
_ending = RLock()
_numbers = itertools.count(1)
_closed_any = False  # for inferkit.health: none is open since all are closed, or since none was made


def _have_watched(model: Model) -> None:
    """Have a callable looked after, which may hang; compiled models do not."""
    if not model._is_native:
        from . import _watchdog

        _watchdog.start()


def _open_batchers() -> list[Batcher]:
    """Every open batcher of the process, by name."""
    while True:
        try:
            return sorted(_open, key=lambda batcher: batcher._name)
        except RuntimeError:  # noqa: PERF203 - another thread made or closed one meanwhile
            continue


def _in_a_child() -> None:
    global _ending  # which a thread of the parent may have held
    _ending = RLock()


os.register_at_fork(after_in_child=_in_a_child)

_EXIT_SECONDS = 5.0  # that batches which run at the exit of the process get to finish, all of them together


@atexit.register
def _close_all() -> None:
    _core.begin_exit()
    until = time.monotonic() + _EXIT_SECONDS
    batchers = _open_batchers()
    for batcher in batchers:
        batcher._begin_close(False)
    failed: list[Exception] = []
    for batcher in batchers:  # by this class's close(): a subclass's own may take or do anything
        try:
            Batcher.close(batcher, drain=False, timeout=max(0.0, until - time.monotonic()))
        except Exception as error:  # noqa: PERF203 - the others are closed all the same
            failed.append(error)
    if failed:
        raise failed[0]


_core.install_batcher_call(Batcher)
