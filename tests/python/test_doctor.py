"""Each thing that the doctor looks for, broken on purpose: it must say so, and say it of nothing else."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper
from readme import fences

import inferkit
from inferkit import _core
from inferkit._log import log
from inferkit.diagnostics import Check, Report, diagnose
from inferkit.diagnostics._diagnose import examine
from inferkit.diagnostics._log_lines import log_lines
from inferkit.diagnostics._patient import Limits
from inferkit.diagnostics._report import STEPS
from inferkit.diagnostics._steps import ALL, event_loop
from inferkit.diagnostics._steps.queue import standing

# What a busy machine may disturb; tests of their own look at these.
NOISY = {"loop never held", "RSS stable after warm-up", "no allocation at batch boundaries"}
BUILD = {"optimised build", "no sanitizers", "instruction set"}
Made = Callable[..., inferkit.Batcher]


def wrap(
    fn: Callable[..., Any],
    output: str = "y",
    shape: tuple[int | None, ...] = (None, 4),
    checks: inferkit.InputChecks | None = None,
) -> inferkit.Model:
    return inferkit.Model.from_callable(
        fn, inputs=[("x", "float32", shape)], outputs=[(output, "float32", shape)], input_checks=checks
    )


def graph(
    nodes: list[onnx.NodeProto],
    *constants: tuple[str, np.ndarray],
    output: str = "y",
    x: tuple[int, list[Any]] = (TensorProto.FLOAT, ["n", 4]),
    y: tuple[int, list[Any]] = (TensorProto.FLOAT, ["n", 4]),
) -> bytes:
    made = helper.make_graph(
        nodes,
        "doctor",
        [helper.make_tensor_value_info("x", *x)],
        [helper.make_tensor_value_info(output, *y)],
        [numpy_helper.from_array(value, name) for name, value in constants],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture
def serve() -> Iterator[Made]:
    """Makes batchers, and closes them."""
    made: list[inferkit.Batcher] = []

    def make(model: inferkit.Model | bytes, **options: Any) -> inferkit.Batcher:
        if isinstance(model, bytes):
            model = inferkit.Model.load(model)
        made.append(inferkit.Batcher(model, **options))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close(drain=False)


def by_name(report: Report) -> dict[str, Check]:
    return {check.name: check for check in report.checks}


def bad(report: Report) -> set[str]:
    """Names of what failed or warned and cannot be blamed on the machine or the build."""
    return {c.name for c in report.checks if c.status in ("warn", "fail")} - NOISY - BUILD


def test_a_good_model_passes(serve: Made, digits_path: Path) -> None:
    report = diagnose(serve(inferkit.Model.load(digits_path)), seconds=0.2)
    assert bad(report) == set(), str(report)
    assert {check.step for check in report.checks} == set(STEPS)
    assert by_name(report)["'probabilities' rows sum to 1"].status == "pass"
    assert all(check.figure and check.why for check in report.checks)
    assert all(check.remedy for check in report.checks if check.status in ("warn", "fail"))


def test_a_good_callable_passes(serve: Made) -> None:
    report = diagnose(serve(wrap(lambda x: x * 2)), seconds=0.2)
    assert bad(report) == set(), str(report)


def on_the_page(name: str) -> tuple[list[tuple[str, str]], int]:
    """A report that docs/doctor.md shows: the status and the name of each check, and how many there were."""
    [text] = [f.text for f in fences() if f.page == "docs/doctor.md" and f.name == name]
    [count] = re.findall(r"^(\d+) checks in ", text, re.MULTILINE)
    return re.findall(r"^   (pass|warn|fail|skip)  (.+?): ", text, re.MULTILINE), int(count)


def test_the_page_shows_the_checks_that_there_are(serve: Made, digits_path: Path) -> None:
    shown, count = on_the_page("what the command above prints")
    report = diagnose(serve(inferkit.Model.load(digits_path)), seconds=0.1)
    assert [name for _, name in shown] == [check.name for check in report.checks]
    assert count == len(report.checks)


def test_the_page_shows_what_is_found(serve: Made) -> None:
    shown, count = on_the_page("what the doctor prints about such a model")
    nodes = [helper.make_node("Log", ["x"], ["l"]), helper.make_node("ReduceMean", ["l"], ["score"], axes=[1])]
    sizes = (TensorProto.FLOAT, ["n", "l"]), (TensorProto.FLOAT, ["n", 1])
    report = diagnose(serve(graph(nodes, output="score", x=sizes[0], y=sizes[1])), seconds=0.1)
    found = [(c.status, c.name) for c in report.checks if c.status in ("warn", "fail")]
    assert [one for one in found if one[1] not in NOISY | BUILD] == shown
    assert count == len(report.checks)


def test_the_batcher_stays_open_and_as_it_was(serve: Made, digits_path: Path) -> None:
    model = inferkit.Model.load(digits_path)
    batcher = serve(model)
    diagnose(batcher, seconds=0.1)
    assert not batcher.closed
    assert batcher(np.zeros(64, np.float32)).shape == (10,)
    stats = batcher.stats()
    assert (stats.queue_depth, stats.in_flight, stats.failed) == (0, 0, 0)


# 1 build


def pretend(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    info = {**inferkit.build_info(), **changes}
    monkeypatch.setattr("inferkit.diagnostics._steps.build.build_info", lambda: info)


def test_debug_build(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, debug=True, build_type="Debug")
    [check, *_] = ALL[1](None)  # type: ignore[arg-type]
    assert (check.name, check.status) == ("optimised build", "fail")
    assert "Debug" in check.figure
    assert "pip install" in check.remedy


def test_sanitizers(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, sanitizers="address")
    checks = {check.name: check for check in ALL[1](None)}  # type: ignore[arg-type]
    assert checks["no sanitizers"].status == "fail"


@pytest.mark.parametrize(
    ("isa", "available", "status"),
    [
        ("avx2", ["baseline", "avx2", "avx512"], "warn"),
        ("baseline", ["baseline"], "warn"),
        ("avx512", ["baseline", "avx2", "avx512"], "pass"),
        ("avx2", ["baseline", "avx2"], "pass"),
    ],
)
def test_instruction_set(monkeypatch: pytest.MonkeyPatch, isa: str, available: list[str], status: str) -> None:
    pretend(monkeypatch, isa=isa, isa_available=available)
    checks = {check.name: check for check in ALL[1](None)}  # type: ignore[arg-type]
    assert checks["instruction set"].status == status


@pytest.mark.parametrize(
    ("kernels", "says"),
    [("avx512", "no instructions for it"), ("avx512bf16", "AVX512-BF16"), ("avx512amx", "AMX")],
)
def test_what_the_cpu_can_do_in_bf16(monkeypatch: pytest.MonkeyPatch, kernels: str, says: str) -> None:
    pretend(monkeypatch, kernels={"gemm_bf16": kernels})
    checks = {check.name: check for check in ALL[1](None)}  # type: ignore[arg-type]
    assert (checks["bf16"].status, checks["bf16"].figure) == ("pass", says)


# 2 lifecycle


def test_a_model_that_fails_every_request(serve: Made) -> None:
    def broken(x: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such weights")

    report = diagnose(serve(wrap(broken)), seconds=0.1)
    checks = by_name(report)
    assert report.exit_code == 2
    assert checks["requests are answered"].status == "fail"
    assert "InferenceError" in checks["requests are answered"].figure
    assert "no such weights" in checks["requests are answered"].remedy
    assert checks["the step's checks"].status == "fail"  # step 6 has no outputs to look at
    # What follows from it is not told as a fault of its own.
    assert checks["five stamps"].status == checks["still answers afterwards"].status == "skip"


def test_ids_and_stamps_are_looked_at(serve: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferkit.diagnostics._steps.lifecycle.STAMPS", ("enqueued", "nonexistent"))
    report = examine(serve(wrap(np.tanh)), seconds=0.1)
    failed = [check for check in report.failures if check.step == 2]
    assert failed
    assert "nonexistent" in failed[0].figure


def test_log_lines_without_their_ids(serve: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def anonymous(area: str, event: str, fields: dict[str, Any], level: str = "DEBUG") -> None:
        log(area, event, {**fields, "request_id": None}, level)

    monkeypatch.setattr("inferkit.tracing._request_log.log", anonymous)
    # As many as there are to be, whatever time this machine takes for one.
    monkeypatch.setattr("inferkit.diagnostics._patient.Patient.affordable", lambda self, least, most: most)
    check = by_name(examine(serve(wrap(np.tanh)), seconds=0.1))["ids in the log"]
    assert check.status == "fail"
    assert check.figure.startswith("300 of 300 requests have no line")


@pytest.mark.parametrize("how", ["trace_size", "enable"])
def test_a_trace_that_is_off(serve: Made, how: str) -> None:
    batcher = serve(wrap(np.tanh), trace_size=0 if how == "trace_size" else 4096)
    inferkit.tracing.enable(how != "enable", batcher)
    check = by_name(diagnose(batcher, seconds=0.1))["ids in the log"]
    assert check.status == "warn"
    assert "trace" in check.remedy


@pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG, logging.WARNING])
def test_what_others_log_is_left_alone(serve: Made, level: int) -> None:
    """A service's own handler gets its own lines, and none of the doctor's, whatever its level."""
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    logger = logging.getLogger("inferkit.request")
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        batcher = serve(wrap(np.tanh))
        lifecycle = ALL[2]

        def meanwhile(patient: Any) -> Iterator[Check]:
            with log_lines(patient.batcher):
                logger.debug("mine")
                logger.error("mine")
            yield from lifecycle(patient)

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(ALL, 2, meanwhile)
            checks = by_name(examine(batcher, seconds=0.1))
        assert checks["ids in the log"].status == "pass"
        assert [r.levelname for r in seen] == (["DEBUG", "ERROR"] if level == logging.DEBUG else ["ERROR"])
        assert logger.level == level
        assert not logger.filters
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


# 3 validation


def test_unchecked_inputs(serve: Made) -> None:
    report = diagnose(serve(wrap(np.tanh, checks=inferkit.InputChecks(finite=False))), seconds=0.1)
    checks = by_name(report)
    assert checks["NaN"].status == checks["infinity"].status == "fail"
    assert "finite=True" in checks["NaN"].remedy
    assert checks["empty"].status == checks["oversized"].status == checks["wrong dtype"].status == "pass"


def test_integer_inputs_have_no_nan(serve: Made) -> None:
    model = inferkit.Model.from_callable(
        lambda x: x.astype(np.float32) + 1, inputs=[("x", "int64", (None, 4))], outputs=[("y", "float32", (None, 4))]
    )
    checks = by_name(diagnose(serve(model), seconds=0.1))
    assert checks["NaN"].status == "skip"
    assert checks["wrong dtype"].status == "pass"


@pytest.mark.parametrize(("bound", "status"), [(0, "warn"), (512, "pass")])
def test_length_bounds(serve: Made, bound: int, status: str) -> None:
    model = wrap(np.tanh, shape=(None, None), checks=inferkit.InputChecks(max_length=bound))
    check = by_name(diagnose(serve(model), seconds=0.1))["length bound"]
    assert check.status == status
    assert "'x'" in check.figure


# 4 event loop


def test_a_callable_that_holds_the_loop(serve: Made) -> None:
    def greedy(x: np.ndarray) -> np.ndarray:
        sum(range(6_000_000))  # keeps the GIL for a hundred milliseconds, most of which a busy machine may take away
        return x

    report = diagnose(serve(wrap(greedy)), seconds=0.2)
    check = by_name(report)["loop never held"]
    assert check.status == "fail"
    assert "GIL" in check.remedy


def steal(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Make /proc/stat say that a share of this thread's CPU is stolen, and twice as much of another one."""
    start = time.perf_counter()

    def now() -> event_loop.Steal:
        ticks = int((time.perf_counter() - start) * share * os.sysconf("SC_CLK_TCK"))
        lines = [f"cpu0 1 2 3 4 5 6 7 {2 * ticks} 0 0", f"cpu1 1 2 3 4 5 6 7 {ticks} 0 0"]
        return event_loop.Steal("\n".join(lines).encode(), b"cpu1 ")

    monkeypatch.setattr(event_loop.Steal, "now", now)


@pytest.mark.parametrize(("share", "status"), [(0.05, "fail"), (1.2, "pass")])
def test_what_a_hypervisor_took_is_no_hold(
    serve: Made, monkeypatch: pytest.MonkeyPatch, share: float, status: str
) -> None:
    def greedy(x: np.ndarray) -> np.ndarray:
        sum(range(6_000_000))
        return x

    steal(monkeypatch, share)
    assert by_name(diagnose(serve(wrap(greedy)), seconds=0.2))["loop never held"].status == status


def test_steal_is_read() -> None:
    now = event_loop.Steal.now()
    if not now.cpu:
        pytest.skip("there is no /proc/stat here")
    assert now.text.startswith(b"cpu ")
    assert now.cpu in now.text
    assert event_loop.Steal.now().since(now) >= 0


def test_a_loop_that_is_not_held_passes(serve: Made) -> None:
    report = examine(serve(wrap(np.tanh)), seconds=0.2, limits=Limits(loop_hold=5.0))
    assert by_name(report)["loop never held"].status == "pass"


# 5 queue


class Gate:
    """A callable that waits until it is told to go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.entered.set()
        self.open.wait(60)
        return x


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def row() -> np.ndarray:
    return np.ones(4, np.float32)


@pytest.mark.parametrize("asked_before", [True, False])
def test_hung_worker(serve: Made, gate: Gate, asked_before: bool) -> None:
    batcher = serve(wrap(gate))
    if asked_before:
        batcher.submit(row())
        assert gate.entered.wait(30)
    start = time.monotonic()
    report = diagnose(batcher, seconds=0.1, timeout=0.3)
    gate.open.set()
    assert time.monotonic() - start < 20
    checks = by_name(report)
    assert report.exit_code == 2
    assert checks["a request is answered"].status == "fail"
    assert "1 batch in flight" in checks["a request is answered"].figure
    skipped = {check.step for check in report.checks if check.status == "skip"}
    assert skipped == {2, 3, 4, 6, 7}
    assert checks["optimised build"].status in ("pass", "fail")


def test_queue_over_its_limit(serve: Made, gate: Gate) -> None:
    batcher = serve(wrap(gate), max_queue_size=None)
    tickets = [batcher.submit(row()) for _ in range(300)]
    assert gate.entered.wait(30)
    report = diagnose(batcher, seconds=0.1, timeout=0.3)
    gate.open.set()
    check = by_name(report)["queue depth"]
    assert check.status == "fail"
    assert int(check.figure.split()[0]) > 100
    assert all(ticket.exception(30) is None for ticket in tickets)


def test_full_queue(serve: Made, gate: Gate) -> None:
    """Admission refuses the doctor as it refuses everybody."""
    batcher = serve(wrap(gate), max_queue_size=2, max_batch_size=1)
    batcher.submit(row())
    assert gate.entered.wait(30)
    for _ in range(2):
        batcher.submit(row())
    report = diagnose(batcher, seconds=0.1, timeout=0.3)
    gate.open.set()
    assert by_name(report)["a request is answered"].status == "fail"


def test_a_request_that_is_stuck(serve: Made, gate: Gate) -> None:
    """By a clock that stands still until it is told to move."""
    clock = _core.ManualClock()
    batcher = serve(wrap(gate), max_batch_size=1, _clock=clock)
    for _ in range(3):
        batcher.submit(row())
    assert gate.entered.wait(30)
    for seconds, waits, runs in ((5.0, "pass", "pass"), (0.1, "fail", "warn"), (25.0, "fail", "fail")):
        clock.advance(seconds)
        checks = {check.name: check for check in standing(batcher.stats(), Limits())}
        assert checks["nothing stuck in the queue"].status == waits
        assert checks["workers make progress"].status == runs
        assert checks["queue depth"].status == "pass"
    gate.open.set()


def test_a_queue_without_bound(serve: Made) -> None:
    check = by_name(diagnose(serve(wrap(np.tanh), max_queue_size=None), seconds=0.1))["queue is bounded"]
    assert check.status == "warn"


@pytest.mark.parametrize(("waited", "status"), [(5.0, "pass"), (5.01, "fail")])
def test_five_seconds_are_the_limit(serve: Made, waited: float, status: str) -> None:
    stats = dataclasses.replace(serve(wrap(np.tanh)).stats(), oldest_wait=waited, queue_depth=1)
    checks = {check.name: check for check in standing(stats, Limits())}
    assert checks["nothing stuck in the queue"].status == status


@pytest.mark.parametrize(("depth", "status"), [(100, "pass"), (101, "fail")])
def test_a_hundred_requests_are_the_limit(serve: Made, depth: int, status: str) -> None:
    stats = dataclasses.replace(serve(wrap(np.tanh)).stats(), queue_depth=depth)
    checks = {check.name: check for check in standing(stats, Limits())}
    assert checks["queue depth"].status == status


@pytest.mark.parametrize(
    ("figures", "status", "says"),
    [
        ({"elements": 0}, None, ""),
        ({"elements": 100, "padding_rate": 0.1}, "pass", "10% of what was computed for padded inputs was padding"),
        ({"elements": 100, "padding_rate": 0.4}, "warn", "40% of what was computed"),
        (
            {
                "elements": 100,
                "padding_rate": 0.1,
                "padding_off": (40, 48),
                "padding_costs": {40: 1.1, 48: 1.2, 56: 0.5},
            },
            "warn",
            "to 2 lengths (40, 48) it made the work up to 20% more, and is given up",
        ),
    ],
)
def test_padding_that_wastes(serve: Made, figures: dict[str, Any], status: str | None, says: str) -> None:
    stats = dataclasses.replace(serve(wrap(np.tanh)).stats(), **figures)
    checks = {check.name: check for check in standing(stats, Limits())}
    if status is None:
        assert "padding pays" not in checks
        return
    assert checks["padding pays"].status == status
    assert says in checks["padding pays"].figure
    assert bool(checks["padding pays"].remedy) == (status == "warn")
    assert ("given up for 2 lengths" in str(stats)) == ("padding_off" in figures)


def test_the_doctor_s_limits_are_those_of_health_and_of_the_alerts() -> None:
    doctor, health = Limits(), inferkit.health.Limits()
    assert doctor.queue_depth == health.max_queue_depth == 100
    assert doctor.oldest_wait == health.max_oldest_wait == 5.0
    assert doctor.error_rate == health.max_error_rate
    assert doctor.hung_after == health.hung_after
    alerts = (Path(__file__).parents[2] / "docs" / "monitoring" / "alerts.yml").read_text()
    for expression in (
        f"inferkit_queue_depth > {doctor.queue_depth}\n",
        f"inferkit_oldest_wait_seconds > {doctor.oldest_wait:g}\n",
        f"inferkit_longest_run_seconds > {doctor.hung_after:g}\n",
        f'outcome=~"completed|failed"}}[5m])) > {doctor.error_rate:g}\n',
    ):
        assert expression in alerts


def test_error_rate(serve: Made) -> None:
    batcher = serve(wrap(lambda x: x * np.nan))
    for _ in range(3):
        with pytest.raises(inferkit.OutputError):
            batcher(row())
    checks = {check.name: check for check in standing(batcher.stats(), Limits())}
    assert checks["error rate"].status == "fail"
    assert checks["error rate"].figure.startswith("3 of 3")


def test_in_flight_is_counted_from_the_stamps(serve: Made) -> None:
    def slow(x: np.ndarray) -> np.ndarray:
        time.sleep(0.005)
        return x

    batcher = serve(wrap(slow), workers=3, max_batch_size=1)
    check = by_name(examine(batcher, seconds=0.1))["in flight"]
    assert check.status == "pass"
    assert check.figure.startswith("at most 3 batches")
    batcher._limits["max_concurrent"] = 2  # as if it had been promised
    assert by_name(examine(batcher, seconds=0.1))["in flight"].status == "fail"


# 6 outputs


@pytest.mark.parametrize(
    ("model", "name"),
    [
        pytest.param(graph([helper.make_node("Log", ["x"], ["y"])]), "'y' is finite", id="nan"),
        pytest.param(
            graph([helper.make_node("Mul", ["x", "zero"], ["y"])], ("zero", np.zeros(1, np.float32))),
            "'y' is not all zero",
            id="zeros",
        ),
        pytest.param(
            graph([helper.make_node("Sigmoid", ["x"], ["probabilities"])], output="probabilities"),
            "'probabilities' rows sum to 1",
            id="unnormalised",
        ),
    ],
)
def test_outputs_of_onnx_models(serve: Made, model: bytes, name: str) -> None:
    report = diagnose(serve(model), seconds=0.1)
    check = by_name(report)[name]
    assert check.status == "fail", str(report)
    assert check.step == 6
    assert check.remedy
    assert {check.name for check in report.failures if check.step == 6} == {name}


@pytest.mark.parametrize(
    ("fn", "output", "name"),
    [
        (lambda x: x * np.nan, "y", "'y' is finite"),
        (lambda x: x * np.inf, "y", "'y' is finite"),
        (lambda x: x * 0, "y", "'y' is not all zero"),
        (lambda x: np.exp(x), "softmax", "'softmax' rows sum to 1"),
        (lambda x: x - x.mean(axis=0) + 1, "y", "the same alone and batched"),
        (lambda x: x + len(x), "y", "the same alone and batched"),
    ],
    ids=["nan", "inf", "zeros", "unnormalised", "mean", "count"],
)
def test_outputs_of_callables(serve: Made, fn: Callable[..., Any], output: str, name: str) -> None:
    report = diagnose(serve(wrap(fn, output)), seconds=0.1)
    assert by_name(report)[name].status == "fail", str(report)


def test_a_softmax_is_known_by_its_operator(serve: Made, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(graph([helper.make_node("Softmax", ["x"], ["y"])]))
    checks = by_name(diagnose(serve(inferkit.Model.load(path)), seconds=0.1))
    assert checks["'y' rows sum to 1"].status == "pass"


def test_some_rows_of_zeros_warn(serve: Made) -> None:
    check = by_name(diagnose(serve(wrap(lambda x: x * (x[:, :1] > 0))), seconds=0.1))["'y' is not all zero"]
    assert check.status == "warn"


def test_scores_are_not_taken_for_probabilities(serve: Made) -> None:
    checks = by_name(diagnose(serve(wrap(np.tanh)), seconds=0.1))
    assert checks["'y' rows sum to 1"].status == "skip"


# 7 memory


def test_leaking_callable(serve: Made) -> None:
    kept: list[bytes] = []

    def leak(x: np.ndarray) -> np.ndarray:
        kept.append(b"x" * 50_000)
        return x

    report = diagnose(serve(wrap(leak), max_batch_size=1), seconds=0.2)
    check = by_name(report)["RSS stable after warm-up"]
    assert check.status == "fail", check.figure
    assert "bytes a request (95% between" in check.figure
    assert kept


@pytest.mark.unsanitized("what is freed is kept to be watched, which is what the check looks for")
def test_a_callable_that_does_not_leak(serve: Made) -> None:
    report = diagnose(serve(wrap(lambda x: x + len(b"x" * 50_000))), seconds=0.2)
    assert by_name(report)["RSS stable after warm-up"].status != "fail"


def test_a_buffer_kept_from_the_pool(serve: Made) -> None:
    kept: list[inferkit.Buffer] = []

    def keep(x: np.ndarray) -> np.ndarray:
        kept.append(inferkit.BufferPool.default().acquire(256))
        return x * 2

    report = diagnose(serve(wrap(keep), max_batch_size=1), seconds=0.05)
    check = by_name(report)["every buffer back in the pool"]
    assert check.status == "fail"
    assert "of 'python'" in check.figure
    for buffer in kept:
        buffer.release()


# inputs


def test_lengths_are_guessed(serve: Made) -> None:
    """The file does not say that only 10 will do."""
    model = graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        ("w", np.ones((10, 4), np.float32)),
        x=(TensorProto.FLOAT, ["n", "k"]),
    )
    report = diagnose(serve(model), seconds=0.1)
    assert bad(report) <= {"length bound"}, str(report)


def test_integers_are_guessed(serve: Made) -> None:
    """The table has two rows: indices above 1 are wrong."""
    model = graph(
        [helper.make_node("Gather", ["w", "x"], ["y"])],
        ("w", np.arange(1, 5, dtype=np.float32).reshape(2, 2)),
        x=(TensorProto.INT64, ["n", 3]),
        y=(TensorProto.FLOAT, ["n", 3, 2]),
    )
    report = diagnose(serve(model), seconds=0.1)
    assert bad(report) == set(), str(report)


def test_what_cannot_be_guessed_is_said(serve: Made) -> None:
    model = graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        ("w", np.ones((37, 4), np.float32)),
        x=(TensorProto.FLOAT, ["n", "k"]),
    )
    batcher = serve(model)
    with pytest.raises(ValueError, match="give real ones"):
        diagnose(batcher)
    report = diagnose(batcher, {"x": np.ones((5, 37), np.float32)}, seconds=0.1)
    assert bad(report) <= {"length bound"}, str(report)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"z": np.ones((3, 4), np.float32)}, r"takes \['x'\]"),
        ({}, r"takes \['x'\]"),
        ({"x": np.ones((0, 4), np.float32)}, "fewer rows"),
        ({"x": np.full((3, 4), np.nan, np.float32)}, "refuses the input"),
        ({"x": np.ones((3, 5), np.float32)}, "refuses the input"),
        ({"x": np.ones((3, 4))}, "float64"),
    ],
    ids=["name", "none", "empty", "nan", "shape", "dtype"],
)
def test_wrong_inputs(serve: Made, inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(serve(graph([helper.make_node("Tanh", ["x"], ["y"])])), inputs)


def test_a_fixed_batch(serve: Made) -> None:
    model = graph(
        [helper.make_node("Tanh", ["x"], ["y"])], x=(TensorProto.FLOAT, [3, 4]), y=(TensorProto.FLOAT, [3, 4])
    )
    report = diagnose(serve(model), seconds=0.1)
    assert bad(report) == set(), str(report)
    assert by_name(report)["the same alone and batched"].status == "skip"


def test_two_inputs_and_outputs(serve: Made) -> None:
    model = inferkit.Model.from_callable(
        lambda a, b: (a + 1, b.astype(np.float32) + 1),
        inputs=[("a", "float32", (None, 2)), ("b", "int64", (None,))],
        outputs=[("c", "float32", (None, 2)), ("d", "float32", (None,))],
    )
    report = diagnose(serve(model), seconds=0.1)
    assert bad(report) == set(), str(report)
    assert {"'c' is finite", "'d' is finite"} <= set(by_name(report))


def load(text: str, domain: str = "") -> bytes:
    domains = f', "{domain}" : 1' if domain else ""
    head = f'<ir_version: 8, opset_import: ["" : 17{domains}]>'
    model: bytes = onnx.parser.parse_model(f"{head} {text}").SerializeToString()
    return model


def test_a_model_that_combines_rows_is_not_blamed_for_it_twice(serve: Made) -> None:
    """A batcher runs each of its requests by itself, which step 5 says."""
    model = load("g (float[n, 4] x) => (float[n, 4] y) { m = ReduceMax <axes = [0]> (x) t = Tanh (x) y = Div (t, m) }")
    report = diagnose(serve(model), seconds=0.1)
    assert bad(report) == {"requests share batches"}, str(report)
    found = by_name(report)["the same alone and batched"]
    assert found.status == "skip"
    assert "(ReduceMax) combines rows: see step 5" in found.figure


def test_an_output_without_dimensions_ends_no_step() -> None:
    model = inferkit.Model.load(
        load("g (float[n, 4] x) => (float[n, 4] y, float s) { y = Tanh (x) s = ReduceSum <keepdims = 0> (y) }")
    )
    with inferkit.Batcher(model) as batcher:
        found = by_name(diagnose(batcher, seconds=0.1))
    assert "the step's checks" not in found
    assert found["requests are answered"].status == "fail"


def test_some_zeros_behind_a_relu_are_no_fault(serve: Made, tmp_path: Path) -> None:
    path = tmp_path / "relu.onnx"
    path.write_bytes(load("g (float[n, 2] x) => (float[n, 2] y) { y = Relu (x) }"))
    model = inferkit.Model.load(path)
    x = np.array([[-1, -2], [1, 2], [3, -1]], np.float32)
    assert bad(diagnose(serve(model), {"x": x}, seconds=0.1)) == set()
    found = by_name(diagnose(serve(model), {"x": -np.abs(x)}, seconds=0.1))
    assert found["'y' is not all zero"].status == "fail"


SCALAR = load("g (float[n, 4] x, int64 rate) => (float[n, 4] y) { r = Cast <to = 1> (rate) y = Add(x, r) }")


@pytest.mark.parametrize(
    "inputs",
    [None, {"x": np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32), "rate": 3}],
    ids=["made up", "given"],
)
def test_an_input_that_all_rows_share(serve: Made, inputs: dict[str, Any] | None) -> None:
    report = diagnose(serve(SCALAR), inputs, seconds=0.1)
    assert bad(report) == set(), str(report)
    found = by_name(report)
    assert found["the same alone and batched"].status == "pass"
    assert found["empty"].status == found["oversized"].status == "pass"
    assert "every buffer back in the pool" in found  # the last step went to its end


def test_integers_that_must_fit_each_other(serve: Made) -> None:
    """Of the requests that are made up, those that do not run are left out; past keys and lengths are guessed."""
    model = load(
        """g (float[b, s, 32] q, float[b, s, 16] k, float[b, s, 16] v, float[b, 1, p, 16] pk, float[b, 1, p, 16] pv,
              int32[b] lengths, int32 total) => (float[b, s, 32] y, float[b, 1, t, 16] nk, float[b, 1, t, 16] nv) {
            y, nk, nv = com.microsoft.GroupQueryAttention <kv_num_heads = 1, num_heads = 2>
                (q, k, v, pk, pv, lengths, total)
        }""",
        "com.microsoft",
    )
    report = diagnose(serve(model), seconds=0.1)
    assert report.failures == () or {c.name for c in report.failures} <= NOISY | BUILD, str(report)
    assert "every buffer back in the pool" in by_name(report)


# the whole


def test_closed_batcher(serve: Made) -> None:
    batcher = serve(wrap(np.tanh))
    batcher.close()
    with pytest.raises(inferkit.ClosedError):
        diagnose(batcher)


def test_a_step_that_breaks_does_not_end_the_others(serve: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(patient: Any) -> Iterator[Check]:
        raise KeyError("x")
        yield

    monkeypatch.setitem(ALL, 3, broken)
    report = examine(serve(wrap(np.tanh)), seconds=0.1)
    [check] = [check for check in report.checks if check.step == 3]
    assert (check.status, check.figure) == ("fail", "broke off with KeyError: 'x'")
    assert {check.step for check in report.checks} == set(STEPS)


def test_progress_is_told(serve: Made) -> None:
    told: list[str] = []
    diagnose(serve(wrap(np.tanh)), seconds=0.1, progress=told.append)
    assert any("step 7" in text for text in told)


def test_diagnosed_inside_a_running_loop(serve: Made) -> None:
    """The event loop that it measures is one of its own."""
    import asyncio

    async def main() -> Report:
        return diagnose(serve(wrap(np.tanh)), seconds=0.1)

    assert "loop never held" in by_name(asyncio.run(main()))


def check_of(status: Any) -> Check:
    return Check(step=1, name="n", status=status, figure="f", why="w", remedy="r")


@pytest.mark.parametrize(
    ("statuses", "status", "code"),
    [
        (["pass", "skip"], "pass", 0),
        (["pass", "warn"], "warn", 1),
        (["warn", "fail", "pass"], "fail", 2),
    ],
)
def test_report(statuses: list[Any], status: str, code: int) -> None:
    report = Report(subject="m", checks=tuple(map(check_of, statuses)), seconds=1.5)
    assert (report.status, report.exit_code) == (status, code)
    assert json.loads(json.dumps(report.to_dict()))["exit_code"] == code
    text = str(report)
    assert "1. Build profile" in text
    assert ("why: w" in text) == (code > 0)
    assert len(report.failures) == statuses.count("fail")
    assert len(report.warnings) == statuses.count("warn")
