"""Collects the onnx package's test cases: node tests made in process, and its sets of exported models."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
SETS = ("node", "pytorch-converted", "pytorch-operator", "simple")


@dataclass(frozen=True)
class Case:
    """A model, and what its outputs should be for some inputs. A sequence is a list, an optional may be None."""

    name: str
    model: onnx.ModelProto = field(repr=False)
    data_sets: Sequence[tuple[Sequence[Any], Sequence[Any]]] = field(repr=False)
    rtol: float = 1e-3
    atol: float = 1e-7

    @property
    def operator(self) -> str:
        """What the case is about: its only operator; for a function's expansion, the function it expands."""
        if "_expanded" in self.name:
            return "(expanded functions)"
        names = {n.op_type for n in nodes(self.model.graph) if n.op_type not in ("Constant", "Identity")}
        return names.pop() if len(names) == 1 else "(several)"


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in [attribute.g, *attribute.graphs]:
                yield from nodes(subgraph)


def to_array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return numpy_helper.to_optional(value)
    return value if value is None or isinstance(value, list) else np.asarray(value)


def node_cases() -> list[Case]:
    """The node tests. They draw their inputs from numpy's global generator, which is seeded here."""
    from onnx.backend.test.case.node import collect_testcases

    state = np.random.get_state()
    np.random.seed(20)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = collect_testcases("")
    finally:
        np.random.set_state(state)
    return [
        Case(
            c.name,
            c.model,
            [([to_array(i) for i in ins], [to_array(o) for o in outs]) for ins, outs in c.data_sets],
            c.rtol,
            c.atol,
        )
        for c in found
    ]


def parse(content: bytes, value: onnx.ValueInfoProto) -> Any:
    kinds = {"sequence_type": onnx.SequenceProto, "optional_type": onnx.OptionalProto}
    proto = kinds.get(value.type.WhichOneof("value"), onnx.TensorProto)()
    proto.ParseFromString(content)
    return to_array(proto)


def exported_cases(name: str) -> list[Case]:
    """One of the sets of model.onnx with test_data_set_*/{input,output}_*.pb."""
    cases = []
    for folder in sorted((DATA / name).iterdir()):
        model = onnx.load(folder / "model.onnx")
        graph = model.graph
        data_sets = []
        for data in sorted(folder.glob("test_data_set_*")):
            sides = []
            for side, values in (("input", graph.input), ("output", graph.output)):
                count = len(list(data.glob(f"{side}_*.pb")))
                sides.append([parse((data / f"{side}_{i}.pb").read_bytes(), values[i]) for i in range(count)])
            data_sets.append((sides[0], sides[1]))
        cases.append(Case(folder.name, model, data_sets))
    return cases


def collect(name: str) -> list[Case]:
    return node_cases() if name == "node" else exported_cases(name)
