"""Interpreters that live on, each in an environment of its own: they are sent models and inputs, and give the answers.

A process for each answer would take most of the time of a test that asks for many.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]


@dataclass(frozen=True)
class Step:
    """What explain() says of a step; `ways`: why each way cannot run it, None of those that can."""

    operator: str  # without its domain
    lowering: str
    why: str
    ways: dict[str, str | None]


@dataclass(frozen=True)
class Answer:
    """The steps for the first of the inputs, and the outputs for each."""

    steps: list[Step]
    outputs: list[list[Array]]

    def step(self, operator: str) -> Step:
        return next(step for step in self.steps if step.operator == operator)


def ask(model: bytes, feeds: Sequence[Feeds], **options: Any) -> Answer:
    """The answer of this process."""
    import inferkit

    checks = inferkit.InputChecks(finite=False, non_empty=False)
    loaded = inferkit.Model.load(model, input_checks=checks, **options)
    steps = [
        Step(
            step.operator.split(".")[-1],
            step.lowering,
            step.why,
            {way.name: way.why_not for way in step.considered},
        )
        for step in loaded.explain({name: x.shape for name, x in feeds[0].items()}).steps
    ]
    return Answer(steps, [list(loaded.run(f).values()) for f in feeds])


class Worker:
    """An interpreter. What it has been sent is to be received before more is."""

    def __init__(self, **environment: str) -> None:
        self.environment = environment
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )

    def send(self, model: bytes, feeds: Sequence[Feeds], options: Sequence[dict[str, Any]]) -> None:
        assert self._process.stdin is not None
        pickle.dump((model, feeds, options), self._process.stdin)
        self._process.stdin.flush()

    def receive(self) -> list[Answer]:
        """An answer for each of the options."""
        assert self._process.stdout is not None
        found = pickle.load(self._process.stdout)
        if isinstance(found, Exception):
            raise found
        return [Answer([Step(*step) for step in steps], outputs) for steps, outputs in found]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def ask_all(
    workers: Sequence[Worker], model: bytes, feeds: Sequence[Feeds], *options: dict[str, Any]
) -> list[list[Answer]]:
    """The answers of all, who work at the same time."""
    for worker in workers:
        worker.send(model, feeds, options or ({},))
    return [worker.receive() for worker in workers]


@contextmanager
def hired(*environments: dict[str, str]) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        workers = []
        for environment in environments:
            workers.append(Worker(**environment))
            stack.callback(workers[-1].close)
        yield workers


def _work() -> None:
    commands, results = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            model, feeds, options = pickle.load(commands)
        except EOFError:
            return
        found: Any
        try:
            answers = [ask(model, feeds, **some) for some in options]
            # As tuples: the class is that of another module there.
            found = [([(s.operator, s.lowering, s.why, s.ways) for s in a.steps], a.outputs) for a in answers]
        except Exception as error:
            found = error
        pickle.dump(found, results)
        results.flush()


if __name__ == "__main__":
    _work()
