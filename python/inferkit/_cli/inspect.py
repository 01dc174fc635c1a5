"""``inferkit inspect MODEL``: inputs, outputs, operators, parameters, memory, and what inferkit lacks to run it.

With ``--device cuda``, also what CUDA lacks for it; no device is asked.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from .. import _core
from .._build import BF16_INSTRUCTIONS, build_info
from .._errors import InferkitError
from .._model import Model
from .._source import model_source
from .._text import counted
from . import about
from ._out import Out, bytes_text, count_text, seconds_text

__all__ = ["add", "gather"]

DESCRIPTION = """Say what an ONNX model holds and needs. Works for models that inferkit cannot run, too, and says why.
Exit code 0: it can be run; 1: it cannot, or the device that --device names lacks something for it; 3: the file
cannot be read."""


_COSTS = "Model.compare_precision() tells what precision='bf16' costs in digits"
#: By what the kernels use.
BF16 = {
    "AMX": f"this CPU has AMX; {_COSTS}",
    "AVX512-BF16": f"this CPU has AVX512-BF16; {_COSTS}",
    None: "this CPU has no instructions for it; precision='bf16' halves packed weights, and is no faster",
}


def add(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("inspect", help="what a model holds, needs and lacks", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="an .onnx file")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="name what that lacks, too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plain", action="store_true", help="no colour, no rich")
    parser.set_defaults(run=run)


def gather(path: str) -> dict[str, Any]:
    """Collect what the command prints, as plain data for JSON."""
    facts = _core.inspect_onnx(model_source(path))
    for side in ("inputs", "outputs"):
        facts[side] = [
            {"name": name, "dtype": dtype, "shape": shape, "made_by": maker or None}
            for name, dtype, shape, maker in facts[side]
        ]
    facts["operators"] = [
        {"domain": domain, "name": name, "nodes": nodes}
        for domain, name, nodes in sorted(facts["operators"], key=lambda row: (-row[2], row[0], row[1]))
    ]
    facts["parameters"] = sum(elements for elements, _ in facts["constants"].values())
    facts["constants"] = {
        dtype: {"elements": elements, "bytes": size} for dtype, (elements, size) in facts["constants"].items()
    }
    facts |= {"path": path, "runs": False, "problem": None, "memory": None, "load_seconds": None, "cuda": None}
    start = time.perf_counter()
    try:
        model = Model.load(path)
    except InferkitError as error:
        facts["problem"] = str(error)
    else:
        facts["load_seconds"] = time.perf_counter() - start
        facts["runs"] = True
        memory = model.memory()
        facts["memory"] = {
            name: getattr(memory, name)
            for name in ("file_bytes", "mapped_bytes", "copied_bytes", "packed_bytes", "arena_bytes")
        }
    facts["bf16_instructions"] = BF16_INSTRUCTIONS.get(build_info()["kernels"]["gemm_bf16"])
    return facts


def lacking_on_cuda(path: str) -> dict[str, Any]:
    """Collect what CUDA lacks for a model, as plain data."""
    nodes, lacks = _core.lacking_on_cuda(path)
    return {
        "nodes": nodes,
        "lacks": [{"operator": operator, "name": name, "why": why} for operator, name, why in lacks],
    }


def shape_text(shape: Any) -> str:
    """Write a shape: ``[*, 64]``; ``?`` where the file gives none."""
    return "?" if shape is None else "[" + ", ".join("*" if d is None else str(d) for d in shape) + "]"


def run(options: argparse.Namespace) -> int:
    """Print it."""
    with about(options.model):
        facts = gather(options.model)
        if options.device == "cuda" and facts["runs"]:
            facts["cuda"] = lacking_on_cuda(options.model)
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        show(facts, Out(plain=options.plain))
    return 1 if not facts["runs"] or (facts["cuda"] and facts["cuda"]["lacks"]) else 0


def show(facts: dict[str, Any], out: Out) -> None:
    """Print it for a person."""
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(facts["opsets"].items()))
    constants = ", ".join(
        f"{count_text(c['elements'])} {dtype} ({bytes_text(c['bytes'])})" for dtype, c in facts["constants"].items()
    )
    out.facts(
        [
            ("file", f"{facts['path']}, {bytes_text(facts['file_bytes'])}"),
            ("written by", facts["producer"] or "unknown"),
            ("opset", f"{opsets}; IR version {facts['ir_version']}"),
            ("constants", f"{counted(facts['initializers'], 'tensor')}: {constants}" if constants else "none"),
            *((f"metadata {key}", value[:100]) for key, value in sorted(facts["metadata"].items())),
        ]
    )
    for side in ("inputs", "outputs"):
        rows = [
            (port["name"], port["dtype"] or "?", shape_text(port["shape"]), port["made_by"] or "")
            for port in facts[side]
        ]
        out.table([side, "dtype", "shape", "made by"] if side == "outputs" else [side, "dtype", "shape", ""], rows)
    missing = facts["missing"]
    out.table(
        [">nodes", f"operators ({counted(facts['nodes'], 'node')})"],
        [(str(op["nodes"]), f"{op['domain']}.{op['name']}".lstrip(".")) for op in facts["operators"]],
    )
    if facts["runs"]:
        memory = facts["memory"]
        out.facts(
            [
                ("loads in", seconds_text(facts["load_seconds"])),
                ("mapped weights", f"{bytes_text(memory['mapped_bytes'])}, shared with every process that loads them"),
                ("copied weights", f"{bytes_text(memory['copied_bytes'])} of this process's own"),
                ("packed weights", f"{bytes_text(memory['packed_bytes'])} of this process's own so far"),
                ("scratch", f"{bytes_text(memory['arena_bytes'])} so far"),
                ("in bf16", BF16[facts["bf16_instructions"]]),
            ]
        )
        out.line("inferkit can run it.", style="green")
        if facts["cuda"] is not None:
            show_cuda(facts["cuda"], out)
        return
    out.line("inferkit cannot run it:", style="bold red")
    for line in missing or [facts["problem"]]:
        out.line(f"  {line}")


def show_cuda(found: dict[str, Any], out: Out) -> None:
    """Print what CUDA lacks."""
    nodes, lacks = counted(found["nodes"], "node"), found["lacks"]
    if not lacks:
        out.line(f"CUDA has a lowering for all of it ({nodes} after fusions).", style="green")
        return
    out.table(
        [f"CUDA lacks ({len(lacks)} of {nodes} after fusions)", "name", "why"],
        [(lack["operator"], lack["name"], lack["why"]) for lack in lacks],
    )
    out.line("With device='cuda', fallback='cpu' runs these on the CPU.")
