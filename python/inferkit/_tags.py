"""Tags of requests: what became of those that have the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["TagStats", "tag_stats"]


@dataclass(frozen=True, kw_only=True)
class TagStats:
    """What became of the requests with certain tags (``submit(..., tags={"endpoint": "search"})``).

    Parameters
    ----------
    tags : mapping of str to str
        The tags; ``{"overflow": "true"}`` for those of all requests whose tags came when as many others were known as
        are told apart (see `max_tag_sets` of the :class:`Batcher`).
    completed, failed, cancelled, expired, rejected, invalid : int
        How many requests ended in each way; as in :class:`BatcherStats`.
    rows : int
        The rows of the completed requests.
    seconds : float
        What those took from submission to answer, all of them together.
    """

    tags: Mapping[str, str]
    completed: int
    failed: int
    cancelled: int
    expired: int
    rejected: int
    invalid: int
    rows: int
    seconds: float


def tag_stats(figures: list[dict[str, Any]]) -> tuple[TagStats, ...]:
    return tuple(TagStats(**one) for one in figures)
