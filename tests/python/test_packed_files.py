"""Packed weights in files: the same bits as without, one copy for all, and nothing is believed that does not fit."""

from __future__ import annotations

import logging
import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inferkit

WIDTH, HIDDEN = 64, 128
X = np.random.default_rng(3).standard_normal((5, WIDTH)).astype(np.float32)


def write_model(path: Path, seed: int = 0, *, inside: bool = False) -> Path:
    """Two products, of weights as PyTorch and as others lay them, and a convolution; the weights beside the graph, or
    inside its file, each at an odd address."""
    rng = np.random.default_rng(seed)
    weights = {
        "up": rng.standard_normal((WIDTH, HIDDEN)),
        "down": rng.standard_normal((WIDTH, HIDDEN)),
        "filters": rng.standard_normal((32, 8, 5, 5)),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Transpose", ["down"], ["down_t"], perm=[1, 0]),
        helper.make_node("MatMul", ["r", "down_t"], ["s"]),
        helper.make_node("Reshape", ["s", "image"], ["i"]),
        helper.make_node("Conv", ["i", "filters"], ["y"]),
    ]
    constants = [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
    constants.append(numpy_helper.from_array(np.array([-1, 8, 8, 8]), "image"))
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ("n", WIDTH)), ("y", None))]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    nodes[4].input[0] = "p"  # eight planes of 8 by 8
    nodes.insert(4, helper.make_node("Concat", ["s"] * 8, ["p"], axis=1))
    del graph.node[:]
    graph.node.extend(nodes)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if inside:
        for pad in range(4):
            model.producer_name = "p" * (pad + 1)
            content = model.SerializeToString()
            if all(content.index(c.raw_data) % 4 for c in model.graph.initializer if c.name in weights):
                break
        path.write_bytes(content)
        assert inferkit.Model.load(path).memory().misaligned_bytes == sum(4 * w.size for w in weights.values())
        return path
    path.with_suffix(".data").unlink(missing_ok=True)  # onnx would write behind it
    onnx.save(model, path, save_as_external_data=True, location=f"{path.stem}.data", size_threshold=1024)
    return path


@pytest.fixture(params=[False, True], ids=["beside", "inside"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return write_model(tmp_path / "model.onnx", inside=request.param)


def data_of(path: Path) -> Path:
    """The file that the weights are in."""
    data = path.with_suffix(".data")
    return data if data.exists() else path


def packed_in(folder: Path) -> Path:
    (found,) = folder.glob("*.packed")
    return found


def in_child(code: str, *arguments: Any, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, numpy as np, inferkit\n" + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_bits_and_nothing_is_packed(path: Path, tmp_path: Path) -> None:
    plain = inferkit.Model.load(path)
    expected = [plain(X[:n]) for n in (1, 2, 5)]
    plain.save_packed(tmp_path / "file")
    for threads in (None, 1):
        model = inferkit.Model.load(path, packed=tmp_path / "file", threads=threads)
        for n, want in zip((1, 2, 5), expected, strict=True):
            np.testing.assert_array_equal(model(X[:n]), want)
        memory = model.memory()
        assert memory.packed_shared_bytes == memory.packed_bytes == plain.memory().packed_bytes > 60_000
        assert model.packed_file == str(tmp_path / "file")
    assert plain.packed_file is None
    assert plain.memory().packed_shared_bytes == 0


def test_weights_at_odd_addresses_that_a_file_has_packed_are_not_copied(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", inside=True)
    plain = inferkit.Model.load(path)
    plain.save_packed(tmp_path / "file")
    model = inferkit.Model.load(path, packed=tmp_path / "file")
    expected = plain(X)
    np.testing.assert_array_equal(model(X), expected)
    memory = model.memory()
    assert memory.misaligned_bytes == 0
    assert memory.mapped_bytes == plain.memory().misaligned_bytes > 90_000
    # Who asks for them gets copies, which are theirs to keep.
    assert model.weights is not None
    assert plain.weights is not None
    for name, weight in model.weights.items():
        assert weight.flags.aligned
        np.testing.assert_array_equal(weight, plain.weights[name])
    assert model.memory().misaligned_bytes == plain.memory().misaligned_bytes
    assert model.memory().mapped_bytes == 0
    np.testing.assert_array_equal(model(X), expected)


def test_a_model_file_that_changes_under_a_packed_file_gives_no_wrong_answer(path: Path, tmp_path: Path) -> None:
    inferkit.Model.load(path).save_packed(tmp_path / "file")
    data = data_of(path)
    content = bytearray(data.read_bytes())
    expected = inferkit.Model.load(path)(X[:1])
    model = inferkit.Model.load(path, packed=tmp_path / "file")
    np.testing.assert_array_equal(model(X[:1]), expected)
    assert model.weights["up"].any()  # type: ignore[index]
    spoiled = inferkit.Model.load(path, packed=tmp_path / "file")
    with data.open("r+b") as file:
        file.write(b"\0" * (len(content) - 1000))
    np.testing.assert_array_equal(model(X[:1]), expected)  # which reads the packed file alone
    for changed, n in ((model, 2), (spoiled, 1), (spoiled, 2), (model, 2)):
        with pytest.raises(inferkit.ModelError, match="was written to"):
            changed(X[:n])
    np.testing.assert_array_equal(model(X[:1]), expected)
    with pytest.raises(inferkit.ModelError, match="was written to"):
        spoiled.weights["up"]  # type: ignore[index]
    with pytest.raises(inferkit.ModelError, match="was written to"):
        model.weights["up"]  # type: ignore[index]


@pytest.mark.parametrize("name", ["up", "down", "filters"])
def test_one_changed_bit_of_a_weight_is_found_in_a_copy_of_the_model(path: Path, tmp_path: Path, name: str) -> None:
    """The same names, shapes and addresses, in the same file, with the time put back."""
    inferkit.Model.load(path).save_packed(tmp_path / "file")
    weight = np.asarray(inferkit.Weights.open(path)[name]).tobytes()
    data = data_of(path)
    times, content = data.stat(), bytearray(data.read_bytes())
    content[content.index(weight) + len(weight) // 2] ^= 1
    data.write_bytes(content)
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(inferkit.ModelError, match="made of other weights"):
        inferkit.Model.load(path, packed=tmp_path / "file")
    cached = inferkit.Model.load(path, packed_cache=tmp_path / "cache")
    np.testing.assert_array_equal(cached(X), inferkit.Model.load(path)(X))


def machine(kind: str) -> onnx.NodeProto:
    """Each reads 64 features, and has more than 16 KiB of coefficients."""
    rng = np.random.default_rng(7)
    if kind == "linear":
        many = {
            "coefficients": rng.standard_normal(100 * WIDTH),
            "intercepts": rng.standard_normal(100),
            "targets": 100,
        }
        return helper.make_node("LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", **many)
    return helper.make_node(
        "SVMRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        kernel_type=kind,
        kernel_params=[0.01, 0.5, 2.0],
        n_supports=100,
        support_vectors=rng.standard_normal(100 * WIDTH),
        coefficients=rng.standard_normal(100),
        rho=[0.25],
    )


@pytest.mark.parametrize("within", ["the graph", "a branch"])
@pytest.mark.parametrize("kind", ["linear", "POLY", "RBF"])
def test_coefficients_in_attributes_are_weights_too(kind: str, within: str, tmp_path: Path) -> None:
    node = machine(kind)
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ("n", WIDTH)), ("y", None))]
    constants = []
    if within == "a branch":  # both are the same, and inlined for each shape
        node.output[0] = "z"
        branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
        node = helper.make_node("If", ["always"], ["y"], then_branch=branch, else_branch=branch)
        constants = [numpy_helper.from_array(np.array(True), "always")]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "model.onnx")

    plain = inferkit.Model.load(tmp_path / "model.onnx")
    expected = [plain(X[:n]) for n in (1, 2, 5)]
    plain.save_packed(tmp_path / "file")
    model = inferkit.Model.load(tmp_path / "model.onnx", packed=tmp_path / "file")
    for n, want in zip((1, 2, 5), expected, strict=True):
        np.testing.assert_array_equal(model(X[:n]), want)
    memory = model.memory()
    assert memory.packed_shared_bytes == memory.packed_bytes == plain.memory().packed_bytes
    assert 100 * WIDTH * 4 <= memory.packed_bytes < 150 * WIDTH * 4, "packed once, in whole panels"


def test_models_without_a_mapped_file_have_packed_files_too(path: Path, tmp_path: Path) -> None:
    content = onnx.load(path).SerializeToString()
    for source, options in ((path, {"mmap": False}), (content, {})):
        cache = tmp_path / str(len(options))
        first = inferkit.Model.load(source, packed_cache=cache, **options)
        second = inferkit.Model.load(source, packed_cache=cache, **options)
        assert first.packed_file is None
        assert second.memory().packed_shared_bytes == first.memory().packed_bytes > 60_000
        np.testing.assert_array_equal(second(X), first(X))


def test_a_folder_keeps_them_for_this_user_alone(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "new" / "cache"
    with caplog.at_level(logging.DEBUG, "inferkit.model"):
        first = inferkit.Model.load(path, packed_cache=cache)
        second = inferkit.Model.load(path, packed_cache=cache)
    assert [record.levelname for record in caplog.records] == ["INFO", "DEBUG"]
    assert "there is none yet" in caplog.text
    file = packed_in(cache)
    assert stat.S_IMODE(cache.stat().st_mode) == stat.S_IMODE(cache.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (first.packed_file, second.packed_file) == (None, str(file))
    np.testing.assert_array_equal(second(X), first(X))


def test_a_file_of_other_weights_is_refused_and_rebuilt(path: Path, tmp_path: Path) -> None:
    file, cache = tmp_path / "file", tmp_path / "cache"
    inferkit.Model.load(path).save_packed(file)
    inferkit.Model.load(path, packed_cache=cache)
    kept = packed_in(cache)
    times = data_of(path).stat()
    write_model(path, seed=1, inside=data_of(path) == path)  # of the same sizes, and with the times put back
    assert data_of(path).stat().st_size == times.st_size
    os.utime(data_of(path), ns=(times.st_atime_ns, times.st_mtime_ns))
    expected = inferkit.Model.load(path)(X)
    with pytest.raises(inferkit.ModelError, match="does not fit: it was made of other weights"):
        inferkit.Model.load(path, packed=file)
    kept_at = [cache / "other", *cache.glob("*.packed")]
    assert kept_at[1] == kept
    for _ in range(2):
        np.testing.assert_array_equal(inferkit.Model.load(path, packed_cache=cache)(X), expected)
    # Where both have one name, as models do whose samples are the same:
    newer = next(f for f in cache.glob("*.packed") if f != kept)
    kept.replace(newer)
    rebuilt = inferkit.Model.load(path, packed_cache=cache)
    assert "other weights" in rebuilt._packed_use()[1]
    np.testing.assert_array_equal(rebuilt(X), expected)
    again = inferkit.Model.load(path, packed_cache=cache)
    assert again.packed_file == str(newer)
    np.testing.assert_array_equal(again(X), expected)


def test_a_copy_of_the_model_fits(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    first = inferkit.Model.load(path)
    first.save_packed(file)
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / path.name
    for file_of_it in (path, data_of(path)):
        (tmp_path / "copy" / file_of_it.name).write_bytes(file_of_it.read_bytes())
    second = inferkit.Model.load(copy, packed=file)
    assert second.memory().packed_shared_bytes == first.memory().packed_bytes
    np.testing.assert_array_equal(second(X), first(X))


def test_a_model_of_the_same_file_with_other_outputs_finds_what_it_needs(path: Path, tmp_path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    model.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, ("n", HIDDEN)))
    onnx.save(model, path)
    both = inferkit.Model.load(path)
    both.save_packed(tmp_path / "file")
    one = inferkit.Model.load(path, outputs=["r"], packed=tmp_path / "file")
    assert one.memory().packed_shared_bytes == one.memory().packed_bytes > 0
    np.testing.assert_array_equal(one(X), both(X)[1])


def damages(content: bytes) -> list[bytes]:
    header = int.from_bytes(content[24:32], "little")
    body = -(-header // 4096) * 4096
    rng = np.random.default_rng(5)
    out = [content[:n] for n in (0, 1, 15, 87, header - 1, header, body, len(content) // 2, len(content) - 1)]
    for at in (*rng.integers(0, header, 12), body, *rng.integers(body, body + 20_000, 8), len(content) - 1):
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        out.append(bytes(flipped))
    return [*out, content + b"\0", b"\0" * len(content), b"PK\3\4" + content[4:]]


def test_damage_is_refused_or_rebuilt(path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    expected = inferkit.Model.load(path, packed_cache=cache)(X)
    file = packed_in(cache)
    content = file.read_bytes()
    for damaged in damages(content):
        assert damaged != content
        file.write_bytes(damaged)
        with pytest.raises(inferkit.ModelError, match=r"the packed file '.*' is "):
            inferkit.Model.load(path, packed=file)
        rebuilt = inferkit.Model.load(path, packed_cache=cache)
        assert rebuilt.packed_file is None
        np.testing.assert_array_equal(rebuilt(X), expected)
        again = inferkit.Model.load(path, packed_cache=cache)
        assert again.packed_file == str(file)
        np.testing.assert_array_equal(again(X), expected)


def spoil_link(file: Path) -> None:
    file.rename(file.with_suffix(".real"))
    file.symlink_to(file.with_suffix(".real"))


def spoil_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda file: file.chmod(0o620), "others may write to it"),
        (lambda file: file.chmod(0o602), "others may write to it"),
        (spoil_link, "it is a link"),
        (spoil_pipe, "is a pipe"),
    ],
)
def test_a_file_that_others_may_have_made_is_replaced(path: Path, tmp_path: Path, spoil: Any, why: str) -> None:
    cache = tmp_path / "cache"
    expected = inferkit.Model.load(path, packed_cache=cache)(X)
    spoil(packed_in(cache))
    model = inferkit.Model.load(path, packed_cache=cache)
    assert why in model._packed_use()[1]
    np.testing.assert_array_equal(model(X), expected)
    assert packed_in(cache).is_file()
    assert not packed_in(cache).is_symlink()
    assert inferkit.Model.load(path, packed_cache=cache).packed_file


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_not_believed(path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    inferkit.Model.load(path, packed_cache=cache)
    os.chown(packed_in(cache), 12345, 12345)
    assert "it belongs to user 12345" in inferkit.Model.load(path, packed_cache=cache)._packed_use()[1]
    assert packed_in(cache).stat().st_uid == 0


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    model = inferkit.Model.load(path, packed_cache=tmp_path / "file" / "cache")
    np.testing.assert_array_equal(model(X), inferkit.Model.load(path)(X))
    assert "none could be written" in model._packed_use()[1]
    with pytest.raises(NotADirectoryError):
        model.save_packed(tmp_path / "file" / "packed")
    with pytest.raises(FileNotFoundError):
        model.save_packed(tmp_path / "missing" / "packed")


def test_a_full_disk_leaves_what_was_there(path: Path, tmp_path: Path) -> None:
    file, cache = tmp_path / "file", tmp_path / "cache"
    model = inferkit.Model.load(path)
    model.save_packed(file)
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            model.save_packed(file)
        cached = inferkit.Model.load(path, packed_cache=cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert file.read_bytes() == before
    assert "File too large" in cached._packed_use()[1]
    assert list(cache.iterdir()) == []
    assert not list(tmp_path.glob("*.tmp"))
    np.testing.assert_array_equal(cached(X), model(X))


def test_what_a_killed_writer_left_goes_away(path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    name = "0123456789abcdef" * 2 + ".packed"
    old, new, foreign = cache / f"{name}.7.tmp", cache / f"{name}.8.tmp", cache / "mine.packed.9.tmp"
    for left in (old, new, foreign):
        left.write_bytes(b"half")
    for left in (old, foreign):
        os.utime(left, (time.time() - 7200,) * 2)
    inferkit.Model.load(path, packed_cache=cache)
    assert not old.exists()
    assert new.exists()
    assert foreign.exists()


def test_a_folder_keeps_64_files_and_drops_the_oldest(path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for i in range(70):
        (cache / f"{i:032x}.packed").write_bytes(b"old")
        os.utime(cache / f"{i:032x}.packed", (1000 + i,) * 2)
    mine = ("notes.txt", "mine.packed", "0123.packed")
    for name in mine:
        (cache / name).write_bytes(b"mine")
        os.utime(cache / name, (1, 1))
    inferkit.Model.load(path, packed_cache=cache)
    kept = {f.name for f in cache.iterdir()} - set(mine)
    assert len(kept) == 64
    assert {f"{i:032x}.packed" for i in range(7, 70)} < kept
    assert all((cache / name).exists() for name in mine)


def test_a_file_that_changes_under_its_model_gives_no_answer(path: Path, tmp_path: Path) -> None:
    inferkit.Model.load(path).save_packed(tmp_path / "file")
    model = inferkit.Model.load(path, packed=tmp_path / "file")
    expected = model(X)
    content = (tmp_path / "file").read_bytes()
    replaced = tmp_path / "new"
    replaced.write_bytes(content)
    replaced.rename(tmp_path / "file")  # another file: nothing happens to the old one
    np.testing.assert_array_equal(model(X), expected)
    model = inferkit.Model.load(path, packed=tmp_path / "file")
    with (tmp_path / "file").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\0" * 100)
    with pytest.raises(inferkit.ModelError, match="was written to"):
        model(X)


def test_a_file_that_is_cut_under_its_model_ends_no_process(path: Path, tmp_path: Path) -> None:
    inferkit.Model.load(path).save_packed(tmp_path / "file")
    told = in_child(
        """
        model = inferkit.Model.load(sys.argv[1], packed=sys.argv[2])
        x = np.ones((3, 64), np.float32)
        model(x)
        open(sys.argv[2], "r+b").truncate(4096)
        for n in (3, 4):
            try:
                model(x[:n] if n == 3 else np.ones((4, 64), np.float32))
            except inferkit.ModelError as error:
                print("told", error)
        """,
        path,
        tmp_path / "file",
    )
    assert told.count("told") == 2


@pytest.mark.skipif(inferkit.build_info()["isa"] == "baseline", reason="the machine has one tier only")
def test_another_tier_of_instructions_has_a_file_of_its_own(path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    inferkit.Model.load(path).save_packed(tmp_path / "file")
    expected = inferkit.Model.load(path, packed_cache=cache)(X)
    told = in_child(
        """
        x = np.load(sys.argv[4])
        try:
            inferkit.Model.load(sys.argv[1], packed=sys.argv[2])
        except inferkit.ModelError as error:
            print(error)
        for _ in range(2):
            model = inferkit.Model.load(sys.argv[1], packed_cache=sys.argv[3])
        print(model.packed_file is not None)
        np.save(sys.argv[4], model(x))
        """,
        path,
        tmp_path / "file",
        cache,
        save(tmp_path / "x.npy", X),
        INFERKIT_ISA="baseline",
    )
    assert "this process uses 'baseline'" in told
    assert told.endswith("True\n")
    assert len(list(cache.glob("*.packed"))) == 2
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), expected, rtol=1e-4, atol=1e-2)  # of sums in the thousands


def test_what_the_tiles_of_amx_read_vnni_reads_too(tmp_path: Path) -> None:
    if "amx-int8" not in inferkit.build_info()["isa_features"]:
        pytest.skip("this machine, build or tier has no AMX")
    rng = np.random.default_rng(5)
    weights = rng.integers(-128, 128, (200, 300)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 200])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["n", 300])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    inferkit.Model.load(tmp_path / "m.onnx").save_packed(tmp_path / "file")
    x = rng.integers(0, 256, (7, 200)).astype(np.uint8)
    told = in_child(
        """
        model = inferkit.Model.load(sys.argv[1], packed=sys.argv[2])
        np.save(sys.argv[3], model(np.load(sys.argv[3])))
        print(inferkit.build_info()["kernels"]["igemm"], model.memory().packed_shared_bytes > 60_000)
        """,
        tmp_path / "m.onnx",
        tmp_path / "file",
        save(tmp_path / "x.npy", x),
        INFERKIT_ISA="avx512,-amx-int8",
    )
    assert told.split() == ["avx512vnni", "True"]
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x.astype(np.int32) @ weights)


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_processes_that_start_at_once_agree(path: Path, tmp_path: Path) -> None:
    code = "import sys, inferkit, numpy as np; m = inferkit.Model.load(sys.argv[1], packed_cache=sys.argv[2]);"
    code += "print(m(np.ones((2, 64), np.float32)).tobytes().hex())"
    arguments = [sys.executable, "-c", code, str(path), str(tmp_path / "cache")]
    started = [subprocess.Popen(arguments, stdout=subprocess.PIPE) for _ in range(4)]
    answers = {child.communicate()[0] for child in started}
    assert all(child.returncode == 0 for child in started)
    expected = inferkit.Model.load(path)(np.ones((2, WIDTH), np.float32)).tobytes().hex()
    assert answers == {expected.encode() + b"\n"}
    assert inferkit.Model.load(path, packed_cache=tmp_path / "cache").packed_file


def test_a_pickled_model_opens_them_again(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inferkit.Model.load(path).save_packed(tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    model = inferkit.Model.load(path, packed="file")
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(model))
    assert again.packed_file == str(tmp_path / "file")
    np.testing.assert_array_equal(again(X), model(X))


def test_a_model_that_was_loaded_from_a_file_can_be_saved_again(path: Path, tmp_path: Path) -> None:
    inferkit.Model.load(path).save_packed(tmp_path / "file")
    model = inferkit.Model.load(path, packed=tmp_path / "file")
    model.save_packed(tmp_path / "file")  # over the one that it reads
    again = inferkit.Model.load(path, packed=tmp_path / "file")
    np.testing.assert_array_equal(again(X), model(X))
    assert again.memory().packed_shared_bytes == model.memory().packed_bytes


def test_a_packed_file_of_another_graph_says_so(path: Path, tmp_path: Path) -> None:
    other = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", WIDTH))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", HIDDEN))],
        [numpy_helper.from_array(np.ones((WIDTH, HIDDEN), np.float32), "w")],
    )
    content = helper.make_model(other, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    inferkit.Model.load(content).save_packed(tmp_path / "file")
    with pytest.raises(inferkit.ModelError, match="does not fit"):
        inferkit.Model.load(onnx.load(path).SerializeToString(), packed=tmp_path / "file")


def test_wrong_arguments(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="packed, a file, or packed_cache"):
        inferkit.Model.load(path, packed=tmp_path / "a", packed_cache=tmp_path)
    for name in ("packed", "packed_cache"):
        with pytest.raises(TypeError, match=name):
            inferkit.Model.load(path, **{name: 3})
        with pytest.raises(ValueError, match="empty path"):
            inferkit.Model.load(path, **{name: ""})
        with pytest.raises(ValueError, match="NUL"):
            inferkit.Model.load(path, **{name: "a\0b"})
    with pytest.raises(FileNotFoundError):
        inferkit.Model.load(path, packed=tmp_path / "missing")
    with pytest.raises(inferkit.ModelError, match="is no file of packed weights"):
        inferkit.Model.load(path, packed=path)
    with pytest.raises(inferkit.ModelError, match="a directory"):
        inferkit.Model.load(path, packed=tmp_path)
    function = inferkit.Model.from_callable(lambda x: x, [("x", "float32", (None,))], [("y", "float32", (None,))])
    with pytest.raises(ValueError, match="no packed weights"):
        function.save_packed(tmp_path / "x")
    assert function.packed_file is None


def layer(kind: str, values: np.ndarray) -> onnx.ModelProto:
    """A layer of one kind, whose weights are the first of `values`."""

    def weights(*shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.resize(values, shape), f"w{len(constants)}")

    constants: list[onnx.TensorProto] = []
    shape: tuple[str | int, ...] = ("n", 64)
    opset, domain, attributes = 17, "", {}
    if kind == "MatMul":
        constants.append(weights(64, 128))
    elif kind == "Gemm":
        constants.append(weights(128, 64))
        attributes = {"transB": 1}
    elif kind in ("Conv", "ConvTranspose"):
        constants.append(weights(32, 32, 3, 3))
        shape = ("n", 32, 9, 9)
    elif kind == "LSTM":
        constants += [weights(1, 4 * 64, 64)]
        constants += [weights(1, 4 * 64, 64)]
        constants += [weights(1, 8 * 64)]
        attributes = {"hidden_size": 64}
        shape = (5, 2, 64)
    else:
        domain, opset = "ai.onnx.ml", 3
        attributes = {
            "kernel_type": "RBF",
            "kernel_params": [0.01, 0.5, 2.0],
            "n_supports": 100,
            "support_vectors": np.resize(values, 100 * 64),
            "coefficients": np.resize(values, 100),
            "rho": [0.25],
        }
    node = helper.make_node(kind, ["x", *(c.name for c in constants)], ["y"], domain=domain, **attributes)
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", None))]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, opset)][: 2 if domain else 1]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "SVMRegressor"])
def test_what_is_packed_holds_no_subnormals(kind: str, tmp_path: Path) -> None:
    tiny, usual = np.float32(1.23456e-39), np.float32(0.123456)
    values = np.array([tiny, usual, -tiny], np.float32)
    model = inferkit.Model.load(layer(kind, values).SerializeToString())
    shape = [n or 2 for n in model.inputs[0].shape]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    answer = model(x)
    model.save_packed(tmp_path / "file")
    packed = (tmp_path / "file").read_bytes()
    assert packed.count(usual.tobytes()) > 1000
    assert packed.count(tiny.tobytes()) == packed.count((-tiny).tobytes()) == 0
    zeros = inferkit.Model.load(layer(kind, values * (np.abs(values) > 1e-38)).SerializeToString())
    assert answer.tobytes() == zeros(x).tobytes()  # -0 among them, where -tiny was
