"""What callers and files say, wherever inferkit writes it down."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inferkit
from inferkit import _background, diagnostics, health, tracing
from inferkit._cli import _out
from inferkit._text import field, printable

X = np.ones(2, np.float32)
PORT = [("x", "float32", (None, 2))]
# A forged line, terminal codes in ASCII and C1, a carriage return, a mark of direction, a line separator, an
# undecodable byte of a file name, and markup of rich.
NASTY = "id\nCRITICAL root forged\x1b[2J\x9b2J\r\u202etxt\u2028next[red]red[/red]"
BYTE = "\udcff"


def model(fn: Callable[..., Any] = lambda x: x * 2) -> inferkit.Model:
    return inferkit.Model.from_callable(fn, PORT, PORT)


def harmless(text: str, *, lines: bool = False) -> bool:
    """By Unicode's own categories: no control, format, surrogate or line separator."""
    allowed = "\n" if lines else ""
    return all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text if c not in allowed)


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_background, "_told", set())


def test_every_character_of_unicode_is_seen_or_escaped() -> None:
    for code in range(sys.maxunicode + 1):
        text = printable(chr(code))
        assert harmless(text), hex(code)
        assert text == chr(code) or text.startswith("\\")
        assert printable(text) == text


def test_printable_keeps_what_people_write_and_cuts_what_is_long() -> None:
    assert printable("naïve 名前 🙂 [red] C:\\x") == "naïve 名前 🙂 [red] C:\\x"
    assert printable("a\n\t\x00" + BYTE) == "a\\n\\t\\x00\\xff"
    assert printable("x" * 1001, 1000) == "x" * 1000 + "..."
    assert printable("x" * 1000, 1000) == "x" * 1000


def test_a_field_cannot_forge_another() -> None:
    assert [field(v) for v in ("a1", 7, "", "a b=c", 'say "x y"', "a\nb c")] == [
        "a1", "7", '""', '"a b=c"', '"say \\"x y\\""', '"a\\nb c"',
    ]  # fmt: skip


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[logging.LogRecord]]]:
    with caplog.at_level(logging.DEBUG, "inferkit"):
        yield lambda: [r for r in caplog.records if r.name.startswith("inferkit")]


def test_log_lines(lines: Callable[[], list[logging.LogRecord]]) -> None:
    with inferkit.Batcher(model(), name=NASTY) as batcher, tracing.log_requests(interval=0.01):
        batcher(X, request_id=NASTY)
        health.Monitor().report()
    found = lines()
    assert {"inferkit.batcher", "inferkit.request", "inferkit.health"} <= {r.name for r in found}
    for record in found:
        assert harmless(record.getMessage())
        for value in vars(record).values():
            assert not isinstance(value, str) or harmless(value), value  # formatters print attributes as well
    request = next(r for r in found if r.name == "inferkit.request")
    assert request.request_id.startswith("id\\nCRITICAL root forged")
    assert 'request_id="id\\nCRITICAL root forged' in request.getMessage()


def test_batchers_have_names_that_can_be_shown_and_told_apart() -> None:
    with (
        inferkit.Batcher(model(), name="a\n") as one,
        inferkit.Batcher(model(), name="a\\n") as two,
        inferkit.Batcher(model(), name="x" * 10_000) as long,
    ):
        assert (one.name, two.name) == ("a\\n", "a\\n-2")
        assert len(long.name) < 300
    with pytest.raises(TypeError, match="name must be a str"):
        inferkit.Batcher(model(), name=5)  # type: ignore[arg-type]


def nasty_file(tmp_path: Path, digits_path: Path) -> Path:
    path = tmp_path / f"mod\x1b[2J\n{BYTE}.onnx"
    path.write_bytes(digits_path.read_bytes())
    return path


def test_metrics_of_a_file_whose_name_is_not_utf8(tmp_path: Path, digits_path: Path) -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="needs inferkit[metrics]")
    loaded = inferkit.Model.load(nasty_file(tmp_path, digits_path))
    assert harmless(repr(loaded))
    with inferkit.Batcher(loaded) as batcher, inferkit.Batcher(model(), name=NASTY + BYTE):
        assert harmless(batcher.name)
        for accept in ("", "application/openmetrics-text; version=1.0.0", "x" * 100, ";;;=,", "text/plain;version=a"):
            text = inferkit.metrics.exposition(accept=accept)[0].decode()
            assert harmless(text, lines=True)
            assert "mod\\\\x1b[2J\\\\n\\\\xff.onnx" in text  # the format doubles backslashes
        parse = parser.text_string_to_metric_families
        assert len(list(parse(inferkit.metrics.exposition()[0].decode()))) > 10
        page = health.asgi_app()._statusz({"query_string": b""})[2].decode()  # type: ignore[attr-defined]
        assert harmless(page, lines=True)


def test_statusz_and_perfetto_and_readyz(tmp_path: Path) -> None:
    def fails(x: np.ndarray) -> np.ndarray:
        raise RuntimeError(NASTY)

    thread = threading.current_thread()
    before, thread.name = thread.name, NASTY + BYTE
    try:
        with inferkit.Batcher(model(fails), name=NASTY) as batcher:
            for _ in range(20):
                with pytest.raises(inferkit.InferenceError):
                    batcher(X, request_id=NASTY)
            tracing.export_perfetto(tmp_path / "trace.json")
            report = health.Monitor().report()
            status = importlib.import_module("inferkit.health._status").status(health.Monitor())
    finally:
        thread.name = before

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from (t for pair in value.items() for part in pair for t in texts(part))
        elif isinstance(value, (list, tuple)):
            yield from (t for part in value for t in texts(part))

    trace = json.loads((tmp_path / "trace.json").read_text())
    found = [*texts(trace), *texts(status), *report.reasons, *report.batchers]
    assert any("forged" in text for text in found)
    assert [text for text in found if not harmless(text)] == []


def test_what_a_callable_and_a_file_say_in_errors(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")

    def fails(x: np.ndarray) -> np.ndarray:
        raise RuntimeError(NASTY + BYTE)

    with pytest.raises(inferkit.InferenceError, match="CRITICAL") as caught:
        model(fails)(X)
    assert harmless(str(caught.value))
    assert "RuntimeError: id\\nCRITICAL" in str(caught.value)
    helper = onnx.helper
    value = helper.make_tensor_value_info(NASTY, 1, ["n", 2])
    for nodes in (
        [helper.make_node("Frob", [NASTY], ["y"], domain="acme\n")],
        [helper.make_node("Add", [NASTY, "none\n\x9b"], ["y"], name=NASTY)],
        [helper.make_node("Gemm", [NASTY, NASTY, NASTY, NASTY, NASTY], ["y"], name=NASTY)],
    ):
        graph = helper.make_graph(nodes, NASTY, [value], [helper.make_tensor_value_info("y", 1, ["n", 2])])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("acme\n", 1)])
        with pytest.raises(inferkit.ModelError) as refused:
            inferkit.Model.load(made.SerializeToString())
        items = str(refused.value).split("\n  - ")  # a list of ours
        assert all(harmless(item) for item in items), refused.value
    with pytest.raises(inferkit.ValidationError) as wrong:
        model().run({NASTY: X})
    assert harmless(str(wrong.value))


@pytest.mark.parametrize("rich", [False, True])
def test_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rich: bool) -> None:
    if rich:
        pytest.importorskip("rich")
        monkeypatch.delenv("INFERKIT_PLAIN", raising=False)
    out = _out.Out(plain=not rich)
    out.line(NASTY + BYTE)
    out.facts([(NASTY, NASTY)], title=NASTY)
    out.table([NASTY, ">" + NASTY], [(NASTY, BYTE)], title="[bold]" + NASTY)
    text = capsys.readouterr().out
    assert harmless(text, lines=True)
    assert "\nCRITICAL" not in text
    assert "[bold]id" in text
    assert text.count("[red]red[/red]") >= 5
    text.encode()


def test_the_command_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, digits_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inferkit._cli import main

    monkeypatch.setenv("INFERKIT_PLAIN", "1")
    assert main(["inspect", str(nasty_file(tmp_path, digits_path))]) == 0
    assert main(["inspect", str(tmp_path / NASTY)]) == 3
    assert main(["doctor", str(nasty_file(tmp_path, digits_path)), "--seconds", "0.05"]) in (0, 1, 2)
    with pytest.raises(SystemExit):
        main(["inspect", "a", NASTY + BYTE])
    out, err = capsys.readouterr()
    assert harmless(out, lines=True)
    assert harmless(err, lines=True)
    assert "\nCRITICAL" not in out + err


def test_a_ticket_and_a_batcher() -> None:
    with inferkit.Batcher(model(), name=NASTY) as batcher:
        ticket = batcher.submit(X, request_id=NASTY)
        ticket.result(60)
        assert ticket.request_id == NASTY  # what was given is what comes back
        assert harmless(repr(ticket))
        assert harmless(repr(batcher))


def test_a_report_and_a_stall() -> None:
    check = diagnostics.Check(step=6, name=NASTY, status="fail", figure=NASTY, why=NASTY, remedy=NASTY)
    text = str(diagnostics.Report(subject=NASTY, checks=(check,), seconds=1.0))
    assert harmless(text, lines=True)
    assert "\nCRITICAL" not in text
    stall = diagnostics.Stall(duration=1.0, file=NASTY, line=1, function="f", source=NASTY, stack=())
    assert harmless(str(stall))


def test_one_is_said_in_the_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file({"a": X}, tmp_path / "one.safetensors")
    assert "Weights: 1 tensor, 8 bytes" in repr(inferkit.Weights.open(tmp_path / "one.safetensors"))
    pool = inferkit.BufferPool()
    assert "BufferPool: 0 buffers out" in repr(pool)
    held = pool.acquire(64)
    assert "BufferPool: 1 buffer out" in repr(pool)
    held.release()

    model = inferkit.Model.from_callable(np.copy, inputs=PORT, outputs=[("y", "float32", (None, 2))])
    fixed = inferkit.Fixed(max_batch_size=1, max_delay=0)
    with inferkit.Batcher(model, policy=fixed, result_cache=1 << 20, cache_callables=True) as batcher:
        batcher(X)
        shown = str(batcher.stats())
    assert "up to 1 row," in shown
    assert "1 answer kept" in shown
    check = diagnostics.Check(step=1, name="a", status="pass", figure="fine", why="because")
    report = diagnostics.Report(subject="model", checks=(check,), seconds=0.1)
    assert report.summary() == "1 check in 0.1 s: 1 passed"
