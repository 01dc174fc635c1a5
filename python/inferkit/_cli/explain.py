"""``inferkit explain MODEL``: the plan by which a model runs, step by step."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from .._explain import notes, table
from .._model import Model
from .._types import TensorSpec
from ..diagnostics._samples import Feeds, made_up_for
from . import CommandError, about
from ._out import Out
from .doctor import arrays_of

__all__ = ["add", "run"]

DESCRIPTION = """Say how a model runs on inputs of given shapes: its steps, how each of them is run and why, which nodes
of the file it stands for, the memory that it reads, writes and takes, and how long it is estimated to take. With
--profile it also runs the model on inputs that are made up, and says how long each step took. Exit code 0: done; 3: the
model cannot be loaded, or a shape does not fit it."""


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``name=1,3,224,224``; nothing after the ``=`` is the shape of a scalar."""
    name, equals, dimensions = text.rpartition("=")
    try:
        sizes = tuple(int(part) for part in dimensions.split(",")) if dimensions else ()
    except ValueError:
        sizes = (-1,)
    if not equals or any(size < 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"expected name=1,3,224,224, got {text!r}")
    return name, sizes


def add(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("explain", help="how a model runs, step by step", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument(
        "--shape",
        type=shape,
        action="append",
        default=[],
        metavar="NAME=N,...",
        help="the shape of an input, batch axis included; once for each (default: a batch of 1, and sizes that run)",
    )
    parser.add_argument(
        "--input",
        metavar="DATA.npz",
        help="real inputs by name, instead of shapes (--profile makes up values without it)",
    )
    parser.add_argument("--profile", action="store_true", help="run it, and say how long each step took")
    parser.add_argument("--runs", type=int, metavar="N", help="--profile with so many measured runs (default: 20)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads a run may use; 0: all (default: all)")
    parser.add_argument("--precision", default="float32", help="float32 (default), bf16 or float16")
    parser.add_argument("--device", default="cpu", help="where it runs: cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--fallback", metavar="cpu", help="run on the CPU what the device cannot")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plain", action="store_true", help="no colour, no rich")
    parser.set_defaults(run=run)


def shapes(model: Model, given: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Guess the sizes that are free and not given, as other commands do: such as the model takes."""
    if not any(None in spec.shape[1:] for spec in model.inputs if spec.name not in given):
        return given
    specs = [
        TensorSpec(spec.name, spec.dtype, given.get(spec.name, spec.shape), shared=spec.shared) for spec in model.inputs
    ]
    feeds = made_up_for(specs, 1, model.run)[0]
    return {name: array.shape for name, array in feeds.items()} | given


def real_inputs(path: str, model: Model) -> Feeds:
    """Read one request, with its batch axis."""
    arrays = arrays_of(path, model)
    names = [spec.name for spec in model.inputs]
    if set(arrays) != set(names):
        raise CommandError(f"{path} has the arrays {sorted(arrays)}; the model takes {names}")
    return {
        spec.name: arrays[spec.name][None] if arrays[spec.name].ndim + 1 == len(spec.shape) else arrays[spec.name]
        for spec in model.inputs
    }


def run(options: argparse.Namespace) -> int:
    """Explain and print."""
    if options.input is not None and options.shape:
        raise CommandError("--input and --shape do not go together: the arrays have their shapes")
    given = dict(options.shape)
    for name in given:
        if [other for other, _ in options.shape].count(name) > 1:
            raise CommandError(f"--shape is given more than once for the input '{name}'")
    with about(options.model):
        model = Model.load(
            options.model,
            threads=options.threads,
            precision=options.precision,
            device=options.device,
            fallback=options.fallback,
        )
        feeds = real_inputs(options.input, model) if options.input is not None else None
        given = {name: array.shape for name, array in feeds.items()} if feeds else shapes(model, given)
        found = model.explain(given)
        if options.profile or options.runs is not None:
            feeds = feeds or made_up_for(found.inputs, 1, model.run)[0]
            runs = 20 if options.runs is None else options.runs
            found = model.profile(*(feeds[spec.name] for spec in model.inputs), runs=runs)
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
        return 0
    out = Out(plain=options.plain)
    head, rows = table(found)
    out.table(head, rows, title=options.model)
    for line in notes(found):
        out.line(line)
    return 0
