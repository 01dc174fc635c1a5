"""Files that change while a model reads them: never a wrong answer, never a dead process, always a way out."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

import inferkit

COUNT = 1 << 20  # floats: many pages
CHANGED = "load it again"


def scaled(path: Path, weights: np.ndarray, *, nodes: list[Any] | None = None) -> Path:
    """y = x * w, with w in a file of its own beside the model's: aligned, so it is read where it stands."""
    graph = helper.make_graph(
        nodes or [helper.make_node("Mul", ["x", "w"], ["y"])],
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weights.size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights.reshape(1, -1), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path, save_as_external_data=True, location=data_of(path).name, size_threshold=0)
    return path


def data_of(path: Path) -> Path:
    return path.with_suffix(".data")


def overwrite(path: Path, content: bytes, at: int = 0) -> None:
    """In place, as cp does."""
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content)


W = np.arange(COUNT, dtype=np.float32)
X = np.ones((1, COUNT), np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return scaled(tmp_path / "m.onnx", W)


def test_the_weights_are_read_where_they_stand(path: Path) -> None:
    model = inferkit.Model.load(path)
    memory = model.memory()
    assert (memory.mapped_bytes, memory.copied_bytes, memory.misaligned_bytes) == (4 * COUNT, 0, 0)
    assert memory.weight_bytes == 4 * COUNT
    assert memory.file_bytes == path.stat().st_size + data_of(path).stat().st_size
    assert str(data_of(path)) in Path("/proc/self/maps").read_text()
    np.testing.assert_array_equal(model(X)[0], W)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: overwrite(data, (W + 1).tobytes()),
        lambda data: overwrite(data, b"\1", at=4 * COUNT - 1),
        lambda data: os.truncate(data, 0),
        lambda data: os.truncate(data, 2 * COUNT),
        lambda data: os.truncate(data, 4 * COUNT - 1),
        lambda data: os.truncate(data, 4 * COUNT + 1),
        lambda data: data.write_bytes(b""),
        lambda data: data.write_bytes(bytes(4 * COUNT)),
        lambda data: os.utime(data),
    ],
    ids=[
        "rewritten",
        "one byte",
        "emptied",
        "halved",
        "one byte less",
        "one byte more",
        "cut",
        "cut and rewritten",
        "touched",
    ],
)
def test_a_changed_file_fails_the_request(path: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    other = inferkit.Model.load(scaled(tmp_path / "other.onnx", W + 2))
    model = inferkit.Model.load(path)
    np.testing.assert_array_equal(model(X)[0], W)
    change(data_of(path))
    for x in (X, X, np.ones((3, COUNT), np.float32), np.ones((3, COUNT), np.float32)):
        with pytest.raises(inferkit.ModelError, match=CHANGED):
            model(x)
    with inferkit.Batcher(model) as batcher, pytest.raises(inferkit.ModelError, match=CHANGED):
        batcher(X[0])
    with pytest.raises(inferkit.ModelError, match=CHANGED):
        model.weights["w"]  # type: ignore[index]
    np.testing.assert_array_equal(other(X)[0], W + 2)
    # The way out.
    scaled(path, W + 3)
    np.testing.assert_array_equal(inferkit.Model.load(path)(X)[0], W + 3)
    with pytest.raises(inferkit.ModelError, match=CHANGED):
        model(X)


def test_the_moment_after_the_load(path: Path) -> None:
    """In the same tick of the file system's clock, without a request before."""
    for i in range(5):
        scaled(path, W)
        model = inferkit.Model.load(path)
        overwrite(data_of(path), bytes([i + 1]))
        with pytest.raises(inferkit.ModelError, match="was written to"):
            model(X)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: os.replace(scaled(data.with_name("new.onnx"), W + 1).with_suffix(".data"), data),
        lambda data: data.unlink(),
        lambda data: data.rename(data.with_name("elsewhere")),
        lambda data: data.chmod(0o400),
        lambda data: shutil.rmtree(data.parent),
    ],
    ids=["renamed over", "deleted", "moved", "read-only", "folder deleted"],
)
def test_what_leaves_the_content_leaves_the_model(path: Path, change: Callable[[Path], Any]) -> None:
    model = inferkit.Model.load(path)
    change(data_of(path))
    for n in (1, 1, 2):
        np.testing.assert_array_equal(model(np.ones((n, COUNT), np.float32))[n - 1], W)


def test_without_a_mapping_nothing_matters(path: Path) -> None:
    model = inferkit.Model.load(path, mmap=False)
    memory = model.memory()
    assert (memory.mapped_bytes, memory.copied_bytes, memory.misaligned_bytes) == (0, 4 * COUNT, 0)
    assert str(path.parent) not in Path("/proc/self/maps").read_text()
    data_of(path).write_bytes(b"")
    path.write_bytes(b"")
    for n in (1, 2):
        np.testing.assert_array_equal(model(np.ones((n, COUNT), np.float32))[n - 1], W)


def test_weights_in_the_model_file_at_any_alignment(tmp_path: Path) -> None:
    """Protobuf puts them anywhere: one in four is aligned and mapped, the others are copied, and both are right."""
    w = W[: 1 << 14]
    path, mapped = tmp_path / "m.onnx", set()
    for pad in range(1, 9):
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "w"], ["y"], name="n" * pad)],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, w.size])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, w.size])],
            [numpy_helper.from_array(w, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path.write_bytes(model.SerializeToString())
        loaded = inferkit.Model.load(path)
        memory = loaded.memory()
        mapped.add(memory.mapped_bytes)
        assert memory.mapped_bytes + memory.copied_bytes == w.nbytes
        assert memory.misaligned_bytes == memory.copied_bytes
        np.testing.assert_array_equal(loaded(np.ones((1, w.size), np.float32))[0], w)
        os.truncate(path, 100)
        if memory.mapped_bytes:
            with pytest.raises(inferkit.ModelError, match=CHANGED):
                loaded(np.ones((1, w.size), np.float32))
        else:  # nothing of it is read any more
            np.testing.assert_array_equal(loaded(np.ones((5, w.size), np.float32))[4], w)
    assert mapped == {0, w.nbytes}


def table_model(path: Path, table: np.ndarray) -> Path:
    """Rows of a table that is in the model's file, at an odd address."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        "g",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(table.dtype), ["n", table.shape[1]])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for pad in range(1, 3):
        model.producer_name = "p" * pad
        content = model.SerializeToString()
        if content.index(table.tobytes()) % table.itemsize:
            break
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_a_table_at_an_odd_address_is_read_where_it_is(tmp_path: Path, dtype: Any) -> None:
    table = np.random.default_rng(0).standard_normal((3000, 17)).astype(dtype)
    path = table_model(tmp_path / "m.onnx", table)
    loaded = inferkit.Model.load(path)
    memory = loaded.memory()
    assert (memory.mapped_bytes, memory.misaligned_bytes, memory.copied_bytes) == (table.nbytes, 0, 0)
    for rows in ([0], [2999, 0, -1], list(range(3000))):
        np.testing.assert_array_equal(loaded(np.array(rows)), table[rows])
    assert loaded.memory().misaligned_bytes == 0
    os.truncate(path, 4096)
    for rows in ([0], [2999, 0, -1], [1, 2]):
        with pytest.raises(inferkit.ModelError, match=CHANGED):
            loaded(np.array(rows))
    with pytest.raises(inferkit.ModelError, match=CHANGED):
        loaded.weights["table"]  # type: ignore[index]


def test_packed_weights_are_safe_until_a_new_shape_needs_the_file(tmp_path: Path) -> None:
    k, n = 256, 64
    w = np.random.default_rng(0).standard_normal((k, n)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", n])],
        [numpy_helper.from_array(w, "w")],
    )
    path = tmp_path / "m.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    loaded = inferkit.Model.load(path)
    assert loaded.memory().mapped_bytes == w.nbytes
    x = np.ones((4, k), np.float32)
    answer = loaded(x)
    np.testing.assert_allclose(answer, x @ w, rtol=1e-4, atol=1e-4)
    (tmp_path / "m.data").write_bytes(bytes(w.nbytes))
    np.testing.assert_array_equal(loaded(x), answer)  # the packed copy was made of the old file
    with pytest.raises(inferkit.ModelError, match=CHANGED):
        loaded(np.ones((5, k), np.float32))
    np.testing.assert_array_equal(loaded(x), answer)


def test_models_that_run_in_stages(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["m"]),
        helper.make_node("NonZero", ["m"], ["i"]),
        helper.make_node("Shape", ["i"], ["s"]),
        helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["c"], keepdims=1),
        helper.make_node("Add", ["c", "w"], ["y"]),
    ]
    path = scaled(tmp_path / "m.onnx", W[: 1 << 14], nodes=nodes)
    model = inferkit.Model.load(path)
    x = np.ones((1, 1 << 14), np.float32)
    np.testing.assert_array_equal(model(x)[0], W[: 1 << 14] + (1 << 14) - 1 + 2)  # of w[0] = 0
    os.truncate(data_of(path), 4096)
    for rows in (1, 1, 2):
        with pytest.raises(inferkit.ModelError, match=CHANGED):
            model(np.ones((rows, 1 << 14), np.float32))


def test_threads_that_run_while_it_is_cut(path: Path) -> None:
    """Whatever the moment: the right answer or the error."""
    model = inferkit.Model.load(path, threads=2)
    wrong: list[object] = []
    errors: list[BaseException] = []
    go = threading.Barrier(4)

    def call() -> None:
        go.wait()
        while True:
            try:
                answer = model(X)
            except inferkit.ModelError as error:
                errors.append(error)
                return
            if not np.array_equal(answer[0], W):
                wrong.append(answer)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    go.wait()
    os.truncate(data_of(path), 4096)
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(errors) == 3


CUT = """
import os, sys, numpy as np
{before}
import inferkit
{after}
model = inferkit.Model.load(sys.argv[1])
{loaded}
x = np.ones((1, {count}), np.float32)
model(x)
os.truncate(sys.argv[2], 0)
try:
    model(x)
except inferkit.ModelError as error:
    print("ModelError", "cut short" in str(error))
{last}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("import faulthandler; faulthandler.enable()", ""), ("", "import faulthandler; faulthandler.enable()")],
    ids=["plain", "faulthandler before", "faulthandler before the load"],
)
def test_beside_faulthandler(path: Path, fresh_python: Callable[..., Any], before: str, after: str) -> None:
    code = CUT.format(before=before, after=after, loaded="", last="", count=COUNT)
    done = fresh_python(code, str(path), str(data_of(path)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ModelError True\n", "")


@pytest.mark.unsanitized("the sanitizer's handler ends the process in its own way")
@pytest.mark.parametrize("faulthandler", [False, True])
def test_other_bus_errors_are_what_they_were(
    path: Path, tmp_path: Path, fresh_python: Callable[..., Any], faulthandler: bool
) -> None:
    """What is not ours is not hidden: a file that the program itself maps and loses."""
    own = tmp_path / "own"
    own.write_bytes(bytes(1 << 16))
    last = (
        f"own = np.memmap({str(own)!r}, mode='r'); os.truncate({str(own)!r}, 0)\nprint('reads', flush=True)\nown.sum()"
    )
    before = "import faulthandler; faulthandler.enable()" if faulthandler else ""
    code = CUT.format(before=before, after="", loaded="", last=last, count=COUNT)
    done = fresh_python(code, str(path), str(data_of(path)))
    assert done.returncode == -signal.SIGBUS
    assert done.stdout == "ModelError True\nreads\n"
    assert ("Fatal Python error: Bus error" in done.stderr) == faulthandler


@pytest.mark.unsanitized("the sanitizer's handler ends the process in its own way")
def test_a_bus_error_of_an_input_is_not_taken_for_ours(
    path: Path, tmp_path: Path, fresh_python: Callable[..., Any]
) -> None:
    """Weights of another file given as an input: zeros in their place would be a wrong answer."""
    save_file({"x": X}, tmp_path / "x.safetensors")
    code = f"""
import os, sys, numpy as np, inferkit
model = inferkit.Model.load(sys.argv[1], input_checks=inferkit.InputChecks(finite=False))
x = inferkit.Weights.open({str(tmp_path / "x.safetensors")!r})["x"]
print(model(x).shape, flush=True)
os.truncate({str(tmp_path / "x.safetensors")!r}, 4096)
print(model(x))
"""
    done = fresh_python(code, str(path))
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, f"(1, {COUNT})\n")


def test_a_file_that_is_written_while_it_is_loaded(path: Path) -> None:
    """What is half old and half new when it is opened nobody can tell; a copy of it stays what it was."""
    data, stop = data_of(path), threading.Event()
    contents = [np.full(COUNT, i, np.float32).tobytes() for i in range(2)]
    refused: list[str] = []
    overwrite(data, contents[0])

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                overwrite(data, content)

    def load(mmap: bool) -> None:
        try:
            model = inferkit.Model.load(path, mmap=mmap)
            answer = model(X)
            again = model(X)
        except inferkit.ModelError as error:
            refused.append(str(error))
        else:
            assert set(np.unique(answer)) <= {0, 1}
            assert mmap or np.array_equal(again, answer)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(40):
            load(mmap=i % 2 == 0)
    finally:
        stop.set()
        writer.join()
    assert all(CHANGED in message for message in refused)


def test_model_files_that_are_cut_while_they_are_parsed(tmp_path: Path, fresh_python: Callable[..., Any]) -> None:
    """Whatever the parser meets, it is an error of the load; 40 loads race with a writer in another process."""
    path = tmp_path / "m.onnx"
    nodes = [helper.make_node("Neg", [f"v{i}"], [f"v{i + 1}"]) for i in range(3000)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("v3000", TensorProto.FLOAT, [None, 2])],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    (tmp_path / "whole").write_bytes(whole)
    code = f"""
import os, subprocess, sys, inferkit, numpy as np
path, whole = {str(path)!r}, {str(tmp_path / "whole")!r}
writer = subprocess.Popen([sys.executable, "-c", f'''
data = open({{whole!r}}, "rb").read()
while True:
    open({{path!r}}, "wb").write(data)
'''])
try:
    for _ in range(40):
        try:
            model = inferkit.Model.load(path)
        except (inferkit.ModelError, FileNotFoundError):
            continue
        assert model(np.ones((1, 2), np.float32)).tolist() == [[1, 1]]
finally:
    writer.kill()
    writer.wait()
print("lives")
"""
    done = fresh_python(code)
    assert (done.returncode, done.stdout) == (0, "lives\n"), done.stderr


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": W, "b": np.ones(3, np.float32)}, path)
    weights, copied = inferkit.Weights.open(path), inferkit.Weights.open(path, mmap=False)
    view = copied["a"]
    overwrite(path, (W + 1).tobytes()[-8:], at=path.stat().st_size - 20)
    for read in (lambda: weights["a"], lambda: weights.get("b"), lambda: list(weights.values()), lambda: dict(weights)):
        with pytest.raises(inferkit.ModelError, match=CHANGED):
            read()
    assert list(weights) == ["a", "b"]
    os.truncate(path, 0)
    np.testing.assert_array_equal(view, W)
    np.testing.assert_array_equal(copied["a"], W)
    assert not copied["a"].flags.writeable


def many_files(tmp_path: Path, count: int) -> Path:
    """A model with each weight in a file of its own, as exporters write where they are told to."""
    nodes, value, tensors = [], "x", []
    for i in range(count):
        tensor = numpy_helper.from_array(np.full(1 << 12, i + 1, np.float32), f"w{i}")
        (tmp_path / f"w{i}").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", f"w{i}"
        tensors.append(tensor)
        nodes.append(helper.make_node("Add", [value, f"w{i}"], [f"v{i}"]))
        value = f"v{i}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1 << 12])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [None, 1 << 12])],
        tensors,
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def descriptors() -> int:
    gc.collect()  # what earlier tests left would go in the middle of this one
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_are_few_and_given_back(tmp_path: Path) -> None:
    path = many_files(tmp_path, 150)
    gc.collect()
    before = descriptors()
    model = inferkit.Model.load(path)
    assert descriptors() - before <= 64
    memory = model.memory()
    assert memory.mapped_bytes + memory.copied_bytes == 150 * 4 * (1 << 12)
    assert memory.mapped_bytes >= 50 * 4 * (1 << 12)
    assert model(np.zeros((1, 1 << 12), np.float32))[0, 0] == 150 * 151 / 2
    del model
    gc.collect()
    assert descriptors() == before
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 80, hard))
    try:
        assert inferkit.Model.load(path)(np.zeros((1, 1 << 12), np.float32))[0, 0] == 150 * 151 / 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_small_models_hold_no_file(digits_path: Path) -> None:
    before = descriptors()
    double = inferkit.Model.load(digits_path, mmap=False)
    assert descriptors() == before
    assert double.memory().mapped_bytes == 0


def test_a_program_that_closes_all_descriptors(path: Path, fresh_python: Callable[..., Any]) -> None:
    """As daemons do when they start: the model is still right, and closes nobody's file when it goes."""
    last = """
model = inferkit.Model.load(sys.argv[3])
os.closerange(3, 100)
files = [open(os.devnull) for _ in range(50)]
print(model(x).shape, model(np.ones((2, x.size), np.float32)).shape)
del model
print(all(os.fstat(f.fileno()) for f in files))
"""
    again = scaled(path.with_name("again.onnx"), W)
    code = CUT.format(before="", after="", loaded="", last=last, count=COUNT)
    done = fresh_python(code, str(path), str(data_of(path)), str(again))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"ModelError True\n(1, {COUNT}) (2, {COUNT})\nTrue\n"


@pytest.mark.parametrize("load", [inferkit.Model.load, inferkit.Weights.open], ids=["Model", "Weights"])
def test_what_is_no_file(tmp_path: Path, load: Callable[[Path], object]) -> None:
    fifo, folder, loop = tmp_path / "f.onnx", tmp_path / "d.onnx", tmp_path / "l.onnx"
    os.mkfifo(fifo)
    folder.mkdir()
    loop.symlink_to(loop.name)
    for path, kind in ((fifo, "a pipe"), (folder, "a directory"), (Path("/dev/zero"), "a device")):
        with pytest.raises(inferkit.ModelError, match=f"is {kind}; expected a regular file"):
            load(path)
    with pytest.raises(OSError, match="symbolic links"):
        load(loop)
    for path in (Path("/proc/self/maps"), Path("/proc/self/mem"), Path("/sys/kernel/mm/transparent_hugepage/enabled")):
        if path.exists():
            with pytest.raises((inferkit.ModelError, OSError)):
                load(path)


def test_a_link_is_followed_once(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(path.name)
    model = inferkit.Model.load(link)
    link.unlink()
    link.symlink_to("nowhere")
    np.testing.assert_array_equal(model(X)[0], W)


def test_children_notice_too(path: Path) -> None:
    """After a fork the child reads the same pages, with the same care."""
    model = inferkit.Model.load(path)
    model(X)
    child = os.fork()
    if child == 0:
        status = 3
        try:
            os.truncate(data_of(path), 0)
            model(X)
        except inferkit.ModelError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(inferkit.ModelError, match=CHANGED):
        model(X)
