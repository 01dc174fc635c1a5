"""What the commands print with: tables in colour where rich is installed, aligned text where it is not."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from .._text import printable

__all__ = ["Out", "bytes_text", "count_text", "seconds_text"]

_GAP = 2  # between columns
_FOLDED = 16  # letters that a line of a folded column still shows


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
            # In a pipe there is no width to fit into, and rich would cut at 80 columns. COLUMNS=0 it takes as it is.
            width = shutil.get_terminal_size().columns if "COLUMNS" in os.environ else None
            width = width if sys.stdout.isatty() else 160
            self.console = importlib.import_module("rich.console").Console(highlight=False, width=width)
            self.console.on_broken_pipe = _broken_pipe  # its own ends the process with 1

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line; `style` is rich's."""
        text = printable(text)
        if self.console is None:
            print(text)
        else:
            self.console.print(text, style=style or None, markup=False, soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
        """Print a table; columns whose heading begins with ``>`` are of numbers: to the right, and never folded."""
        found = list(rows)
        if self.console is not None and self.console.is_terminal:
            if title:
                self.line(title, style="bold")  # whole: a table's own is folded at its width
            self.console.print(rich_table(columns, found, self.console.width), soft_wrap=True)
        else:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            print("\n".join(plain_table(columns, found, title, width)))

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


def _broken_pipe() -> None:
    raise BrokenPipeError


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, title: str = "") -> Any:
    """Build a table for a console or a live view; where numbers would be cut to fit into `width`, the plain one."""
    text = importlib.import_module("rich.text").Text
    names, body, widths = _cells(columns, rows)
    numbers = [column.startswith(">") for column in columns]
    least = [wide if number else min(wide, _FOLDED) for number, wide in zip(numbers, widths, strict=True)]
    if sum(least) + _GAP * len(least) > width:
        return text("\n".join(plain_table(columns, rows, title, width)), no_wrap=True, overflow="ignore")
    table = importlib.import_module("rich.table").Table(
        title=text(printable(title)) if title else None,
        title_justify="left",
        title_style="bold",
        box=importlib.import_module("rich.box").SIMPLE_HEAD,
        padding=(0, _GAP - 1, 0, 0),  # one more is the box's
        pad_edge=False,
    )
    for name, number in zip(names, numbers, strict=True):
        table.add_column(text(name), justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in body:
        table.add_row(*map(text, row))
    return table


def plain_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", width: int | None = None
) -> list[str]:
    """Build the same as lines of text; those that are longer than `width` are broken between columns."""
    names, body, widths = _cells(columns, rows)
    parts: list[list[int]] = [[]]  # the columns of each line of a row
    used = 0
    for column, wide in enumerate(widths):
        if width is not None and parts[-1] and used + wide > width:
            parts.append([])
            used = _GAP
        parts[-1].append(column)
        used += wide + _GAP

    def lines(row: Sequence[str]) -> list[str]:
        cells = [
            f"{cell:>{wide}}" if column.startswith(">") else f"{cell:<{wide}}"
            for column, cell, wide in zip(columns, row, widths, strict=True)
        ]
        gap = " " * _GAP
        return [(gap * (part[0] > 0) + gap.join(cells[i] for i in part)).rstrip() for part in parts]

    head = [names, ["-" * wide for wide in widths]]
    return [*([printable(title)] if title else []), *(line for row in (*head, *body) for line in lines(row))]


def _cells(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]], list[int]]:
    """Give the headings and the cells as they are shown, and the widths of the columns."""
    names = [printable(column.removeprefix(">")) for column in columns]
    body = [[printable(cell) for cell in row] for row in rows]
    return names, body, [max(map(len, cells)) for cells in zip(names, *body, strict=True)]


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
