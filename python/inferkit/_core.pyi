"""
The native core of inferkit. Its public face is the package inferkit.
"""

from __future__ import annotations

import _contextvars
import collections.abc
import contextvars
import os
import typing

import numpy

__all__: list[str] = [
    "Batcher",
    "Buffer",
    "BufferPool",
    "DeviceArray",
    "InputChecks",
    "LeakRow",
    "ManualClock",
    "Model",
    "OutputChecks",
    "PoolStats",
    "Runner",
    "SimulatedWorkers",
    "Ticket",
    "Timing",
    "Weights",
    "active_kernels",
    "begin_exit",
    "build_info",
    "context_deadline",
    "cuda_activity",
    "cuda_devices_in_use",
    "cuda_leaks",
    "cuda_limit",
    "cuda_memory",
    "cuda_trim",
    "device_failure",
    "error_table",
    "explain_model",
    "inspect_onnx",
    "install_batcher_call",
    "install_call",
    "lacking_on_cuda",
    "lowerings",
    "max_concurrent",
    "profile_model",
    "reasons",
    "refuse_closed",
    "register_running_loop",
    "resident_bytes",
    "run_in_precision",
    "set_max_concurrent",
    "supported_ops",
    "trace_steps",
    "traced_steps",
    "use_context_deadline",
    "wait_for_call",
    "why_no_cuda",
]

class PoolStats:
    """
    A snapshot of a :class:`BufferPool`'s figures.
    """
    def __reduce__(self) -> tuple[typing.Any, typing.Any]: ...
    def __repr__(self) -> str: ...
    @property
    def cached_bytes(self) -> int:
        """
        Bytes that the pool holds from the system and that are free.
        """
    @property
    def hits(self) -> int:
        """
        How many acquisitions a cache served.
        """
    @property
    def in_use_bytes(self) -> int:
        """
        Bytes set aside for buffers that are in use.
        """
    @property
    def max_bytes(self) -> int | None:
        """
        The cap in bytes; None if there is none.
        """
    @property
    def misses(self) -> int:
        """
        How many acquisitions asked the system for memory.
        """
    @property
    def outstanding(self) -> int:
        """
        How many buffers are in use.
        """
    @property
    def peak_bytes(self) -> int:
        """
        The most bytes ever held at once, in use and cached.
        """

class LeakRow:
    """
    Buffers in use, of one user and one size class.
    """
    def __repr__(self) -> str: ...
    @property
    def bytes(self) -> int:
        """
        The bytes that were asked for, in all.
        """
    @property
    def capacity(self) -> int:
        """
        Bytes set aside for each.
        """
    @property
    def count(self) -> int:
        """
        How many buffers.
        """
    @property
    def tag(self) -> str:
        """
        Who acquired them: ``python``, or a part of inferkit.
        """

class Buffer:
    """
    Memory on loan from a :class:`BufferPool`.

    It supports the buffer protocol as writable, contiguous bytes, which are aligned to 64 bytes and not initialised; numpy
    can view it without a copy. The memory goes back to the pool with :meth:`release`, at the end of a ``with`` block, or when
    the last reference to the buffer and to its views is gone, whichever comes first.

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
    def __enter__(self) -> typing.Any:
        """
        Give the buffer itself, which goes back at the end of the with block.
        """
    def __exit__(self, exc_type: typing.Any, exc: typing.Any, traceback: typing.Any) -> None:
        """
        Release the buffer.
        """
    def __len__(self) -> int: ...
    def __repr__(self) -> str: ...
    def release(self) -> None:
        """
        Give the memory back to the pool now. A second call does nothing.

        Raises
        ------
        BufferError
            If a numpy array or a memoryview still looks at it.
        """
    @property
    def capacity(self) -> int:
        """
        The bytes that are set aside for it; 0 after it was released.
        """
    @property
    def nbytes(self) -> int:
        """
        The size that was asked for, in bytes.
        """
    @property
    def released(self) -> bool:
        """
        Whether the memory has gone back to the pool.
        """

class BufferPool:
    """
    Memory for buffers that come and go often: size classes, per-thread caches, a hard cap.

    It is safe to use from many threads. After warm-up it does not ask the system for memory any more. Buffers that are in
    use keep their memory when the pool object is gone.

    Parameters
    ----------
    max_bytes : int, optional
        Hard cap on the bytes held from the system, in use and cached together; none by default.
    thread_cache_bytes : int
        Free memory that one thread keeps for itself.
    shared_cache_bytes : int
        Free memory that all threads share. Memory beyond that goes back to the system.

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
        Get the pool of the process, from which models and batchers take their memory.
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
            The size of the buffer. The pool sets aside the next size class, which is less than 25% larger (from 256 bytes on).

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
        List the buffers that are in use, by user and size class, most bytes first.

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
            A frozen object. It counts the bytes that are set aside (the size class), not those that were asked for.
        """
    def trim(self) -> int:
        """
        Give all cached memory back to the system.

        Returns
        -------
        int
            How many bytes went back.
        """

class DeviceArray:
    """
    An array in the memory of a CUDA device: the answer to one that is.

    It has all that was computed in it when a call returns. torch.from_dlpack(x) and cupy.from_dlpack(x) make theirs of it without a copy, as does all that takes the CUDA array interface. Its memory is used again when nobody has the array any more, and what the default stream does with it is done.
    """
    def __dlpack__(
        self,
        *,
        stream: typing.Any = None,
        max_version: typing.Any = None,
        dl_device: typing.Any = None,
        copy: typing.Any = None,
    ) -> typing.Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def numpy(self) -> typing.Any:
        """
        Copies it to a numpy array.
        """
    @property
    def __cuda_array_interface__(self) -> dict[str, typing.Any]: ...
    @property
    def device(self) -> str:
        """
        Where it is, such as "cuda:0".
        """
    @property
    def dtype(self) -> str:
        """
        The name of its elements' type.
        """
    @property
    def nbytes(self) -> int:
        """
        The bytes of its elements.
        """
    @property
    def shape(self) -> tuple[int, ...]:
        """
        The sizes of its dimensions.
        """

class Weights:
    """
    Named tensors in a mapped file: a read-only mapping from names to arrays.

    ``weights["name"]`` is a read-only numpy view of the file's pages. Threads, models and processes that open the same file
    share its memory. A view keeps the file mapped after the ``Weights`` object is gone. In an ONNX file, the tensors that a
    model would copy (small ones, integers, and those at addresses that do not fit their elements) are copies here too.

    A file does not promise alignment: a view may have ``flags.aligned`` false, and is a correct array all the same. Types
    that numpy does not have (bfloat16, floats of 8 and 4 bits, integers of 4 and 2 bits) come as the types of the package
    ``ml_dtypes`` if it is installed, otherwise as their bits in ``uint16`` or ``uint8``; :meth:`dtype` tells which type the
    file has. If several elements share a byte in the file, the view is a view of an unpacked copy. If a bool of the
    file is a byte other than 0 and 1, as in a mask of 0 and 255, the view is a view of a copy in which it is 1.

    The file must stay as it is while it is open. To replace it, rename a new file over it. If the file has changed,
    ``weights[name]`` raises a ModelError. Arrays that you took before show what is written into the file, and if you read a
    part that was cut off, the process ends (SIGBUS). If others may do that, open the file with ``mmap=False``.

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

        The whole header is checked before anything else is read, and the pages are read ahead.

        Parameters
        ----------
        path : str or path-like
            A file whose name ends in ``.onnx`` is read as a model, any other as safetensors.
        mmap : bool
            False reads the file into memory instead. Use it for files that others rewrite in place.

        Raises
        ------
        ModelError
            If the file is truncated, too long, malformed, or of a dtype that inferkit does not read; or if it changes while
            it is read.
        OSError
            If the file cannot be opened (``FileNotFoundError`` where there is none).
        """
    def __contains__(self, name: typing.Any) -> bool: ...
    def __getitem__(self, name: str) -> numpy.ndarray:
        """
        Get the tensor of that name. Raises KeyError if there is none.
        """
    def __iter__(self) -> collections.abc.Iterator[str]: ...
    def __len__(self) -> int: ...
    def __repr__(self) -> str: ...
    def dtype(self, name: str) -> str:
        """
        Get the element type that the file gives for a tensor, for example ``"bfloat16"``.
        """
    def get(self, name: str, default: typing.Any = None) -> typing.Any:
        """
        Get the tensor of that name, or ``default`` if there is none.
        """
    def items(self) -> collections.abc.ItemsView[str, numpy.ndarray]:
        """
        Get pairs of name and tensor, in the order of the file.
        """
    def keys(self) -> collections.abc.KeysView[str]:
        """
        Get the names, in the order of the file.
        """
    def values(self) -> collections.abc.ValuesView[numpy.ndarray]:
        """
        Get the tensors, in the order of the file.
        """
    @property
    def file_bytes(self) -> int:
        """
        The size of the file, in bytes.
        """
    @property
    def metadata(self) -> dict[str, str]:
        """
        The metadata of the file, as a dict of strings.
        """
    @property
    def nbytes(self) -> int:
        """
        The size of all tensors together, in bytes.
        """
    @property
    def path(self) -> str:
        """
        The path of the file; empty if the tensors came from no file.
        """

class InputChecks:
    def __init__(
        self,
        *,
        finite: bool | None = None,
        non_empty: bool | None = None,
        min_length: typing.SupportsInt | typing.SupportsIndex = 0,
        max_length: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None: ...

class Runner:
    pass

class Model:
    def __call__(self, *inputs: typing.Any) -> typing.Any:
        """
        Run the model on a batch, or on a single row.

        Parameters
        ----------
        *inputs : array
            One array for each input of the model, in order. Either all of them have the batch axis, or none has it; then they
            are a single row, and the outputs have no batch axis either. Inputs for all rows (``TensorSpec.shared``, and those
            without dimensions) never have it. Where the file fixes the first dimension at another number than 1, it takes no
            single row.

        Returns
        -------
        numpy.ndarray or tuple of numpy.ndarray
            One array if the model has one output, otherwise a tuple of arrays, in order. They belong to the caller.

        Raises
        ------
        ValidationError
            An input does not fit, or fails its checks; ``.reason`` says how.
        InferenceError
            The run failed.
        """
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
        packed: os.PathLike[str] | str | bytes,
        packed_cache: os.PathLike[str] | str | bytes,
        device: str,
        fallback: str | None,
        precision: str,
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
        packed: os.PathLike[str] | str | bytes,
        packed_cache: os.PathLike[str] | str | bytes,
        device: str,
        fallback: str | None,
        precision: str,
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
    ) -> None: ...
    @typing.overload
    def __init__(self, *, of: typing.Any, names: collections.abc.Sequence[str]) -> None: ...
    def _longest_call(self) -> tuple[int, int] | None: ...
    def _memory(self) -> dict[str, typing.Any]: ...
    def _metadata(self) -> dict[str, typing.Any]: ...
    def _packed_use(self) -> tuple[str, str]: ...
    def _run(self, feeds: dict[str, typing.Any], out: dict[str, typing.Any] | None = None) -> dict[str, typing.Any]: ...
    def _save_packed(self, path: os.PathLike[str] | str | bytes) -> None: ...
    def _set_checks(
        self, inputs: collections.abc.Sequence[InputChecks], defaults: collections.abc.Sequence[InputChecks]
    ) -> None: ...
    def _weights(self) -> Weights: ...
    def trim(self) -> None:
        """
        Free the working memory of plans that no run is using.
        """
    @property
    def _defaults(self) -> list[typing.Any]: ...
    @property
    def _inputs(self) -> list[typing.Any]: ...
    @property
    def _is_native(self) -> bool: ...
    @property
    def _mixing_node(self) -> str: ...
    @property
    def _outputs(self) -> list[typing.Any]: ...
    @property
    def _senses(self) -> list[typing.Any]: ...
    @property
    def _threads(self) -> int: ...
    @property
    def path(self) -> str:
        """
        The path of the model's file; empty if it was not loaded from a path.
        """
    @property
    def precision(self) -> str:
        """
        What the model computes in, as load() was told: "float32", "bf16" or "float16"; empty for a wrapped callable.
        """

class Timing:
    """
    The times of a request, in seconds of ``time.monotonic()``; None for a stage that it did not reach.
    """
    def __reduce__(self) -> tuple[typing.Any, typing.Any]: ...
    def __repr__(self) -> str: ...
    @property
    def batch_id(self) -> int | None:
        """
        The number of its batch; None if it was in none.
        """
    @property
    def batch_size(self) -> int | None:
        """
        How many rows its batch had.
        """
    @property
    def compute_time(self) -> float | None:
        """
        Seconds that its batch took, the checks of its outputs included.
        """
    @property
    def delivered(self) -> float | None:
        """
        When the caller took the answer, or the error.
        """
    @property
    def dequeued(self) -> float | None:
        """
        When it was put into a batch.
        """
    @property
    def enqueued(self) -> float | None:
        """
        When it was submitted.
        """
    @property
    def finished(self) -> float | None:
        """
        When it ended.
        """
    @property
    def queue_time(self) -> float | None:
        """
        Seconds from submission to the start of its batch; None where that has not run.
        """
    @property
    def started(self) -> float | None:
        """
        When its batch began to run.
        """
    @property
    def total_time(self) -> float | None:
        """
        Seconds from submission to its end, whatever that was; None where it has not ended.
        """

class Ticket(collections.abc.Coroutine[typing.Any, typing.Any, typing.Any]):
    """
    A request on its way: wait for it with ``result()``, or ``await`` it.

    Made by :meth:`Batcher.submit`. It is safe to use from any thread. Several tasks may await it, but only tasks of one
    event loop at a time. If a task is cancelled while it awaits a ticket, the request is cancelled too. If you drop a ticket,
    its request runs all the same, and the answer is lost.

    Tasks of trio's await it as well. To asyncio it is a coroutine that any number of tasks may run: ``gather``,
    ``as_completed``, ``wait_for``, ``shield`` and ``TaskGroup.create_task`` take it as it is. ``asyncio.wait`` wants tasks:
    ``asyncio.wait([asyncio.create_task(ticket)])``.

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
    def __await__(self) -> collections.abc.Generator[typing.Any, None, typing.Any]:
        """
        Wait for the end of the request, without blocking the event loop, and give the answer as ``result`` does.
        """
    def __repr__(self) -> str: ...
    def _rejected(self) -> bool:
        """
        Whether it was not admitted. Sends nothing.
        """
    def _wait(self, timeout: float | None = None) -> None:
        """
        Waits for the end, on whatever thread, and says nothing of it.
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
        End the request now, if it has not ended yet. If it waits in the queue, it never runs; if it runs, its answer is dropped.

        Returns
        -------
        bool
            Whether this call ended it.
        """
    def cancelled(self) -> bool:
        """
        Whether the request was cancelled.
        """
    def close(self) -> None:
        """
        As of a coroutine: cancels the request, if it has not ended.
        """
    def done(self) -> bool:
        """
        Whether the request has ended, with an answer or an error.
        """
    def exception(self, timeout: float | None = None) -> Exception | None:
        """
        Wait for the end of the request, and return the error that ``result`` would raise, or None.
        """
    def result(self, timeout: float | None = None) -> typing.Any:
        """
        Wait for the answer.

        Do not call it on the thread of an event loop, which it would block: ``await`` the ticket there.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait. When they have passed, the request itself goes on.

        Returns
        -------
        numpy.ndarray, or a tuple, or a dict
            One array if the model has one output, otherwise a tuple of arrays. If the inputs came as a dict, a dict of arrays
            by name. The arrays belong to the caller; every call returns the same objects.

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
        When each stage of the request happened, and in which batch it ran.
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
    def _nanos_after(self, duration: typing.SupportsFloat | typing.SupportsIndex) -> int:
        """
        The time that it will show then, in nanoseconds.
        """
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
        self,
        *inputs: typing.Any,
        timeout: float | None = None,
        priority: int = 0,
        request_id: str | int | None = None,
        client: str | None = None,
        tags: collections.abc.Mapping[str, str] | None = None,
    ) -> typing.Any:
        """
        Run one request and wait for its answer.

        It takes and returns the same as ``submit(...).result()``, and raises what either of the two raises. If the batcher is
        idle, the calling thread runs the model itself. With a ``timeout``, it does so only if earlier runs have shown that there
        is enough time. Otherwise a worker runs the model, and the caller stops waiting when the time has passed. Do not call it
        on the thread of an event loop, which it would block: await :meth:`submit` there.
        """
    def __del__(self) -> None: ...
    def __init__(
        self,
        model: typing.Any,
        *,
        max_batch_size: typing.SupportsInt | typing.SupportsIndex,
        max_batch_elements: typing.SupportsInt | typing.SupportsIndex | None,
        max_delay: typing.SupportsFloat | typing.SupportsIndex,
        auto_size: bool,
        auto_delay: bool,
        target_p99: typing.SupportsFloat | typing.SupportsIndex,
        ageing: typing.SupportsFloat | typing.SupportsIndex | None,
        weight: typing.SupportsFloat | typing.SupportsIndex,
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
        max_tag_sets: typing.SupportsInt | typing.SupportsIndex,
        inputs: collections.abc.Sequence[InputChecks | None],
        outputs: collections.abc.Sequence[OutputChecks],
        clients: collections.abc.Sequence[
            tuple[
                str,
                typing.SupportsFloat | typing.SupportsIndex,
                typing.SupportsFloat | typing.SupportsIndex,
                typing.SupportsFloat | typing.SupportsIndex,
            ]
        ],
        default_client: tuple[
            str,
            typing.SupportsFloat | typing.SupportsIndex,
            typing.SupportsFloat | typing.SupportsIndex,
            typing.SupportsFloat | typing.SupportsIndex,
        ],
        pad: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, bytes]],
        pad_to: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        pad_longest: typing.SupportsInt | typing.SupportsIndex,
        coalesce: bool,
        result_cache: typing.SupportsInt | typing.SupportsIndex | None,
        cache_callables: bool,
        clock: ManualClock | None = None,
    ) -> None: ...
    def _begin_close(self, drain: bool, timeout: typing.SupportsFloat | typing.SupportsIndex | None = None) -> None: ...
    def _close(self, drain: bool, timeout: typing.SupportsFloat | typing.SupportsIndex | None) -> bool | None: ...
    def _drain(self, timeout: typing.SupportsFloat | typing.SupportsIndex | None) -> bool: ...
    def _may_block(self, what: str, until: str, level: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Warns or raises where an event loop runs on this thread, as it was chosen.
        """
    def _pad_lengths(self, most: typing.SupportsInt | typing.SupportsIndex) -> list[int]:
        """
        To what requests up to that length are padded; with 0, those up to the longest, where there is one.
        """
    def _pad_refusal(
        self,
        model: typing.Any,
        rows: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
        lengths: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        brief: bool = False,
    ) -> str:
        """
        Why requests to the model cannot be padded, as those that are made up show; empty where they can.
        """
    def _poke(self) -> None: ...
    def _poll_close(self, drain: bool) -> bool: ...
    def _series(self) -> dict[str, typing.Any]:
        """
        What ended in each of the last 300 whole seconds and the one that runs, oldest first: a list for each kind; ``queue_depth`` is that of each second's end, ``running`` how much of the last one has passed.
        """
    def _set_on_loop(self, warn: bool, refuse: bool) -> None: ...
    def _set_tracing(self, on: bool) -> None: ...
    def _stats(
        self, limits: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = []
    ) -> dict[str, typing.Any]: ...
    def _swap(self, model: typing.Any) -> None: ...
    def _sweep(self) -> None:
        """
        Ends those of the requests that wait whose time has passed, as no worker is free to do it.
        """
    def _teach(self, feeds: dict[str, typing.Any], model: typing.Any) -> None:
        """
        Runs made-up inputs a few times, to learn what that takes.
        """
    def _trace(self, after: typing.SupportsInt | typing.SupportsIndex) -> list[tuple[typing.Any, ...]]:
        """
        The trace's records after number ``after``: (sequence, kind, id, name, batch_id, enqueued, dequeued, started, finished,
        delivered, thread, rows, batch_rows, priority, tags, outcome, reason). Times are nanoseconds, 0 for what has not happened.
        """
    def _unanswered(self) -> int: ...
    def submit(
        self,
        *inputs: typing.Any,
        timeout: float | None = None,
        priority: int = 0,
        request_id: str | int | None = None,
        client: str | None = None,
        tags: collections.abc.Mapping[str, str] | None = None,
    ) -> Ticket:
        """
        Queue a request and return its ticket at once.

        Requests that tasks of an asyncio loop submit in the same turn of the loop go to the queue together, at the end of this
        turn. A request from anywhere else goes to the queue at once.

        Parameters
        ----------
        *inputs : array or dict
            One array for each input of the model, in order, or one dict of arrays by name. Either all of them have the batch
            axis, or none has it; then the request is a single row. Inputs for all rows (``TensorSpec.shared``, and those
            without dimensions) never have it.
        timeout : float, optional
            Seconds after which the request ends with a :class:`DeadlineError`, if it has no answer by then. If earlier runs
            show that it cannot be answered in time, it is refused at once, or dropped before it runs. An earlier deadline of
            the context (:class:`deadline`) takes its place.
        priority : int
            From -100 to 100. Requests of a higher priority go first, unless others have waited long: see `ageing` of the
            :class:`Batcher`. Of one priority, the earliest deadline goes first; requests without a timeout, or with one that is
            longer than 10 s or `ageing`, keep the order in which they came, as if they had that much.
        request_id : str or int, optional
            A name for the request, which logs and traces show. By default it gets a number.
        client : str, optional
            Who sends it: a user, or a part of the program. Of one priority, clients that wait are served in proportion to
            their weights, so that none is held up by how much another one sends; see `clients` of the :class:`Batcher`.
        tags : mapping of str to str, optional
            What to tell requests apart by in figures and traces, such as ``{"endpoint": "search"}``: requests with the same
            tags are counted together (:attr:`BatcherStats.tags`, and as labels in :mod:`inferkit.metrics`), and those of a
            request are in its :class:`~inferkit.tracing.RequestTrace`, its log line and its span. Up to 8, with names that
            Prometheus takes for labels (64 characters at most), and values of 128 bytes at most. They should have few
            different values, as labels should; see `max_tag_sets` of the :class:`Batcher`.

        Returns
        -------
        Ticket

            What becomes of the request, also where it is refused at once: its ``result()`` or ``await`` gives the answer or
            raises the error. So ``await asyncio.gather(*map(batcher.submit, rows), return_exceptions=True)`` has an entry for
            each row, whatever is wrong with some of them.

            - :class:`ValidationError`: the input is wrong; ``.reason`` says how.
            - :class:`QueueFullError`: the queue is full, or its client has used up its rate, or has as many places in the
              queue as are free. Where the batcher was told to wait instead, a thread waits in
              ``submit``, and a task while it awaits.
            - :class:`DeadlineError`: the timeout is not positive, or too short for what waits and runs before the request; the
              message says how long that is likely to take.
            - :class:`ClosedError`: the batcher is draining or closed.

            Where it is known when another attempt may fare better, the error's ``retry_after`` says it, in seconds.

        Raises
        ------
        TypeError, ValueError
            A keyword argument is unknown, or has a wrong type or value. ``submit`` raises no :class:`InferkitError`: what is
            wrong with the request itself arrives with the ticket.

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
    def submit_many(
        self,
        *iterables: collections.abc.Iterable[typing.Any],
        timeout: float | None = None,
        priority: int = 0,
        client: str | None = None,
        tags: collections.abc.Mapping[str, str] | None = None,
    ) -> list[Ticket]:
        """
        Queue a request for each of many rows, and return their tickets, in the same order.

        The answers, and what is refused and why, are those of as many calls of :meth:`submit`. But the requests go to the queue
        a full batch at a time, so that the first one does not run alone, and the call costs less. For a stream that is longer
        than the queue, or whose rows come one by one, use :meth:`map`.

        Parameters
        ----------
        *iterables : iterable
            Rows, one iterable for each input of the model, all of one length; or a single one of dicts. An array counts as its
            rows. They are read to their end before anything is queued.
        timeout, priority, client, tags
            Of each request, as in :meth:`submit`.

        Returns
        -------
        list of Ticket
            One for each row, whatever became of it.

        Raises
        ------
        TypeError, ValueError
            As :meth:`submit`, and for iterables of different lengths. Then none of the requests goes on; the same holds for
            whatever else is raised, such as ``KeyboardInterrupt``.

        Examples
        --------
        >>> import inferkit, numpy as np
        >>> model = inferkit.Model.from_callable(
        ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
        >>> with inferkit.Batcher(model) as batcher:
        ...     tickets = batcher.submit_many(np.arange(6, dtype=np.float32).reshape(3, 2), timeout=10.0)
        ...     [ticket.result().tolist() for ticket in tickets]
        [[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]
        """
    @property
    def _closed(self) -> bool: ...
    @property
    def _longest_run(self) -> float:
        """
        For how many seconds the oldest of the batches that run has run; 0 where the clock is a test's.
        """
    @property
    def _max_rows(self) -> int: ...
    @property
    def _state(self) -> str: ...
    @property
    def _trace_dropped(self) -> int: ...
    @property
    def _tracing(self) -> bool: ...

class SimulatedWorkers:
    """
    A batcher's scheduler without its threads; whoever calls says what time it is, in nanoseconds: see benchmarks/simulate.py.
    """
    def __init__(
        self,
        *,
        max_batch_size: typing.SupportsInt | typing.SupportsIndex,
        max_delay: typing.SupportsInt | typing.SupportsIndex,
        workers: typing.SupportsInt | typing.SupportsIndex,
        auto_size: bool,
        auto_delay: bool,
        target_p99: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    def chosen(self) -> dict[str, typing.Any]:
        """
        What the policy has come to.
        """
    def come(
        self,
        now: typing.SupportsInt | typing.SupportsIndex,
        requests: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        deadline: typing.SupportsInt | typing.SupportsIndex = -1,
    ) -> bool:
        """
        Requests of one row come; False where they would be refused.
        """
    def dropped(self) -> list[int]:
        """
        Requests that were dropped since the last call, as they could not be answered in time.
        """
    def over(
        self, now: typing.SupportsInt | typing.SupportsIndex, number: typing.SupportsInt | typing.SupportsIndex
    ) -> None:
        """
        The run of a batch is over.
        """
    def take(self, now: typing.SupportsInt | typing.SupportsIndex) -> typing.Any:
        """
        Number, requests, rows and reason of the next batch, or None.
        """
    def until(self) -> typing.Any:
        """
        When to call take() again after it gave None; None for when something happens.
        """

def _make_docs_plain() -> None:
    """
    Take the types of C++ out of the docstrings, for help(). The package calls it, and .ci/stubs, which reads them, does not.
    """

def _pool_stats(
    arg0: typing.SupportsInt | typing.SupportsIndex,
    arg1: typing.SupportsInt | typing.SupportsIndex,
    arg2: typing.SupportsInt | typing.SupportsIndex,
    arg3: typing.SupportsInt | typing.SupportsIndex,
    arg4: typing.SupportsInt | typing.SupportsIndex,
    arg5: typing.SupportsInt | typing.SupportsIndex,
    arg6: typing.SupportsInt | typing.SupportsIndex,
) -> PoolStats:
    """
    What a copy of a PoolStats is made by.
    """

def _timing(
    arg0: typing.SupportsFloat | typing.SupportsIndex | None,
    arg1: typing.SupportsFloat | typing.SupportsIndex | None,
    arg2: typing.SupportsFloat | typing.SupportsIndex | None,
    arg3: typing.SupportsFloat | typing.SupportsIndex | None,
    arg4: typing.SupportsFloat | typing.SupportsIndex | None,
    arg5: typing.SupportsInt | typing.SupportsIndex | None,
    arg6: typing.SupportsInt | typing.SupportsIndex | None,
) -> Timing:
    """
    What a copy of a Timing is made by.
    """

def active_kernels() -> dict[str, typing.Any]:
    """
    For each family of kernels, the tier for which its code was compiled. To know that, Linux is asked for the tiles of AMX.
    """

def begin_exit() -> None:
    """
    The interpreter exits: what closing batchers ends is from now on the exit's doing.
    """

def build_info() -> dict[str, typing.Any]:
    """
    What this binary was built with and which tier it runs, as a dict.
    """

def cuda_activity(device: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]:
    """
    What that device has done for the models of this process.
    """

def cuda_devices_in_use() -> list[int]:
    """
    The numbers of the devices that this process has used; opens no driver.
    """

def cuda_leaks(device: typing.SupportsInt | typing.SupportsIndex) -> list[LeakRow]:
    """
    Who has memory of the device, most bytes first.
    """

def cuda_limit(
    max_bytes: typing.SupportsInt | typing.SupportsIndex | None, device: typing.SupportsInt | typing.SupportsIndex
) -> None:
    """
    Caps the device's memory; None for no cap.
    """

def cuda_memory(device: typing.SupportsInt | typing.SupportsIndex) -> tuple[PoolStats, PoolStats, int]:
    """
    The pools of the device's memory and of pinned memory, and the bytes of weights on the device.
    """

def cuda_trim(device: typing.SupportsInt | typing.SupportsIndex) -> int:
    """
    Gives free memory of the device, and pinned one, back to the driver; how many bytes.
    """

def device_failure(model: typing.Any) -> str:
    """
    What the device of a model said when it failed; empty where it works.
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

def lacking_on_cuda(path: os.PathLike[str] | str | bytes) -> tuple[int, list[tuple[str, str, str]]]:
    """
    How many nodes of a model CUDA was asked about, with no device at hand, and those that it has no lowering for: (operator, name, why). Raises as loading does.
    """

def lowerings(cuda: bool = False) -> list[typing.Any]:
    """
    The ways to run each operator on the CPU, or on CUDA, best first: (domain, name, first opset, names) for each row of its table.
    """

def max_concurrent() -> int | None: ...
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

def refuse_closed(why: str) -> typing.NoReturn:
    """
    Raises a ClosedError; on a daemon thread under which the exit has closed the batcher, SystemExit.
    """

def register_running_loop() -> None:
    """
    Has the event loop that runs here learn of ends.
    """

def resident_bytes() -> int:
    """
    Physical memory of the process, in bytes; 0 where it cannot be told.
    """

def run_in_precision(
    model: typing.Any, inputs: collections.abc.Sequence[typing.Any], rounded: bool
) -> list[typing.Any]:
    """
    One run in float32, whatever the model computes in, or in what it rounds operands to, which is bf16 for a model in float32: its outputs.
    """

def set_max_concurrent(cores: typing.SupportsInt | typing.SupportsIndex | None) -> None:
    """
    Sets how many cores the runs of all batchers may use at once; None for any number.
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

def use_context_deadline() -> None:
    """
    Says that context_deadline is about to be set.
    """

def wait_for_call() -> None:
    """
    Sleep until a callable's call runs, or return at once where one has begun since the last time.
    """

def why_no_cuda(device: typing.SupportsInt | typing.SupportsIndex) -> str:
    """
    Why no model can run on that CUDA device; empty where one can. Opens the driver.
    """

context_deadline: _contextvars.ContextVar[tuple[int, ManualClock | None]]
