"""What this machine, a cluster or the rights on it lack, and what a run on this machine ignores."""

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


def show(found: Finding, stream: TextIO | None = None) -> None:
    """Print a finding: one line, and a second one that says what to do."""
    lines = [f"{found.status:<8} {found.what}: {found.value}"]
    if found.hint:
        lines.append(f"{'':<8} hint: {found.hint}")
    print(*lines, sep="\n", file=stream or sys.stdout, flush=True)


def expect(
    holds: bool, what: str, value: object, hint: str, *, otherwise: Status = "missing"
) -> Finding:
    """A finding that is well where a condition holds, and else says what to do."""
    return Finding(
        status="ok" if holds else otherwise, what=what, value=str(value), hint="" if holds else hint
    )
