"""Diagnose what this machine, a cluster or the rights on it lack for a run."""

import sys
from dataclasses import dataclass
from typing import Literal, TextIO

Status = Literal["ok", "note", "warning", "missing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The outcome of one check."""

    status: Status
    """`missing`: it will not work; `warning`: it may not, or not well; `note`: nothing to judge."""

    what: str
    value: str
    hint: str = ""
    """What to do about it."""


def show(finding: Finding, stream: TextIO | None = None) -> None:
    """Print a finding: one line, and a second one with the hint."""
    lines = [f"{finding.status:<8} {finding.what}: {finding.value}"]
    if finding.hint:
        lines.append(f"{'':<8} hint: {finding.hint}")
    print(*lines, sep="\n", file=stream or sys.stdout, flush=True)


def expect(
    holds: bool, what: str, value: object, hint: str, *, otherwise: Status = "missing"
) -> Finding:
    """Return a finding that is `ok` where a condition holds, and has a hint elsewhere."""
    return Finding(
        status="ok" if holds else otherwise, what=what, value=str(value), hint="" if holds else hint
    )
