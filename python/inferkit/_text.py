"""Text that comes from callers and files, made fit for a log line, a terminal, a page or a metric's label."""

from __future__ import annotations

__all__ = ["NAME_LIMIT", "counted", "field", "milliseconds", "printable", "printable_list"]

NAME_LIMIT = 200  # characters of a name or an id that are shown
_ITEM = "\n  - "
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(value: object, limit: int | None = None) -> str:
    r"""Write out what is no visible character, and cut what is longer than `limit`.

    Line breaks and terminal escapes forge lines, marks of direction reorder them, and the surrogates by which Python
    carries undecodable bytes break whoever encodes them: none of these is left. The result of a result is the same.

    Examples
    --------
    >>> from inferkit._text import printable
    >>> print(printable("a\nb\x1b[2J\u202e\udcff"), printable("x" * 9, 4), printable("naïve 名"))
    a\nb\x1b[2J\u202e\xff xxxx... naïve 名
    """
    try:
        text = str(value)
    except Exception:  # an exception's own __str__ may raise
        text = f"<{type(value).__name__} that cannot be printed>"
    # Cut first: an id of megabytes is not to be walked through.
    cut = limit is not None and len(text) > limit
    if cut:
        text = text[:limit]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escaped(c) for c in text)
    return text + "..." if cut else text


def printable_list(value: object) -> str:
    r"""Do the same, but keep the lines of a list, which an error of ours has at its end.

    Examples
    --------
    >>> from inferkit._text import printable_list
    >>> print(printable_list("it lacks:\n  - operator a\n  - operator b\nforged"))
    it lacks:
      - operator a
      - operator b\nforged
    """
    return _ITEM.join(map(printable, str(value).split(_ITEM)))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00  # the byte that could not be decoded
    elif character in _SHORT:
        return _SHORT[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def field(value: object, limit: int = 1000) -> str:
    r"""Write a value so that ``name=value name=value`` can be told apart again: in quotes where it has to be.

    Examples
    --------
    >>> from inferkit._text import field
    >>> print(field("a1"), field(3), field('b outcome="completed"'))
    a1 3 "b outcome=\"completed\""
    """
    text = printable(value, limit)
    if text and not any(c in text for c in ' "='):
        return text
    return '"' + printable(str(value).replace("\\", "\\\\").replace('"', '\\"'), limit) + '"'


def counted(count: int, one: str, several: str = "") -> str:
    """Say how many, with the noun in its right form; `several` where the plural is not `one` and an s.

    Examples
    --------
    >>> from inferkit._text import counted
    >>> counted(1, "row"), counted(0, "row"), counted(2, "batch", "batches")
    ('1 row', '0 rows', '2 batches')
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def milliseconds(seconds: float) -> str:
    """Say a duration in milliseconds, with three digits or all of its whole ones.

    Examples
    --------
    >>> from inferkit._text import milliseconds
    >>> milliseconds(0.0012345), milliseconds(1.5)
    ('1.23 ms', '1,500 ms')
    """
    return f"{seconds * 1e3:,.0f} ms" if seconds >= 0.9995 else f"{seconds * 1e3:.3g} ms"
