"""``inferkit bench MODEL``: latency and throughput by batch and by concurrency, beside ONNX Runtime."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
from typing import Any

import numpy as np

from .. import _core
from .._build import build_info
from .._model import Model
from .._text import counted
from ..diagnostics._samples import Feeds, fixed_rows, made_up, split, stacked, with_rows
from . import CommandError, about, duration
from ._measure import Answers, alternate, clients, inferkit_call, onnxruntime_call
from ._options import sizes, whole
from ._out import Out, Progress, count_text
from .doctor import arrays_of

__all__ = ["add", "measure"]

DESCRIPTION = """Time MODEL: direct calls by batch size, in turn with ONNX Runtime where it is installed, and requests
through a batcher by the number of asyncio clients. Every answer is checked. Exit code 0: measured; 2: an answer was
wrong; 3: it could not run. Debug builds are refused."""


def add(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("bench", help="latency and throughput of a model", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument("--input", metavar="DATA.npz", help="real inputs by name; by default plausible ones are made")
    numbers: dict[str, Any] = {"type": sizes, "default": [1, 8, 64], "metavar": "N,..."}
    parser.add_argument("--batch", **numbers, help="rows of the direct calls (default: 1,8,64)")
    parser.add_argument("--concurrency", **numbers, help="numbers of asyncio clients (default: 1,8,64)")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each figure (default: 0.5)")
    parser.add_argument(
        "--threads", type=whole(0), default=1, metavar="N", help="threads a call may use; 0 for all (default: 1)"
    )
    parser.add_argument("--alone", action="store_true", help="do not compare with ONNX Runtime")
    parser.add_argument("--plot", metavar="FILE", help="draw the figures (.png, .svg, .pdf); needs matplotlib")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plain", action="store_true", help="no colour, no rich")
    parser.set_defaults(run=run)


def batch_of(model: Model, samples: list[Feeds], rows: int) -> Feeds:
    """Stack samples, again and again where there are too few."""
    feeds = stacked(model.inputs, samples)
    for spec in with_rows(model.inputs):
        array = feeds[spec.name]
        feeds[spec.name] = np.resize(array, (rows, *array.shape[1:]))
    return feeds


def measure(options: argparse.Namespace, say: Any) -> dict[str, Any]:
    """Take all figures; plain data for JSON."""
    model = Model.load(options.model, threads=options.threads)
    if options.input is not None:
        samples = split(model, arrays_of(options.input, model), 64, model.run)
    else:
        samples = made_up(model, 64, model.run)
    fixed = fixed_rows(model.inputs)
    batches = options.batch if fixed is None else [fixed]
    first = samples[0] if fixed is not None else batch_of(model, samples, batches[0])
    peer = None if options.alone else onnxruntime_call(options.model, options.threads, first)
    answers = Answers(columns=_core.inspect_onnx(options.model)["columns"])
    direct = []
    for rows in batches:
        say(f"batch {rows}")
        feeds = samples[0] if fixed is not None else batch_of(model, samples, rows)
        calls = {"inferkit": inferkit_call(model, feeds)}
        if peer is not None:
            answers.compare(f"batch {rows}", model.run(feeds), peer.answer(feeds))
            calls["onnxruntime"] = peer(feeds)
        timed = alternate(calls, options.seconds)
        direct.append({"batch": rows, **{name: figures.to_dict(rows) for name, figures in timed.items()}})
    served = []
    expected = [model.run(feeds) for feeds in samples]
    for count in options.concurrency:
        say(counted(count, "client"))
        figures, mean, wrong = clients(model, samples, expected, count, options.seconds, max(batches))
        answers.note(counted(count, "client"), wrong)
        served.append({"clients": count, "mean_batch_size": mean, **figures.to_dict(1)})
    return {
        "model": options.model,
        "build": build_info(),
        "threads": options.threads,
        "compared_with": None if peer is None else peer.version,
        "direct": direct,
        "batched": served,
        "answers_checked": answers.checked,
        "wrong": answers.wrong,
    }


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    info = build_info()
    if info["debug"] or info["sanitizers"]:
        raise CommandError(
            f"this is a {info['build_type']} build (sanitizers: {info['sanitizers'] or 'none'}): its figures would "
            "mislead; install an optimised one with `pip install .`"
        )
    options.seconds = duration("--seconds", options.seconds)
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise CommandError("--plot needs matplotlib: pip install matplotlib")
    with about(options.model), Progress() as progress:
        found = measure(options, progress)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show(found, Out(plain=options.plain))
    if options.plot:
        draw(found, options.plot)
    return 2 if found["wrong"] else 0


def show(found: dict[str, Any], out: Out) -> None:
    """Print it for a person."""
    peer = found["compared_with"]
    columns = [">batch", ">p50", ">p99", ">rows/s"]
    if peer:
        columns += [f">{peer} p50", ">p99", ">rows/s", ">inferkit is"]
    rows = []
    for line in found["direct"]:
        ours = line["inferkit"]
        row = [
            str(line["batch"]),
            f"{ours['p50_us']:.2f} us",
            f"{ours['p99_us']:.2f} us",
            count_text(ours["rows_per_second"]),
        ]
        if peer:
            theirs = line["onnxruntime"]
            row += [f"{theirs['p50_us']:.2f} us", f"{theirs['p99_us']:.2f} us", count_text(theirs["rows_per_second"])]
            row.append(f"{theirs['p50_us'] / ours['p50_us']:.2f} x as fast")
        rows.append(row)
    build = found["build"]
    threads = counted(found["threads"], "thread") if found["threads"] else "all threads"
    out.table(columns, rows, title=f"direct calls, {threads}, {build['isa']}, {build['compiler']}")
    out.table(
        [">asyncio clients", ">requests/s", ">p50", ">p99", ">mean batch"],
        [
            [
                str(line["clients"]),
                f"{line['rows_per_second']:,.0f}",
                f"{line['p50_us']:.1f} us",
                f"{line['p99_us']:.1f} us",
                f"{line['mean_batch_size']:.1f}",
            ]
            for line in found["batched"]
        ],
        title="single rows through a Batcher",
    )
    if found["wrong"]:
        out.line(f"WRONG ANSWERS: {'; '.join(found['wrong'])}", style="bold red")
    else:
        out.line(f"{counted(found['answers_checked'], 'answer')} checked" + (f", also against {peer}" if peer else ""))


def draw(found: dict[str, Any], path: str) -> None:
    """Plot latency by batch, and throughput and p99 by clients."""
    importlib.import_module("matplotlib").use("Agg")
    figure, (left, right) = importlib.import_module("matplotlib.pyplot").subplots(1, 2, figsize=(10, 4))
    batches = [line["batch"] for line in found["direct"]]
    for name in ("inferkit", "onnxruntime"):
        if name in found["direct"][0]:
            p50, p99 = ([line[name][q] for line in found["direct"]] for q in ("p50_us", "p99_us"))
            line = left.plot(batches, p50, marker="o", label=f"{name}, p50")[0]
            left.plot(batches, p99, marker=".", linestyle=":", color=line.get_color(), label=f"{name}, p99")
    left.set(xscale="log", yscale="log", xlabel="rows in a call", ylabel="us", title="direct calls")
    left.legend()
    left.set_xticks(batches, [str(n) for n in batches])
    left.minorticks_off()
    counts = [line["clients"] for line in found["batched"]]
    right.plot(counts, [line["rows_per_second"] for line in found["batched"]], marker="o")
    right.set(
        xscale="log", xlabel="asyncio clients", ylabel="requests/s", title="a Batcher: requests/s, and p99 (dotted)"
    )
    right.set_ylim(bottom=0)
    right.set_xticks(counts, [str(n) for n in counts])
    right.minorticks_off()
    other = right.twinx()
    other.plot(
        counts, [line["p99_us"] for line in found["batched"]], marker=".", linestyle=":", color="gray", label="p99"
    )
    other.set(ylabel="p99, us")
    other.set_ylim(bottom=0)
    figure.tight_layout()
    try:
        figure.savefig(path)
    except ValueError as error:  # a kind of file that matplotlib does not write
        raise CommandError(f"{path}: {error}") from None
