import threading
import time

import pytest

from citeflow.utils import progress
from citeflow.utils.progress import duration, log_progress, repeating, time_left


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)


def test_log_progress_says_how_far_it_is_and_how_long_it_takes(quick, capsys):
    with log_progress("evaluate", "ranking", of=40) as counter:
        counter.done = 10
        time.sleep(0.1)
    with log_progress("preprocess", "at work"):
        time.sleep(0.1)
    err = capsys.readouterr().err
    assert "evaluate ranking seconds=0 done=10 of=40 left=0." in err
    assert "preprocess at work seconds=0\n" in err


def test_log_progress_of_short_work_says_nothing(capsys):
    with log_progress("evaluate", "ranking", of=1):
        pass
    assert capsys.readouterr().err == ""


def test_repeating_calls_once_more_where_the_block_ended_well():
    calls = []
    with repeating(lambda: calls.append(1), 100, at_end=True):
        pass
    with pytest.raises(KeyError), repeating(lambda: calls.append(2), 100, at_end=True):
        raise KeyError
    assert calls == [1]


def test_repeating_does_not_wait_for_a_call_that_hangs(monkeypatch):
    monkeypatch.setattr(progress, "JOIN_S", 0.05)
    called, wake = threading.Event(), threading.Event()

    def hang():
        called.set()
        wake.wait(20)

    with repeating(hang, 0.001):
        assert called.wait(20)
        start = time.monotonic()
    assert time.monotonic() - start < 5
    wake.set()


def test_time_left_follows_the_speed_so_far():
    assert time_left(60, 0.25) == "3 min 00 s"
    assert time_left(60, 0) == "unknown"
    assert [duration(seconds) for seconds in (5, 65, 7500)] == ["5.0 s", "1 min 05 s", "2 h 05 min"]


def test_line_interval_follows_its_variable(monkeypatch):
    monkeypatch.setenv(progress.LINE_EVERY_VARIABLE, "5")
    assert progress.line_interval_s() == 5
    monkeypatch.setenv(progress.LINE_EVERY_VARIABLE, "soon")
    assert progress.line_interval_s() in (progress.LINE_EVERY_S, progress.LINE_EVERY_ON_TERMINAL_S)
