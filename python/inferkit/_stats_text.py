"""What print(batcher.stats()) shows: a screen of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._text import counted, milliseconds

if TYPE_CHECKING:
    from ._stats import BatcherStats, Latency

__all__ = ["stats_text"]


def _named(**counts: int) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count) or "none"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"


def _row(name: str, latency: Latency) -> str:
    return f"{name:<10}" + "".join(
        f"{value:>11.3f}" for value in (latency.p50, latency.p90, latency.p99, latency.p999, latency.max)
    )


def _fitted(text: str, width: int = 70) -> list[str]:
    """Break what is separated by commas into lines; the second one at most, and what does not fit is left out."""
    lines = [""]
    for part in text.split(", "):
        longer = f"{lines[-1]}, {part}" if lines[-1] else part
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines if len(lines) <= 2 else [lines[0], f"{lines[1][: width - 5]}, ..."]


def stats_text(stats: BatcherStats) -> str:
    """Fill a screen: some twenty lines, of 80 columns where the figures are not very large."""
    waiting = f"{stats.queue_depth:,} waiting"
    if stats.queue_depth:
        waiting += f" (the oldest {stats.oldest_wait:.3f} s)"
    running = f"{counted(stats.in_flight, 'batch', 'batches')} running"
    if stats.in_flight:
        running += f" (the oldest {stats.longest_run:.3f} s)"
    of = stats
    ends = _named(completed=of.completed, failed=of.failed, cancelled=of.cancelled, expired=of.expired)
    refused = _named(rejected=of.rejected, invalid=of.invalid)
    counts = ((of.coalesced, "coalesced"), (of.cache_hits, "from the cache"))
    alike = [f"{count:,} {what}" for count, what in counts if count]
    if of.cache_entries:
        alike.append(f"{counted(of.cache_entries, 'answer')} kept ({_bytes(of.cache_bytes)})")
    given_up = f"; given up for {counted(len(of.padding_off), 'length')}" if of.padding_off else ""
    why = ", ".join(f"{reason} {count:,}" for reason, count in stats.dispatched.items() if count) or "none yet"
    unanswered = _named(**{**stats.refused, **stats.dropped})
    chosen = stats.policy
    of_all = f", {stats.workers} of {stats.workers + stats.workers_missing} workers" if stats.workers_missing else ""
    slices = f", slices of {stats.slice_ms:.3g} ms" if stats.slice_ms else ""
    wait = f"waits up to {milliseconds(chosen.max_delay)}" if chosen.max_delay else "no delay"
    cores = (
        f"cores     {100 * of.core_share:.0f}% of all batchers' time; "
        f"waited {counted(of.core_waits, 'time')} for one, {of.core_wait_seconds:.3g} s in all"
    )
    lines = [
        f"state     {stats.state}; {waiting}; {running}",
        f"requests  {ends}",
        f"refused   {refused}",
        *(f"why not   {line}" for line in _fitted(unanswered) if unanswered != "none"),
        f"rate      {stats.requests_per_second:,.1f} requests/s (last 10 s), "
        f"{100 * stats.inference_error_rate:.1f}% of those that ran failed",
        f"batches   {stats.batches:,} of {stats.mean_batch_size:.1f} rows on average: "
        f"{100 * stats.batch_fill_rate:.0f}% full{of_all}",
        *(f"went as   {line}" for line in _fitted(why)),
        f"policy    {chosen.name}: up to {counted(chosen.max_batch_size, 'row')}, {wait}{slices}",
        *([cores] if of.core_waits else []),
        *([f"equal     {', '.join(alike)}"] if alike else []),
        *([f"padding   {100 * stats.padding_rate:.1f}% of what was computed{given_up}"] if stats.elements else []),
        f"{'ms':<10}" + "".join(f"{name:>11}" for name in ("p50", "p90", "p99", "p99.9", "max")),
        _row("queued", stats.queue_ms),
        _row("computed", stats.compute_ms),
        _row("in all", stats.total_ms),
    ]
    for seconds, window in sorted(stats.windows.items()):
        lines.append(
            f"last {f'{seconds} s':<5}{window.requests_per_second:,.1f} requests/s, "
            f"p99 {window.p99_latency_ms:.3f} ms, {100 * window.unserved_rate:.1f}% unserved"
        )
    lines.append(f"memory    {_bytes(stats.pool.in_use_bytes)} of the pool, {_bytes(stats.memory_rss_bytes)} resident")
    return "\n".join(lines)
