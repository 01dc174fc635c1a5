"""``inferkit doctor MODEL``: the debug checklist on a real model."""

from __future__ import annotations

import argparse
import importlib
import json
import textwrap
from typing import Any

import numpy as np

from .._batcher import Batcher
from .._model import Model
from .._text import printable
from . import CommandError, about, duration
from ._options import whole
from ._out import Out, Progress

__all__ = ["add", "show"]

DESCRIPTION = """Serve MODEL through a batcher and walk the debug checklist: build profile, request lifecycle, input
validation, event loop, queue and concurrency, output sanity, memory health. Exit code 0: all passed; 1: warnings only;
2: something failed; 3: it could not run."""

MARKS = {"pass": ("pass", "green"), "warn": ("WARN", "bold yellow"), "fail": ("FAIL", "bold red"), "skip": ("-", "dim")}


def add(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("doctor", help="walk the debug checklist on a model", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument(
        "--input",
        metavar="DATA.npz",
        help="real inputs by name, any number of rows; by default plausible ones are made",
    )
    parser.add_argument("--max-batch-size", type=whole(1), default=64, metavar="N", help="of the batcher (default: 64)")
    parser.add_argument("--workers", type=whole(1, 1024), default=1, metavar="N", help="of the batcher (default: 1)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each step that sends traffic (default: 2)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plain", action="store_true", help="no colour, no rich")
    parser.set_defaults(run=run)


def arrays_of(path: str, model: Model) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, or of an .npy file for a model of one input."""
    loaded: Any
    with open(path, "rb") as file:
        if not file.read(6).startswith((b"PK", b"\x93NUMPY")):
            raise CommandError(f"{path}: not an .npz or .npy file")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {model.inputs[0].name: loaded}
        with loaded:
            arrays = dict(loaded)  # only now it reads the arrays
    except OSError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds
        if "pickle" in str(error):  # with numpy's advice to load it all the same
            raise CommandError(
                f"{path}: it holds an array of Python objects, and such arrays are not read: save numbers as numbers, "
                "and text with dtype=str"
            ) from None
        raise CommandError(f"{path}: not an .npz or .npy file: {error}") from None
    other = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if other:  # numpy gives the bytes of what else is in an archive
        raise CommandError(f"{path}: not an .npz file: '{other[0]}' in it is no array")
    return arrays


def run(options: argparse.Namespace) -> int:
    """Examine and print."""
    from ..diagnostics._diagnose import examine

    options.seconds = duration("--seconds", options.seconds)
    out = Out(plain=options.plain)
    with about(options.model):
        model = Model.load(options.model)
        arrays = arrays_of(options.input, model) if options.input is not None else None
        batcher = Batcher(model, max_batch_size=options.max_batch_size, workers=options.workers)
        with Progress() as progress, batcher:
            report = examine(batcher, arrays, seconds=options.seconds, say=progress)
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        show(report, out)
    return report.exit_code


def show(report: Any, out: Out) -> None:
    """Print a report for a person."""
    if out.console is None:
        print(report)
        return
    from ..diagnostics._report import STEPS

    text = importlib.import_module("rich.text").Text
    out.line(report.subject, style="bold")
    step = 0
    for check in report.checks:
        if check.step != step:
            step = check.step
            out.line()
            out.line(f"{step}. {STEPS[step]}", style="bold cyan")
        mark, style = MARKS[check.status]
        line = text.assemble((f"   {mark:<4}  ", style), printable(f"{check.name}: {check.figure}"))
        out.console.print(line, soft_wrap=True)
        if check.status in ("warn", "fail"):
            for label, words in (("why", check.why), ("do", check.remedy)):
                for i, line in enumerate(textwrap.wrap(words, 100)):
                    out.line(f"         {label if i == 0 else '':>5}{':' if i == 0 else ' '} {line}", style="dim")
    out.line()
    out.line(report.summary(), style={"pass": "bold green", "warn": "bold yellow", "fail": "bold red"}[report.status])
