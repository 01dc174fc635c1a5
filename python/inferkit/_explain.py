"""What a model's plan is made of: from ``Model.explain()`` and ``Model.profile()``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _core
from ._arguments import dimensions, mapping
from ._text import counted, printable
from ._types import TensorSpec, refuse_unknown

if TYPE_CHECKING:
    from ._model import Model

_SHOWN = 12  # of the nodes that wait

__all__ = [
    "Explanation",
    "FileNode",
    "KernelLaunch",
    "LoweringChoice",
    "PlanStep",
    "Scaling",
    "explain",
    "notes",
    "profile",
    "table",
]


@dataclass(frozen=True)
class FileNode:
    """A node as it stands in the model file.

    Parameters
    ----------
    operator : str
        Its operator, with the domain where that is not ONNX's own: ``"Conv"``, ``"com.microsoft.FastGelu"``.
    name : str
        Its name; empty where the file gives none.
    """

    operator: str
    name: str


@dataclass(frozen=True)
class LoweringChoice:
    """One of the ways to run an operator, and what it would cost for one node.

    Parameters
    ----------
    name : str
        The name of the way, as the environment variable ``INFERKIT_LOWERING`` takes it.
    cost_seconds : float or None
        The estimated time. It is meant for comparison with the other ways of the same node: work that all of them do
        may be left out, and 0 where there is nothing to compare. None if this way cannot run the node.
    why_not : str or None
        Why it cannot run the node; None if it can.
    """

    name: str
    cost_seconds: float | None
    why_not: str | None

    def __str__(self) -> str:
        from ._cli._out import seconds_text

        if self.cost_seconds is None:
            return f"{self.name} cannot: {self.why_not}"
        return f"{self.name} {seconds_text(self.cost_seconds)}" if self.cost_seconds else self.name


@dataclass(frozen=True)
class KernelLaunch:
    """A kernel that a step launches on a device.

    Parameters
    ----------
    name : str
        The kernel; in the image that the driver loads, it has ``inferkit_`` in front.
    blocks : tuple of int
        The blocks of the grid along its three axes.
    threads : int
        The threads of a block.
    shared_bytes : int
        The shared memory of a block.
    times : int
        How often the step launches it so, one after another: an ``LSTM`` once for each step in time.
    """

    name: str
    blocks: tuple[int, int, int]
    threads: int
    shared_bytes: int
    times: int

    def __str__(self) -> str:
        return self.name if self.times == 1 else f"{self.name} x {self.times}"


@dataclass(frozen=True, kw_only=True)
class PlanStep:
    """One step of a plan: a node of the graph, or the copy that makes an output.

    Parameters
    ----------
    operator : str
        The operator that runs. Those of the domain ``inferkit``, such as ``"inferkit.Linear"``, come from fusions.
    name : str
        The name of the node, or of the output.
    stands_for : tuple of FileNode
        The nodes of the file whose work this step does; several if they were fused.
    lowering : str
        The way to run it that was chosen; ``"default"`` if there is only one. Of a copy: ``"copy"`` if it makes an
        output, ``"to the host"`` or ``"to the device"`` if the other side reads it.
    device, precision, layout : str
        Where it runs, in which type it computes (``"any"``: in the type of its inputs), and how its first output is
        laid out: ``"plain"``, or ``"blocks"`` of sixteen channels, as convolutions hand them on to each other.
    fallback : str
        Why it runs on the CPU and not on the model's device (``Model.load(..., fallback="cpu")``); empty if it runs
        where the model does.
    why : str
        Why this way was chosen. ``"only"``: the operator has no other. ``"cheapest"``: it is the cheapest of those that
        can run the node. ``"precision"``: the model asks for a precision, and this way computes in it.
        ``"forced"``: ``INFERKIT_LOWERING`` asks for it. ``"cannot_force"``: ``INFERKIT_LOWERING`` asks for a way that
        cannot run the node, so the cheapest was taken. ``"neighbours"``: the nodes around it lie in blocks, and
        together with them it is the cheapest.
    considered : tuple of LoweringChoice
        All ways of the operator, with their costs; empty if there is only one.
    inputs, outputs : tuple of TensorSpec
        The tensors that it reads and writes.
    read_bytes, written_bytes, scratch_bytes : int
        The sizes of its inputs (weights included), of its outputs, and of its working memory. All are 0 if it has no
        kernel call.
    kernel_calls : int
        How many functions run for it; 0 if its output is the memory of its input (``Reshape``).
    kernels : tuple of KernelLaunch
        What these launch on a device; empty if the step runs on the CPU, or is a copy.
    estimated_seconds : float
        The estimated time on one thread.
    measured_seconds : float or None
        The measured time: the median of the runs of ``Model.profile()``; None from ``Model.explain()``. It is that of
        all `times_run` together, without the steps that have this one as `within`. Of a step on a device it is what
        the device took, by events around its kernels; the copies of the model's inputs and outputs are in no step.
    within : int or None
        The step, by its place in ``Explanation.steps``, whose body holds this one: a ``Loop`` or a ``Scan``. None if it
        is in no body; the branch that an ``If`` takes stands in its place.
    times_run : int
        How often it runs in one run of the model: more than once in the body of a loop.
    """

    operator: str
    name: str
    stands_for: tuple[FileNode, ...]
    lowering: str
    device: str
    fallback: str
    precision: str
    layout: str
    why: str
    considered: tuple[LoweringChoice, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    read_bytes: int
    written_bytes: int
    scratch_bytes: int
    kernel_calls: int
    kernels: tuple[KernelLaunch, ...]
    estimated_seconds: float
    measured_seconds: float | None
    within: int | None
    times_run: int

    def reason(self) -> str:
        """Say in words why its lowering was chosen.

        Returns
        -------
        str
            For example ``"cheapest: 1.2 us, packed 3 us, depthwise cannot: not one channel a group"``; empty if there
            was no choice.
        """
        from ._cli._out import seconds_text

        if not self.considered:
            return ""
        own = next(way for way in self.considered if way.name == self.lowering)
        others = [str(way) for way in self.considered if way is not own]
        leads = {
            "forced": "asked for",
            "cannot_force": "what is asked for cannot, cheapest",
            "neighbours": "cheapest with its neighbours",
            "precision": f"the model asks for {self.precision}",
        }
        lead = leads.get(self.why, self.why)
        return ", ".join([f"{lead}: {seconds_text(own.cost_seconds)}" if own.cost_seconds else lead, *others])


@dataclass(frozen=True)
class Scaling:
    """What several threads would make of a run, as one thread can tell: it does what each of them would have to do.

    Parameters
    ----------
    threads : int
        So many.
    synchronizations : int
        How often they would begin together and wait for each other in one run.
    serial_fraction : float
        The share of the time of one thread in which the others would have nothing to do.
    speedup : float
        How many times as fast as one thread they are predicted to be: from the serial share, from the pieces of each
        step, given to who is free first, and from ``Explanation.synchronization_seconds``. It knows neither the caches
        nor the memory that threads share, so it is what a machine can reach at most.
    """

    threads: int
    synchronizations: int
    serial_fraction: float
    speedup: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The plan by which a model runs on inputs of given shapes; ``str()`` of it is a table.

    Parameters
    ----------
    steps : tuple of PlanStep
        In the order in which they run.
    inputs, outputs : tuple of TensorSpec
        The inputs and outputs of the model, with the shapes of this plan. Outputs that it does not compute are left
        out.
    waiting : tuple of FileNode
        The nodes of the file that ``Model.explain()`` cannot plan, since their shapes depend on values, in the order in
        which they run. Each run plans them once it has the values; ``Model.profile()``, which has them, lists them as
        steps.
    complete : bool
        True if no node waits.
    threads : int
        The most threads that a run of the plan uses.
    arena_bytes : int
        Memory for all intermediate values and working memory of one run's plans.
    weight_bytes : int
        The size of the constants that the steps read, as they are in the model.
    estimated_seconds : float
        The estimated time of one run on one thread.
    measured_seconds : float or None
        The measured time of all steps together, which is the sum of their medians; None if they were not measured.
    runs : int
        How many runs were measured.
    scaling : tuple of Scaling
        What 4, 16 and 64 threads would make of a run, as far as its memory is no more than a run may take; empty from
        ``Model.explain()``.
    synchronization_seconds : float
        What it takes all threads of this process to begin together and to wait for each other, with nothing to do; 0 if
        there is only one, if others used the CPUs, or if nothing was measured.
    """

    steps: tuple[PlanStep, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    waiting: tuple[FileNode, ...]
    complete: bool
    threads: int
    arena_bytes: int
    weight_bytes: int
    estimated_seconds: float
    measured_seconds: float | None
    runs: int
    scaling: tuple[Scaling, ...]
    synchronization_seconds: float

    def __str__(self) -> str:
        from ._cli._out import plain_table

        head, rows = table(self)
        return "\n".join([*plain_table(head, rows), *map(printable, notes(self))])


def table(found: Explanation) -> tuple[list[str], list[list[str]]]:
    """Give the headings and rows of the table; ``>`` before a heading aligns its column to the right."""
    from ._cli._out import bytes_text, seconds_text

    measured = found.measured_seconds is not None
    bodies = any(step.within is not None for step in found.steps)
    devices = any(step.device != "cpu" for step in found.steps)
    precisions = any(step.precision not in ("any", "float32") for step in found.steps)
    layouts = any(step.layout != "plain" for step in found.steps)
    head = [">step", "operator", "name", *(["device"] if devices else []), "lowering"]
    head += [*(["precision"] if precisions else []), "output", *(["layout"] if layouts else [])]
    head += [*(["kernels"] if devices else []), ">read", ">written", ">scratch", ">estimated"]
    head += [">times"] if bodies else []
    head += [">measured", ">share"] if measured else []
    rows: list[list[str]] = []
    depths: list[int] = []
    for number, step in enumerate(found.steps):
        depths.append(0 if step.within is None else depths[step.within] + 1)
        row = [
            str(number),
            "  " * depths[-1] + step.operator,
            step.name,
            *([step.device] if devices else []),
            step.lowering if step.kernel_calls else "no copy",
            *([step.precision] if precisions else []),
            "; ".join(f"{out.dtype}{list(out.shape)}" for out in step.outputs),
            *([step.layout] if layouts else []),
            *([", ".join(map(str, step.kernels))] if devices else []),
            *(bytes_text(size) for size in (step.read_bytes, step.written_bytes, step.scratch_bytes)),
            "" if step.lowering == "on values" else seconds_text(step.estimated_seconds),
            *([str(step.times_run)] if bodies else []),
        ]
        if step.measured_seconds is not None:
            share = step.measured_seconds / found.measured_seconds if found.measured_seconds else 0.0
            row += [seconds_text(step.measured_seconds), f"{share:.0%}"]
        rows.append(row)
    return head, rows


def notes(found: Explanation) -> list[str]:
    """Give the lines that stand below the table: choices, fusions, totals."""
    from ._cli._out import bytes_text, seconds_text

    lines = []
    for number, step in enumerate(found.steps):
        if step.fallback:
            lines.append(f"step {number} runs on the CPU: {step.fallback}")
        if reason := step.reason():
            lines.append(f"step {number}, {step.lowering}: {reason}")
        if len(step.stands_for) > 1:
            parts = ", ".join(
                f"{part.operator} '{part.name}'" if part.name else part.operator for part in step.stands_for
            )
            lines.append(f"step {number} stands for {parts}")
    total = f"{counted(len(found.steps), 'step')}; arena {bytes_text(found.arena_bytes)}"
    total += f", weights {bytes_text(found.weight_bytes)}"
    total += f"; estimated {seconds_text(found.estimated_seconds)} on one thread"
    if on_values := sum(step.lowering == "on values" for step in found.steps):
        total += f", without {counted(on_values, 'step')} on values, which nobody estimates"
    if found.measured_seconds is not None:
        threads = "one thread" if found.threads == 1 else f"up to {found.threads} threads"
        total += f", measured {seconds_text(found.measured_seconds)} on {threads}"
        total += f" (the sum of the steps' medians of {counted(found.runs, 'run')})"
    if found.waiting:
        total += "; none of this counts what depends on values"
    lines.append(total)
    if found.scaling:
        shares = (
            f"{part.speedup:.1f} times as fast on {part.threads} ({counted(part.synchronizations, 'synchronization')}, "
            f"{part.serial_fraction:.1%} serial)"
            for part in found.scaling
        )
        wait = seconds_text(found.synchronization_seconds)
        price = f"a synchronization takes {wait} here"
        if not found.synchronization_seconds:
            price = "what a synchronization takes is not known here, and not counted"
        lines.append(f"predicted against one thread: {', '.join(shares)}; {price}")
    if found.waiting:
        shown = [f"{part.operator} '{part.name}'" if part.name else part.operator for part in found.waiting[:_SHOWN]]
        more = len(found.waiting) - len(shown)
        shown += [f"{more} more"] if more else []
        lines.append(
            f"what follows depends on values, and is planned during each run: {', '.join(shown)}. A profile runs it, "
            "and lists it"
        )
    return lines


def _specs(ports: Sequence[tuple[str, str, Sequence[int]]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in ports)


def _step(facts: dict[str, Any]) -> PlanStep:
    return PlanStep(
        **{
            **facts,
            "stands_for": tuple(FileNode(*part) for part in facts["stands_for"]),
            "considered": tuple(LoweringChoice(*way) for way in facts["considered"]),
            "kernels": tuple(KernelLaunch(*kernel) for kernel in facts["kernels"]),
            "inputs": _specs(facts["inputs"]),
            "outputs": _specs(facts["outputs"]),
        }
    )


def _explanation(model: Model, facts: dict[str, Any]) -> Explanation:
    steps = tuple(_step(step) for step in facts["steps"])
    measured = sum(step.measured_seconds or 0.0 for step in steps) if facts["runs"] else None
    return Explanation(
        **{
            **facts,
            "steps": steps,
            "inputs": tuple(
                spec if spec.sequence or spec.optional else here
                for spec, here in zip(model.inputs, _specs(facts["inputs"]), strict=True)
            ),
            "outputs": _specs(facts["outputs"]),
            "waiting": tuple(FileNode(*part) for part in facts["waiting"]),
            "scaling": tuple(Scaling(*part) for part in facts["scaling"]),
            "measured_seconds": measured,
        }
    )


def explain(model: Model, shapes: Mapping[str, Sequence[int]] | None) -> Explanation:
    """Do the work of ``Model.explain``."""
    given = {} if shapes is None else mapping(shapes, "shapes", "a mapping of names to shapes, or None")
    found: list[list[int]] = []
    for spec in model.inputs:
        if spec.sequence or spec.optional:
            if spec.name in given:
                raise ValueError(f"input '{spec.name}' is a sequence or an optional, which has no shape: leave it out")
            found.append([])
            continue
        # The batch is one row unless it is said; nothing else has a size to begin with.
        default = [1 if d is None and i == 0 else d for i, d in enumerate(spec.shape)]
        if spec.any_shape and spec.name not in given:
            raise ValueError(
                f"the model file declares no shape for input '{spec.name}'; "
                f"give explain(shapes={{'{spec.name}': (...)}})"
            )
        shape = dimensions(given.pop(spec.name, default), f"shapes['{spec.name}']", 0)
        sizes = [d for d in shape if d is not None]
        if len(sizes) != len(shape):
            raise ValueError(
                f"input '{spec.name}' has free dimensions besides the batch, {spec.shape}; "
                f"give explain(shapes={{'{spec.name}': (...)}})"
            )
        found.append(sizes)
    refuse_unknown(given, model.inputs)
    return _explanation(model, _core.explain_model(model, found))


def profile(model: Model, inputs: Sequence[Any], runs: int) -> Explanation:
    """Do the work of ``Model.profile``."""
    return _explanation(model, _core.profile_model(model, list(inputs), runs))
