"""A state that a worker leaves in memory for the next one."""

import os

import pytest

from citeflow.training.checkpoint import SavedState
from citeflow.training.handover import Handover

STATE = SavedState(step=7, validations=2, progress=b'{"step": 7}', tensors=b"\0\n\1" * 100)


def test_find_returns_what_was_left_last():
    handover = Handover()
    assert handover.find() is None
    handover.leave(STATE)
    handover.leave(SavedState(step=8, progress=b"{}", tensors=b"short"))
    assert handover.find() == SavedState(step=8, progress=b"{}", tensors=b"short")


def test_find_in_a_forked_process_sees_what_another_one_left():
    handover = Handover()
    if (pid := os.fork()) == 0:
        handover.leave(STATE)
        os._exit(0)
    os.waitpid(pid, 0)
    assert handover.find() == STATE


@pytest.mark.fault("F16")
@pytest.mark.parametrize("offset", [0, 30, 200])
def test_find_uses_no_state_that_is_damaged(capfd, offset):
    handover = Handover()
    handover.leave(STATE)
    os.pwrite(handover._file, b"\xff", offset)
    assert handover.find() is None
    assert "a state that was handed over is damaged" in capfd.readouterr().err


def test_leave_without_room_leaves_nothing(capfd, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    handover = Handover()
    handover.leave(STATE)
    monkeypatch.setattr(os, "pwrite", full)
    handover.leave(STATE)
    assert handover.find() is None
    assert "could not hand over its state" in capfd.readouterr().err
