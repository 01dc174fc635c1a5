"""Nodes of several outputs of which only some are read, or named: each of onnx's node tests, one output at a time."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import inferkit
from inferkit._types import same_bits

LENIENT = inferkit.InputChecks(finite=False, non_empty=False)


def cases() -> list[tuple[str, onnx.ModelProto, dict[str, np.ndarray]]]:
    from onnx.backend.test.case.node import collect_testcases

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = collect_testcases("")
    for case in every:
        if case.model is None or len(case.model.graph.output) < 2 or len(case.model.graph.node) != 1:
            continue
        inputs = case.data_sets[0][0]
        if any(isinstance(x, list | dict) or x is None for x in inputs):
            continue
        arrays = [numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else np.asarray(x) for x in inputs]
        names = [i.name for i in case.model.graph.input]
        found.append((case.name, case.model, dict(zip(names, arrays, strict=False))))
    return found


@pytest.mark.parametrize("named", [True, False], ids=["unread", "left_out"])
def test_each_output_by_itself(named: bool) -> None:
    compared = 0
    for name, model, feeds in cases():
        try:
            whole = inferkit.Model.load(model.SerializeToString(), input_checks=LENIENT).run(feeds)
        except inferkit.InferkitError:
            continue  # what is refused, or strings: the conformance tests tell
        for kept in model.graph.output:
            part = onnx.ModelProto()
            part.CopyFrom(model)
            del part.graph.output[:]
            part.graph.output.append(kept)
            if not named:
                node = part.graph.node[0]
                node.output[:] = [o if o == kept.name else "" for o in node.output]
            found = inferkit.Model.load(part.SerializeToString(), input_checks=LENIENT).run(feeds)
            assert list(found) == [kept.name]
            assert same_bits(found[kept.name], whole[kept.name]), (name, kept.name)
            compared += 1
    assert compared > 200
