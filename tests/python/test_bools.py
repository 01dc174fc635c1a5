"""A bool is 0 or 1 inside, whatever its byte was outside: a mask of 0 and 255 seen as bool means what numpy means."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import inferkit

Array = np.ndarray[Any, Any]
BYTES = np.array([0, 255, 1, 2, 0, 128, 1, 254], np.uint8)
MASK = BYTES.view(np.bool_)
OTHER = np.array([1, 1, 2, 0, 0, 64, 0, 1], np.uint8).view(np.bool_)
A, B = BYTES != 0, OTHER.view(np.uint8) != 0  # what they mean
X = np.arange(8, dtype=np.float32)


def port(name: str, kind: int, shape: list[Any] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [None] if shape is None else shape)


def model(nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], constants: Any = ()) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    imports = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()


BOOL, FLOAT, UINT8, INT64 = TensorProto.BOOL, TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64
NODE = helper.make_node


def branches() -> list[onnx.NodeProto]:
    """y = a[1] ? 1 : 0, by an If on an element of the mask."""

    def constant(value: float) -> onnx.GraphProto:
        node = NODE("Constant", [], ["value"], value=helper.make_tensor("v", FLOAT, [1], [value]))
        return helper.make_graph([node], "branch", [], [port("value", FLOAT)])

    at = NODE("Constant", [], ["at"], value=helper.make_tensor("at", INT64, [], [1]))
    return [
        at,
        NODE("Gather", ["a", "at"], ["condition"]),
        NODE("If", ["condition"], ["y"], then_branch=constant(1), else_branch=constant(0)),
    ]


def carried() -> list[onnx.NodeProto]:
    """The mask goes three times round a loop that inverts it."""
    body = helper.make_graph(
        [NODE("Identity", ["go"], ["still"]), NODE("Not", ["m"], ["n"])],
        "body",
        [port("i", INT64, []), port("go", BOOL, []), port("m", BOOL)],
        [port("still", BOOL, []), port("n", BOOL)],
    )
    trips = NODE("Constant", [], ["trips"], value=helper.make_tensor("trips", INT64, [], [3]))
    return [trips, NODE("Loop", ["trips", "", "a"], ["y"], body=body)]


#: name -> (nodes, the type of y, what y is)
CASES: dict[str, tuple[list[onnx.NodeProto], int, Array]] = {
    "Identity": ([NODE("Identity", ["a"], ["y"])], BOOL, A),
    "Not": ([NODE("Not", ["a"], ["y"])], BOOL, ~A),
    "And": ([NODE("And", ["a", "b"], ["y"])], BOOL, A & B),
    "Or": ([NODE("Or", ["a", "b"], ["y"])], BOOL, A | B),
    "Xor": ([NODE("Xor", ["a", "b"], ["y"])], BOOL, A ^ B),
    "Equal": ([NODE("Equal", ["a", "b"], ["y"])], BOOL, A == B),
    "Where": ([NODE("Where", ["a", "x", "minus"], ["y"])], FLOAT, np.where(A, X, -X)),
    "Cast to float": ([NODE("Cast", ["a"], ["y"], to=FLOAT)], FLOAT, A.astype(np.float32)),
    "Cast to uint8": ([NODE("Cast", ["a"], ["y"], to=UINT8)], UINT8, A.astype(np.uint8)),
    "Cast and back": ([NODE("Cast", ["a"], ["f"], to=UINT8), NODE("Cast", ["f"], ["y"], to=BOOL)], BOOL, A),
    "Compress": ([NODE("Compress", ["x", "a"], ["y"], axis=0)], FLOAT, X[A]),
    "Concat": ([NODE("Concat", ["a", "b"], ["y"], axis=0)], BOOL, np.concatenate([A, B])),
    "If": (branches(), FLOAT, np.ones(1, np.float32)),
    "Loop": (carried(), BOOL, ~A),
}


def check(found: Any, want: Array) -> None:
    found = np.asarray(found)
    np.testing.assert_array_equal(found, want)
    if found.dtype == np.bool_:
        assert set(found.view(np.uint8).ravel().tolist()) <= {0, 1}


def loaded(name: str) -> inferkit.Model:
    nodes, kind, _ = CASES[name]
    minus = [NODE("Neg", ["x"], ["minus"])]
    inputs = [port("a", BOOL), port("b", BOOL), port("x", FLOAT)]
    return inferkit.Model.load(model([*minus, *nodes], inputs, [port("y", kind)]))


@pytest.mark.parametrize("name", CASES)
def test_every_operator_that_reads_bools(name: str) -> None:
    check(loaded(name)(MASK, OTHER, X), CASES[name][2])


def shared_memory(mask: Array) -> Array:
    memory = mmap.mmap(-1, mask.size)
    memory[:] = mask.tobytes()
    return np.frombuffer(memory, np.bool_)


class OverDlpack:
    """An array that only DLPack shows."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


#: Ways in which one may hold a mask.
HOLDERS: dict[str, Callable[[Array], Any]] = {
    "array": lambda m: m,
    "strided": lambda m: np.repeat(m.view(np.uint8), 2).view(np.bool_)[::2],
    "reversed": lambda m: m.view(np.uint8)[::-1].copy().view(np.bool_)[::-1],
    "read-only": lambda m: np.frombuffer(m.tobytes(), np.bool_),
    "memoryview": lambda m: memoryview(m),
    "shared memory": shared_memory,
    "dlpack": OverDlpack,
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("name", ["Identity", "Not", "Xor", "Compress"])
def test_every_way_to_hold_a_mask(holder: str, name: str) -> None:
    held = HOLDERS[holder](MASK)
    check(loaded(name)(held, OTHER, X), CASES[name][2])
    check(loaded(name).run({"a": held, "b": OTHER, "x": X})["y"], CASES[name][2])


def test_a_mask_of_many_dimensions() -> None:
    """Transposed, broadcast: walked run by run."""
    bytes_in = np.random.default_rng(5).integers(0, 256, (3, 5, 7), np.uint8) & 0x82
    invert = inferkit.Model.load(
        model([NODE("Not", ["a"], ["y"])], [port("a", BOOL, [None] * 3)], [port("y", BOOL, [None] * 3)])
    )
    for view in (
        bytes_in,
        bytes_in.transpose(2, 0, 1),
        bytes_in[::-1, :, ::2],
        np.broadcast_to(bytes_in[:1], (4, 5, 7)),
    ):
        check(invert(view.view(np.bool_)), view == 0)


@pytest.mark.parametrize("name", ["Identity", "Not", "And", "Equal", "Where", "Cast to uint8"])
@pytest.mark.parametrize("holder", ["array", "strided"])
def test_every_way_through_a_batcher(name: str, holder: str) -> None:
    want, held = CASES[name][2], HOLDERS[holder](MASK)
    inputs = {"a": held, "b": OTHER, "x": X}
    for caller_runs in (True, False):
        with inferkit.Batcher(loaded(name), max_batch_size=32, caller_runs=caller_runs) as batcher:
            check(batcher(held, OTHER, X), want)
            check(batcher(inputs)["y"], want)
            tickets = [batcher.submit(held, OTHER, X) for _ in range(3)]
            for ticket in tickets:
                check(ticket.result(timeout=30), want)

            async def ask(batcher: inferkit.Batcher = batcher) -> list[Any]:
                return await asyncio.gather(*(batcher.submit(held, OTHER, X) for _ in range(3)))

            for found in asyncio.run(ask()):
                check(found, want)


def test_callables_get_and_give_canonical_bools() -> None:
    seen = []

    def function(mask: Array) -> Array:
        seen.append(mask.view(np.uint8).tolist())
        return MASK

    wrapped = inferkit.Model.from_callable(function, inputs=[("a", "bool", (None,))], outputs=[("y", "bool", (None,))])
    check(wrapped(MASK), A)
    with inferkit.Batcher(wrapped, max_batch_size=8) as batcher:
        check(batcher(MASK), A)
        check(batcher.submit(MASK).result(timeout=30), A)
    assert seen == [A.view(np.uint8).tolist()] * 3


def test_what_a_batch_gathers_is_canonical() -> None:
    """Requests that wait for each other are copied once more, into one batch."""
    with inferkit.Batcher(loaded("Not"), max_batch_size=64, max_delay=0.2, caller_runs=False) as batcher:
        tickets = [batcher.submit(MASK, OTHER, X) for _ in range(6)]
        for ticket in tickets:
            check(ticket.result(timeout=30), ~A)


def raw(name: str, values: Array) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=BOOL, dims=[values.size])
    tensor.raw_data = values.tobytes()
    return tensor


def typed(name: str, values: Array) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=BOOL, dims=[values.size])
    tensor.int32_data.extend(int(v) for v in values)
    return tensor


def test_constants_that_are_listed_as_numbers() -> None:
    xor = NODE("Xor", ["b", "c"], ["y"])
    ports = [port("b", BOOL)], [port("y", BOOL), port("c", BOOL)]
    as_initializer = model([xor], *ports, [typed("c", BYTES)])
    as_attribute = model([NODE("Constant", [], ["c"], value=typed("c", BYTES)), xor], *ports)
    for file in (as_initializer, as_attribute):
        y, c = inferkit.Model.load(file)(OTHER)
        check(y, A ^ B)
        check(c, A)


def test_external_data(tmp_path: Path) -> None:
    tensor = raw("c", BYTES)
    file = onnx.load_from_string(
        model([NODE("Xor", ["b", "c"], ["y"])], [port("b", BOOL)], [port("y", BOOL)], [tensor])
    )
    path = tmp_path / "model.onnx"
    onnx.save(file, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    check(inferkit.Model.load(path)(OTHER), A ^ B)


def safetensors(path: Path, values: Array) -> Path:
    header = f'{{"mask":{{"dtype":"BOOL","shape":[{values.size}],"data_offsets":[0,{values.size}]}}}}'.encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + values.tobytes())
    return path


@pytest.mark.parametrize("mmap", [True, False])
def test_weights_of_a_file(tmp_path: Path, mmap: bool) -> None:
    weights = inferkit.Weights.open(safetensors(tmp_path / "mask.safetensors", BYTES), mmap=mmap)
    mask = weights["mask"]
    check(mask, A)
    assert mask.base is weights
    assert not mask.flags.writeable
    check(loaded("Not")(mask, OTHER, X), ~A)
    del weights
    check(mask, A)  # the copy lives as long as the view


def test_weights_that_are_bools_already_are_not_copied(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "mask.safetensors", A.view(np.uint8))
    mask = inferkit.Weights.open(path)["mask"]
    check(mask, A)
    with path.open("r+b") as file:  # the pages are the file's
        file.seek(-1, 2)
        file.write(b"\0")
    check(mask, np.append(A[:-1], False))


@pytest.mark.parametrize("at", [0, 1, 70_000, 299_999])
def test_one_byte_of_many(tmp_path: Path, at: int) -> None:
    values = np.arange(300_000, dtype=np.uint8) & 1
    values[at] = 2
    check(inferkit.Weights.open(safetensors(tmp_path / "mask.safetensors", values))["mask"], values != 0)


def sparse(name: str, dense: Array) -> onnx.SparseTensorProto:
    """A mask whose bytes are those that are not 0."""
    at = np.flatnonzero(dense)
    return onnx.SparseTensorProto(
        values=raw(name, dense[at]), indices=helper.make_tensor("at", INT64, at.shape, at), dims=dense.shape
    )


def of_constants(kind: str) -> bytes:
    """y = b xor c and c itself, c in one of the ways in which a file may hold it."""
    xor = NODE("Xor", ["b", "c"], ["y"])
    ports = [port("b", BOOL)], [port("y", BOOL), port("c", BOOL)]
    if kind == "initializer":
        return model([xor], *ports, [raw("c", BYTES)])
    if kind == "Constant":
        return model([NODE("Constant", [], ["c"], value=raw("c", BYTES)), xor], *ports)
    if kind == "sparse Constant":
        return model([NODE("Constant", [], ["c"], sparse_value=sparse("c", BYTES)), xor], *ports)
    if kind == "ConstantOfShape":
        shape = helper.make_tensor("shape", INT64, [1], [8])
        node = NODE("ConstantOfShape", ["shape"], ["c"], value=raw("c", BYTES[1:2]))
        return model([node, xor], *ports, [shape])
    graph = helper.make_graph([xor], "g", *ports, sparse_initializer=[sparse("c", BYTES)])
    imports = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    "kind", ["initializer", "Constant", "sparse Constant", "sparse initializer", "ConstantOfShape"]
)
def test_every_way_to_hold_a_constant(kind: str, tmp_path: Path) -> None:
    want = np.ones(8, np.bool_) if kind == "ConstantOfShape" else A
    file = of_constants(kind)
    y, c = inferkit.Model.load(file)(OTHER)
    check(y, want ^ B)
    check(c, want)
    path = tmp_path / "model.onnx"
    path.write_bytes(file)
    if "c" in (weights := inferkit.Weights.open(path)):
        check(weights["c"], want)
    else:
        assert "initializer" not in kind


def test_what_constants_decide() -> None:
    """Where the model is compiled already: a branch, a length, a choice."""
    for byte in (0, 1, 2, 255):
        nodes, kind, _ = CASES["If"]
        mask = raw("a", np.full(8, byte, np.uint8))
        found = inferkit.Model.load(model(nodes, [], [port("y", kind)], [mask]))()
        check(found, np.full(1, byte != 0, np.float32))
    nodes, kind, want = CASES["Compress"]
    check(inferkit.Model.load(model(nodes, [port("x", FLOAT)], [port("y", kind)], [raw("a", BYTES)]))(X), want)


def test_results_go_to_the_caller_s_array() -> None:
    out = np.empty(8, np.bool_)
    check(loaded("Not").run({"a": MASK, "b": OTHER, "x": X}, out={"y": out})["y"], ~A)
    check(out, ~A)
    # In place of the input, whose bytes are read before any is written.
    both = BYTES.copy().view(np.bool_)
    loaded("Not").run({"a": both, "b": OTHER, "x": X}, out={"y": both})
    check(both, ~A)
