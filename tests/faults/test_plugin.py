"""What the plugin that collects figures does with small test files of their own."""

import json

import pytest

from faults.plugin import VARIABLE

pytest_plugins = "pytester"


@pytest.fixture
def lines(pytester, monkeypatch):
    """Runs a test file with the plugin and gives the lines that it keeps, by id."""
    file = pytester.path / "faults.jsonl"
    monkeypatch.setenv(VARIABLE, str(file))

    def run(text, *arguments, before=""):
        file.write_text(before)
        pytester.makepyfile(f"import pytest\n{text}")
        pytester.runpytest_inprocess("-p", "faults.plugin", "-p", "no:cacheprovider", *arguments)
        return {line["id"]: line for line in map(json.loads, file.read_text().splitlines())}

    return run


def test_a_row_counts_its_tests_and_those_that_passed(lines):
    found = lines("""
pytestmark = pytest.mark.fault("F7")
@pytest.mark.parametrize("number", range(3))
def test_holds(number): assert number != 1
@pytest.fixture
def broken(): raise OSError
def test_cannot_begin(broken): pass
@pytest.fixture
def left(): yield; raise OSError
def test_leaves_something(left): pass
""")
    assert [(found["F7"][key]) for key in ("passed", "of")] == [2, 5]
    assert found["F7"]["seconds"] >= 0
    assert found["F7"]["cores"] >= 1


def test_whole_numbers_add_up_and_of_others_the_largest_is_kept(lines):
    found = lines("""
@pytest.mark.fault("F23")
@pytest.mark.parametrize(("cut", "wait"), [(3, 0.5), (4, 0.25)])
def test_holds(figure, cut, wait): figure(cuts=cut, wait_s=wait)
@pytest.mark.fault("F24")
def test_fails(figure):
    figure(cuts=1)
    assert False
""")
    assert (found["F23"]["cuts"], found["F23"]["wait_s"]) == (7, 0.5)
    assert (found["F24"]["cuts"], found["F24"]["passed"]) == (1, 0)


def test_a_figure_takes_no_name_that_a_line_has_of_itself(lines):
    found = lines("""
@pytest.mark.fault("F1")
def test_holds(figure): figure(of=20)
""")
    assert [(found["F1"][key]) for key in ("passed", "of")] == [0, 1]


def test_rows_that_did_not_run_keep_their_lines_and_all_are_in_order(lines):
    before = '{"id": "F2", "passed": 1, "of": 1}\n{"id": "F10", "passed": 1, "of": 1, "old": 1}\n'
    found = lines('@pytest.mark.fault("F10")\ndef test_holds(figure): figure(new=1)', before=before)
    assert list(found) == ["F2", "F10"]
    assert found["F2"] == {"id": "F2", "passed": 1, "of": 1}
    assert found["F10"]["new"] == 1
    assert "old" not in found["F10"]


def test_tests_that_were_not_chosen_do_not_count(lines):
    text = '@pytest.mark.fault("F1")\ndef test_one(): pass\n@pytest.mark.fault("F1")\ndef test_two(): pass'
    assert lines(text, "-k", "one")["F1"]["of"] == 1


def test_an_interrupted_row_shows_what_was_left_undone_and_rows_not_begun_are_kept(lines):
    found = lines(
        """
@pytest.mark.fault("F1")
def test_one(): pass
@pytest.mark.fault("F1")
def test_two(): pytest.exit("stopped")
@pytest.mark.fault("F3")
def test_three(): pass
""",
        before='{"id": "F3", "passed": 4, "of": 4}\n',
    )
    assert [(found["F1"][key]) for key in ("passed", "of")] == [1, 2]
    assert found["F3"] == {"id": "F3", "passed": 4, "of": 4}


def test_what_is_skipped_is_told_and_a_row_of_which_nothing_ran_is_not_written(lines):
    found = lines("""
@pytest.mark.fault("F5")
def test_runs(): pass
@pytest.mark.fault("F5")
def test_waits(): pytest.skip("no strace")
@pytest.mark.fault("F6")
def test_waits_too(): pytest.skip("no strace")
""")
    assert [(found["F5"][key]) for key in ("passed", "of", "skipped")] == [1, 1, 1]
    assert "F6" not in found


NIGHTLY = '@pytest.mark.fault("F9", nightly=True)\ndef test_storm(): pass'


def test_slow_tests_are_skipped_with_the_command_that_runs_them(pytester, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    pytester.makepyfile(f"import pytest\n{NIGHTLY}")
    result = pytester.runpytest_inprocess("-p", "faults.plugin", "-p", "no:cacheprovider", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines("*slow; `make faults` runs it*")
    assert list(pytester.path.glob("*.jsonl")) == []


def test_slow_tests_run_where_the_file_is_named(lines):
    assert lines(NIGHTLY)["F9"]["passed"] == 1
