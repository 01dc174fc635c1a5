"""How a batcher decides what runs together, and what it has come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ._arguments import integer, seconds
from ._text import milliseconds as ms

__all__ = ["Fixed", "PolicyStats", "policy_stats", "resolved"]

_DEFAULT_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """A policy for those who know: batches as these numbers say, whatever runs are found to take.

    Parameters
    ----------
    max_batch_size : int
        The most rows in a batch. What waits goes together up to this.
    max_delay : float
        For how many seconds the oldest waiting request waits for others to join its batch, but not past its own
        timeout. With 0, a free worker takes what is there.

    Examples
    --------
    >>> import inferkit, numpy as np
    >>> model = inferkit.Model.from_callable(
    ...     lambda x: x * 2, inputs=[("x", "float32", (None, 2))], outputs=[("y", "float32", (None, 2))])
    >>> with inferkit.Batcher(model, policy=inferkit.Fixed(max_batch_size=16)) as batcher:
    ...     _ = batcher(np.ones(2, np.float32))
    ...     batcher.stats().policy.name, batcher.stats().policy.max_batch_size
    ('fixed', 16)
    """

    max_batch_size: int = _DEFAULT_ROWS
    max_delay: float = 0.0

    def __post_init__(self) -> None:
        integer(self.max_batch_size, "max_batch_size", 1)
        seconds(self.max_delay, "max_delay")


@dataclass(frozen=True, kw_only=True)
class PolicyStats:
    """What the policy of a batcher has come to, for the shape of inputs whose batches went last.

    Parameters
    ----------
    name : str
        ``auto`` or ``fixed``.
    max_batch_size : int
        The rows with which a batch goes: the batcher's own bound, or fewer where more of them make none cheaper.
    max_delay : float
        For how many seconds a batch may wait for company: as given, or what ``auto`` has found that others come within.
    run_seconds, row_seconds : float
        What a run of so many rows takes, and what that is for each of them; 0 while nothing has run.
    target_p99 : float or None
        As it was given.
    expected_p99 : float
        With a target, what 99% of the requests should take at most, by what runs take and by what comes; else 0.
    rows_per_second : float
        With a target, the rows that have come lately, in a second; else 0.
    why : str
        The same in a sentence.
    """

    name: str
    max_batch_size: int
    max_delay: float
    run_seconds: float
    row_seconds: float
    target_p99: float | None
    expected_p99: float
    rows_per_second: float
    why: str


def resolved(
    policy: object, max_batch_size: int, max_delay: float | None, target_p99: float | None
) -> tuple[bool, int, float, bool, float]:
    """Check the arguments of a Batcher.

    Returns whether it is auto, its rows, its delay, whether it finds that by itself, and its target, 0 for none.
    """
    target = 0.0 if target_p99 is None else seconds(target_p99, "target_p99", positive=True)
    if isinstance(policy, Fixed):
        if target:
            raise ValueError("target_p99 is what policy='auto' aims at: leave policy out, or leave target_p99 out")
        if max_delay is not None or type(max_batch_size) is not int or max_batch_size != _DEFAULT_ROWS:
            raise ValueError(
                f"max_batch_size and max_delay are said twice: leave them to policy={policy!r}, or leave policy out"
            )
        return False, policy.max_batch_size, policy.max_delay, False, 0.0
    if not isinstance(policy, str):
        raise TypeError(f"policy must be 'auto' or an inferkit.Fixed, got {type(policy).__name__}")
    if policy != "auto":
        raise ValueError(f"policy must be 'auto' or an inferkit.Fixed, got {policy!r}")
    return True, max_batch_size, 0.0 if max_delay is None else max_delay, max_delay is None, target


def policy_stats(raw: dict[str, Any]) -> PolicyStats:
    """Say it as the core's figures are: in seconds, and in words."""
    name: Literal["auto", "fixed"] = "auto" if raw["auto"] else "fixed"
    rows, run = raw["pays"] or raw["most"], raw["of_paying"]
    delay = raw["delay"] if raw["delay"] >= 0 else raw["max_delay"]
    return PolicyStats(
        name=name,
        max_batch_size=rows,
        max_delay=max(delay, raw["company"]),
        run_seconds=run,
        row_seconds=run / rows,
        target_p99=raw["target"] or None,
        expected_p99=raw["expected"],
        rows_per_second=raw["rate"],
        why=_why(raw, rows, run) + raw["cores"],
    )


def _why(raw: dict[str, Any], rows: int, run: float) -> str:
    if raw["mixes"]:
        return "what a row is answered depends on the other rows of its run, so each request is a batch of its own"
    if not raw["auto"]:
        return "these are the numbers that it was given"
    if raw["pays"] == 0:
        return "too few batches have run to tell what pays"
    each, most = run / rows, raw["most"]
    if raw["target"] and raw["expected"]:
        told = (
            f"{raw['rate']:,.0f} rows come in a second, and a run of {rows} takes {ms(run)}: 99% should be answered "
            f"within {ms(raw['expected'])}"
        )
        if not raw["kept"]:
            told += f", and no size of a batch that keeps up with them keeps the target of {ms(raw['target'])}"
        elif raw["delay"] > 0:
            told += f", of which {ms(raw['delay'])} are for others to come, since larger batches save work"
    elif rows < most:
        told = f"a row takes {ms(each)} in a batch of {rows} and {ms(raw['of_most'] / most)} in one of {most}"
        told += ", the hand-over left out: more rows than that do not pay"
    else:
        told = (
            f"rows go on getting cheaper up to {most} in a batch, as far as has been seen, or cost too little to matter"
        )
    if raw["company"]:
        told += f"; after a batch could have gone, others come within {ms(raw['company'])}, and are waited for"
    return told
