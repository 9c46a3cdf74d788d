import signal
import subprocess
import sys

import pytest

from citeflow.errors import DataError
from citeflow.files import termination_message


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """The file that the environment names."""
    monkeypatch.setenv(termination_message.VARIABLE, str(tmp_path / "message"))
    return tmp_path / "message"


@pytest.mark.parametrize("value", ["papers.csv:3", "", "7"])
@pytest.mark.parametrize("hint", ["correct it", ""])
def test_read_gives_the_error_that_was_written(shared, value, hint):
    termination_message.write(DataError("bad row", value, hint=hint))
    for error in (termination_message.read(), termination_message.read(shared)):
        assert isinstance(error, DataError)
        assert str(error) == str(DataError("bad row", value, hint=hint))


@pytest.mark.parametrize("is_pod", [True, False])
def test_write_in_a_pod_only(tmp_path, monkeypatch, is_pod):
    path = tmp_path / "termination-log"
    monkeypatch.delenv(termination_message.VARIABLE, raising=False)
    monkeypatch.setattr(termination_message, "POD_PATH", path)
    if is_pod:
        path.touch()
    termination_message.write(DataError("bad row"))
    assert path.exists() is is_pod
    assert isinstance(termination_message.read(path), DataError if is_pod else type(None))


def test_alive_marker_of_a_killed_process_is_an_error(shared):
    with termination_message.alive_marker():
        assert len(list(shared.parent.iterdir())) == 1
        assert termination_message.read() is None
    assert list(shared.parent.iterdir()) == []
    code = "import os; from citeflow.files import termination_message as message; "
    code += "marker = message.alive_marker(); marker.__enter__(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -signal.SIGKILL
    assert "was killed" in str(termination_message.read())
