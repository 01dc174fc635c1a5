"""What batchers that are gone had counted: the sums of their process must not go back with them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import Any

from .. import _batcher
from .._background import surviving
from .._batcher import Batcher
from .._text import NAME_LIMIT, printable

__all__ = ["STAGES", "added", "configured", "counts_of", "ended", "remember"]

_Counts = dict[str, Any]
STAGES = {"queue": "queue_ms", "compute": "compute_ms", "total": "total_ms"}
_COUNTED = (
    "completed", "failed", "cancelled", "expired", "rejected", "invalid", "rows", "elements", "padding", "coalesced",
    "cache_hits", "cache_misses", "cache_evictions", "core_seconds", "core_waits", "core_wait_seconds",
)  # fmt: skip
_BY_REASON = ("dispatched", "dispatched_rows", "refused", "dropped")
_OF_CLIENTS = ("submitted", "answered", "refused", "rows")
_OF_TAGS = ("completed", "failed", "cancelled", "expired", "rejected", "invalid", "rows", "seconds")
_MOST_TAG_SETS = 1000  # of all batchers of one name; what has others is counted together
_OTHER_TAGS = (("overflow", "true"),)
_MOST = 500  # batchers that are kept one by one: of more, those of one name become one
_NAMES = 250  # names that are kept then, of those that ended last; what had others is one, of this name
_OTHERS = "ended"


def configured(raw: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Take the clients that somebody has configured from a batcher's figures: of others there may be any number."""
    return {printable(name, NAME_LIMIT): client for name, client in raw["clients"].items() if client["configured"]}


def _added_tags(sets: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add up what has the same tags; a count that is not there is 0."""
    found: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for one in sets:
        key = tuple(sorted(one["tags"].items()))
        if key not in found and len(found) >= _MOST_TAG_SETS:
            key = _OTHER_TAGS
        into = found.setdefault(key, {"tags": dict(key)})
        for field in _OF_TAGS:
            if one.get(field):
                into[field] = into.get(field, 0) + one[field]
    return list(found.values())


def _tagged(raw: dict[str, Any]) -> list[dict[str, Any]]:
    # Two values may be shown alike: they are one label, as a scrape with a series twice is refused as a whole.
    return _added_tags(
        {**one, "tags": {name: printable(value, NAME_LIMIT) for name, value in one["tags"].items()}}
        for one in raw["tags"]
    )


def counts_of(name: str, raw: dict[str, Any]) -> _Counts:
    """Take what only grows from a batcher's figures."""
    return {
        "name": name,
        "stats": {
            **{field: raw[field] for field in _COUNTED},
            **{field: dict(raw[field]) for field in _BY_REASON},
        },
        "clients": {name: {field: client[field] for field in _OF_CLIENTS} for name, client in configured(raw).items()},
        "tags": _tagged(raw),
        "histograms": {
            stage: {"at_most": raw[field]["at_most"], "sum": raw[field]["sum"], "count": raw[field]["count"]}
            for stage, field in STAGES.items()
        },
    }


def _added_clients(ours: dict[str, dict[str, int]], theirs: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    none = dict.fromkeys(_OF_CLIENTS, 0)
    return {
        name: {field: ours.get(name, none)[field] + theirs.get(name, none)[field] for field in _OF_CLIENTS}
        for name in {**ours, **theirs}
    }


def _added_reasons(ours: dict[str, int], theirs: dict[str, int]) -> dict[str, int]:
    return {reason: ours.get(reason, 0) + theirs.get(reason, 0) for reason in {**ours, **theirs}}


def added(a: _Counts, b: _Counts) -> _Counts:
    """Add the counts of two batchers; the name is the first one's."""
    ours, theirs = a["stats"], b["stats"]
    return {
        "name": a["name"],
        "stats": {
            **{field: ours[field] + theirs[field] for field in _COUNTED},
            **{field: _added_reasons(ours.get(field, {}), theirs.get(field, {})) for field in _BY_REASON},
        },
        "clients": _added_clients(a.get("clients", {}), b.get("clients", {})),
        "tags": _added_tags([*a.get("tags", []), *b.get("tags", [])]),
        "histograms": {
            stage: {
                "at_most": [x + y for x, y in zip(one["at_most"], other["at_most"], strict=True)],
                "sum": one["sum"] + other["sum"],
                "count": one["count"] + other["count"],
            }
            for stage, one, other in ((s, a["histograms"][s], b["histograms"][s]) for s in STAGES)
        },
    }


def _by_name(counts: Iterable[_Counts]) -> dict[str, _Counts]:
    """Add up those of one name; who ended last is the last."""
    found: dict[str, _Counts] = {}
    for one in counts:
        known = found.pop(one["name"], None)
        found[one["name"]] = one if known is None else added(known, one)
    return found


class _Ended:
    """The counts of the batchers that have ended since somebody began to ask, for histograms of some bounds.

    Used under `_batcher._ending`.
    """

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self._buckets = list(buckets)
        self._numbers = itertools.count()
        self._counts: dict[int, _Counts] = {}  # one step to put one in, for signal handlers that close batchers
        self._busy = False

    def note(self, batcher: Batcher) -> None:
        self._counts[next(self._numbers)] = counts_of(
            printable(batcher.name, NAME_LIMIT), batcher._stats(self._buckets)
        )
        if len(self._counts) > _MOST:
            self._join()

    def _join(self) -> None:
        if self._busy:  # a signal handler, in the middle of it
            return
        self._busy = True
        try:
            kept = dict(self._counts)
            joined = list(_by_name(kept.values()).values())
            others = [{**one, "name": _OTHERS} for one in joined[:-_NAMES]]
            for number in kept:
                del self._counts[number]
            for one in (*_by_name(others).values(), *joined[-_NAMES:]):
                self._counts[next(self._numbers)] = one
        finally:
            self._busy = False

    def all(self) -> list[_Counts]:
        return list(_by_name(list(self._counts.values())).values())


_of: dict[tuple[float, ...], _Ended] = {}


def _note(batcher: Batcher) -> None:
    if batcher._state == "forked":
        return  # its figures are the parent's
    for kept in list(_of.values()):
        with surviving("metrics", "not counted"):
            kept.note(batcher)


def remember(buckets: tuple[float, ...]) -> None:
    """From now on, keep what batchers had counted when they end, for histograms of these bounds."""
    _of.setdefault(buckets, _Ended(buckets))
    if _note not in _batcher._when_ended:
        _batcher._when_ended.append(_note)


def ended(buckets: tuple[float, ...]) -> list[_Counts]:
    """Give what was kept, one for each name. Under `_batcher._ending`."""
    kept = _of.get(buckets)
    return [] if kept is None else kept.all()


def _in_a_child() -> None:
    for buckets in list(_of):  # what the parent's have counted is the parent's
        _of[buckets] = _Ended(buckets)


os.register_at_fork(after_in_child=_in_a_child)
