"""Python's numbers and lists, tensors of torch, frames of pandas: what an input can be given besides an array."""

import gc
import sys
import types
from typing import Any

import numpy as np
import pytest

import inferkit

F32 = np.float32


def same(dtype: str, shape: tuple[int | None, ...] = (None, 2)) -> inferkit.Model:
    """Gives what it gets."""
    return inferkit.Model.from_callable(np.copy, inputs=[("x", dtype, shape)], outputs=[("y", dtype, shape)])


def refused(reason: str, match: str, call: Any) -> None:
    with pytest.raises(inferkit.ValidationError, match=match) as caught:
        call()
    assert caught.value.reason == reason
    assert "input 'x'" in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", [[0.5, 1.5], [2.5, 3.5]]),
        ("float32", [[1, 2]]),
        ("float32", [1, 2.5]),
        ("float64", ((0.1, 0.2),)),
        ("float16", [0.5, 1.5]),
        ("int64", [[1, 2], [3, 4]]),
        ("int32", (1, 2)),
        ("uint8", [0, 255]),
        ("uint64", [2**64 - 1, 0]),
        ("int64", [2**63 - 1, -(2**63)]),
        ("bool", [True, False]),
        ("float32", [np.array([1, 2], F32), np.array([3, 4], F32)]),
        ("int64", [[np.int64(3), np.int64(4)]]),
    ],
)
def test_lists(dtype: str, value: Any) -> None:
    want = np.array(value, dtype)
    model = same(dtype)
    answers = [model(value), model.run({"x": value})["y"]]
    with inferkit.Batcher(model) as batcher:
        answers += [batcher(value), batcher.submit(value).result(), batcher.submit({"x": value}).result()["y"]]
    for answer in answers:
        assert answer.dtype == dtype
        assert answer.tolist() == want.tolist()


def test_numbers() -> None:
    assert same("float32", (None,))(0.5) == F32(0.5)
    assert same("int64", ())(16000) == 16000
    assert same("bool", ())(True)


@pytest.mark.parametrize(
    ("dtype", "value", "reason", "match"),
    [
        ("int64", [1.0, 2.0], "dtype", "expected int64, got Python's type float"),
        ("int64", [True, False], "dtype", "expected int64, got Python's type bool"),
        ("bool", [0, 1], "dtype", "expected bool, got Python's type int"),
        ("float32", [True, False], "dtype", "expected float32, got Python's type bool"),
        ("float32", [10**400, 1], "shape", "could not make an array of the list.*too large"),
        ("int64", [10**400, 1], "dtype", "cannot hold"),
        ("int64", [1, 2.5], "dtype", "got Python's type float"),
        ("int8", [1, 128], "dtype", "holds an int that int8 cannot hold"),
        ("uint8", [-1, 0], "dtype", "holds an int that uint8 cannot hold"),
        ("int64", [2**63, 0], "dtype", "cannot hold"),
        ("float32", [[1, 2], [3]], "shape", "could not make an array of the list"),
        ("float32", [None, 1], "dtype", "something else"),
        ("float32", ["1", "2"], "dtype", "where numbers are expected"),
        ("float32", [np.ones(2), np.ones(2)], "dtype", "has dtype float64; expected float32"),
        ("float32", [1e39, 0], "non_finite", "holds NaN or infinity"),
        ("float32", [[0.5, float("nan")]], "non_finite", "NaN"),
        ("float64", [np.ma.masked_array([1.0, -999.0], [0, 1])], "dtype", "masked array"),
        ("float64", [[np.ma.masked, 1.0]], "dtype", "masked array"),
        ("float32", [], "shape", "has shape"),
        ("float32", 0.5, "shape", "has shape"),
        ("float32", {1.0, 2.0}, "dtype", "got set"),
        ("float32", "12", "dtype", "got str"),
        ("float32", np.array(["1", "2"]), "dtype", r"an array of strings \(dtype <U1\), where numbers are expected"),
        ("float32", np.array([b"1"]), "dtype", r"an array of bytes \(dtype \|S1\), where numbers are expected"),
        ("float32", b"12", "dtype", r"got bytes, which has no dtype and no shape: numpy\.frombuffer"),
        ("float32", bytearray(b"12"), "dtype", r"got bytearray, which has no dtype and no shape"),
    ],
)
def test_what_is_not_clear(dtype: str, value: Any, reason: str, match: str) -> None:
    model = same(dtype)
    refused(reason, match, lambda: model(value))
    with inferkit.Batcher(model) as batcher:
        refused(reason, match, batcher.submit(value).result)


def test_lists_within_themselves_and_deep_ones() -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = 1.0
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, deep, [[[[[[[[[[1.0]]]]]]]]]]):
        with pytest.raises(inferkit.ValidationError):
            same("float32")(value)
    while isinstance(deep, list):  # without a recursion
        deep = deep.pop()


def test_a_list_that_its_elements_change() -> None:
    """numpy goes on by the length that the list had."""

    class Empties:
        def __array__(self, *_: Any, **__: Any) -> Any:
            rows.clear()
            return np.ones(2, F32)

    rows: list[Any] = [Empties() for _ in range(50)]
    assert same("float32")(rows).tolist() == [[1, 1]] * 50
    twice: list[Any] = []
    twice.extend([twice, twice])
    with pytest.raises(inferkit.ValidationError, match="holds itself"):
        same("float32")(twice)


def test_a_list_that_the_collector_empties() -> None:
    """Up to Python 3.11 it may run at any allocation; afterwards between two steps of Python."""
    threshold = gc.get_threshold()
    rows: list[Any] = []

    def empty(phase: str, _: Any) -> None:
        if phase == "start":
            rows.clear()

    model = same("float32")
    gc.callbacks.append(empty)
    try:
        for step in range(1, 40):
            rows.extend(np.ones(2, F32) for _ in range(500))
            gc.set_threshold(step)
            try:
                model(rows)
            except inferkit.ValidationError:
                pass
            finally:
                gc.set_threshold(*threshold)
            rows.clear()
    finally:
        gc.callbacks.remove(empty)


def test_an_exception_in_a_list_names_the_input() -> None:
    class Bad:
        def __array__(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no array today")

    for value in (Bad(), [Bad(), Bad()]):
        with pytest.raises(inferkit.ValidationError, match=r"input 'x'.*no array today"):
            same("float32")(value)

    class Interrupted:
        def __array__(self, *_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

    for value in (Interrupted(), [Interrupted()]):
        with pytest.raises(KeyboardInterrupt):
            same("float32")(value)


class Tensor:
    """As torch has them: the sign is in a bit that DLPack does not carry."""

    def __init__(self, data: np.ndarray, negative: bool) -> None:
        self.data, self.negative = data, negative

    def is_neg(self) -> bool:
        return self.negative

    def resolve_neg(self) -> "Tensor":
        return Tensor(-self.data, False)

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()


@pytest.mark.parametrize("negative", [False, True])
def test_a_sign_beside_the_memory(negative: bool) -> None:
    data = np.array([[1, 2]], F32)
    answer = same("float32")(Tensor(data, negative))
    assert answer.tolist() == [[-1, -2] if negative else [1, 2]]


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    z = torch.tensor([[1 + 2j, 3 + 4j]]).conj().imag
    assert z.is_neg()
    model = same("float32")
    with inferkit.Batcher(model) as batcher:
        assert model(z).tolist() == batcher(z).tolist() == batcher.submit(z).result().tolist() == [[-2, -4]]


def test_bfloat16_of_torch_comes_by_its_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy takes over no tensor of a type that it does not have."""
    torch = types.ModuleType("torch")
    torch.bfloat16, torch.int16 = object(), object()
    monkeypatch.setitem(sys.modules, "torch", torch)
    bits = np.array([[0x3F80, 0xC000]], np.uint16)  # 1 and -2

    class Halves(Tensor):
        dtype = torch.bfloat16

        def view(self, dtype: Any) -> Any:
            assert dtype is torch.int16
            return self.data.view(np.int16)

        def __dlpack__(self, **_: Any) -> Any:
            raise RuntimeError("Unsupported dtype in DLTensor.")

    answer = same("bfloat16")(Halves(bits, False))
    assert answer.view(np.uint16).tolist() == bits.tolist()
    Halves.dtype = object()
    refused("dtype", "Unsupported dtype in DLTensor", lambda: same("bfloat16")(Halves(bits, False)))


def test_lists_for_bfloat16() -> None:
    """Where numpy has the type, from the package ml_dtypes."""
    pytest.importorskip("ml_dtypes")
    model = same("bfloat16")
    for given, want in (([[1.5, -2.0]], [[0x3FC0, 0xC000]]), ([1, 2], [0x3F80, 0x4000])):
        assert model(given).view(np.uint16).tolist() == want
    refused("dtype", "expected bfloat16, got Python's type bool", lambda: model([True, False]))
    refused("non_finite", "NaN or infinity", lambda: model([1e39, 0.0]))


def test_bfloat16_of_torch() -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor([[1.5, -2.0], [3.0, 0.25]], dtype=torch.bfloat16)
    model = same("bfloat16")
    with inferkit.Batcher(model) as batcher:
        for given in (x, x.T, x.expand(2, 2), x[::1], torch._neg_view(x)):
            want = given.view(torch.int16) if not given.is_neg() else given.resolve_neg().view(torch.int16)
            for answer in (model(given), batcher(given)):
                assert answer.view(np.uint16).tolist() == want.tolist()


def test_frames() -> None:
    class Frame:
        """As pandas has them."""

        def __init__(self, data: Any) -> None:
            self.data = data

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.asarray(self.data, dtype)

    model = same("float32")
    assert model(Frame(np.ones((2, 2), F32, order="F"))).tolist() == [[1, 1], [1, 1]]
    refused("dtype", "float64; expected float32", lambda: model(Frame(np.ones((2, 2)))))
    refused("dtype", "dtype object; expected float32", lambda: model(Frame(np.array([["a", 1]], object))))

    class Masked:
        def __array__(self, *_: Any, **__: Any) -> Any:
            return np.ma.masked_array(np.ones((1, 2), F32), [[0, 1]])

    refused("dtype", "masked array", lambda: model(Masked()))
    refused("dtype", "got type", lambda: model(np.ndarray))


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    model = same("float32")
    assert model(frame.astype("float32")).tolist() == [[1, 3], [2, 4]]
    refused("dtype", "float64", lambda: model(frame))
    assert same("float32", (None,))(frame["a"].astype("float32")).tolist() == [1, 2]
