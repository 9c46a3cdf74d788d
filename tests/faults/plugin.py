"""Collects, for each row of docs/faults.md, how its tests ended and the figures that they measured.

A test belongs to a row by `@pytest.mark.fault("F29")`, and hands a figure over by the fixture `figure`. Slow ones carry
`nightly=True` besides, and run by `make faults` only.
"""

import json
import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest

VARIABLE = "CITEFLOW_FAULTS"
"""Names the file that the figures are kept in, and asks for the slow tests as well."""

OWN = ("id", "passed", "of", "skipped", "seconds", "cores")
"""What a line says of every row; no figure has such a name."""


@dataclass(kw_only=True)
class Row:
    """What the tests of a row came to."""

    passed: int = 0
    of: int = 0
    """How many were to run, whether or not an interrupted session came to them."""

    skipped: int = 0
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def ran(self) -> bool:
        return self.of > 0 and self.seconds > 0

    def to_dict(self, name: str) -> dict[str, Any]:
        """The row's line: its id, how its tests ended, the cores that they had, the figures."""
        skipped = {"skipped": self.skipped} if self.skipped else {}
        ended = {"passed": self.passed, "of": self.of, **skipped, "seconds": round(self.seconds, 1)}
        return {"id": name, **ended, "cores": len(os.sched_getaffinity(0)), **self.figures}


ROWS = pytest.StashKey[dict[str, Row]]()
PASSED = pytest.StashKey[bool]()


def number(name: str) -> int:
    """The place of a row among the others: 29 of F29."""
    return int(name[1:])


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "fault(row, nightly=False): the test belongs to a row of docs/faults.md"
    )
    config.stash[ROWS] = defaultdict(Row)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Count what is to run, once `-m` and `-k` have chosen."""
    for item in items:
        for mark in item.iter_markers("fault"):
            config.stash[ROWS][mark.args[0]].of += 1
            if mark.kwargs.get("nightly") and VARIABLE not in os.environ:
                item.add_marker(pytest.mark.skip(reason="slow; `make faults` runs it"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    for mark in item.iter_markers("fault"):
        row = item.config.stash[ROWS][mark.args[0]]
        if report.skipped:
            row.of -= 1
            row.skipped += 1
            continue
        row.seconds += report.duration
        if report.when == "call":
            item.stash[PASSED] = report.passed
            row.passed += report.passed
        elif report.when == "teardown" and report.failed:
            row.passed -= item.stash.get(PASSED, False)
    return report


@pytest.fixture
def figure(request):
    """Takes figures of the test's row by name.

    Of a name that comes again, whole numbers add up, and of others the largest is kept.
    """
    (mark,) = request.node.iter_markers("fault")
    figures = request.config.stash[ROWS][mark.args[0]].figures

    def tell(**values):
        assert not set(values) & set(OWN), f"a line has these of itself: {', '.join(OWN)}"
        for name, value in values.items():
            together = (lambda one, other: one + other) if isinstance(value, int) else max
            figures[name] = together(figures[name], value) if name in figures else value

    return tell


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[ROWS]
    lines = {
        name: json.dumps(rows[name].to_dict(name))
        for name in sorted(rows, key=number)
        if rows[name].ran
    }
    if lines:
        terminalreporter.section("faults")
    for line in lines.values():
        terminalreporter.write_line(line)
    if VARIABLE in os.environ:
        _keep(config, lines)


def _keep(config, lines):
    """Put the new lines in the place of the old ones; rows that did not run stay as they were."""
    file = config.rootpath / os.environ[VARIABLE]
    kept = (
        {json.loads(line)["id"]: line for line in file.read_text().splitlines()}
        if file.exists()
        else {}
    )
    kept |= lines
    file.write_text("".join(kept[name] + "\n" for name in sorted(kept, key=number)))
