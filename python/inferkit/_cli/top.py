"""``inferkit top``: a live view of the processes that called ``inferkit.top.serve()``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from .. import top
from .._foreign import figures_from
from .._text import NAME_LIMIT, counted, printable
from . import CommandError, duration
from ._out import Out, bytes_text, plain_table, rich_table

__all__ = ["add", "look"]

DESCRIPTION = """Show the batchers of this user's processes that called inferkit.top.serve(): requests a second, queue,
latency, batch size, memory; and of the last minute's requests the share that failed (errors), that was rejected or
expired (unserved), and that was invalid. Ctrl-C ends it."""

_PATIENCE = 2.0  # seconds for one process's answer
_MOST_BYTES = 16 << 20

COLUMNS = (
    ">pid", "batcher", ">req/s", ">queue", ">oldest", ">in flight", ">p50 ms", ">p99 ms", ">batch", ">fill", ">errors",
    ">unserved", ">invalid",
)  # fmt: skip


def add(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("top", help="a live view of running batchers", description=DESCRIPTION)
    parser.add_argument("pid", metavar="PID", nargs="*", type=int, help="show these processes only")
    parser.add_argument("--once", action="store_true", help="print once and end")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds between views (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON once and end")
    parser.add_argument("--plain", action="store_true", help="no colour, no rich")
    parser.set_defaults(run=run)


def ask(path: Path) -> dict[str, Any] | None:
    """Read one process's figures; None where it has gone, or does not answer with any."""
    # What it says may be of another version, or no figures at all: it must not end the view of all others.
    with contextlib.suppress(Exception):
        found: dict[str, Any] = figures_from(_read(path))
        rows([found]), heading([found])
        return found
    with contextlib.suppress(OSError, ValueError):
        if not Path(f"/proc/{int(path.stem)}").exists():
            path.unlink()  # left over by a process that was killed
    return None


def _read(path: Path) -> bytes:
    """Read all that a process says."""
    end = time.monotonic() + _PATIENCE
    content = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        while True:
            try:
                connection.connect(str(path))
                break
            except BlockingIOError:  # too many ask at once
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        while part := connection.recv(1 << 16):
            content += part
            if len(content) > _MOST_BYTES or time.monotonic() > end:
                raise ValueError("it does not come to an end")
    return bytes(content)


def look(pids: list[int]) -> list[dict[str, Any]]:
    """Ask all processes, or those with the given numbers."""
    sockets = sorted(top.runtime_directory().glob("*.sock"))
    chosen = [path for path in sockets if not pids or path.stem in map(str, pids)]
    return [found for found in map(ask, chosen) if found is not None]


def rows(processes: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Lay out one row for each batcher."""
    out: list[tuple[str, ...]] = []
    for process in processes:
        for batcher in process["batchers"]:
            stats = batcher["stats"]
            out.append(
                (
                    f"{process['pid']:d}",
                    printable(batcher["name"], NAME_LIMIT),
                    f"{stats['requests_per_second']:,.0f}",
                    f"{stats['queue_depth']:d}",
                    f"{stats['oldest_wait']:.2f} s",
                    f"{stats['in_flight']:d}",
                    f"{stats['total_ms']['p50']:.3g}",
                    f"{stats['p99_latency_ms']:.3g}",
                    f"{stats['mean_batch_size']:.1f}",
                    f"{stats['batch_fill_rate']:.0%}",
                    *(_share(stats, name) for name in ("inference_error_rate", "unserved_rate", "invalid_rate")),
                )
            )
    return out


def _share(stats: dict[str, Any], name: str) -> str:
    """Of the last minute; a process with an older inferkit may not tell it."""
    value = stats["windows"]["60"].get(name)
    return "-" if value is None else f"{value:.2%}"


def heading(processes: list[dict[str, Any]]) -> str:
    """Sum the processes up in one line."""
    memory = bytes_text(sum(process["rss_bytes"] for process in processes))
    count = sum(len(process["batchers"]) for process in processes)
    clock = time.strftime("%H:%M:%S")
    return f"{clock}  {counted(len(processes), 'process', 'processes')}, {counted(count, 'batcher')}, {memory} resident"


def run(options: argparse.Namespace) -> int:
    """Show it, once or until Ctrl-C."""
    options.interval = duration("--interval", options.interval)
    processes = look(options.pid)
    if options.json:
        print(json.dumps(processes, indent=2))
        return 0
    if not processes and options.pid:
        noun, pronoun = ("process", "it") if len(options.pid) == 1 else ("processes", "they")
        raise CommandError(
            f"{noun} {', '.join(map(str, options.pid))} cannot be seen: {pronoun} must be yours, and have called "
            "inferkit.top.serve()"
        )
    if not processes:
        raise CommandError("none of your processes can be seen: call inferkit.top.serve() in those that should be")
    out = Out(plain=options.plain)
    if options.once:
        out.table(COLUMNS, rows(processes), title=heading(processes))
    elif out.console is None:
        watch_plain(options)
    else:
        watch_rich(options, out)
    return 0


def watch_rich(options: argparse.Namespace, out: Out) -> None:
    """Redraw in place."""

    def view() -> Any:
        processes = look(options.pid)
        return rich_table(COLUMNS, rows(processes), out.console.width, heading(processes))

    with importlib.import_module("rich.live").Live(
        view(), console=out.console, screen=True, auto_refresh=False
    ) as live:
        while True:
            time.sleep(options.interval)
            live.update(view(), refresh=True)


def watch_plain(options: argparse.Namespace) -> None:
    """Print again and again; on a terminal, from its top."""
    while True:
        processes = look(options.pid)
        if sys.stdout.isatty():
            print("\033[H\033[J", end="")
        print("\n".join(plain_table(COLUMNS, rows(processes), heading(processes))), flush=True)
        time.sleep(options.interval)
