"""Ctrl-C while the command line imports: it ends the process at once."""

from __future__ import annotations

import os
import sys

__all__ = ["INTERRUPTED", "is_command_line", "raise_again", "stop_at_once"]

INTERRUPTED = 130  # the exit code


def is_command_line() -> bool:
    """Tell whether the process was begun by `python -m inferkit`, or by the script that pip writes."""
    arguments = getattr(sys, "argv", None)  # a program that embeds Python may have none, and no executable
    if not arguments or not sys.executable:
        return False
    if arguments[0] == "-m":  # until the module is found, the name of which is left out
        return sys.orig_argv[-len(arguments) :][:1] == ["inferkit"]
    return bool(arguments[0] == os.path.join(os.path.dirname(sys.executable), "inferkit"))


def _stop(*_: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(INTERRUPTED)


def stop_at_once() -> None:
    """Let Ctrl-C end the process, unless it is ignored or somebody else's.

    As an exception it may be lost in an import: in a callback of the interpreter's, or in C code. And one that passes
    exec(), by which the standard library makes classes, has `python -m` end by the signal, whoever handles it.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def raise_again() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    import signal

    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
