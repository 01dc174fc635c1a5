"""The figures as Prometheus metric families."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .._build import built
from ._ended import added, remember
from ._figures import BUCKETS, Figures, bucket_bounds, process_figures
from ._shared import directory_from, read_shared

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry

__all__ = ["Collector", "exposition", "register", "require_prometheus"]

_LABEL = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_HEADER = re.compile(r"[ -~]+")  # a content type repeats words of the scraper's
_OUTCOMES = ("completed", "failed", "cancelled", "expired", "rejected", "invalid")
_CLIENT_OUTCOMES = ("answered", "refused")
_QUANTILES = {"0.5": "p50", "0.9": "p90", "0.95": "p95", "0.99": "p99", "0.999": "p999"}
# Counters of a set of tags, as those of a CUDA device.
_TAG_COUNTERS = (
    ("rows", "Rows of the completed requests with tags.", "rows"),
    ("seconds", "What the completed requests with tags took from submission to answer, in all.", "seconds"),
)
# Counters of a CUDA device: metric, help, field of its figures.
_CUDA_COUNTERS = (
    ("graph_launches", "Graphs that were launched.", "launches"),
    ("failures", "Runs that failed on the device.", "failures"),
    ("busy_seconds", "How long graphs were under way, as inferkit counts.", "busy_seconds"),
)
_CUDA_COPIES = {"in": "in_bytes", "out": "out_bytes", "weights": "uploaded_bytes"}
_CORES = {
    "core_seconds": "Core time of runs, counted while there was a limit on the cores of all batchers.",
    "core_waits": "Batches that could have gone, but the cores of all batchers were taken.",
    "core_wait_seconds": "How long they waited for a core.",
}
# Gauges of a batcher: metric, help, value of its figures.
_GAUGES: tuple[tuple[str, str, Callable[[Figures], float]], ...] = (
    ("queue_depth", "Requests that wait.", lambda b: b["stats"]["queue_depth"]),
    ("queue_limit", "The most requests that may wait; 0 for any number.", lambda b: b["max_queue_size"]),
    ("in_flight_batches", "Batches that run.", lambda b: b["stats"]["in_flight"]),
    ("in_flight_limit", "The most batches that may run.", lambda b: b["max_concurrent"]),
    ("oldest_wait_seconds", "How long the oldest waiting request has waited.", lambda b: b["stats"]["oldest_wait"]),
    ("longest_run_seconds", "How long the oldest running batch has run.", lambda b: b["stats"]["longest_run"]),
    ("cache_entries", "Answers that are kept.", lambda b: b["stats"].get("cache_entries", 0)),
    ("cache_bytes", "Memory of the answers that are kept.", lambda b: b["stats"].get("cache_bytes", 0)),
    ("max_batch_rows", "The most rows in a batch.", lambda b: b["max_batch_size"]),
    (
        "batch_fill_ratio",
        "Rows per batch over the largest batch, in the last 60 s.",
        lambda b: b["stats"]["windows"][60]["batch_fill_rate"],
    ),
    (
        "inference_error_ratio",
        "Failed requests of those that ran, in the last 60 s.",
        lambda b: b["stats"]["windows"][60]["inference_error_rate"],
    ),
    (
        "unserved_ratio",
        "Rejected and expired requests of those, the completed and the failed ones, in the last 60 s.",
        lambda b: b["stats"]["windows"][60]["unserved_rate"],
    ),
    (
        "invalid_ratio",
        "Invalid requests of all, in the last 60 s.",
        lambda b: b["stats"]["windows"][60]["invalid_rate"],
    ),
    (
        "requests_per_second",
        "Completed requests per second, in the last 10 s.",
        lambda b: b["stats"]["requests_per_second"],
    ),
)  # fmt: skip


def require_prometheus() -> Any:
    """Import prometheus_client, or say how to get it."""
    try:
        import prometheus_client
    except ImportError as error:
        raise ImportError("prometheus_client is not installed: pip install prometheus_client") from error
    return prometheus_client


class Collector:
    """Gives the figures of every open batcher to a registry of prometheus_client, each time that it is scraped.

    A registry takes one of them. A second one would give every metric twice, so its ``register()`` raises a ValueError;
    :func:`register` may be called again and again.

    Parameters
    ----------
    buckets : sequence of float
        The upper bounds of the histograms, in seconds, ascending.
    directory : path, optional
        Also count the processes that :func:`share` their figures in this directory. Counters and histograms are then
        sums over all processes; gauges exist for each living process and have a label ``pid``.

    Raises
    ------
    ImportError
        prometheus_client is not installed.
    """

    def __init__(self, *, buckets: Sequence[float] = BUCKETS, directory: str | os.PathLike[str] | None = None) -> None:
        require_prometheus()
        self._buckets = bucket_bounds(buckets)
        remember(self._buckets)
        self._directory = None if directory is None else directory_from(directory)

    def _does_as(self, other: Collector) -> bool:
        return (self._buckets, self._directory) == (other._buckets, other._directory)

    def describe(self) -> Iterator[Metric]:
        """Give the families without figures, so that a registry refuses a second collector."""
        yield from self._families([])
        yield _skipped(0)

    def collect(self) -> Iterator[Metric]:
        """Take the figures."""
        if self._directory is None:
            processes, skipped = [(process_figures(self._buckets), True)], 0
        else:
            processes, skipped = read_shared(self._directory, self._buckets, self._check)
        yield from self._families(processes)
        yield _skipped(skipped)

    def _families(self, processes: list[tuple[Figures, bool]]) -> Iterator[Metric]:
        yield from _counters(processes)
        yield from _histograms(processes, self._buckets)
        living = [figures for figures, alive in processes if alive]
        yield _quantiles(living, self._directory is not None)
        yield from _gauges(living, self._directory is not None)

    def _check(self, figures: Figures) -> None:
        """Raise where one process's figures cannot be written: with those of others, none could."""
        families = list(self._families([(figures, True)]))
        for family in families:
            for sample in family.samples:
                _check_value(sample.value)  # prometheus_client takes "5" and "nan" for numbers, too
        alone: Any = _Alone(families)
        require_prometheus().generate_latest(alone)


class _Alone:
    """As much of a registry as the text format asks for."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def _check_value(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"a {type(value).__name__} where a number must be")


def _skipped(count: int) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(
        "inferkit_shared_files_skipped", "Files in the shared directory that are no figures of ours.", value=count
    )


def _sums(processes: list[tuple[Figures, bool]], value: Any) -> dict[tuple[str, ...], float]:
    totals: dict[tuple[str, ...], float] = {}
    for figures, _ in processes:
        for batcher in _all(figures):
            for labels, amount in value(batcher).items():
                _check_value(amount)
                key = (batcher["name"], *labels)
                totals[key] = totals.get(key, 0) + amount
    return totals


def _all(figures: Figures) -> list[Figures]:
    """Give all that has counted in a process: the open batchers, and those that have ended."""
    return [*figures["batchers"], *figures["ended"]]


def _clients(batcher: Figures) -> Figures:
    found: Figures = batcher.get("clients", {})  # a process with an older inferkit has none
    return found


def _elements(batcher: Figures) -> dict[tuple[str, ...], float]:
    stats = batcher["stats"]
    padding = stats.get("padding", 0)  # a process with an older inferkit has none
    return {("padding",): padding, ("own",): stats.get("elements", 0) - padding}


def _unanswered(batcher: Figures) -> dict[tuple[str, ...], float]:
    stats = batcher["stats"]  # a process with an older inferkit has none of these
    return {
        (stage, reason): count for stage in ("refused", "dropped") for reason, count in stats.get(stage, {}).items()
    }


def _counters(processes: list[tuple[Figures, bool]]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    def family(name: str, text: str, labels: list[str], values: dict[tuple[str, ...], float]) -> Metric:
        made = CounterMetricFamily(f"inferkit_{name}", text, labels=labels)
        for key, value in sorted(values.items()):
            made.add_metric(key, value)
        return made

    yield family(
        "requests", "Requests by how they ended.", ["batcher", "outcome"],
        _sums(processes, lambda b: {(outcome,): b["stats"][outcome] for outcome in _OUTCOMES}),
    )  # fmt: skip
    yield family(
        "batches", "Batches by why they went.", ["batcher", "reason"],
        _sums(processes, lambda b: {(reason,): n for reason, n in b["stats"]["dispatched"].items()}),
    )  # fmt: skip
    yield family(
        "batch_rows_by_reason", "Rows that ran in batches, by why those went.", ["batcher", "reason"],
        _sums(processes, lambda b: {(reason,): n for reason, n in b["stats"].get("dispatched_rows", {}).items()}),
    )  # fmt: skip
    yield family(
        "unanswered", "Requests that were refused when they came, or dropped later, by why.",
        ["batcher", "stage", "reason"],
        _sums(processes, _unanswered),
    )  # fmt: skip
    yield family(
        "batch_rows", "Rows that ran in batches.", ["batcher"],
        _sums(processes, lambda b: {(): b["stats"]["rows"]}),
    )  # fmt: skip
    yield family(
        "padded_elements", "Elements that the inputs that are padded had in runs, by what they were.",
        ["batcher", "kind"],
        _sums(processes, _elements),
    )  # fmt: skip
    yield family(
        "coalesced_requests", "Requests that waited for the answer to an equal one.", ["batcher"],
        _sums(processes, lambda b: {(): b["stats"].get("coalesced", 0)}),
    )  # fmt: skip
    yield family(
        "cache_lookups", "Requests that had an answer that was kept (hits), or had none (misses).",
        ["batcher", "result"],
        _sums(processes, lambda b: {(r,): b["stats"].get(f"cache_{r}", 0) for r in ("hits", "misses")}),
    )  # fmt: skip
    yield family(
        "cache_evictions", "Answers that were let go of to make room for others.", ["batcher"],
        _sums(processes, lambda b: {(): b["stats"].get("cache_evictions", 0)}),
    )  # fmt: skip
    for name, text in _CORES.items():
        yield family(name, text, ["batcher"], _sums(processes, lambda b, name=name: {(): b["stats"].get(name, 0)}))
    yield family(
        "client_submissions", "Requests that configured clients have sent.", ["batcher", "client"],
        _sums(processes, lambda b: {(name,): c["submitted"] for name, c in _clients(b).items()}),
    )  # fmt: skip
    yield family(
        "client_requests", "Requests of configured clients that were answered, or refused when they came.",
        ["batcher", "client", "outcome"],
        _sums(processes, lambda b: {(name, o): c[o] for name, c in _clients(b).items() for o in _CLIENT_OUTCOMES}),
    )  # fmt: skip
    yield family(
        "client_rows", "Rows of the answered requests of configured clients.", ["batcher", "client"],
        _sums(processes, lambda b: {(name,): c["rows"] for name, c in _clients(b).items()}),
    )  # fmt: skip
    names, tagged = _tagged(processes)
    yield family(
        "tagged_requests", "Requests with tags by how they ended.", ["batcher", *names, "outcome"],
        {(*key, outcome): one.get(outcome, 0) for key, one in tagged.items() for outcome in _OUTCOMES},
    )  # fmt: skip
    for name, text, field in _TAG_COUNTERS:
        counts = {key: one.get(field, 0) for key, one in tagged.items()}
        yield family(f"tagged_{name}", text, ["batcher", *names], counts)
    for name, text, field in _CUDA_COUNTERS:
        yield family(f"cuda_{name}", text, ["device"], _cuda_sums(processes, lambda a, field=field: {(): a[field]}))
    yield family(
        "cuda_copied_bytes", "Bytes that went over: inputs and the like (in), outputs and the like (out), weights.",
        ["device", "what"],
        _cuda_sums(processes, lambda a: {(what,): a[field] for what, field in _CUDA_COPIES.items()}),
    )  # fmt: skip
    pool: dict[tuple[str, ...], float]
    pool = {(name,): float(sum(f["pool"][name] for f, _ in processes)) for name in ("hits", "misses")}
    yield family("pool_acquisitions", "Buffers that a cache served (hits), or the system (misses).", ["result"], pool)


def _tagged(processes: list[tuple[Figures, bool]]) -> tuple[list[str], dict[tuple[str, ...], Figures]]:
    """Give the names of all tags, and what has counted by batcher and their values.

    A family's samples have the same labels: a tag that a set has not is an empty one, which is the same as none.
    """
    totals: dict[tuple[str, tuple[tuple[str, str], ...]], Figures] = {}
    for figures, _ in processes:
        for batcher in _all(figures):
            for one in batcher.get("tags", []):  # a process with an older inferkit has none
                for name, value in one["tags"].items():
                    _check_tag(name, value)
                total = totals.setdefault((batcher["name"], tuple(sorted(one["tags"].items()))), {})
                for field in (*_OUTCOMES, *(field for *_, field in _TAG_COUNTERS)):
                    _check_value(amount := one.get(field, 0))
                    total[field] = total.get(field, 0) + amount
    names = sorted({name for _, tags in totals for name, _ in tags})
    return names, {
        (batcher, *(dict(tags).get(name, "") for name in names)): total for (batcher, tags), total in totals.items()
    }


def _check_tag(name: Any, value: Any) -> None:
    if not isinstance(value, str) or not _LABEL.fullmatch(name) or name in ("batcher", "outcome"):
        raise ValueError("a tag that can be no label")


def _cuda_sums(processes: list[tuple[Figures, bool]], value: Any) -> dict[tuple[str, ...], float]:
    """Sum over the processes what the devices have done, those of one number as one."""
    totals: dict[tuple[str, ...], float] = {}
    for figures, _ in processes:
        for device, found in figures.get("cuda", {}).items():  # a process with an older inferkit has none
            for labels, amount in value(found["activity"]).items():
                _check_value(amount)
                key = (_device(device), *labels)
                totals[key] = totals.get(key, 0) + amount
    return totals


def _device(number: Any) -> str:
    if not isinstance(number, str) or not number.isdecimal():
        raise TypeError("a device has no number")
    return number


def _histograms(processes: list[tuple[Figures, bool]], buckets: Sequence[float]) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    made = HistogramMetricFamily(
        "inferkit_request_duration_seconds",
        "Requests that ran, by stage: queue (to the start of the run), compute (the run), total.",
        labels=["batcher", "stage"],
    )
    totals: dict[tuple[str, str], tuple[list[int], float, int]] = {}
    for figures, _ in processes:
        for batcher in _all(figures):
            for stage, one in batcher["histograms"].items():
                at_most, seconds, count = totals.get((batcher["name"], stage), ([0] * len(buckets), 0.0, 0))
                at_most = [a + b for a, b in zip(at_most, one["at_most"], strict=True)]
                totals[batcher["name"], stage] = (at_most, seconds + one["sum"], count + one["count"])
    for key, (at_most, seconds, count) in sorted(totals.items()):
        bounds = [str(float(bound)) for bound in buckets]
        made.add_metric(key, [*zip(bounds, at_most, strict=True), ("+Inf", count)], sum_value=seconds)
    yield made


def _quantiles(processes: list[Figures], with_pid: bool) -> Metric:
    """Make a summary: quantiles cannot be summed, so they are of the processes that live, as gauges are."""
    from prometheus_client.metrics_core import Metric

    name = "inferkit_latency_seconds"
    made = Metric(name, "Quantiles of the last 60 s, by stage, within 1%; count and sum are of all time.", "summary")
    for figures in processes:
        ended = {batcher["name"]: batcher for batcher in figures["ended"]}
        for batcher in figures["batchers"]:
            window = _with_int_windows(batcher)["stats"]["windows"][60]
            before = ended.get(batcher["name"])
            for stage, ever in (batcher if before is None else added(batcher, before))["histograms"].items():
                labels = {"batcher": batcher["name"], "stage": stage}
                if with_pid:
                    labels["pid"] = str(figures["pid"])
                for quantile, field in _QUANTILES.items():
                    made.add_sample(name, {**labels, "quantile": quantile}, window[f"{stage}_ms"][field] / 1e3)
                made.add_sample(f"{name}_sum", labels, ever["sum"])
                made.add_sample(f"{name}_count", labels, ever["count"])
    return made


def _gauges(processes: list[Figures], with_pid: bool) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    def family(name: str, text: str, labels: Sequence[str]) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"inferkit_{name}", text, labels=[*labels, *(["pid"] if with_pid else [])])

    def pid(figures: Figures) -> list[str]:
        return [str(figures["pid"])] if with_pid else []

    for name, text, value in _GAUGES:
        made = family(name, text, ["batcher"])
        for figures in processes:
            for batcher in figures["batchers"]:
                made.add_metric([batcher["name"], *pid(figures)], value(_with_int_windows(batcher)))
        yield made

    waiting = family("client_waiting", "Requests of configured clients that wait.", ["batcher", "client"])
    for figures in processes:
        for batcher in figures["batchers"]:
            for client, count in batcher.get("clients_waiting", {}).items():
                waiting.add_metric([batcher["name"], client, *pid(figures)], count)
    yield waiting

    memory = family("memory_rss_bytes", "Physical memory of the process.", [])
    pool = family("pool_bytes", "The buffer pool's memory: in use, cached, and the most ever held.", ["state"])
    buffers = family("pool_buffers", "Buffers that are out of the pool.", [])
    for figures in processes:
        memory.add_metric(pid(figures), figures["memory_rss_bytes"])
        for state in ("in_use", "cached", "peak"):
            pool.add_metric([state, *pid(figures)], figures["pool"][f"{state}_bytes"])
        buffers.add_metric(pid(figures), figures["pool"]["outstanding"])
    yield from (memory, pool, buffers)

    memory = family(
        "cuda_memory_bytes",
        "Memory of a device: in use, cached, the most ever held, the cap (0 for none), weights.",
        ["device", "state"],
    )
    pinned = family("cuda_pinned_bytes", "Memory of the host that a device reaches.", ["device", "state"])
    running = family("cuda_running", "Graphs that are under way.", ["device"])
    for figures in processes:
        for device, found in figures.get("cuda", {}).items():
            for states, made in ((found["memory"], memory), (found["pinned"], pinned)):
                for state, count in states.items():
                    made.add_metric([_device(device), state, *pid(figures)], count)
            running.add_metric([_device(device), *pid(figures)], found["activity"]["running"])
    yield from (memory, pinned, running)

    info = built()
    build = GaugeMetricFamily("inferkit_build_info", "What runs here; always 1.", labels=["version", "isa", "debug"])
    build.add_metric([info["version"], info["isa"], str(info["debug"]).lower()], 1)
    yield build


def _with_int_windows(batcher: Figures) -> Figures:
    """Undo what JSON does to the keys."""
    stats = batcher["stats"]
    windows = {int(seconds): window for seconds, window in stats["windows"].items()}
    return {**batcher, "stats": {**stats, "windows": windows}}


#: What register() has put into which registry: two collectors in one would give every family twice, and Prometheus
#: refuses such a scrape as a whole.
_registered: weakref.WeakKeyDictionary[CollectorRegistry, Collector] = weakref.WeakKeyDictionary()
_registering = threading.RLock()  # a signal handler may register, too


def _in_a_child() -> None:
    global _registering  # which a thread of the parent may have held
    _registering = threading.RLock()


os.register_at_fork(after_in_child=_in_a_child)


def register(
    registry: CollectorRegistry | None = None,
    *,
    buckets: Sequence[float] = BUCKETS,
    directory: str | os.PathLike[str] | None = None,
) -> Collector:
    """Add the batchers' metrics to a registry of prometheus_client.

    A registry has the metrics once. A second call returns the collector of the first one; if the buckets or the
    directory differ, a new collector replaces it.

    Parameters
    ----------
    registry : prometheus_client.CollectorRegistry, optional
        By default the global registry, which ``start_http_server`` and ``make_asgi_app`` serve.
    buckets, directory
        As for :class:`Collector`.

    Returns
    -------
    Collector
        The collector; ``registry.unregister(collector)`` removes it.

    Raises
    ------
    ImportError
        prometheus_client is not installed.
    ValueError
        The registry has a :class:`Collector` that was not registered by this function, or other metrics of these names.

    Examples
    --------
    >>> import inferkit, prometheus_client
    >>> registry = prometheus_client.CollectorRegistry()
    >>> _ = inferkit.metrics.register(registry)
    >>> b"inferkit_memory_rss_bytes" in prometheus_client.generate_latest(registry)
    True
    """
    made = Collector(buckets=buckets, directory=directory)
    if registry is None:
        registry = require_prometheus().REGISTRY
    elif not hasattr(registry, "register"):
        raise TypeError(f"registry must be a CollectorRegistry of prometheus_client, got {type(registry).__name__}")
    with _registering:
        before = _registered.get(registry)
        if before is not None:
            with contextlib.suppress(KeyError):  # the caller may have taken it out
                registry.unregister(before)
            if before._does_as(made):
                made = before
        registry.register(made)
        _registered[registry] = made
    return made


def exposition(*, directory: str | os.PathLike[str] | None = None, accept: str = "") -> tuple[bytes, str]:
    """Return the text that a scrape gets, with the metrics of inferkit alone.

    Parameters
    ----------
    directory : path, optional
        As for :class:`Collector`.
    accept : str
        The ``Accept`` header of the scraper. It decides between the text format and OpenMetrics.

    Returns
    -------
    tuple of bytes and str
        The body, and its content type.

    Raises
    ------
    ImportError
        prometheus_client is not installed.
    """
    if not isinstance(accept, str):
        raise TypeError(f"accept must be a str, the header's text, got {type(accept).__name__}")
    prometheus = require_prometheus()
    from prometheus_client.exposition import choose_encoder

    registry = prometheus.CollectorRegistry(auto_describe=False)
    registry.register(Collector(directory=directory))
    try:
        encoder, content_type = choose_encoder(accept)
        if not _HEADER.fullmatch(content_type):
            raise ValueError("what was asked for is no part of a header")
    except (ValueError, TypeError, LookupError):  # a scraper that speaks nonsense gets what all of them read
        encoder, content_type = choose_encoder("")
    return encoder(registry), content_type
