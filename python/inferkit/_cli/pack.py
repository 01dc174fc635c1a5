"""``inferkit pack MODEL``: write a model's packed weights to a file, for processes that start later."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from .._model import Model
from . import CommandError, about
from ._out import Out, bytes_text, seconds_text

__all__ = ["add", "run"]

DESCRIPTION = """Write the weights of a model, as this processor's kernels read them, to a file. Processes that load
the model with Model.load(packed=FILE), or with Model.load(packed_cache=FOLDER), start faster and share one copy. The
file is for this build of inferkit and this processor. Exit code 0: there is a file that fits; 3: the model cannot be
loaded, or the file cannot be written."""


def add(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("pack", help="write packed weights for later processes", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", metavar="FILE", help="where to write it (default: MODEL.packed)")
    where.add_argument("--cache", metavar="FOLDER", help="a folder for Model.load(packed_cache=FOLDER)")
    parser.add_argument("--plain", action="store_true", help="no colour, no rich")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Pack, load with what was written, and print."""
    out = Out(plain=options.plain)
    out.line(f"loading {options.model}")
    with about(options.model):
        start = time.perf_counter()
        model = Model.load(options.model, packed_cache=options.cache)
        before = time.perf_counter() - start
        if options.cache is None:
            file = options.output or f"{os.fspath(options.model)}.packed"
            model.save_packed(file)
        start = time.perf_counter()
        given = {"packed": file} if options.cache is None else {"packed_cache": options.cache}
        again = Model.load(options.model, **given)
        after = time.perf_counter() - start
    if again.packed_file is None:
        why, _, failure = again._packed_use()[1].partition("; and none could be written: ")
        raise CommandError(f"no packed file could be written: {failure}" if failure else f"{options.cache}: {why}")
    size = bytes_text(os.path.getsize(again.packed_file))
    if model.packed_file is not None:
        out.line(f"{again.packed_file} ({size}) fits already; loading with it takes {seconds_text(after)}")
    else:
        out.line(
            f"wrote {again.packed_file} ({size}); loading took {seconds_text(before)} without it, and takes "
            f"{seconds_text(after)} with it"
        )
    if not again.memory().packed_shared_bytes:
        out.line("it holds no weights: this model has none that are large enough to share, and gains nothing by it")
    return 0
