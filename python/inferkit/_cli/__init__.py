"""The command line: ``python -m inferkit``, or ``inferkit`` where pip put it on the path.

Each command is a module of this folder with ``add(subparsers)``, which sets ``run``: it takes the arguments and returns
an exit code. 0 is good news, 1 and 2 are what the command's help says, 3 means that the command could not do its work,
and 130 that Ctrl-C stopped it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from .._text import printable

__all__ = ["COULD_NOT_RUN", "CommandError", "about", "duration", "main"]

COULD_NOT_RUN = 3
INTERRUPTED = 130


class CommandError(Exception):
    """The command cannot do its work; the message is for the person who typed it."""


@contextlib.contextmanager
def about(path: str) -> Iterator[None]:
    """Let errors of inferkit, and of what is asked of it, name the file that they are about."""
    from .._errors import InferkitError

    try:
        yield
    except (InferkitError, ValueError) as error:
        raise CommandError(f"{path}: {error}") from None


def duration(option: str, seconds: float) -> float:
    """Take an option that is a positive number of seconds."""
    from .._arguments import seconds as checked

    try:
        return checked(seconds, option, positive=True)
    except ValueError as error:
        raise CommandError(str(error)) from None


class _Parser(argparse.ArgumentParser):
    """With our exit code for a wrong command line: argparse's own 2 would read as a failed check."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(COULD_NOT_RUN, f"{self.prog}: {printable(message)}\n")


def _parser() -> argparse.ArgumentParser:
    from . import bench, doctor, explain, info, inspect, pack, top

    parser = _Parser(prog="inferkit", description="Look at inferkit, at models and at running batchers.")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (doctor, inspect, explain, pack, bench, top, info):
        command.add(subparsers)
    return parser


@contextlib.contextmanager
def _stopping_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process in the block, which imports.

    As an exception it may be lost there: in a callback of the interpreter's, or in C code. And one that passes exec(),
    by which the standard library makes classes, has `python -m` end by the signal, whoever handles it.
    """

    def stop(*_: object) -> None:
        os.write(2, b"stopped\n")
        os._exit(INTERRUPTED)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, or somebody's own
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line without the program's name; by default this process's.

    Returns
    -------
    int
        The exit code.
    """
    try:
        from .._errors import InferkitError

        if arguments is None:  # our own process: what its terminal has no letter for is written out
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")
            with _stopping_at_once():
                parser = _parser()
        else:
            parser = _parser()
        options = parser.parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = options.run
        code = run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough; what Python still flushes at its end must go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        problem = f"{where}{error.strerror or error}"
    except MemoryError as error:
        problem = f"out of memory: {error}" if str(error) else "out of memory"
    except (CommandError, InferkitError) as error:
        problem = str(error)
    print(f"inferkit: {printable(problem)}", file=sys.stderr)
    return COULD_NOT_RUN
