"""``inferkit info``: what is installed here, and which code it runs."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

from .._build import build_info, supported_ops
from ._out import Out

__all__ = ["add", "gather"]

DESCRIPTION = """Say what is installed here, and which code it runs: the build, the instructions that its kernels use,
the CPU, and the packages that inferkit works with. Exit code 0."""

# What an extra brings, and what it is for.
EXTRAS = {
    "rich": "colour and tables on the command line",
    "matplotlib": "the plot of `inferkit bench`",
    "onnxruntime": "the comparison of `inferkit bench`",
    "prometheus_client": "metrics for Prometheus",
    "opentelemetry-sdk": "traces for OpenTelemetry",
    "uvloop": "a faster event loop",
}


def add(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("info", help="the build, the CPU and what is installed", description=DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plain", action="store_true", help="no colour, no rich")
    parser.set_defaults(run=run)


def cpu_name() -> str:
    """Tell the CPU's name as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def version_of(distribution: str) -> str | None:
    """Tell an installed distribution's version; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def gather() -> dict[str, Any]:
    """Collect what the command prints, as plain data for JSON."""
    return {
        "build": build_info(),
        "operators": len({(domain, name) for domain, name, *_ in supported_ops()}),
        "cpu": cpu_name(),
        "cpus_online": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": version_of("numpy"),
        "extras": {name: version_of(name) for name in EXTRAS},
    }


def run(options: argparse.Namespace) -> int:
    """Print it."""
    facts = gather()
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    out, build = Out(plain=options.plain), facts["build"]
    optimised = "debug, far too slow to measure" if build["debug"] else "optimised"
    out.facts(
        [
            ("inferkit", f"{build['version']}, {build['build_type']} ({optimised}), {build['compiler']}"),
            ("sanitizers", build["sanitizers"] or "none"),
            ("instruction set", f"{build['isa']}: {build['isa_reason']}"),
            ("  besides it", ", ".join(build["isa_features"]) or "none of vnni, bf16, amx-int8, amx-bf16"),
            ("  this CPU can", ", ".join(build["isa_available"])),
            ("CPU", f"{facts['cpu']}, {build['cpus']} of {facts['cpus_online']} CPUs usable by this process"),
            ("time slices", build["time_slices"]),
            ("operators", f"{facts['operators']} kinds; inferkit.supported_ops() lists them"),
            ("CUDA", ", ".join(build["cuda_targets"]) or "no kernels in this build"),
            ("system", facts["system"]),
            ("Python, numpy", f"{facts['python']}, {facts['numpy']}"),
        ]
    )
    out.table(
        ["optional", "version", "for"],
        [(name, facts["extras"][name] or "-", purpose) for name, purpose in EXTRAS.items()],
    )
    return 0
