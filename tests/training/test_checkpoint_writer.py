"""Checkpoints that are written while the training goes on."""

import threading

import pytest
import torch

from citeflow import files
from citeflow.training import checkpoint, lease
from citeflow.training.checkpoint import Snapshot
from citeflow.training.checkpoint_writer import CheckpointWriter
from citeflow.training.lease import LeaseLost

INPUTS = {"graph": "a"}


@pytest.fixture
def writer(tmp_path):
    held = lease.acquire(tmp_path / "attempts", launch="one", step=0)
    made = CheckpointWriter(tmp_path / "checkpoints", INPUTS, held)
    yield made
    made.close()


def state(step):
    tensors = {"model.weight": torch.full((2,), float(step))}
    return Snapshot(step=step, validations=0, progress=b"{}", tensors=tensors)


def test_wait_returns_when_the_state_is_on_the_disk(writer, tmp_path):
    writer.submit(state(3))
    assert writer.wait()
    found = checkpoint.read(tmp_path / "checkpoints", INPUTS)
    assert (found.step, found) == (3, state(3).to_bytes())


def test_submit_to_a_slow_disk_keeps_the_newest_state_alone(writer, tmp_path, monkeypatch):
    written, is_writing, may_go_on = [], threading.Event(), threading.Event()

    def write(folder, given, inputs):
        written.append(given.step)
        is_writing.set()
        assert may_go_on.wait(60)

    monkeypatch.setattr(checkpoint, "write", write)
    writer.submit(state(1))
    assert is_writing.wait(60)
    for step in (2, 3, 4):
        writer.submit(state(step))
    may_go_on.set()
    assert writer.wait()
    assert written == [1, 4]


@pytest.mark.fault("F17")
def test_failed_write_is_logged_and_the_next_one_counts(writer, capfd, monkeypatch):
    def full(folder, given, inputs):
        raise OSError(28, "No space left on device", "state.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", full)
        writer.submit(state(1))
        assert not writer.wait()
    assert "could not save a checkpoint step=1 why=No space left" in capfd.readouterr().err
    writer.submit(state(2))
    assert writer.wait()


@pytest.mark.fault("F20")
def test_submit_after_another_start_took_over_writes_nothing(writer, tmp_path):
    lease.acquire(tmp_path / "attempts", launch="one", step=0)
    writer.submit(state(1))
    with pytest.raises(LeaseLost, match="attempt 2 has taken over"):
        writer.wait()
    with pytest.raises(LeaseLost):
        writer.submit(state(2))
    assert files.names_in(tmp_path / "checkpoints") == []
