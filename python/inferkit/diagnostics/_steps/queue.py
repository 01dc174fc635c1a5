"""Step 5: the queue is short and moves, and no more runs at once than was allowed."""

from __future__ import annotations

from collections.abc import Iterator

from ..._build import build_info
from ..._stats import BatcherStats
from ..._text import counted, printable
from .._patient import Finder, Limits, Patient
from .._report import Check
from . import settings

__all__ = ["examine", "standing"]

_check = Finder(5)
_WASTED = 0.25  # of what runs: with lengths that are a fifth apart it is a tenth


def standing(stats: BatcherStats, limits: Limits) -> Iterator[Check]:
    """Judge a batcher's figures as they stood before any request of ours."""
    deep = stats.queue_depth > limits.queue_depth
    yield _check(
        "queue depth",
        "fail" if deep else "pass",
        f"{stats.queue_depth} waiting (limit {limits.queue_depth})",
        "a queue that grows means that more requests come in than are answered; each waits for all those before it",
        "raise max_batch_size or workers, add processes, or refuse earlier with a smaller max_queue_size"
        if deep
        else "",
    )
    stuck = stats.oldest_wait > limits.oldest_wait
    yield _check(
        "nothing stuck in the queue",
        "fail" if stuck else "pass",
        f"the oldest request has waited {stats.oldest_wait:.3g} s (limit {limits.oldest_wait:g} s)",
        "the caller gave up long ago; the queue does not move, or moves too slowly",
        "see what runs (a model that hangs, a callable that waits); give requests a timeout, so that they end"
        if stuck
        else "",
    )
    hung = stats.longest_run > limits.hung_after
    slow = stats.longest_run > limits.oldest_wait
    yield _check(
        "workers make progress",
        "fail" if hung else "warn" if slow else "pass",
        f"{counted(stats.in_flight, 'batch', 'batches')} in flight, the oldest for {stats.longest_run:.3g} s "
        f"(limit {limits.hung_after:g} s)",
        "a worker that hangs in a batch serves nobody, and the process still looks alive",
        "look at the model's stack (py-spy dump, gdb); a callable needs time limits of its own" if slow else "",
    )
    if stats.workers_missing:
        asked = counted(stats.workers + stats.workers_missing, "worker")
        yield _check(
            "all workers started",
            "warn",
            f"{stats.workers} of {asked}: the system gave no more threads",
            "fewer batches run side by side than were asked for, and answers take longer under load",
            "raise what bounds the threads of the user or the container (RLIMIT_NPROC, `ulimit -u`, pids.max), or ask "
            "for fewer workers",
        )
    ended = stats.completed + stats.failed
    bad = stats.inference_error_rate > limits.error_rate
    yield _check(
        "error rate",
        "fail" if bad else "pass",
        f"{stats.failed} of {ended} requests failed before this diagnosis (limit {limits.error_rate:.0%})"
        if ended
        else "no request yet",
        "failed requests were good ones that the model, or its output checks, could not serve",
        "step 6 says what is wrong with the outputs; the errors' messages name the requests" if bad else "",
    )

    yield from _refused(stats, limits)
    yield from _padding(stats)


def _padding(stats: BatcherStats) -> Iterator[Check]:
    """Judge what is computed for nobody, where requests are padded."""
    if not stats.elements:
        return
    off = stats.padding_off
    figure = f"{stats.padding_rate:.0%} of what was computed for padded inputs was padding"
    if off:
        most = max(stats.padding_costs[length] for length in off) - 1
        to = ", ".join(map(str, off[:8])) + (", ..." if len(off) > 8 else "")
        figure += f"; to {counted(len(off), 'length')} ({to}) it made the work up to {most:.0%} more, and is given up"
    wasteful = stats.padding_rate > _WASTED
    remedy = ""
    if off:
        remedy = (
            "leave pad out, as batches of this model save little here; or give pad_to lengths that lie closer together"
        )
    elif wasteful:
        remedy = "give pad_to lengths that lie closer together, near those that requests have"
    yield _check(
        "padding pays",
        "warn" if off or wasteful else "pass",
        figure,
        "padding is worth its work only where several rows in one run cost less than each in a run of its own",
        remedy,
    )


def _refused(stats: BatcherStats, limits: Limits) -> Iterator[Check]:
    """Judge what never ran."""
    unserved = stats.rejected + stats.expired
    good = stats.completed + stats.failed + unserved
    bad = unserved > limits.unserved_rate * good
    yield _check(
        "requests are served",
        "fail" if bad else "pass",
        f"{stats.rejected} rejected and {stats.expired} expired of {good} good requests before this diagnosis "
        f"(limit {limits.unserved_rate:.0%})"
        if good
        else "no request yet",
        "a request that is refused or expires gets no answer either, even if none of those that run fails",
        "more requests come in than are answered: raise max_batch_size or workers, add processes, or allow more time"
        if bad
        else "",
    )
    came = good + stats.cancelled + stats.invalid
    bad = stats.invalid > limits.invalid_rate * came
    yield _check(
        "requests are valid",
        "warn" if bad else "pass",
        f"{stats.invalid} of {came} requests were invalid before this diagnosis (limit {limits.invalid_rate:.0%})"
        if came
        else "no request yet",
        "a client sends inputs that the model was not made for, and gets errors for them",
        "a ValidationError's reason and message say what was wrong with the input" if bad else "",
    )


def _bounded(patient: Patient) -> Check:
    size = patient.batcher._limits["max_queue_size"]
    return _check(
        "queue is bounded",
        "pass" if size else "warn",
        f"it holds at most {counted(size, 'request')}" if size else "any number of requests may wait",
        "without a bound, an overload ends with memory that runs out, and answers that nobody waits for any more",
        "" if size else "bound it, as in Batcher(max_queue_size=1024): a client that is refused can try elsewhere",
    )


def _shared(patient: Patient) -> Check:
    node = patient.batcher.model._mixing_node
    return _check(
        "requests share batches",
        "warn" if node else "pass",
        f"each request runs by itself: {printable(node)} combines the rows of a run"
        if node
        else "rows are independent",
        "in a shared batch, the answer to a request would depend on the others in it",
        "if the first dimension of the inputs is no batch (but samples or time steps, for example), export the model "
        "with a batch dimension in front of it"
        if node
        else "",
    )


def examine(patient: Patient) -> Iterator[Check]:
    """Judge what was there before us, then what our own traffic does."""
    yield from standing(patient.first_stats, patient.limits)
    yield from settings.window(patient.first_stats)
    yield from settings.cores(patient.batcher._limits, patient.model._threads, build_info()["cpus"])
    if patient.model._is_native:
        yield from settings.plans(patient.model.memory())
    yield _bounded(patient)
    yield _shared(patient)
    if not patient.answers:
        now = patient.batcher.stats()
        yield _check(
            "a request is answered",
            "fail",
            f"none within {patient.timeout:g} s; {now.queue_depth} waiting, "
            f"{counted(now.in_flight, 'batch', 'batches')} in flight",
            "to its callers, a batcher that does not answer is down",
            "look at what the workers do (py-spy dump, gdb); restart the process if they hang",
        )
        return
    patient.say("requests from 16 threads")
    load = patient.traffic(patient.affordable(32, 128), threads=16)
    allowed = patient.batcher._limits["max_concurrent"]
    most = load.most_in_flight()
    over = most > allowed
    yield _check(
        "in flight",
        "fail" if over else "pass",
        f"at most {counted(most, 'batch', 'batches')} at once under load (limit {allowed})",
        "more batches at once than max_concurrent would take CPU and memory that others need",
        "report this as a bug of inferkit" if over else "",
    )
    after = patient.batcher.stats()
    left = after.queue_depth > patient.limits.queue_depth
    queue = after.queue_ms
    yield _check(
        "queue empties",
        "fail" if left else "pass",
        f"{after.queue_depth} waiting after the load; queued p50 {queue.p50:.3g} ms, p99 {queue.p99:.3g} ms",
        "a queue that does not empty when the load ends will not empty at all",
        "raise max_batch_size or workers" if left else "",
    )
