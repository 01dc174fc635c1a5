"""The command line: ``python -m inferkit``, or ``inferkit`` where pip put it on the path.

Each command is a module of this folder with ``add(subparsers)``, which sets ``run``: it takes the arguments and returns
an exit code. 0 is good news, 1 and 2 are what the command's help says, 3 means that the command could not do its work,
and 130 that Ctrl-C stopped it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from .._at_once import INTERRUPTED, raise_again, stop_at_once
from .._text import printable, printable_list

__all__ = ["COULD_NOT_RUN", "CommandError", "about", "duration", "main"]

COULD_NOT_RUN = 3


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

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file, flush=True)  # argparse's own is silent about a full disk

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


def _let_go() -> None:
    """Where standard output takes no more, have what Python still flushes at its end go somewhere else."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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

        if sys.stderr is None:  # closed by whoever started us; print() would write to standard output instead
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if sys.stdout is None:
            raise OSError(errno.EBADF, "standard output is closed")
        if arguments is None:  # our own process: what its terminal has no letter for is written out
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")
            stop_at_once()
            try:
                parser = _parser()
            finally:
                raise_again()
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
    except BrokenPipeError:  # `| head` has read enough
        _let_go()
        return 0
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename or repr('')}: "
        problem = f"{where}{error.strerror or error}"
    except MemoryError as error:
        problem = f"out of memory: {error}" if str(error) else "out of memory"
    except (CommandError, InferkitError) as error:
        problem = str(error)
    _let_go()
    print(f"inferkit: {printable_list(problem)}", file=sys.stderr)
    return COULD_NOT_RUN
