import signal
import subprocess
import sys

import pytest

from citeflow.errors import DataError
from citeflow.utils import termination_message


def test_an_error_crosses_to_another_process_with_kind_and_hint(tmp_path, monkeypatch):
    monkeypatch.setenv(termination_message.VARIABLE, str(tmp_path / "words"))
    termination_message.write(DataError("bad row", "papers.csv:3", hint="mend it"))
    error = termination_message.read(tmp_path / "words")
    assert isinstance(error, DataError)
    assert str(error) == "error: bad row: papers.csv:3\nhint: mend it"


def test_outside_a_pod_nobody_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv(termination_message.VARIABLE, raising=False)
    monkeypatch.setattr(termination_message, "OF_A_POD", tmp_path / "termination-log")
    termination_message.write(DataError("bad row"))
    assert list(tmp_path.iterdir()) == []


def test_in_a_pod_the_termination_message_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv(termination_message.VARIABLE, raising=False)
    monkeypatch.setattr(termination_message, "OF_A_POD", tmp_path / "termination-log")
    (tmp_path / "termination-log").touch()
    termination_message.write(DataError("bad row"))
    assert isinstance(termination_message.read(tmp_path / "termination-log"), DataError)


@pytest.mark.parametrize("value", ["", "7"])
def test_an_error_without_a_hint_stays_without(tmp_path, monkeypatch, value):
    monkeypatch.setenv(termination_message.VARIABLE, str(tmp_path / "words"))
    termination_message.write(DataError("bad row", value))
    assert str(termination_message.read(tmp_path / "words")) == str(DataError("bad row", value))


def test_a_step_that_is_at_work_is_no_error_and_one_that_was_killed_is(tmp_path, monkeypatch):
    monkeypatch.setenv(termination_message.VARIABLE, str(tmp_path / "words"))
    with termination_message.alive_marker():
        assert len(list(tmp_path.iterdir())) == 1
        assert termination_message.read() is None
    assert list(tmp_path.iterdir()) == []
    work = "from citeflow import lastwords; mark = lastwords.at_work(); mark.__enter__()"
    code = f"import os; {work}; os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -signal.SIGKILL
    assert "was killed" in str(termination_message.read())
