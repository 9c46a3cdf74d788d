"""docs/faults.md says what the tests measured, and every row of it has its tests."""

import ast
import json
import re

import pytest

from faults.page import TEXT, readable, render
from faults.rows import ROWS

IDS = {row.id for row in ROWS}
TRIED = {row.id for row in ROWS if row.tried}


@pytest.fixture(scope="module")
def kept(checkout):
    """The text of docs/faults.jsonl."""
    return (checkout / "docs" / "faults.jsonl").read_text()


@pytest.fixture(scope="module")
def marked(checkout):
    """The first argument of every marker `fault` of the tests, with the file."""
    files = sorted((checkout / "tests").rglob("*.py"))
    calls = [(file, node) for file in files for node in ast.walk(ast.parse(file.read_text()))]
    return [(file.name, ast.literal_eval(node.args[0])) for file, node in calls if is_marker(node)]


def is_marker(node):
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault"


def test_the_page_is_what_its_sources_make(checkout, kept):
    assert (checkout / "docs" / "faults.md").read_text() == render(kept)


def test_the_rows_are_forty_in_order():
    assert [row.id for row in ROWS] == [f"F{number}" for number in range(1, 41)]


def test_a_row_says_how_it_is_tried_or_that_it_is_not():
    assert [row.id for row in ROWS if not (row.tried or row.unproven)] == []


def test_a_promise_names_rows_that_are_tried():
    named = set(re.findall(r"F\d+", TEXT))
    assert len(named) > 5
    assert named <= TRIED


def test_a_test_belongs_to_a_row_that_is_there(marked):
    assert marked
    assert [(file, row) for file, row in marked if row not in IDS] == []


def test_a_line_belongs_to_a_row_that_is_there(kept):
    assert {json.loads(line)["id"] for line in kept.splitlines()} <= IDS


def test_every_row_that_says_how_it_is_tried_has_a_test(marked):
    assert sorted(TRIED - {row for _, row in marked}) == []


def test_every_row_that_has_tests_has_its_line(kept):
    lines = [json.loads(line) for line in kept.splitlines()]
    assert sorted(TRIED - {line["id"] for line in lines}) == []


def test_no_test_of_a_row_failed(kept):
    lines = [json.loads(line) for line in kept.splitlines()]
    assert [line["id"] for line in lines if not 0 < line["passed"] == line["of"]] == []


def test_a_page_without_figures_says_so():
    assert render("").count("| not run |") == 40


def test_a_row_shows_its_figures_in_words():
    page = render(
        '{"id": "F1", "passed": 20, "of": 20, "skipped": 1, "cores": 2, "detection_p50_s": 0.2134}\n'
    )
    (row,) = [line for line in page.splitlines() if line.startswith("| F1 |")]
    assert row.endswith("| 20 of 20 tests, 1 skipped, detection p50 0.213 s |")
    assert "a machine with 2 cores" in page


def test_a_row_whose_tests_failed_stands_out():
    assert "| **3 of 4 tests** |" in render('{"id": "F1", "passed": 3, "of": 4, "cores": 2}\n')


def test_a_bar_within_a_cell_ends_no_cell():
    page = render('{"id": "F1", "passed": 1, "of": 1, "cores": 2, "how": "a|b"}\n')
    assert r"how a\|b |" in page


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("exit_s", 0.21, "exit 0.21 s"),
        ("stop_ms", 1234.5, "stop 1,234 ms"),
        ("peak_mib", 512, "peak 512 MiB"),
        ("goodput_pct", 93.75, "goodput 93.8 %"),
        ("files_outside", 0, "files outside 0"),
        ("cuts", 1000, "cuts 1,000"),
        ("reason_told", True, "reason told true"),
    ],
)
def test_a_figure_is_told_with_its_unit(name, value, words):
    assert readable(name, value) == words
