"""Models: specs, calls, validation, memory, threads; numbers against numpy in float64 and ONNX Runtime."""

from __future__ import annotations

import array
import itertools
import pickle
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import inferkit


def mlp_bytes(sizes: tuple[int, ...], seed: int = 0, batch: int | str | None = "batch") -> bytes:
    """An MLP of Gemm and Relu, softmax at the end, weights drawn from `seed`."""
    rng = np.random.default_rng(seed)
    nodes, constants, value = [], [], "x"
    for i, (k, n) in enumerate(itertools.pairwise(sizes)):
        w = (rng.standard_normal((n, k)) / np.sqrt(k)).astype(np.float32)
        constants += [
            numpy_helper.from_array(w, f"w{i}"),
            numpy_helper.from_array(rng.standard_normal(n).astype(np.float32), f"b{i}"),
        ]
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [f"h{i}"], name=f"fc{i}", transB=1))
        value = f"h{i}"
        if i + 2 < len(sizes):
            nodes.append(helper.make_node("Relu", [value], [f"r{i}"]))
            value = f"r{i}"
    nodes.append(helper.make_node("Softmax", [value], ["y"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, sizes[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, sizes[-1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def mlp_oracle(data: bytes, x: np.ndarray) -> np.ndarray:
    """The same in float64."""
    graph = onnx.load_from_string(data).graph
    w = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in graph.initializer}
    h = x.astype(np.float64)
    layers = len(w) // 2
    for i in range(layers):
        h = h @ w[f"w{i}"].T + w[f"b{i}"]
        if i + 1 < layers:
            h = np.maximum(h, 0)
    e = np.exp(h - h.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


SIZES = [(4, 16, 3), (64, 256, 256, 10), (1, 1), (7, 33, 129, 5), (300, 2)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch", [1, 2, 3, 8, 17, 64])
def test_mlp_against_float64(sizes: tuple[int, ...], batch: int) -> None:
    data = mlp_bytes(sizes)
    x = np.random.default_rng(batch).standard_normal((batch, sizes[0])).astype(np.float32)
    y = inferkit.Model.load(data)(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, mlp_oracle(data, x), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", SIZES)
def test_mlp_against_onnxruntime(sizes: tuple[int, ...]) -> None:
    ort = pytest.importorskip("onnxruntime")
    data = mlp_bytes(sizes, seed=3)
    x = np.random.default_rng(5).standard_normal((9, sizes[0])).astype(np.float32)
    expected = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(inferkit.Model.load(data)(x), expected, rtol=1e-4, atol=1e-5)


@given(batch=st.integers(1, 130), seed=st.integers(0, 1000), which=st.integers(0, len(SIZES) - 1))
@settings(max_examples=40, deadline=None)
def test_a_row_has_the_same_bits_in_any_batch(batch: int, seed: int, which: int) -> None:
    model = model_of(SIZES[which])
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, SIZES[which][0])).astype(np.float32)
    together = model(x)
    row = int(rng.integers(batch))
    assert model(x[row]).tobytes() == together[row].tobytes()
    assert model(x[row : row + 1]).tobytes() == together[row].tobytes()
    permutation = rng.permutation(batch)
    assert model(x[permutation]).tobytes() == together[permutation].tobytes()


_models: dict[tuple[int, ...], inferkit.Model] = {}


def model_of(sizes: tuple[int, ...]) -> inferkit.Model:
    if sizes not in _models:
        _models[sizes] = inferkit.Model.load(mlp_bytes(sizes))
    return _models[sizes]


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    data = mlp_bytes((512, 1024, 1024, 16), seed=1)
    x = np.random.default_rng(0).standard_normal((96, 512)).astype(np.float32)
    answers = {inferkit.Model.load(data, threads=n)(x).tobytes() for n in (1, 2, 5)}
    assert len(answers) == 1


def test_specs() -> None:
    model = inferkit.Model.load(mlp_bytes((4, 16, 3)))
    assert model.inputs == (inferkit.TensorSpec("x", "float32", (None, 4)),)
    assert model.outputs == (inferkit.TensorSpec("y", "float32", (None, 3)),)
    assert "x: float32[*, 4]" in repr(model)


def test_output_shape_is_found_where_the_file_does_not_say() -> None:
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = inferkit.Model.load(helper.make_model(graph, ir_version=9).SerializeToString())
    assert model.outputs[0].shape == (None, 12)


@pytest.mark.parametrize("declared", [["n", "frames"], None], ids=["declared free", "not declared"])
def test_an_output_that_has_one_frame_for_short_inputs_is_free(declared: list[str] | None) -> None:
    """As features of sound are: every size that is tried at load gives a single frame."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["signal"]),
        helper.make_node("Pad", ["signal", "pads"], ["padded"]),
        helper.make_node("Conv", ["padded", "window"], ["frames"], strides=[4000]),
        helper.make_node("Squeeze", ["frames", "one"], ["y"]),
    ]
    constants = {
        "one": np.array([1], np.int64), "pads": np.array([0, 0, 0, 0, 0, 3999], np.int64),
        "window": np.ones((1, 1, 4000), np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "samples"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, declared)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model = inferkit.Model.load(onnx_model.SerializeToString())
    assert model.outputs[0].shape == (None, None)
    x = np.ones((2, 9000), np.float32)
    with inferkit.Batcher(model) as batcher:
        np.testing.assert_array_equal(batcher(x), [[4000, 4000, 1000]] * 2)


def test_a_row_is_told_from_a_batch_by_its_dimensions() -> None:
    model = model_of((4, 16, 3))
    x = np.ones((2, 4), np.float32)
    assert model(x).shape == (2, 3)
    assert model(x[0]).shape == (3,)


def test_run_by_name_and_out() -> None:
    model = model_of((4, 16, 3))
    x = np.ones((2, 4), np.float32)
    y = model.run({"x": x})
    assert list(y) == ["y"]
    out = np.empty((2, 3), np.float32)
    again = model.run({"x": x}, out={"y": out})
    assert again["y"] is out
    assert out.tobytes() == y["y"].tobytes()
    with pytest.raises(inferkit.ValidationError, match="writable, contiguous float32 array of shape") as e:
        model.run({"x": x}, out={"y": np.empty((3, 2), np.float32)})
    assert e.value.reason == "shape"
    with pytest.raises(inferkit.ValidationError) as e:
        model.run({"x": x}, out={"y": np.empty((2, 3), np.float64)})
    assert e.value.reason == "dtype"
    frozen = np.empty((2, 3), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(inferkit.ValidationError, match=r"got float32 \(2, 3\), read-only$"):
        model.run({"x": x}, out={"y": frozen})
    with pytest.raises(inferkit.ValidationError, match=r"got float32 \(2, 3\), not contiguous$"):
        model.run({"x": x}, out={"y": np.empty((2, 6), np.float32)[:, ::2]})
    with pytest.raises(inferkit.ValidationError, match=r"got float32 \(2, 3\), not aligned$"):
        model.run({"x": x}, out={"y": np.empty(25, np.uint8)[1:].view(np.float32).reshape(2, 3)})
    with pytest.raises(inferkit.ValidationError, match=r"out\['y'\] has dtype object; expected float32$"):
        model.run({"x": x}, out={"y": np.empty((2, 3), object)})


def test_out_may_overlap_the_input() -> None:
    model = model_of((16, 33, 16))
    x = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    expected = model(x)
    model.run({"x": x}, out={"y": x})
    assert x.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("feeds", "reason", "text"),
    [
        ({}, "name", "'x' is missing"),
        ({"x": np.ones((1, 4), np.float32), "z": 1}, "name", "no input 'z'"),
        ({"x": np.ones((1, 4))}, "dtype", "float64"),
        ({"x": np.ones((1, 4), ">f4")}, "dtype", ">f4"),
        ({"x": {1.0, 2.0, 3.0, 4.0}}, "dtype", "numpy.asarray"),
        ({"x": b"0123456789abcdef"}, "dtype", "bytes"),
        ({"x": None}, "dtype", "NoneType"),
        ({"x": np.array(["a"] * 4)}, "dtype", "U1"),
        ({"x": np.ones((1, 5), np.float32)}, "shape", r"\(1, 5\)"),
        ({"x": np.float32(3)}, "shape", r"\(\)"),
        ({"x": np.ones((1, 1, 4), np.float32)}, "shape", r"\(1, 1, 4\)"),
        ({"x": np.ones((1,) * 9, np.float32)}, "shape", "9 dimensions"),
        ({"x": np.ones((0, 4), np.float32)}, "empty", "0"),
        ({"x": np.array([[0, 1, np.nan, 0]], np.float32)}, "non_finite", "nan"),
        ({"x": np.array([[0, 1, -np.inf, 0]], np.float32)}, "non_finite", "inf"),
    ],
)
def test_wrong_inputs_are_refused_with_a_reason(feeds: dict[str, object], reason: str, text: str) -> None:
    with pytest.raises(inferkit.ValidationError, match=f"(?i){text}") as e:
        model_of((4, 16, 3)).run(feeds)
    assert e.value.reason == reason
    assert isinstance(e.value, ValueError)
    assert pickle.loads(pickle.dumps(e.value)).reason == reason


def test_the_number_of_inputs_is_checked() -> None:
    x = np.ones((1, 4), np.float32)
    with pytest.raises(inferkit.ValidationError, match=r"takes 1 input \('x'\); got 2"):
        model_of((4, 16, 3))(x, x)
    with pytest.raises(TypeError, match="by position"):
        model_of((4, 16, 3))(x=x)


def test_input_checks_can_be_turned_off() -> None:
    data = mlp_bytes((4, 16, 3))
    model = inferkit.Model.load(data, input_checks=inferkit.InputChecks(finite=False, non_empty=False))
    assert np.isnan(model(np.full((1, 4), np.nan, np.float32))).all()
    assert model(np.empty((0, 4), np.float32)).shape == (0, 3)


def test_length_bounds() -> None:
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9).SerializeToString()
    model = inferkit.Model.load(data, input_checks=inferkit.InputChecks(min_length=2, max_length=5))
    assert model(np.ones((1, 5), np.float32)) == 5
    with pytest.raises(inferkit.ValidationError) as e:
        model(np.ones((1, 6), np.float32))
    assert e.value.reason == "too_large"
    with pytest.raises(inferkit.ValidationError):
        model(np.ones((1, 1), np.float32))
    with pytest.raises(ValueError, match="above max_length"):
        inferkit.InputChecks(min_length=3, max_length=2)


def views_of(x: np.ndarray) -> list[np.ndarray]:
    wide = np.zeros((x.shape[0], x.shape[1] * 3), x.dtype)
    wide[:, ::3] = x
    shifted = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    shifted[...] = x
    return [np.asfortranarray(x), x[::-1][::-1], wide[:, ::3], shifted, x[:, ::-1].copy()[:, ::-1]]


def test_arrays_need_not_be_contiguous_or_aligned() -> None:
    model = model_of((64, 256, 256, 10))
    x = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    expected = model(x).tobytes()
    for view in views_of(x):
        assert model(view).tobytes() == expected
    x[3, 5] = np.nan
    for view in views_of(x):
        with pytest.raises(inferkit.ValidationError):
            model(view)


def test_zero_strides() -> None:
    model = model_of((4, 16, 3))
    x = np.broadcast_to(np.ones(4, np.float32), (5, 4))
    assert model(x).tobytes() == model(np.ones((5, 4), np.float32)).tobytes()


class DLPackOnly:
    def __init__(self, a: np.ndarray) -> None:
        self.a = a

    def __dlpack__(self, **kwargs: object) -> object:
        return self.a.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.a.__dlpack_device__()


def test_dlpack_and_the_buffer_protocol() -> None:
    model = model_of((4, 16, 3))
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    expected = model(x).tobytes()
    assert model(DLPackOnly(x)).tobytes() == expected
    assert model(memoryview(x)).tobytes() == expected
    assert model(array.array("f", x[0].tolist())).tobytes() == expected[:12]


def test_many_threads_at_once() -> None:
    model = inferkit.Model.load(mlp_bytes((64, 256, 256, 10)))
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((int(rng.integers(1, 9)), 64)).astype(np.float32) for _ in range(64)]
    expected = [model(x).tobytes() for x in inputs]
    wrong: list[int] = []

    def client(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(inputs))
        for i in [*order, *order]:
            if model(inputs[i]).tobytes() != expected[i]:
                wrong.append(int(i))

    threads = [threading.Thread(target=client, args=(s,)) for s in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_plans_are_bounded() -> None:
    model = inferkit.Model.load(mlp_bytes((4, 16, 3)), max_plans=4)
    for batch in range(1, 20):
        model(np.ones((batch, 4), np.float32))
    memory = model.memory()
    assert memory.plans == 4
    assert memory.plan_evictions == 15
    model.trim()
    assert model.memory().arena_bytes == 0


def test_warm_up() -> None:
    model = inferkit.Model.load(mlp_bytes((4, 16, 3)))
    model.warm_up([1, 8])
    misses = model.memory().plan_misses
    model(np.ones((8, 4), np.float32))
    assert model.memory().plan_misses == misses
    with pytest.raises(ValueError, match="at least 1"):
        model.warm_up([0])


def test_weights_are_views_on_the_mapping(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    data = mlp_bytes((64, 256, 256, 10))
    path.write_bytes(data)
    model = inferkit.Model.load(path)
    graph = onnx.load_from_string(data).graph
    weights = model.weights
    assert weights is not None
    for tensor in graph.initializer:
        view = weights[tensor.name]
        assert not view.flags.writeable
        np.testing.assert_array_equal(view, numpy_helper.to_array(tensor))
    memory = model.memory()
    assert memory.file_bytes == len(data)
    assert memory.packed_bytes >= 338_000
    kept = weights["w0"]
    del model, weights
    np.testing.assert_array_equal(kept, numpy_helper.to_array(graph.initializer[0]))


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        inferkit.Model.load("nowhere.onnx")


def test_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is not a model, it is a text of some length")
    with pytest.raises(inferkit.ModelError):
        inferkit.Model.load(tmp_path / "text.onnx")
    with pytest.raises((inferkit.ModelError, OSError)):
        inferkit.Model.load(tmp_path)
    with pytest.raises(inferkit.ModelError):
        inferkit.Model.load(b"")


def test_every_missing_operator_is_listed_at_once() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("NoSuchThing", ["x"], ["a"], domain="org.example"),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("NorThis", ["b"], ["c"], domain="org.example"),
            helper.make_node("NorThis", ["c"], ["y"], domain="org.example"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("org.example", 1)]
    data = helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()
    with pytest.raises(inferkit.UnsupportedOpError) as e:
        inferkit.Model.load(data)
    assert "org.example.NoSuchThing (opset 1), 1 node" in str(e.value)
    assert "org.example.NorThis (opset 1), 2 nodes" in str(e.value)
    assert isinstance(e.value, inferkit.ModelError)


def test_shapes_that_do_not_fit_the_graph_are_the_callers_error() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", d]) for n, d in (("a", "p"), ("b", "q"))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = inferkit.Model.load(helper.make_model(graph, ir_version=9).SerializeToString())
    assert model(np.ones((2, 3), np.float32), np.ones((2, 1), np.float32)).shape == (2, 3)
    with pytest.raises(inferkit.ValidationError, match=r"'a' \(2, 3\), 'b' \(2, 4\)") as e:
        model(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32))
    assert e.value.reason == "shape"


def test_an_input_an_output_and_a_constant_may_be_outputs() -> None:
    constant = numpy_helper.from_array(np.arange(3, dtype=np.float32), "c")
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["x"], ["same"]),
            helper.make_node("Identity", ["c"], ["fixed"]),
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Reshape", ["r", "shape"], ["flat"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("same", "fixed", "r", "flat")],
        [constant, numpy_helper.from_array(np.array([-1]), "shape")],
    )
    model = inferkit.Model.load(helper.make_model(graph, ir_version=9).SerializeToString())
    x = np.array([[-1, 2, -3], [4, -5, 6]], np.float32)
    same, fixed, relu, flat = model(x)
    assert same.tobytes() == x.tobytes()
    assert fixed.tolist() == [0, 1, 2]
    assert relu.tolist() == [[0, 2, 0], [4, 0, 6]]
    assert flat.tolist() == [0, 2, 0, 4, 0, 6]
    assert not np.shares_memory(same, x)
    assert not np.shares_memory(relu, flat)


class TestFromCallable:
    @staticmethod
    def make(fn: object, **kwargs: object) -> inferkit.Model:
        return inferkit.Model.from_callable(
            fn, inputs=[("x", np.float32, (None, 3))], outputs=[("y", "float32", (None, 3))], **kwargs
        )

    def test_forms_of_the_answer(self) -> None:
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        for fn in (lambda a: a + 1, lambda a: [a + 1], lambda a: (a + 1,), lambda a: {"y": a + 1}):
            model = self.make(fn)
            assert model(x).tolist() == (x + 1).tolist()
            assert model(x[0]).tolist() == (x[0] + 1).tolist()
            assert model.run({"x": x})["y"].tolist() == (x + 1).tolist()

    def test_the_array_is_the_callables_to_keep(self) -> None:
        kept = []
        model = self.make(lambda a: kept.append(a) or a)
        x = np.ones((1, 3), np.float32)
        model(x)
        x[:] = 7
        assert kept[0].tolist() == [[1, 1, 1]]

    def test_what_it_raises_is_the_cause(self) -> None:
        def broken(a: np.ndarray) -> np.ndarray:
            raise KeyError("inside")

        with pytest.raises(inferkit.InferenceError, match="KeyError") as e:
            self.make(broken)(np.ones((1, 3), np.float32))
        assert isinstance(e.value.__cause__, KeyError)

    @pytest.mark.parametrize(
        "fn",
        [
            lambda a: a.astype(np.float64),
            lambda a: a[:, :2],
            lambda a: None,
            lambda a: (a, a),
            lambda a: {},
            lambda a: "text",
        ],
    )
    def test_a_wrong_answer_is_an_output_error(self, fn: object) -> None:
        with pytest.raises(inferkit.OutputError) as e:
            self.make(fn)(np.ones((1, 3), np.float32))
        assert e.value.reason == "shape"

    def test_inputs_are_checked(self) -> None:
        with pytest.raises(inferkit.ValidationError):
            self.make(lambda a: a)(np.full((1, 3), np.nan, np.float32))
        with pytest.raises(TypeError, match="callable"):
            self.make(3)
        with pytest.raises(ValueError, match="complex64"):
            inferkit.Model.from_callable(len, inputs=[("x", "complex64", (1,))], outputs=[])

    def test_it_wraps_an_onnxruntime_session(self) -> None:
        ort = pytest.importorskip("onnxruntime")
        data = mlp_bytes((4, 16, 3))
        session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        wrapped = inferkit.Model.from_callable(
            lambda x: session.run(None, {"x": x}),
            inputs=[("x", "float32", (None, 4))],
            outputs=[("y", "float32", (None, 3))],
        )
        x = np.ones((2, 4), np.float32)
        np.testing.assert_allclose(wrapped(x), inferkit.Model.load(data)(x), rtol=1e-5)
        assert wrapped.weights is None


def test_weights_open_reads_onnx_with_external_data(tmp_path: Path) -> None:
    data = mlp_bytes((64, 256, 256, 10))
    model = onnx.load_from_string(data)
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    weights = inferkit.Weights.open(tmp_path / "m.onnx")
    assert sorted(weights) == ["b0", "b1", "b2", "w0", "w1", "w2"]
    for tensor in onnx.load_from_string(data).graph.initializer:
        np.testing.assert_array_equal(weights[tensor.name], numpy_helper.to_array(tensor))
    x = np.ones((3, 64), np.float32)
    assert inferkit.Model.load(tmp_path / "m.onnx")(x).tobytes() == inferkit.Model.load(data)(x).tobytes()
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(inferkit.ModelError, match=r"weights\.bin"):
        inferkit.Weights.open(tmp_path / "m.onnx")
