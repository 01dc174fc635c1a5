"""Each public name is deliberate: what is new here must be added here, and documented."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import types

import inferkit

PUBLIC = {
    "errors": {
        "ClosedError", "DeadlineError", "DeviceError", "InferenceError", "InferkitError", "ModelError", "NotReadyError",
        "OutputError", "PoolExhaustedError", "QueueFullError", "RequestCancelledError", "UnsupportedOpError",
        "ValidationError",
    },
    "models": {"InputChecks", "MemoryUse", "Metadata", "Model", "TensorSpec"},
    "batching": {
        "Batcher", "BatcherStats", "Client", "ClientStats", "Fixed", "Latency", "OutputChecks", "PolicyStats",
        "TagStats", "Ticket", "Timing", "WindowStats", "deadline", "max_concurrent", "set_max_concurrent",
    },
    "memory": {"Buffer", "BufferPool", "LeakRow", "PoolStats", "Weights"},
    "build": {"__version__", "build_info", "supported_ops"},
    "plans": {"Explanation", "FileNode", "KernelLaunch", "LoweringChoice", "PlanStep", "Scaling"},
    "precision": {"OutputDifference", "PrecisionReport"},
    "diagnostics": {"diagnose"},
}  # fmt: skip

# Imported at their first use, as `inferkit.diagnostics`.
MODULES = {
    "cuda": {
        "DeviceActivity", "DeviceArray", "DeviceMemory", "activity", "is_available", "leaks", "limit_memory", "memory",
        "trim", "why_not",
    },
    "diagnostics": {"Check", "LoopWatch", "Report", "Stall", "diagnose", "watch_loop"},
    "health": {
        "Limits", "Monitor", "Report", "State", "asgi_app", "configure", "drain", "live", "loading", "ready", "report",
    },
    "metrics": {"BUCKETS", "Collector", "Sharing", "exposition", "register", "share"},
    "testing": {"FakeModel", "LoadReport", "ManualClock", "adrive", "bursts", "drive", "poisson"},
    "top": {"Server", "runtime_directory", "serve", "snapshot"},
    "tracing": {
        "BatchTrace", "RequestLog", "RequestTrace", "Snapshot",
        "StepTrace", "enable", "export_perfetto", "flush", "instrument",
        "log_requests", "snapshot",
        "steps",
        "trace_steps", "uninstrument",
    },
}  # fmt: skip

MEMBERS = {
    "Batcher": {
        "aclose", "amap", "close", "closed", "drain", "map", "max_batch_size", "model", "name", "stats", "submit",
        "submit_many", "swap", "warm_up",
    },
    "Buffer": {"capacity", "nbytes", "release", "released"},
    "BufferPool": {"acquire", "default", "leaks", "stats", "trim"},
    "LeakRow": {"bytes", "capacity", "count", "tag"},
    "Metadata": {"get", "ir_version", "items", "keys", "opsets", "producer", "values", "version"},
    "Model": {
        "compare_precision", "explain", "from_callable", "inputs", "load", "memory", "metadata", "optional_inputs",
        "outputs", "packed_file", "path", "precision", "profile", "run", "save_packed", "trim", "warm_up", "weights",
        "with_inputs",
    },
    "PoolStats": {
        "cached_bytes", "hits", "in_use_bytes", "max_bytes", "misses", "outstanding", "peak_bytes",
    },
    "Ticket": {
        "add_done_callback", "cancel", "cancelled", "close", "done", "exception", "request_id", "result", "send",
        "throw", "timing",
    },
    "Timing": {
        "batch_id", "batch_size", "compute_time", "delivered", "dequeued", "enqueued", "finished", "queue_time",
        "started", "total_time",
    },
    "Weights": {
        "dtype", "file_bytes", "get", "items", "keys", "metadata", "nbytes", "open", "path", "values",
    },
    "deadline": {"remaining"},
}  # fmt: skip

FIELDS = {
    "BatcherStats": {
        "as_dict", "batch_fill_rate", "batch_sizes", "batches", "cache_bytes", "cache_entries", "cache_evictions",
        "cache_hits", "cache_misses", "cancelled", "clients", "coalesced", "completed", "compute_ms", "core_seconds",
        "core_share", "core_wait_seconds", "core_waits", "dispatched",
        "dispatched_rows", "dropped", "elements", "expired", "failed", "in_flight", "inference_error_rate",
        "invalid", "longest_run", "mean_batch_size", "memory_rss_bytes", "oldest_wait", "p99_latency_ms", "padding",
        "padding_costs", "padding_off", "padding_rate", "padding_refused", "policy", "pool", "queue_depth",
        "queue_ms", "refused", "rejected", "requests_per_second", "rows", "slice_ms", "state",
        "tags", "total_ms", "weight", "windows", "workers", "workers_missing",
    },
    "Client": {"burst", "rate", "weight"},
    "ClientStats": {"answered", "refused", "rows", "submitted", "waiting"},
    "Explanation": {
        "arena_bytes", "complete", "estimated_seconds", "inputs", "measured_seconds", "outputs", "runs", "scaling",
        "steps", "synchronization_seconds", "threads", "waiting", "weight_bytes",
    },
    "FileNode": {"name", "operator"},
    "Fixed": {"max_batch_size", "max_delay"},
    "InputChecks": {"finite", "max_length", "min_length", "non_empty"},
    "KernelLaunch": {"blocks", "name", "shared_bytes", "threads", "times"},
    "Latency": {"count", "max", "mean", "p50", "p90", "p95", "p99", "p999"},
    "LoweringChoice": {"cost_seconds", "name", "why_not"},
    "MemoryUse": {
        "arena_bytes", "copied_bytes", "file_bytes", "mapped_bytes", "misaligned_bytes", "packed_bytes",
        "packed_shared_bytes", "plan_evictions", "plan_hits", "plan_misses", "plans", "sessions", "weight_bytes",
    },
    "OutputChecks": {"finite", "normalized", "not_all_zero", "shape", "tolerance"},
    "OutputDifference": {
        "cosine", "elements", "equal", "max_abs_error", "max_rel_error", "name", "relative_error",
    },
    "PlanStep": {
        "considered", "device", "estimated_seconds", "inputs", "kernel_calls", "kernels", "fallback", "layout",
        "lowering", "measured_seconds", "name", "operator", "outputs", "precision", "read_bytes", "reason",
        "scratch_bytes", "stands_for", "times_run", "why", "within", "written_bytes",
    },
    "PolicyStats": {
        "expected_p99", "max_batch_size", "max_delay", "name", "row_seconds", "rows_per_second", "run_seconds",
        "target_p99", "why",
    },
    "PrecisionReport": {"outputs", "precision"},
    "Scaling": {"serial_fraction", "speedup", "synchronizations", "threads"},
    "TagStats": {
        "cancelled", "completed", "expired", "failed", "invalid", "rejected", "rows", "seconds", "tags",
    },
    "TensorSpec": {"any_shape", "dtype", "name", "optional", "sequence", "shape", "shared"},
    "WindowStats": {
        "batch_fill_rate", "batches", "cancelled", "completed", "compute_ms", "covered", "expired", "failed",
        "inference_error_rate", "invalid", "invalid_rate", "p99_latency_ms", "queue_ms", "rejected",
        "requests_per_second", "rows", "seconds", "total_ms", "unserved_rate",
    },
}  # fmt: skip


def test_the_public_names() -> None:
    assert set(inferkit.__all__) == set().union(*PUBLIC.values())


def test_all_is_sorted_and_true() -> None:
    assert inferkit.__all__ == sorted(inferkit.__all__)
    assert all(hasattr(inferkit, name) for name in inferkit.__all__)


def test_nothing_else_is_visible() -> None:
    """Besides `__all__`: the modules that are public, and nothing by accident of an import."""
    visible = {name for name in vars(inferkit) if not name.startswith("_")}
    assert visible - set(inferkit.__all__) <= {"annotations", "TYPE_CHECKING", *MODULES}


def test_modules_are_private() -> None:
    """All but those that are listed, and these say what they hold."""
    assert {m.name for m in pkgutil.iter_modules(inferkit.__path__) if not m.name.startswith("_")} == set(MODULES)
    for name, names in MODULES.items():
        module = getattr(inferkit, name)
        assert set(module.__all__) == names
        assert all(hasattr(module, n) for n in names)


def test_public_members_of_classes() -> None:
    for name, members in MEMBERS.items():
        assert {m for m in dir(getattr(inferkit, name)) if not m.startswith("_")} == members, name


def test_fields_of_dataclasses() -> None:
    """And their properties; frozen, so that a snapshot stays what it was."""
    for name, fields in FIELDS.items():
        cls = getattr(inferkit, name)
        assert {f.name for f in dataclasses.fields(cls)} | {m for m in dir(cls) if not m.startswith("_")} == fields, (
            name
        )
        assert cls.__dataclass_params__.frozen, name


def test_every_class_is_listed() -> None:
    classes = {n for n in inferkit.__all__ if inspect.isclass(getattr(inferkit, n))}
    assert classes - PUBLIC["errors"] == set(MEMBERS) | set(FIELDS)


def test_errors_say_that_they_are_of_inferkit() -> None:
    """A traceback should read `inferkit.ValidationError`'s family, wherever it was raised."""
    for name in PUBLIC["errors"]:
        assert getattr(inferkit, name).__module__.split(".")[0] == "inferkit"


def test_constructors_take_keywords() -> None:
    """Configuration objects are keyword-only, so that a field can be added in the middle."""
    for cls in (
        inferkit.InputChecks,
        inferkit.OutputChecks,
        inferkit.MemoryUse,
        inferkit.BatcherStats,
        inferkit.Latency,
        inferkit.WindowStats,
        inferkit.Explanation,
        inferkit.PlanStep,
        inferkit.OutputDifference,
        inferkit.PrecisionReport,
    ):
        kinds = {p.kind for p in inspect.signature(cls).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}, cls


def test_public_names_are_no_modules() -> None:
    assert not [n for n in inferkit.__all__ if isinstance(getattr(inferkit, n), types.ModuleType)]
