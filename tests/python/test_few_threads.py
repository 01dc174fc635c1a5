"""Where the system gives no more threads, those that there are do the work; where it gives none, the error says so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

Fresh = Callable[..., "subprocess.CompletedProcess[str]"]

# The limit counts all threads of a user, and binds no root: there the child becomes a user who has no others.
SCRIPT = """
import asyncio, os, resource
import numpy as np, inferkit
from inferkit.diagnostics._patient import Limits
from inferkit.diagnostics._steps.queue import standing
model = inferkit.Model.load({path!r}, threads=4)
images = np.random.default_rng(0).random((300, 64), np.float32)
whole = model(images)
if os.geteuid() == 0:
    os.setuid(61_317)
    others = 0
else:
    others = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{{process}}").st_uid == os.geteuid() and int(process) != os.getpid():
                others += len(os.listdir(f"/proc/{{process}}/task"))
        except OSError:
            pass  # it has ended
own = len(os.listdir("/proc/self/task"))
resource.setrlimit(resource.RLIMIT_NPROC, (own + others + {more}, own + others + {more}))
try:
    with inferkit.Batcher(model, workers=6, max_batch_size=8) as batcher:
        started = len(os.listdir("/proc/self/task")) - own
        answers = [ticket.result() for ticket in [batcher.submit(image) for image in images]]
        assert np.array_equal(answers, whole)
        stats = batcher.stats()
        assert (stats.workers, stats.workers_missing) == (started, 6 - started), stats
        assert (f", {{started}} of 6 workers" in str(stats)) == (started < 6), str(stats)
        found = [c for c in standing(stats, Limits()) if c.name == "all workers started"]
        if started < 6:
            assert found[0].status == "warn" and f"{{started}} of 6 workers" in found[0].figure, found
        else:
            assert not found
    async def main():
        async with inferkit.Batcher(model, workers=6) as batcher:
            return await asyncio.gather(*(batcher.submit(image) for image in images))
    assert np.array_equal(asyncio.run(main()), whole)
    assert np.array_equal(model(images), whole)
    print("started", started)
except OSError as error:
    print("refused", error)
"""


def said(fresh_python: Fresh, path: Path, more: int) -> list[str]:
    done = fresh_python(SCRIPT.format(path=str(path), more=more))
    return done.stdout.split(maxsplit=1) or ["failed", done.stderr]


def test_fewer_workers_than_are_asked_for(fresh_python: Fresh, digits_path: Path) -> None:
    what, detail = said(fresh_python, digits_path, 2)
    assert what == "started", detail
    if os.geteuid() == 0:  # other processes of a user come and go
        assert int(detail) == 2


OTHERS = """
import asyncio, os, resource, tempfile
import inferkit
from inferkit import diagnostics, metrics, top, tracing
batcher = inferkit.Batcher(inferkit.Model.load({path!r}), workers=1)
if os.geteuid() == 0:
    os.setuid(61_318)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))

async def watch():
    with diagnostics.watch_loop():
        pass

with tempfile.TemporaryDirectory() as folder:
    os.environ["XDG_RUNTIME_DIR"] = folder
    for start in (
        lambda: metrics.share(folder),
        top.serve,
        tracing.log_requests,
        lambda: asyncio.run(watch()),
    ):
        try:
            start()
        except OSError as error:
            print(error)
print(max(str(diagnostics.diagnose(batcher, seconds=0.1)).splitlines(), key=lambda line: "no thread" in line))
"""


def test_other_threads_say_so_too(fresh_python: Fresh, digits_path: Path) -> None:
    done = fresh_python(OTHERS.format(path=str(digits_path)))
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stdout + done.stderr
    assert all("no thread could be started for" in line and "ulimit -u" in line for line in lines), lines


def test_no_worker_at_all(fresh_python: Fresh, digits_path: Path) -> None:
    what, detail = said(fresh_python, digits_path, -1)
    assert what == "refused", detail
    assert "no thread could be started for the batcher" in detail
    assert "ulimit -u" in detail
