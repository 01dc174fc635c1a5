"""Names of inputs and outputs, whole and as they are, and keys that are none of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import inferkit
from inferkit import _core

X = np.full((2, 4), 2, np.float32)
SPEC = ("float32", (None, 4))
NAMES = ("a\0b", "a\0c")


def model_bytes() -> bytes:
    def port(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])

    nodes = [helper.make_node("Relu", ["x\0y"], [NAMES[0]]), helper.make_node("Neg", ["x\0y"], [NAMES[1]])]
    graph = helper.make_graph(nodes, "g", [port("x\0y")], [port(name) for name in NAMES])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()  # type: ignore[no-any-return]


def native() -> inferkit.Model:
    return inferkit.Model.load(model_bytes())


def wrapped() -> inferkit.Model:
    return inferkit.Model.from_callable(
        lambda x: {NAMES[0]: x, NAMES[1]: -x}, inputs=[("x\0y", *SPEC)], outputs=[(name, *SPEC) for name in NAMES]
    )


def in_batch(batcher: inferkit.Batcher, feeds: dict[str, Any]) -> Any:
    first, second = batcher.submit(feeds), batcher.submit(feeds)
    first.result()
    return second.result()


@pytest.mark.parametrize("make", [native, wrapped])
def test_names_with_a_nul_stay_whole(make: Callable[[], inferkit.Model]) -> None:
    model = make()
    feeds = {"x\0y": X}
    with inferkit.Batcher(model) as batcher:
        for answer in (model.run(feeds), batcher(feeds), in_batch(batcher, feeds)):
            assert tuple(answer) == NAMES
            assert [answer[name][0, 0] for name in NAMES] == [2, -2]
        for wrong in ({"x": X}, {"x\0y": X, "x": X}, {"x\0y\0": X}):
            for call in (model.run, batcher, lambda feeds: batcher.submit(feeds).result()):
                with pytest.raises(inferkit.ValidationError) as caught:
                    call(wrong)  # type: ignore[operator]
                assert caught.value.reason == "name"
        assert batcher.stats().invalid == 6


def test_a_callable_must_give_the_whole_name() -> None:
    model = inferkit.Model.from_callable(lambda x: {"a": x}, inputs=[("x", *SPEC)], outputs=[("a\0b", *SPEC)])
    with pytest.raises(inferkit.OutputError, match=r"a\\x00b' is missing"):
        model(X)


def test_a_file_is_told_of_with_whole_names(tmp_path: Path) -> None:
    keys = helper.make_node("ZipMap", ["p"], ["z\0map"], domain="ai.onnx.ml", classlabels_int64s=[3, 4])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["p"]), keys],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [onnx.ValueInfoProto(name="z\0map")],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())
    assert _core.inspect_onnx(tmp_path / "m.onnx")["columns"] == {"z\0map": [3, 4]}


class SaysX:
    def __str__(self) -> str:
        return "x"

    __repr__ = __str__


class OwnX(str):
    """The characters of a name, and not equal to it."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize("key", [SaysX(), OwnX("x"), Unprintable(), 5, None, b"x", "x\0", "\ud800", ("x",)])
def test_keys_that_are_no_names(key: Any) -> None:
    model = inferkit.Model.from_callable(lambda x: x, inputs=[("x", *SPEC)], outputs=[("y", *SPEC)])
    with inferkit.Batcher(model) as batcher:
        for call in (model.run, batcher, lambda feeds: batcher.submit(feeds).result()):
            with pytest.raises(inferkit.ValidationError) as caught:
                call({"x": X, key: X})  # type: ignore[operator]
            assert caught.value.reason == "name"
            assert "'x'" in str(caught.value)
        assert batcher.stats().invalid == 2
        with pytest.raises(inferkit.ValidationError, match=r"two keys|no output"):
            native().run({"x\0y": X}, out={key: X})
