"""Where the time of each timed model goes on a device: its steps by operator and kernel, and the longest ones.

python benchmarks/gpu/steps.py --device cuda [--quick]

Events between the steps cost some microseconds each, so that the sum is more than a run takes.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

from models import Case, Encoder, resnet, to_time

import inferkit

#: Not timed, as torch has it in float32 alone here, but of interest.
MORE = [Case(resnet(), 32, None, "bf16")]


def kernels_of(step: inferkit.PlanStep) -> str:
    return " + ".join(kernel.name for kernel in step.kernels) or "no kernel"


def show(case: Case, device: str, runs: int) -> None:
    model = inferkit.Model.load(case.made.file(), device=device, precision=case.precision)
    found = model.profile(*case.made.inputs(case.batch), runs=runs)
    steps = sorted(found.steps, key=lambda step: -(step.measured_seconds or 0))
    total = sum(step.measured_seconds or 0 for step in steps)
    launches = sum(kernel.times for step in steps for kernel in step.kernels)
    print(f"\n{case.name}: {total * 1e6:.0f} us in {len(steps)} steps, {launches} kernels")
    kinds: dict[str, list[float]] = defaultdict(list)
    for step in steps:
        kinds[f"{step.operator} [{kernels_of(step)}]"].append(step.measured_seconds or 0)
    for kind, times in sorted(kinds.items(), key=lambda item: -sum(item[1]))[:12]:
        print(f"  {sum(times) * 1e6:9.1f} us  {len(times):3d} x {kind}")
    for step in steps[:8]:
        shape = "x".join(map(str, step.outputs[0].shape)) if step.outputs else ""
        grids = ", ".join(f"{kernel.name} {kernel.blocks} of {kernel.threads}" for kernel in step.kernels)
        print(f"    {(step.measured_seconds or 0) * 1e6:9.1f} us  {step.operator} -> {shape}: {grids}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small models: for an emulator")
    arguments = parser.parse_args()
    cases = [Case(Encoder(1, 16, 2, 32, 4), 2)] if arguments.quick else to_time(quick=False) + MORE
    for case in cases:
        show(case, arguments.device, 2 if arguments.quick else 20)


if __name__ == "__main__":
    main()
