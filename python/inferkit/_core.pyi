"""
The native core of inferkit. Its public face is the package inferkit.
"""

from __future__ import annotations

import collections.abc
import contextvars
import os
import typing

import numpy

__all__: list[str] = [
    "Batcher",
    "Buffer",
    "BufferPool",
    "InputChecks",
    "LeakRow",
    "ManualClock",
    "Model",
    "OutputChecks",
    "PoolStats",
    "Runner",
    "Ticket",
    "Timing",
    "Weights",
    "begin_exit",
    "build_info",
    "error_table",
    "explain_model",
    "inspect_onnx",
    "install_batcher_call",
    "install_call",
    "lowerings",
    "profile_model",
    "reasons",
    "register_running_loop",
    "resident_bytes",
    "supported_ops",
    "trace_steps",
    "traced_steps",
]

class PoolStats:
    """
    A snapshot of a :class:`BufferPool`'s figures.
    """
    def __repr__(self) -> str: ...
    @property
    def cached_bytes(self) -> int:
        """
        Held from the system and free.
        """
    @property
    def hits(self) -> int:
        """
        Acquisitions that a cache served.
        """
    @property
    def in_use_bytes(self) -> int:
        """
        Set aside for buffers that are out.
        """
    @property
    def max_bytes(self) -> int | None:
        """
        The cap; None where there is none.
        """
    @property
    def misses(self) -> int:
        """
        Acquisitions that asked the system for memory.
        """
    @property
    def outstanding(self) -> int:
        """
        Buffers that are out.
        """
    @property
    def peak_bytes(self) -> int:
        """
        The most held at once, in use and cached.
        """

class LeakRow:
    """
    Buffers of one user and one size class that are out.
    """
    def __repr__(self) -> str: ...
    @property
    def bytes(self) -> int:
        """
        Bytes asked for, summed.
        """
    @property
    def capacity(self) -> int:
        """
        Bytes set aside for each.
        """
    @property
    def count(self) -> int:
        """
        How many.
        """
    @property
    def tag(self) -> str:
        """
        Who acquired them.
        """

class Buffer:
    """
    Memory on loan from a :class:`BufferPool`.

    Supports the buffer protocol as writable, contiguous bytes, aligned to 64 bytes and not initialised; numpy views it
    without a copy. Goes back to the pool with :meth:`release`, at the end of a ``with`` block, or when the last reference
    to it and to its views is gone, whichever comes first.

    Examples
    --------
    >>> import inferkit, numpy as np
    >>> pool = inferkit.BufferPool()
    >>> with pool.acquire(4 * 6) as buffer:
    ...     x = np.frombuffer(buffer, np.float32).reshape(2, 3)
    ...     x[:] = 1.5
    ...     total = float(x.sum())
    ...     del x
    >>> total
    9.0
    >>> buffer.released
    True
    """
    def __enter__(self) -> typing.Any: ...
    def __exit__(self, arg0: typing.Any, arg1: typing.Any, arg2: typing.Any) -> None: ...
    def __len__(self) -> int: ...
    def __repr__(self) -> str: ...
    def release(self) -> None:
        """
        Give the memory back now; does nothing the second time.

        Raises
        ------
        BufferError
            If a numpy array or a memoryview still looks at it.
        """
    @property
    def capacity(self) -> int:
        """
        The bytes set aside for it; 0 once it was released.
        """
    @property
    def nbytes(self) -> int:
        """
        The size that was asked for, in bytes.
        """
    @property
    def released(self) -> bool:
        """
        Whether it went back.
        """

class BufferPool:
    """
    Memory for buffers that come and go often: size classes, per-thread caches, a hard cap.

    Safe to use from many threads. After warm-up it asks the system for nothing. Buffers that are out keep their memory
    when the pool object is gone.

    Parameters
    ----------
    max_bytes : int, optional
        Hard cap on the bytes held from the system, in use and cached together; none by default.
    thread_cache_bytes : int
        Free memory that one thread keeps for itself.
    shared_cache_bytes : int
        Free memory that all threads share; what is beyond goes back to the system.

    Raises
    ------
    ValueError
        If a size is negative, or the cap is smaller than the smallest buffer (64 bytes).

    Examples
    --------
    >>> import inferkit
    >>> pool = inferkit.BufferPool(max_bytes=1 << 20)
    >>> a = pool.acquire(1000)
    >>> pool.stats().in_use_bytes, pool.stats().outstanding
    (1024, 1)
    >>> a.release()
    >>> pool.stats().cached_bytes, pool.trim()
    (1024, 1024)
    """
    @staticmethod
    def default() -> BufferPool:
        """
        The pool that the whole process shares: models and batchers take their memory from it.
        """
    def __init__(
        self,
        max_bytes: typing.SupportsInt | typing.SupportsIndex | None = None,
        *,
        thread_cache_bytes: typing.SupportsInt | typing.SupportsIndex = 4194304,
        shared_cache_bytes: typing.SupportsInt | typing.SupportsIndex = 268435456,
    ) -> None: ...
    def __repr__(self) -> str: ...
    def acquire(self, nbytes: typing.SupportsInt | typing.SupportsIndex) -> Buffer:
        """
        Lend a buffer of ``nbytes`` bytes.

        Parameters
        ----------
        nbytes : int
            The size that the buffer will show. What the pool sets aside is the next size class, less than 25% above it from
            256 bytes on.

        Returns
        -------
        Buffer
            Writable and not initialised.

        Raises
        ------
        PoolExhaustedError
            If the cap, or the system's memory, does not allow it even after every cache has been emptied.
        ValueError
            If ``nbytes`` is negative.
        """
    def leaks(self) -> list[LeakRow]:
        """
        List the buffers that are out, by user and size class, most bytes first.

        Returns
        -------
        list of LeakRow

        Examples
        --------
        >>> import inferkit
        >>> pool = inferkit.BufferPool()
        >>> kept = pool.acquire(100)
        >>> pool.leaks()
        [LeakRow(tag='python', capacity=128, count=1, bytes=100)]
        """
    def stats(self) -> PoolStats:
        """
        Take a snapshot of the pool's figures.

        Returns
        -------
        PoolStats
            Frozen; bytes are those set aside (the size class), not those asked for.
        """
    def trim(self) -> int:
        """
        Give all cached memory back to the system.

        Returns
        -------
        int
            How many bytes went back.
        """

class Weights:
    """
    Named tensors in a mapped file: a read-only mapping from names to arrays.

    ``weights["name"]`` is a read-only numpy view onto the file's pages. Threads, models and processes that open the same
    file share its memory. A view keeps the file mapped after the ``Weights`` object is gone. Of an ONNX file, the tensors
    that a model would copy (small ones, whole numbers, those at odd addresses) are copies here too.

    A file promises no alignment: a view may have ``flags.aligned`` false, and is a correct array all the same. Types that
    numpy lacks (bfloat16, floats of 8 and 4 bits, integers of 4 and 2) come as those of ``ml_dtypes`` where that package is
    installed, else as their bits in ``uint16`` or ``uint8``; :meth:`dtype` tells which it is. Where elements share bytes in
    the file, the view is onto an unpacked copy.

    The file must stay as it is while it is open; a new one renamed over it does no harm. Once it has changed,
    ``weights[name]`` raises ModelError. Arrays that were handed out before cannot: they show what is written into the
    file, and reading a part that was cut off ends the process (SIGBUS). Where others may do that, open the file with
    ``mmap=False``.

    Examples
    --------
    >>> import inferkit, numpy as np, os, tempfile
    >>> from safetensors.numpy import save_file
    >>> path = os.path.join(tempfile.mkdtemp(), "w.safetensors")
    >>> save_file({"fc.weight": np.eye(2, dtype=np.float32)}, path)
    >>> weights = inferkit.Weights.open(path)
    >>> list(weights), weights.nbytes
    (['fc.weight'], 16)
    >>> weights["fc.weight"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    >>> weights["fc.weight"].flags.writeable
    False
    """
    @staticmethod
    def open(path: os.PathLike[str] | str | bytes, *, mmap: bool = True) -> Weights:
        """
        Map a safetensors file, or the initializers of an ONNX model and its external data.

        The whole header is checked before anything is read, and the pages are read ahead.

        Parameters
        ----------
        path : str or path-like
            A file whose name ends in ``.onnx`` is read as a model, any other as safetensors.
        mmap : bool
            False reads the file into memory instead: for files that others rewrite in place.

        Raises
        ------
        ModelError
            If the file is truncated, too long, malformed, or of a dtype that inferkit does not read; or if it changes while
            it is read.
        OSError
            If the file cannot be opened (``FileNotFoundError`` where there is none).
        """
    def __contains__(self, name: typing.Any) -> bool: ...
    def __getitem__(self, name: str) -> numpy.ndarray: ...
    def __iter__(self) -> collections.abc.Iterator[str]: ...
    def __len__(self) -> int: ...
    def __repr__(self) -> str: ...
    def dtype(self, name: str) -> str:
        """
        The element type that the file gives for a tensor, for example ``"bfloat16"``.
        """
    def get(self, name: str, default: typing.Any = None) -> typing.Any:
        """
        The tensor of that name, or ``default`` where there is none.
        """
    def items(self) -> collections.abc.ItemsView[str, numpy.ndarray]:
        """
        Pairs of name and tensor, in the order of the file.
        """
    def keys(self) -> collections.abc.KeysView[str]:
        """
        The names, in the order of the file.
        """
    def values(self) -> collections.abc.ValuesView[numpy.ndarray]:
        """
        The tensors, in the order of the file.
        """
    @property
    def file_bytes(self) -> int:
        """
        The size of the file.
        """
    @property
    def metadata(self) -> dict[str, str]:
        """
        What the file says of itself: a dict of strings, a copy.
        """
    @property
    def nbytes(self) -> int:
        """
        The bytes of all tensors.
        """
    @property
    def path(self) -> str:
        """
        The file that was opened; empty where the tensors came from none.
        """

class InputChecks:
    def __init__(
        self,
        *,
        finite: bool = True,
        non_empty: bool = True,
        min_length: typing.SupportsInt | typing.SupportsIndex = 0,
        max_length: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None: ...

class Runner:
    pass

class Model:
    def __call__(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any: ...
    @typing.overload
    def __init__(
        self,
        *,
        path: os.PathLike[str] | str | bytes,
        threads: typing.SupportsInt | typing.SupportsIndex | None,
        max_plans: typing.SupportsInt | typing.SupportsIndex,
        max_run_bytes: typing.SupportsInt | typing.SupportsIndex | None,
        max_iterations: typing.SupportsInt | typing.SupportsIndex,
        outputs: collections.abc.Sequence[str],
        mmap: bool,
        checks: InputChecks,
    ) -> None: ...
    @typing.overload
    def __init__(
        self,
        *,
        data: bytes,
        threads: typing.SupportsInt | typing.SupportsIndex | None,
        max_plans: typing.SupportsInt | typing.SupportsIndex,
        max_run_bytes: typing.SupportsInt | typing.SupportsIndex | None,
        max_iterations: typing.SupportsInt | typing.SupportsIndex,
        outputs: collections.abc.Sequence[str],
        checks: InputChecks,
    ) -> None: ...
    @typing.overload
    def __init__(
        self,
        *,
        callable: typing.Any,
        inputs: collections.abc.Sequence[
            tuple[str, str, collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex | None]]
        ],
        outputs: collections.abc.Sequence[
            tuple[str, str, collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex | None]]
        ],
        checks: InputChecks,
    ) -> None: ...
    def _memory(self) -> dict[str, typing.Any]: ...
    def _metadata(self) -> dict[str, typing.Any]: ...
    def _run(self, feeds: dict[str, typing.Any], out: dict[str, typing.Any] | None = None) -> dict[str, typing.Any]: ...
    def _weights(self) -> Weights: ...
    def trim(self) -> None:
        """
        Frees the scratch memory of plans that no run is using.
        """
    @property
    def _inputs(self) -> list[typing.Any]: ...
    @property
    def _is_native(self) -> bool: ...
    @property
    def _outputs(self) -> list[typing.Any]: ...
    @property
    def path(self) -> str:
        """
        The file that the model came from; empty where it came from none.
        """

class Timing:
    """
    When what happened to a request, in seconds of ``time.monotonic()``; None for what did not happen.
    """
    def __repr__(self) -> str: ...
    @property
    def batch_id(self) -> int | None:
        """
        The number of its batch; None where it was in none.
        """
    @property
    def batch_size(self) -> int | None:
        """
        Rows in its batch.
        """
    @property
    def compute_time(self) -> float | None:
        """
        Seconds that its batch took, the checks of its outputs included.
        """
    @property
    def delivered(self) -> float | None:
        """
        The caller took the answer, or the error.
        """
    @property
    def dequeued(self) -> float | None:
        """
        It was put into a batch.
        """
    @property
    def enqueued(self) -> float | None:
        """
        It was submitted.
        """
    @property
    def finished(self) -> float | None:
        """
        The request ended.
        """
    @property
    def queue_time(self) -> float | None:
        """
        Seconds from submission to the start of its batch; None where that has not run.
        """
    @property
    def started(self) -> float | None:
        """
        The batch began to run.
        """
    @property
    def total_time(self) -> float | None:
        """
        Seconds from submission to its end, whatever that was; None where it has not ended.
        """

class Ticket(collections.abc.Coroutine[typing.Any, typing.Any, typing.Any]):
    """
    A request on its way: wait for it with ``result()``, or ``await`` it.

    Made by :meth:`Batcher.submit`. Safe to use from any thread; tasks of one event loop at a time may await it. A task that
    is cancelled while it awaits cancels its request. Dropping a ticket drops its answer, not the request.

    To asyncio it is a coroutine that any number of tasks may run: ``gather``, ``as_completed``, ``wait_for``, ``shield`` and
    ``TaskGroup.create_task`` take it as it is. ``asyncio.wait`` wants tasks: ``asyncio.wait([asyncio.create_task(ticket)])``.

    Examples
    --------
    >>> import inferkit, numpy as np
    >>> model = inferkit.Model.from_callable(
    ...     lambda x: x + 1, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
    >>> with inferkit.Batcher(model) as batcher:
    ...     ticket = batcher.submit(np.zeros(2, np.float32), request_id="a1")
    ...     answer = ticket.result()
    >>> answer.tolist(), ticket.request_id, ticket.done()
    ([1.0, 1.0], 'a1', True)
    >>> ticket.timing.finished >= ticket.timing.enqueued
    True
    """
    def __await__(self) -> collections.abc.Generator[typing.Any, None, typing.Any]: ...
    def __repr__(self) -> str: ...
    def _rejected(self) -> bool:
        """
        Whether it was not admitted. Sends nothing.
        """
    def add_done_callback(
        self, fn: collections.abc.Callable[[Ticket], typing.Any], *, context: contextvars.Context | None = None
    ) -> None:
        """
        Have ``fn(ticket)`` called once, when the request has ended, in whatever way.

        Of a ticket that an event loop's task submitted, that loop calls it, in a turn of its own, as it calls the callbacks of
        its futures; a loop that is closed calls none. Where no loop submitted it, or the request has ended already, the loop
        that runs here does. Where none runs, a thread of inferkit's own calls one after the other: what takes long there holds
        up the callbacks behind it, and no request. No callback runs within ``add_done_callback``, nor on a thread that runs
        batches, nor once the process exits. What one raises is logged by asyncio, and nothing else.

        Parameters
        ----------
        fn : callable
            Takes the ticket.
        context : contextvars.Context, optional
            To call it in; by default a copy of the present one.

        Examples
        --------
        >>> import inferkit, numpy as np, threading
        >>> model = inferkit.Model.from_callable(
        ...     lambda x: x + 1, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
        >>> told = threading.Event()
        >>> with inferkit.Batcher(model) as batcher:
        ...     batcher.submit(np.zeros(2, np.float32)).add_done_callback(lambda ticket: told.set())
        ...     told.wait(10.0)
        True
        """
    def cancel(self) -> bool:
        """
        End the request now, if it has not ended: a queued one never runs, the answer of a running one is dropped.

        Returns
        -------
        bool
            Whether this call ended it.
        """
    def cancelled(self) -> bool:
        """
        Whether it ended by being cancelled.
        """
    def close(self) -> None:
        """
        As of a coroutine: cancels the request, if it has not ended.
        """
    def done(self) -> bool:
        """
        Whether the request has ended, in whatever way.
        """
    def exception(self, timeout: float | None = None) -> Exception | None:
        """
        Wait for the end; the error that ``result`` would raise, or None.
        """
    def result(self, timeout: float | None = None) -> typing.Any:
        """
        Wait for the answer.

        Do not call it on an event loop's thread, which it would block: ``await`` the ticket there.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait. The request itself goes on when they have passed.

        Returns
        -------
        numpy.ndarray, or a tuple, or a dict
            One array where the model has one output, else a tuple of them; a dict by name where the inputs came as a dict.
            Fresh arrays, the caller's to keep; the same objects at every call.

        Raises
        ------
        TimeoutError
            There is no answer yet.
        DeadlineError
            The request's own time passed.
        RequestCancelledError, ClosedError, QueueFullError, OutputError, InferenceError
            How else the request ended.
        """
    def send(self, value: typing.Any) -> typing.Any:
        """
        As of a coroutine, for ``create_task(ticket)``.
        """
    def throw(self, typ: typing.Any, val: typing.Any = None, tb: typing.Any = None) -> typing.Any:
        """
        As of a coroutine: cancels the request, if it has not ended, and raises the exception.
        """
    @property
    def request_id(self) -> str | int:
        """
        The caller's id, or a number that no other request of the batcher has.
        """
    @property
    def timing(self) -> Timing:
        """
        When what happened to it, and in which batch.
        """

class OutputChecks:
    def __init__(
        self,
        *,
        finite: bool,
        not_all_zero: bool,
        shape: bool,
        normalized: bool,
        tolerance: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None: ...

class ManualClock:
    """
    A clock for tests: it stands still until it is told to move; then call ``_poke``.
    """
    def __init__(self, start: typing.SupportsFloat | typing.SupportsIndex = 1.0) -> None: ...
    def advance(self, by: typing.SupportsFloat | typing.SupportsIndex) -> None:
        """
        Move on, in seconds.
        """
    def now(self) -> float:
        """
        The time that it shows, in seconds.
        """

class Batcher:
    def __call__(
        self, *inputs: typing.Any, timeout: float | None = None, priority: int = 0, request_id: str | int | None = None
    ) -> typing.Any:
        """
        Run one request and wait for its answer; on the calling thread, where the batcher is idle.

        Takes and returns what ``submit(...).result()`` does, and raises what either does. With a ``timeout``, the calling thread
        runs the model only where runs have shown that there is time enough: else a worker does, and the caller gives up when
        its time has passed.
        Do not call it on an event loop's thread, which it would block.
        """
    def __init__(
        self,
        model: typing.Any,
        *,
        max_batch_size: typing.SupportsInt | typing.SupportsIndex,
        max_delay: typing.SupportsFloat | typing.SupportsIndex,
        max_queue_size: typing.SupportsInt | typing.SupportsIndex | None,
        workers: typing.SupportsInt | typing.SupportsIndex,
        max_concurrent: typing.SupportsInt | typing.SupportsIndex | None,
        wait_when_full: bool,
        full_timeout: typing.SupportsFloat | typing.SupportsIndex | None,
        max_waiting: typing.SupportsInt | typing.SupportsIndex | None,
        caller_runs: bool,
        isolate_failures: bool,
        inline_limit: typing.SupportsFloat | typing.SupportsIndex,
        trace_size: typing.SupportsInt | typing.SupportsIndex,
        inputs: InputChecks | None,
        outputs: collections.abc.Sequence[OutputChecks],
        clock: ManualClock | None = None,
    ) -> None: ...
    def _begin_close(self, drain: bool, timeout: typing.SupportsFloat | typing.SupportsIndex | None = None) -> None: ...
    def _close(self, drain: bool, timeout: typing.SupportsFloat | typing.SupportsIndex | None) -> bool | None: ...
    def _drain(self, timeout: typing.SupportsFloat | typing.SupportsIndex | None) -> bool: ...
    def _poke(self) -> None: ...
    def _poll_close(self, drain: bool) -> bool: ...
    def _series(self) -> dict[str, typing.Any]:
        """
        What ended in each of the last 300 whole seconds and the one that runs, oldest first: a list for each kind; ``queue_depth`` is that of each second's end, ``running`` how much of the last one has passed.
        """
    def _set_tracing(self, on: bool) -> None: ...
    def _stats(
        self, limits: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = []
    ) -> dict[str, typing.Any]: ...
    def _swap(self, model: typing.Any) -> None: ...
    def _trace(self, after: typing.SupportsInt | typing.SupportsIndex) -> list[tuple[typing.Any, ...]]:
        """
        The trace's records after number ``after``: (sequence, kind, id, name, batch_id, enqueued, dequeued, started, finished,
        delivered, thread, rows, batch_rows, outcome, reason). Times are nanoseconds, 0 for what has not happened.
        """
    def _unanswered(self) -> int: ...
    def submit(
        self, *inputs: typing.Any, timeout: float | None = None, priority: int = 0, request_id: str | int | None = None
    ) -> Ticket:
        """
        Queue a request and return its ticket at once.

        Called by a task of a running asyncio loop, it joins what all tasks of that loop submit in the same tick: they go to the
        queue together, when the loop turns. Called elsewhere, it goes to the queue now.

        Parameters
        ----------
        *inputs : array or dict
            One array for each input of the model, in order, or one dict of arrays by name. All with the batch axis, or all
            without it, which makes a single row.
        timeout : float, optional
            Seconds until the request ends with :class:`DeadlineError` if it has no answer. Where runs have shown that it cannot
            have one by then, behind those that wait or at all, it is refused at once, or dropped before it runs.
        priority : int
            Between -100 and 100; higher goes first.
        request_id : str or int, optional
            Names the request; by default it gets a number.

        Returns
        -------
        Ticket

            What becomes of the request, also where it is refused at once: its ``result()`` or ``await`` gives the answer or
            raises the error. So ``await asyncio.gather(*map(batcher.submit, rows), return_exceptions=True)`` has an entry for
            each row, whatever is wrong with some of them.

            - :class:`ValidationError`: the input is wrong; ``.reason`` says how.
            - :class:`QueueFullError`: the queue is full. Where the batcher was told to wait instead, a thread waits in
              ``submit``, and a task while it awaits.
            - :class:`DeadlineError`: the timeout is not positive, or too short for what waits and runs before the request; the
              message says how long that is likely to take.
            - :class:`ClosedError`: the batcher is draining or closed.

            Where it is known when another attempt may fare better, the error's ``retry_after`` says it, in seconds.

        Raises
        ------
        TypeError, ValueError
            A keyword argument is unknown, or of a wrong type or value. No :class:`InferkitError`: those come with the ticket.

        Examples
        --------
        >>> import inferkit, numpy as np
        >>> model = inferkit.Model.from_callable(
        ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
        >>> with inferkit.Batcher(model) as batcher:
        ...     tickets = [batcher.submit(np.full(2, i, np.float32), timeout=10.0) for i in range(3)]
        ...     [ticket.result().tolist() for ticket in tickets]
        [[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]
        """
    @property
    def _closed(self) -> bool: ...
    @property
    def _max_rows(self) -> int: ...
    @property
    def _state(self) -> str: ...
    @property
    def _trace_dropped(self) -> int: ...
    @property
    def _tracing(self) -> bool: ...

def begin_exit() -> None:
    """
    The interpreter exits: what closing batchers ends is from now on the exit's doing.
    """

def build_info() -> dict[str, typing.Any]:
    """
    What this binary was built with and which code it runs, as a dict.
    """

def error_table() -> list[typing.Any]:
    """
    Every error code as ``(class name, HTTP status)``.
    """

def explain_model(
    model: typing.Any,
    shapes: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
) -> dict[str, typing.Any]:
    """
    The plan for inputs of these shapes, batch axis included, as a dict.
    """

def inspect_onnx(path: os.PathLike[str] | str | bytes) -> dict[str, typing.Any]:
    """
    What an ONNX file holds, as a dict; raises as loading does where it cannot be read.
    """

def install_batcher_call(arg0: type) -> None:
    """
    Gives a subclass of Batcher, which does not override __call__, the direct call slot.
    """

def install_call(arg0: type) -> None:
    """
    Gives a subclass of Model, which does not override __call__, the direct call slot.
    """

def lowerings() -> list[typing.Any]:
    """
    The ways to run each operator, best first: (domain, name, first opset, names) for each row of its table.
    """

def profile_model(
    model: typing.Any, inputs: collections.abc.Sequence[typing.Any], runs: typing.SupportsInt | typing.SupportsIndex
) -> dict[str, typing.Any]:
    """
    The same with how long each step took, the median of the runs.
    """

def reasons() -> list[typing.Any]:
    """
    The reasons that a ValidationError or an OutputError may give.
    """

def register_running_loop() -> None:
    """
    Has the event loop that runs here learn of ends.
    """

def resident_bytes() -> int:
    """
    Physical memory of the process, in bytes; 0 where it cannot be told.
    """

def supported_ops() -> list[typing.Any]:
    """
    The operator table: (domain, name, first opset, last opset, family) for each row.
    """

def trace_steps(on: bool, capacity: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Switches the tracing of steps on or off, for all models of the process.
    """

def traced_steps() -> list[tuple[str, float, float, int]]:
    """
    The last steps, oldest first: (name, started, finished, thread), in seconds of time.monotonic().
    """
