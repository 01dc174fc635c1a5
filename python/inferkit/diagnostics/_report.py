"""What a diagnosis finds."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .._text import counted, printable

__all__ = ["Check", "Report", "Status"]

Status = Literal["pass", "warn", "fail", "skip"]

STEPS = {
    1: "Build profile",
    2: "Request lifecycle",
    3: "Input validation",
    4: "Event loop",
    5: "Queue and concurrency",
    6: "Output sanity",
    7: "Memory health",
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of the list.

    Parameters
    ----------
    step : int
        1 to 7, the step of the checklist that it belongs to.
    name : str
        What was checked.
    status : {"pass", "warn", "fail", "skip"}
        ``skip`` if it does not apply to this model, or if an earlier failure made it impossible; the figure says which.
    figure : str
        What was measured.
    why : str
        Why it matters.
    remedy : str
        What to do; empty if there is nothing to do.
    """

    step: int
    name: str
    status: Status
    figure: str
    why: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All checks of one diagnosis; ``str()`` of it is text for a person.

    Parameters
    ----------
    subject : str
        What was examined.
    checks : tuple of Check
        In the order of the checklist.
    seconds : float
        How long it took.

    Examples
    --------
    >>> from inferkit.diagnostics import Check, Report
    >>> report = Report(subject="m.onnx", seconds=1.0, checks=(
    ...     Check(step=6, name="finite", status="fail", figure="3 of 32 rows hold NaN", why="...", remedy="..."),))
    >>> report.status, report.exit_code, [check.name for check in report.failures]
    ('fail', 2, ['finite'])
    """

    subject: str
    checks: tuple[Check, ...]
    seconds: float

    @property
    def status(self) -> Status:
        """The worst status of all checks."""
        found = {check.status for check in self.checks}
        return "fail" if "fail" in found else "warn" if "warn" in found else "pass"

    @property
    def exit_code(self) -> int:
        """0 if all is well, 1 if there are only warnings, 2 if something failed."""
        return {"pass": 0, "warn": 1, "fail": 2}[self.status]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == "fail")

    @property
    def warnings(self) -> tuple[Check, ...]:
        """The checks that warn."""
        return tuple(check for check in self.checks if check.status == "warn")

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, as ``doctor --json`` prints it."""
        return {
            "subject": self.subject,
            "status": self.status,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 3),
            "checks": [{"step_name": STEPS[check.step], **asdict(check)} for check in self.checks],
        }

    def summary(self) -> str:
        """Count what was found, in one line."""
        counts = {s: sum(check.status == s for check in self.checks) for s in ("pass", "warn", "fail", "skip")}
        words = {"pass": "passed", "warn": "warned", "fail": "failed", "skip": "skipped"}
        told = ", ".join(f"{counts[s]} {word}" for s, word in words.items() if counts[s])
        return f"{counted(len(self.checks), 'check')} in {self.seconds:.1f} s: {told}"

    def __str__(self) -> str:
        lines = [self.subject]
        step = 0
        for check in self.checks:
            if check.step != step:
                step = check.step
                lines += ["", f"{step}. {STEPS[step]}"]
            lines.append(f"   {check.status:<4}  {check.name}: {check.figure}")
            if check.status in ("warn", "fail"):
                for label, text in (("why", check.why), ("do", check.remedy)):
                    indent = f"         {label:>5}: "
                    lines += textwrap.wrap(text, 110, initial_indent=indent, subsequent_indent=" " * len(indent))
        return "\n".join(map(printable, [*lines, "", self.summary()]))
