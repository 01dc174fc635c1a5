"""Operators with their rows along each axis of each input: where a batcher would share, each answer is that alone.

The cases are the onnx package's of single operators. One input comes from requests, an axis of it in front; what else
the operator takes is constant. Of what it gives, the axis that is as long becomes the rows of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import inferkit
from conformance.cases import Case, node_cases

CASES: dict[str, list[Case]] = {}
for _case in node_cases():
    _graph = _case.model.graph
    if len(_graph.node) == 1 and not any(a.HasField("g") for a in _graph.node[0].attribute):
        CASES.setdefault(_graph.node[0].op_type, []).append(_case)
UNCHECKED = inferkit.InputChecks(finite=False, non_empty=False)
MOST = 50_000  # elements


def rows_first(case: Case, given: list[Any], port: int, axis: int, out: int, out_axis: int) -> bytes:
    """The model of the case with the axis of an input, and of an output, in front."""
    graph, x = case.model.graph, given[port]
    name, answer = graph.input[port].name, graph.output[out]
    rank = len(answer.type.tensor_type.shape.dim)
    inside = helper.make_node("Transpose", ["rows"], [name], perm=[*range(1, axis + 1), 0, *range(axis + 1, x.ndim)])
    order = [out_axis, *(i for i in range(rank) if i != out_axis)]
    outside = helper.make_node("Transpose", [answer.name], ["answers"], perm=order)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    dims = ["n", *(d for i, d in enumerate(x.shape) if i != axis)]
    made = helper.make_graph(
        [inside, *graph.node, outside], "g", [helper.make_tensor_value_info("rows", kind, dims)],
        [helper.make_tensor_value_info("answers", answer.type.tensor_type.elem_type, ["n", *[None] * (rank - 1)])],
        [*graph.initializer, *(numpy_helper.from_array(np.asarray(value), graph.input[i].name)
                               for i, value in enumerate(given) if i != port)],
    )  # fmt: skip
    model: bytes = helper.make_model(made, opset_imports=case.model.opset_import, ir_version=10).SerializeToString()
    return model


def sharing(case: Case) -> Iterator[tuple[inferkit.Model, Any, str]]:
    """Each model of the case that a batcher would put several requests into, and the rows of its input."""
    given, expected = case.data_sets[0]
    arrays = [isinstance(v, np.ndarray) for v in (*given, *expected)]
    if not all(arrays) or len(given) != len(case.model.graph.input) or any(v.dtype.kind not in "fiubO" for v in given):
        return
    for port, x in enumerate(given):
        if x.dtype.kind not in "fiub" or not 0 < x.size <= MOST:
            continue
        for axis in range(x.ndim):
            for out, y in enumerate(expected):
                for out_axis in (i for i, length in enumerate(y.shape) if length == x.shape[axis]):
                    try:
                        model = inferkit.Model.load(
                            rows_first(case, list(given), port, axis, out, out_axis), input_checks=UNCHECKED
                        )
                    except inferkit.InferkitError:  # it does not take any number of rows there
                        continue
                    if not model._mixing_node:
                        where = f"{case.name}: input {port}, axis {axis}; output {out}, axis {out_axis}"
                        yield model, np.moveaxis(x, axis, 0), where


def answer(model: inferkit.Model, x: Any) -> np.ndarray | None:
    try:
        return np.asarray(model(np.ascontiguousarray(x)))
    except inferkit.InferkitError:
        return None


@pytest.mark.parametrize("operator", sorted(CASES))
def test_rows_that_share_a_batch_are_what_they_are_alone(operator: str) -> None:
    for case in CASES[operator]:
        for model, x, where in sharing(case):
            parts = [x, x[::-1], x[:1], np.concatenate([x[-1:], x])]
            alone = [answer(model, part) for part in parts]
            together = answer(model, np.concatenate(parts))
            fit = [y for y in alone if y is not None]
            if not fit:  # no request of these is right
                continue
            assert len(fit) == len(parts), f"{where}: some requests fail, and not for what is in them"
            assert together is not None, f"{where}: they fail together"
            assert [len(y) for y in fit] == [len(part) for part in parts], where
            assert together.tobytes() == np.concatenate(fit).tobytes(), where


def test_some_share() -> None:
    assert any(True for case in CASES["Add"] for _ in sharing(case))
    assert not any(True for case in CASES["NonZero"] for _ in sharing(case))
