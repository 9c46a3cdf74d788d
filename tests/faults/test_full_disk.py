"""Row F17: a disk that is full, fails or became read-only while a checkpoint is saved."""

import errno
import itertools
import os

import pytest

from citeflow import config, files
from citeflow.paths import RunPaths
from faults.small_saves import (
    FORKS,
    Refusing,
    SavingTrainer,
    calls_of,
    copied,
    left_behind,
    on_a_small_disk,
    read,
    save,
    take_steps,
    traced,
    watched,
)

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
NEEDED = ("open", "write", "fsync", "replace", "mkdir", "chmod")
"""Calls without which nothing is saved; those that only clean up may fail besides."""

WARNING = "could not save a checkpoint"


@pytest.mark.fault("F17")
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_failure_at_any_call_leaves_the_checkpoint_before_or_the_new_one(tmp_path, number):
    folder, backup = tmp_path / "checkpoints", tmp_path / "before"
    save(backup, 2)
    allowed = [read(backup)]
    copied(backup, folder)
    calls = calls_of(lambda: save(folder, 4))
    allowed.append(read(folder))
    errors = 0
    for turn in [turn for turn, name in enumerate(calls, start=1) if name in NEEDED]:
        copied(backup, folder)
        fault, error = Refusing(number, turn), None
        with watched(fault):
            try:
                save(folder, 4)
            except OSError as raised:
                error = raised
        assert fault.fired == 1
        assert read(folder) in (allowed if error else allowed[1:])
        assert left_behind(folder) == []
        errors += error is not None and error.errno == number
    assert errors > 25


@pytest.mark.fault("F17")
def test_training_continues_without_a_checkpoint_and_saves_when_there_is_room(tmp_path, capsys):
    training = SavingTrainer(tmp_path)
    take_steps(training, 2)
    numbers, failed = itertools.cycle(ERRORS), []

    def full(name):
        if name == "write":
            failed.append(next(numbers))
            raise OSError(failed[-1], os.strerror(failed[-1]), "state.safetensors")

    with watched(full):
        take_steps(training, 8)
    assert len(failed) == 8
    lines = [line for line in capsys.readouterr().err.splitlines() if WARNING in line]
    assert len(lines) == 8
    assert "step=3 why=No space left on device" in lines[0]
    assert read(training.run.checkpoints).step == 2
    assert left_behind(training.run.checkpoints) == []
    take_steps(training, 1)
    assert read(training.run.checkpoints).step == 11


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fill(path, free):
    """Let a file take all the room but for some bytes."""
    room = os.statvfs(path.parent)
    with path.open("wb", buffering=0) as file:
        file.write(b"x" * max(0, room.f_bavail * room.f_frsize - free))


@FORKS
@pytest.mark.fault("F17")
def test_small_disk_that_fills_up_keeps_the_checkpoint_before(tmp_path, capfd):
    """A real disk of 300 kB, with a little more room for each save."""

    def work():
        training = SavingTrainer(tmp_path)
        take_steps(training, 2)
        saved = 2
        for free in range(0, 40_000, 2_000):
            fill(tmp_path / "other", free)
            before = size_of(training.run.checkpoints)
            take_steps(training, 1)
            step = read(training.run.checkpoints).step
            assert step in (saved, training.progress.step)
            assert left_behind(training.run.checkpoints) == []
            if step == saved:
                assert size_of(training.run.checkpoints) == before
            saved = step
            (tmp_path / "other").unlink()
        take_steps(training, 1)
        assert read(training.run.checkpoints).step == training.progress.step

    assert on_a_small_disk(tmp_path, 300_000, work) == 0
    assert 3 <= capfd.readouterr().err.count(WARNING) < 20


@FORKS
@pytest.mark.fault("F17", nightly=True)
@pytest.mark.parametrize("number", ["EIO", "ENOSPC", "EROFS"])
@pytest.mark.parametrize("call", ["fsync", "write", "rename", "mkdir", "chmod"])
def test_failing_system_call_costs_one_checkpoint(tmp_path, call, number):
    trace = tmp_path / "trace"
    for turn in itertools.count(1):
        training = SavingTrainer(tmp_path / str(turn))
        take_steps(training, 1)
        inject = f"inject={call}:error={number}:when={turn}"
        code = traced(
            lambda: take_steps(training, 1),  # noqa: B023
            *("-e", f"trace={call}", "-e", inject),
            out=trace,
        )
        if "(INJECTED)" not in trace.read_text():
            break
        assert code == 0
        assert read(training.run.checkpoints).step in (1, 2)
        assert left_behind(training.run.checkpoints) == []
    assert turn > 1


@pytest.mark.fault("F17", nightly=True)
def test_training_whose_disk_is_full_for_a_while_ends_with_the_same_model(
    prepared, train_alone, tmp_path, monkeypatch, capsys
):
    overrides = [*prepared.settings, "recovery.checkpoint_steps=2", "train.epochs=2"]
    settings = config.load(overrides=overrides)
    whole = train_alone(prepared.graph, RunPaths(tmp_path, "whole"), settings)
    real, refused = files.write_manifest, []

    def write_manifest(path, *args, **kwargs):
        if len(refused) < 4 and "checkpoints" in str(path):
            refused.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, *args, **kwargs)

    capsys.readouterr()
    monkeypatch.setattr(files, "write_manifest", write_manifest)
    model = train_alone(prepared.graph, RunPaths(tmp_path, "full"), settings)
    assert capsys.readouterr().err.count(WARNING) == len(refused) == 4
    assert (model / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
