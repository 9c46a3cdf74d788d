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


@dataclass(kw_only=True)
class Row:
    """What the tests of a row came to."""

    passed: int = 0
    of: int = 0
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)

    def to_dict(self, name: str) -> dict[str, Any]:
        return {"id": name, "passed": self.passed, "of": self.of, "seconds": round(self.seconds, 1), **self.figures}


ROWS = pytest.StashKey[dict[str, Row]]()


def pytest_configure(config):
    config.addinivalue_line("markers", "fault(row, nightly=False): the test belongs to a row of docs/faults.md")
    config.stash[ROWS] = defaultdict(Row)


def pytest_collection_modifyitems(items):
    if VARIABLE in os.environ:
        return
    for item in items:
        if any(mark.kwargs.get("nightly") for mark in item.iter_markers("fault")):
            item.add_marker(pytest.mark.skip(reason="slow; `make faults` runs it"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    for mark in item.iter_markers("fault"):
        if not report.skipped:
            row = item.config.stash[ROWS][mark.args[0]]
            row.seconds += report.duration
            row.of += report.when == "call" or (report.when == "setup" and report.failed)
            row.passed += report.when == "call" and report.passed
    return report


@pytest.fixture
def figure(request):
    """Takes figures of the test's row by name.

    Of a name that comes again, whole numbers add up, and of others the largest is kept.
    """
    (mark,) = request.node.iter_markers("fault")
    figures = request.config.stash[ROWS][mark.args[0]].figures

    def tell(**values):
        for name, value in values.items():
            together = (lambda one, other: one + other) if isinstance(value, int) else max
            figures[name] = together(figures[name], value) if name in figures else value

    return tell


def pytest_terminal_summary(terminalreporter, config):
    lines = {name: json.dumps(row.to_dict(name)) for name, row in config.stash[ROWS].items() if row.of}
    if lines:
        terminalreporter.section("faults")
    for name in sorted(lines, key=lambda name: int(name[1:])):
        terminalreporter.write_line(lines[name])
    if VARIABLE in os.environ:
        _keep(config, lines)


def _keep(config, lines):
    """Put the new lines in the place of the old ones; rows that did not run stay as they were."""
    file = config.rootpath / os.environ[VARIABLE]
    kept = {json.loads(line)["id"]: line for line in file.read_text().splitlines()} if file.exists() else {}
    kept |= lines
    file.write_text("".join(kept[name] + "\n" for name in sorted(kept, key=lambda name: int(name[1:]))))
