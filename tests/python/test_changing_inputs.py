"""Arrays that another thread writes while a model runs on them: an answer or an error, and the process goes on.

What each operator reads is tested in order and without chance in tests/cpp/engine/model/test_changing_inputs.cc; here
the whole way in, from numpy's memory on, is raced.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import inferkit

Array = np.ndarray[Any, Any]
N = 20_000
SECONDS = 0.3
FAR = 1 << 40
ERRORS = (inferkit.InferenceError, inferkit.ValidationError, inferkit.OutputError)  # the last of rows that differ


def one_node(
    op: str,
    inputs: list[tuple[str, int, list[Any]]],
    output: tuple[int, list[Any]],
    outputs: int = 1,
    **attributes: Any,
) -> bytes:
    names = [f"y{i}" for i in range(outputs)]
    domain = attributes.pop("domain", "")
    node = helper.make_node(op, [name for name, *_ in inputs], names, domain=domain, **attributes)
    ports = [helper.make_tensor_value_info(*i) for i in inputs]
    gives = [helper.make_tensor_value_info("y0", *output)] + [onnx.ValueInfoProto(name=name) for name in names[1:]]
    graph = helper.make_graph([node], "g", ports, gives)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    return onnx.shape_inference.infer_shapes(model).SerializeToString()


F, I64, I32, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL
ramp = np.arange(N, dtype=np.float32)

#: name -> (model, inputs, which of them changes, its other contents)
CASES: dict[str, tuple[bytes, list[Array], int, Any]] = {
    "Compress": (
        one_node("Compress", [("x", F, [None, 4]), ("i", BOOL, [None])], (F, [None, 4]), axis=0),
        [np.ones((N, 4), np.float32), np.zeros(N, np.bool_)],
        1,
        True,
    ),
    "NonZero": (one_node("NonZero", [("x", F, [None])], (I64, [1, None])), [np.zeros(N, np.float32)], 0, 1),
    "Unique": (one_node("Unique", [("x", F, [None])], (F, [None]), 4), [ramp.copy()], 0, np.nan),
    "TopK": (
        one_node("TopK", [("x", F, [None]), ("k", I64, [1])], (F, [None]), 2),
        [ramp.copy(), np.array([N // 2])],
        0,
        ramp[::-1].copy(),
    ),
    "ArgMax": (one_node("ArgMax", [("x", F, [None])], (I64, [1]), axis=0), [ramp.copy()], 0, -1),
    "Gather": (
        one_node("Gather", [("x", F, [None]), ("i", I64, [None])], (F, [None])),
        [ramp, np.zeros(N, np.int64)],
        1,
        FAR,
    ),
    "ArrayFeatureExtractor": (
        one_node("ArrayFeatureExtractor", [("x", F, [1, N]), ("i", I64, [None])], (F, [1, None]), domain="ai.onnx.ml"),
        [ramp[None], np.zeros(N, np.int64)],
        1,
        FAR,
    ),
    "ReverseSequence": (
        one_node("ReverseSequence", [("x", F, [4, N]), ("n", I64, [N])], (F, [4, N])),
        [np.ones((4, N), np.float32), np.full(N, 4)],
        1,
        FAR,
    ),
    "Reshape": (
        one_node("Reshape", [("x", F, [None]), ("s", I64, [2])], (F, [None, None])),
        [ramp, np.array([2, N // 2])],
        1,
        np.array([N // 2, 2]),
    ),
}


def as_tuple(answer: Any) -> tuple[Array, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_nothing_but_an_answer_or_an_error(name: str, batched: bool) -> None:
    data, inputs, changing, other = CASES[name]
    checks = inferkit.InputChecks(finite=False)
    model = inferkit.Model.load(data, input_checks=checks)
    if batched:
        if len({i.shape[0] for i in inputs}) != 1:
            pytest.skip("its inputs share no batch axis")
        run: Any = inferkit.Batcher(model, max_batch_size=N, input_checks=checks)
    else:
        run = model
    target, stop = inputs[changing], threading.Event()
    first = target.copy()

    def write() -> None:
        while not stop.is_set():
            target[...] = other
            target[...] = first

    writer = threading.Thread(target=write)
    writer.start()
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(*ERRORS):
                run(*inputs)
    finally:
        stop.set()
        writer.join()
        if batched:
            run.close()
    # What came of it all is forgotten: still inputs get the answer that they always get.
    target[...] = first
    still, fresh = (as_tuple(m(*inputs)) for m in (model, inferkit.Model.load(data, input_checks=checks)))
    for found, want in zip(still, fresh, strict=True):
        np.testing.assert_array_equal(found, want)
