"""The figures of a batcher, as :meth:`Batcher.stats` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from ._client import ClientStats
from ._core import PoolStats
from ._policy import PolicyStats, policy_stats
from ._stats_text import stats_text
from ._tags import TagStats, tag_stats
from ._text import counted

__all__ = ["BatcherStats", "Latency", "WindowStats", "stats_from"]

_POOL_FIGURES = ("in_use_bytes", "cached_bytes", "peak_bytes", "max_bytes", "hits", "misses", "outstanding")
_Figures = TypeVar("_Figures", "BatcherStats", "WindowStats")


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Percentiles of a duration, in milliseconds and within 1%, of the requests that ran.

    Parameters
    ----------
    p50, p90, p95, p99, p999 : float
        What 50%, 90%, 95%, 99% and 99.9% of the requests did not exceed; 0 if there were none.
    max, mean : float
        The longest and the average duration.
    count : int
        How many requests were counted.
    """

    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float
    mean: float
    count: int


@dataclass(frozen=True, kw_only=True)
class WindowStats:
    """A batcher's figures over its last seconds.

    Parameters
    ----------
    seconds : int
        The length of the window in whole seconds; the second that has begun comes on top.
    covered : float
        How many seconds the figures cover; fewer while the batcher is young.
    completed, failed, cancelled, expired, rejected, invalid : int
        How many requests ended in each way; as in :class:`BatcherStats`.
    batches, rows : int
        How many batches ran, and how many rows they had.
    requests_per_second : float
        Completed requests per second.
    batch_fill_rate : float
        Rows per batch, as a share of `max_batch_size`.
    inference_error_rate : float
        Failed requests as a share of completed and failed ones.
    unserved_rate : float
        Rejected and expired requests as a share of completed, failed, rejected and expired ones: the good requests that
        got no answer.
    invalid_rate : float
        Invalid requests as a share of all requests.
    queue_ms, compute_ms, total_ms : Latency
        As in :class:`BatcherStats`; ``max`` is within 2%.
    """

    seconds: int
    covered: float
    completed: int
    failed: int
    cancelled: int
    expired: int
    rejected: int
    invalid: int
    batches: int
    rows: int
    requests_per_second: float
    batch_fill_rate: float
    inference_error_rate: float
    unserved_rate: float
    invalid_rate: float
    queue_ms: Latency
    compute_ms: Latency
    total_ms: Latency

    @property
    def p99_latency_ms(self) -> float:
        """From submission to answer, 99% of requests took no longer."""
        return self.total_ms.p99


@dataclass(frozen=True, kw_only=True)
class BatcherStats:
    """A batcher's figures at one moment. Counts and latencies cover its whole life, except for those in ``windows``.

    Parameters
    ----------
    state : str
        ``open``, ``draining``, ``closed``, or ``forked`` in a child of the process that made it.
    completed, failed, cancelled, expired : int
        How many requests ended with an answer; with an error of the model or of its output checks; because their caller
        cancelled them; because their deadline passed, or would have passed before they could be answered.
    rejected, invalid : int
        How many requests were refused because the queue was full or the batcher closed; how many ended with a
        :class:`ValidationError`.
    queue_depth : int
        How many requests wait.
    in_flight : int
        How many batches run.
    oldest_wait : float
        How many seconds the oldest waiting request has waited.
    longest_run : float
        How many seconds the oldest running batch has run. It keeps growing if a model hangs.
    workers, workers_missing : int
        How many threads run batches, and how many more were asked for that the system did not give (RLIMIT_NPROC,
        ``pids.max``).
    slice_ms : float
        How long the workers have asked to have a core at a time, so that they need not wait for those of models that
        run longer; 0 where they have what the kernel gives by itself: they run long, or have only just begun, or the
        kernel cannot be asked (``build_info()["time_slices"]``).
    weight : float
        As it was given.
    core_seconds : float
        The core time that its runs have had while :func:`set_max_concurrent` had set a limit; a run on two threads has
        two seconds in a second.
    core_share : float
        The same as a share of that of all batchers, since this one was made.
    core_waits : int
        How often a batch could have gone, but the cores were taken.
    core_wait_seconds : float
        For how long in all.
    batches, rows : int
        How many batches ran, and how many rows they had.
    elements, padding : int
        How many elements the inputs that are padded (see `pad` of the :class:`Batcher`) had in all runs, and how many
        of those were padding.
    padding_rate : float
        Padding as a share of these elements: what is computed for nobody.
    padding_refused : str
        Why requests are no longer padded, or no longer to some lengths, which it names; empty where they are.
    padding_costs : mapping of int to float
        By the length that requests are padded to, what padded batches cost for each element of a request, as a multiple
        of what it costs in batches of the requests' own lengths; as far as that is known from runs of several requests.
    padding_off : tuple of int
        The lengths that requests are not padded to at present, since it would cost more: 1.05 times as much, or more.
    coalesced : int
        How many requests waited for the answer to an equal one (see `coalesce` of the :class:`Batcher`).
    cache_hits, cache_misses : int
        How many requests had an answer that was kept (see `result_cache`), and how many looked for one in vain. Hits
        count as completed, and not among the latencies, which are of runs.
    cache_evictions : int
        How many answers were let go of to make room for others.
    cache_entries, cache_bytes : int
        How many answers are kept, and for how many bytes.
    mean_batch_size : float
        Rows per batch.
    batch_fill_rate : float
        Rows per batch, as a share of `max_batch_size`.
    requests_per_second : float
        Completed requests per second, over the last ten seconds.
    inference_error_rate : float
        Failed requests as a share of completed and failed ones.
    dispatched : mapping of str to int
        Why batches started to run: ``full`` (a whole batch was there), ``ready`` (a worker was free), ``delay`` (the
        oldest request had waited for ``max_delay``), ``deadline`` (a request could not wait any longer), ``drain``, or
        ``caller`` (the batcher was idle, and the caller's thread ran the batch), ``enough`` (as many rows as pay were
        there: see `policy`), or ``company`` (a free worker waited for others, who had come or had had their time).
    dispatched_rows : mapping of str to int
        The rows of these batches.
    refused : mapping of str to int
        Why requests were refused when they came: ``queue_full``, ``waiting_full`` (nor was there room to wait),
        ``client_share`` and ``client_rate`` (its client had as many places as were free, or had used up its rate),
        ``clients_full`` (too many clients), ``memory`` (the pool), ``closed`` (those that waited then, too), ``passed``
        (its deadline had), ``too_late`` (it could not be answered in time, by what runs take), or
        ``makes_others_late`` (nor could others, had it gone before them).
    dropped : mapping of str to int
        Why requests that had been let in got no answer: ``no_room`` (they had waited for room in vain),
        ``expired_waiting`` (their deadline passed), ``left_out`` (their run would have been over too late), or
        ``ran_late`` (it was).
    policy : PolicyStats
        What the policy has come to: the rows and the delay of a batch, and why.
    queue_ms, compute_ms, total_ms : Latency
        The time from submission to the start of the run, the time of the run, and both together.
    batch_sizes : mapping of int to int
        How many batches had how many rows, in powers of two: the key 8 counts batches of 5 to 8 rows.
    windows : mapping of int to WindowStats
        The last 1, 10 and 60 seconds.
    clients : mapping of str to ClientStats
        Who is configured, or has sent requests with a name; one that is not configured and has been idle for long may
        be forgotten.
    tags : tuple of TagStats
        What became of the requests with each set of tags, in the order in which the sets came first; the last one is
        that of all others, where there are any.
    pool : PoolStats
        Figures of the buffer pool, which all batchers of the process share.
    memory_rss_bytes : int
        The physical memory of the whole process.
    """

    state: str
    completed: int
    failed: int
    cancelled: int
    expired: int
    rejected: int
    invalid: int
    queue_depth: int
    in_flight: int
    oldest_wait: float
    longest_run: float
    workers: int
    workers_missing: int
    slice_ms: float
    weight: float
    core_seconds: float
    core_share: float
    core_waits: int
    core_wait_seconds: float
    batches: int
    rows: int
    elements: int
    padding: int
    padding_rate: float
    padding_refused: str
    padding_costs: Mapping[int, float]
    padding_off: tuple[int, ...]
    coalesced: int
    cache_hits: int
    cache_misses: int
    cache_evictions: int
    cache_entries: int
    cache_bytes: int
    mean_batch_size: float
    batch_fill_rate: float
    requests_per_second: float
    inference_error_rate: float
    dispatched: Mapping[str, int]
    dispatched_rows: Mapping[str, int]
    refused: Mapping[str, int]
    dropped: Mapping[str, int]
    policy: PolicyStats
    queue_ms: Latency
    compute_ms: Latency
    total_ms: Latency
    batch_sizes: Mapping[int, int]
    windows: Mapping[int, WindowStats]
    clients: Mapping[str, ClientStats]
    tags: tuple[TagStats, ...]
    pool: PoolStats
    memory_rss_bytes: int

    @property
    def p99_latency_ms(self) -> float:
        """From submission to answer, 99% of requests took no longer."""
        return self.total_ms.p99

    def __str__(self) -> str:
        """Show what matters of it on one screen.

        Examples
        --------
        >>> import inferkit
        >>> model = inferkit.Model.from_callable(
        ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
        >>> with inferkit.Batcher(model) as batcher:
        ...     print(str(batcher.stats()).splitlines()[0])
        state     open; 0 waiting; 0 batches running
        """
        return stats_text(self)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as dicts and numbers, ready for :func:`json.dumps`.

        Examples
        --------
        >>> import inferkit, json, numpy as np
        >>> model = inferkit.Model.from_callable(
        ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
        >>> with inferkit.Batcher(model) as batcher:
        ...     figures = json.loads(json.dumps(batcher.stats().as_dict()))
        >>> figures["queue_depth"], figures["windows"]["60"]["total_ms"]["p99"]
        (0, 0.0)
        """
        pool = {name: getattr(self.pool, name) for name in _POOL_FIGURES}
        figures = asdict(replace(self, pool=None))  # type: ignore[arg-type]  # asdict() copies what it does not know
        return {**figures, "pool": pool, "p99_latency_ms": self.p99_latency_ms}


def stats_from(figures: dict[str, Any]) -> BatcherStats:
    windows = [_with_latencies(WindowStats, window) for window in figures["windows"]]
    figures["clients"] = {name: _client_stats(client) for name, client in figures["clients"].items()}
    figures["tags"] = tag_stats(figures["tags"])
    figures["windows"] = {window.seconds: window for window in windows}
    figures["policy"] = policy_stats(figures["policy"] | {"cores": _why_cores(figures)})
    return _with_latencies(BatcherStats, figures)


def _why_cores(figures: dict[str, Any]) -> str:
    waits = figures["core_waits"]
    if not waits:
        return ""
    mean, share = figures["core_wait_seconds"] / waits, figures["core_share"]
    return (
        f"; {counted(waits, 'time')} a batch could have gone, but the cores that all batchers share were taken, and it "
        f"waited for {mean * 1e3:.3g} ms on average; of their time this one has had {100 * share:.0f}%"
    )


def _client_stats(figures: dict[str, Any]) -> ClientStats:
    return ClientStats(**{name: figures[name] for name in ClientStats.__dataclass_fields__})


def _with_latencies(cls: type[_Figures], figures: dict[str, Any]) -> _Figures:
    for name in ("queue_ms", "compute_ms", "total_ms"):
        figures[name] = Latency(**figures[name])
    return cls(**figures)
