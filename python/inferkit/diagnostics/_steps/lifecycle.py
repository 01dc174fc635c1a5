"""Step 2: every request has an id of its own and its five stamps, under load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..._errors import InferkitError
from ..._ticket import Ticket
from .._patient import Finder, Patient, Traffic
from .._report import Check

__all__ = ["STAMPS", "examine"]

_check = Finder(2)
STAMPS = ("enqueued", "dequeued", "started", "finished", "delivered")


def _stamps(ticket: Ticket) -> str:
    """Say what is wrong with a ticket's times; empty where nothing is."""
    times = [getattr(ticket.timing, name) for name in STAMPS]
    absent = [name for name, value in zip(STAMPS, times, strict=True) if value is None]
    if absent:
        return f"{', '.join(absent)} missing"
    if times != sorted(times):
        return "out of order"
    return "" if ticket.timing.batch_id is not None else "no batch id"


def examine(patient: Patient) -> Iterator[Check]:
    """Send requests from several threads and look at their tickets."""
    patient.say("requests from 8 threads")
    from .._log_lines import log_lines  # logging is imported for those who diagnose, and nobody else

    count = patient.affordable(16, 200)
    with log_lines(patient.batcher) as lines:
        load = patient.traffic(count, prefix="doctor")
        unnamed = patient.traffic(count // 2)
        unlogged = lines.without_id(ticket.request_id for _, ticket in load.tickets + unnamed.tickets)
        logged = len(lines) > 0
    load.errors += unnamed.errors
    load.seconds += unnamed.seconds
    yield _ended(load, count + count // 2)
    for _, ticket in load.tickets + unnamed.tickets:
        if ticket.exception(0) is None:
            ticket.result(0)  # takes delivery
    ids = [ticket.request_id for _, ticket in load.tickets + unnamed.tickets]
    doubles = [name for name, n in Counter(ids).items() if n > 1]
    kept = {ticket.request_id for _, ticket in load.tickets} == set(load.asked)
    good = not doubles and kept and bool(ids)
    yield _check(
        "unique ids",
        "pass" if good else "fail",
        f"{len(set(ids))} ids for {len(ids)} requests, the caller's kept where it gave one"
        if good
        else f"ids used twice: {doubles[:3]}, ids of the caller kept: {kept}",
        "without an id of its own a slow request cannot be found in the logs",
        "" if good else "report this as a bug of inferkit",
    )
    yield _in_the_log(len(ids), unlogged, logged)
    finished = [ticket for _, ticket in load.tickets + unnamed.tickets if ticket.exception(0) is None]
    why = "the five times tell a full queue from a slow model and a late caller"
    if not finished:
        yield _check("five stamps", "skip", "no request was answered", why)
        return
    wrong = [problem for problem in map(_stamps, finished) if problem]
    slowest = max(finished, key=lambda t: (t.timing.finished or 0) - (t.timing.enqueued or 0))
    yield _check(
        "five stamps",
        "fail" if wrong else "pass",
        f"{', '.join(STAMPS)} on all of {len(finished)}; slowest {_split(slowest)}"
        if not wrong
        else f"{len(wrong)} of {len(finished)} requests: {', '.join(sorted(set(wrong)))}",
        why,
        "report this as a bug of inferkit" if wrong else "",
    )


def _in_the_log(count: int, unlogged: list[str], logged: bool) -> Check:
    off = count > 0 and not logged
    figure = f"{len(unlogged)} of {count} requests have no line with their id: {', '.join(unlogged[:3])}"
    if off:
        figure = "no line about any request: its trace, or logging, is switched off"
    elif not unlogged:
        figure = f"each of {count} requests has its line, with its id as a field and in the text"
    return _check(
        "ids in the log",
        "warn" if off else "fail" if unlogged else "pass",
        figure,
        "the line of a slow or failed request is of use where it says which request that was",
        "leave the trace on: trace_size above 0, no tracing.enable(False); and no logging.disable()"
        if off
        else "report this as a bug of inferkit"
        if unlogged
        else "",
    )


def _split(ticket: Ticket) -> str:
    t = ticket.timing
    queue = ((t.started or 0) - (t.enqueued or 0)) * 1e3
    return f"{queue:.2f} ms queued, {((t.finished or 0) - (t.started or 0)) * 1e3:.2f} ms computed"


def _ended(load: Traffic, count: int) -> Check:
    kinds = Counter(type(error).__name__ for error in load.errors)
    told = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    first = next((error for error in load.errors if isinstance(error, InferkitError)), None)
    return _check(
        "requests are answered",
        "fail" if load.errors else "pass",
        f"{len(load.errors)} of {count} failed: {told}"
        if load.errors
        else f"{count} of {count} in {load.seconds * 1e3:.0f} ms",
        "every request must end, and these were good ones",
        f"the first said: {first}" if load.errors else "",
    )
