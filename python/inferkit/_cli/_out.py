"""What the commands print with: tables in colour where rich is installed, aligned text where it is not."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from .._text import printable

__all__ = ["Out", "bytes_text", "count_text", "seconds_text"]


class Out:
    """Standard output. Names in models and of requests are written by others: no text moves the cursor, or is markup.

    Parameters
    ----------
    plain : bool
        Do without rich even where it is installed; ``INFERKIT_PLAIN=1`` does the same.
    """

    def __init__(self, *, plain: bool = False) -> None:
        self.console: Any = None
        if not (plain or os.environ.get("INFERKIT_PLAIN")) and importlib.util.find_spec("rich"):
            # In a pipe there is no width to fit into, and rich would cut at 80 columns.
            width = None if sys.stdout.isatty() else 160
            self.console = importlib.import_module("rich.console").Console(highlight=False, width=width)

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line; `style` is rich's."""
        text = printable(text)
        if self.console is None:
            print(text)
        else:
            self.console.print(text, style=style or None, markup=False, soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
        """Print a table; columns whose heading begins with ``>`` are aligned to the right."""
        if self.console is None:
            print("\n".join(plain_table(columns, list(rows), title)))
        else:
            self.console.print(rich_table(columns, list(rows), title))

    def facts(self, rows: Iterable[tuple[str, str]], *, title: str = "") -> None:
        """Print pairs of name and value."""
        pairs = [(printable(name), printable(value)) for name, value in rows]
        if title:
            self.line(title, style="bold")
        width = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            if self.console is None:
                print(f"  {name:<{width}}  {value}")
            else:
                text = importlib.import_module("rich.text").Text
                self.console.print(text(f"  {name:<{width}}  ", style="cyan"), text(value), sep="", soft_wrap=True)


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Any:
    """Build a table for a console or a live view."""
    text = importlib.import_module("rich.text").Text
    table = importlib.import_module("rich.table").Table(
        title=text(printable(title)) if title else None,
        title_justify="left",
        title_style="bold",
        box=importlib.import_module("rich.box").SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in columns:
        heading = text(printable(column.removeprefix(">")))
        table.add_column(heading, justify="right" if column.startswith(">") else "left")
    for row in rows:
        table.add_row(*(text(printable(cell)) for cell in row))
    return table


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> list[str]:
    """Build the same as lines of text."""
    names = [printable(column.removeprefix(">")) for column in columns]
    body = [[printable(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in body)]) for i, name in enumerate(names)]

    def cells(row: Sequence[str]) -> str:
        parts = [
            f"{cell:>{width}}" if column.startswith(">") else f"{cell:<{width}}"
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        return "  ".join(parts).rstrip()

    head = [printable(title)] if title else []
    return [*head, cells(names), cells(["-" * width for width in widths]), *(cells(row) for row in body)]


class Progress:
    """One line on standard error that says what takes long; silent where nobody watches."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._watched:
            print(f"\r\033[K{printable(text)}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self("")


def bytes_text(count: float) -> str:
    """Write a number of bytes for a person.

    >>> bytes_text(1536), bytes_text(12)
    ('1.5 KiB', '12 B')
    """
    sign, count = ("-", -count) if count < 0 else ("", count)
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{sign}{count:.0f} B" if unit == "B" else f"{sign}{count:.1f} {unit}"
        count /= 1024
    return f"{sign}{count:.2f} GiB"


def count_text(count: float) -> str:
    """Write a large number for a person.

    >>> count_text(1_234_567), count_text(950)
    ('1.23 M', '950')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= size:
            return f"{count / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{count:.0f}"


def seconds_text(seconds: float) -> str:
    """Write a duration for a person.

    >>> seconds_text(0.0000123), seconds_text(0.25), seconds_text(3.0)
    ('12.3 us', '250 ms', '3 s')
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
