"""Row F17: a disk that is full, fails or became read-only while a checkpoint is saved."""

import errno
import itertools
import os

import pytest

from citeflow import files
from faults.small_saves import (
    FORKS,
    calls_of,
    copied,
    go_on,
    left_behind,
    on_a_small_disk,
    read,
    refusing,
    save,
    told,
    traced,
    training_on,
)

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
NEEDED = ("open", "write", "fsync", "replace", "mkdir", "chmod")
"""Calls without which nothing is saved; what only cleans up may fail besides."""


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.fault("F17")
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_a_failure_at_any_call_of_a_save_is_told_and_leaves_the_one_before_or_the_new_one(
    tmp_path, figure, number
):
    folder, backup = tmp_path / "checkpoints", tmp_path / "before"
    save(backup, 2)
    allowed = [read(backup)]
    copied(backup, folder)
    calls = calls_of(lambda: save(folder, 4))
    allowed.append(read(folder))
    fatal, needed = 0, [turn for turn, name in enumerate(calls, start=1) if name in NEEDED]
    for turn in needed:
        copied(backup, folder)
        fault, error = refusing(number, turn), None
        with told(fault):
            try:
                save(folder, 4)
            except OSError as raised:
                error = raised
        assert fault.fired == 1
        assert read(folder) in (allowed if error else allowed[1:])
        assert left_behind(folder) == []
        fatal += error is not None and error.errno == number
    assert fatal > 25
    figure(failures=len(needed), lost_checkpoints=0, leftover_bytes=0)


@pytest.mark.fault("F17")
def test_a_training_goes_on_without_a_checkpoint_and_saves_again_when_there_is_room(
    tmp_path, capsys, figure
):
    training = training_on(tmp_path)
    go_on(training, 2)
    numbers, failed = itertools.cycle(ERRORS), []

    def full(name):
        if name == "write":
            failed.append(next(numbers))
            raise OSError(failed[-1], os.strerror(failed[-1]), "state.safetensors")

    with told(full):
        go_on(training, 8)
    assert len(failed) == 8
    lines = [
        line
        for line in capsys.readouterr().err.splitlines()
        if "could not save a checkpoint" in line
    ]
    assert len(lines) == 8
    assert "step=3 why=No space left on device" in lines[0]
    assert read(training.checkpoints).step == 2
    assert left_behind(training.checkpoints) == []
    go_on(training, 1)
    assert read(training.checkpoints).step == 11
    figure(failures=len(failed), lost_checkpoints=0, leftover_bytes=0)


@FORKS
@pytest.mark.fault("F17")
def test_on_a_small_disk_that_fills_up_the_checkpoint_before_stays_and_the_next_comes_when_there_is_room(
    tmp_path, capfd, figure
):
    """A real one, of 300 kB, with what is left over filled byte by byte more each time."""

    def work():
        training = training_on(tmp_path)
        go_on(training, 2)
        saved = 2
        for free in range(0, 40_000, 2_000):
            fill(tmp_path / "other", free)
            before = size_of(training.checkpoints)
            go_on(training, 1)
            step = read(training.checkpoints).step
            assert step in (saved, training.progress.step)
            assert left_behind(training.checkpoints) == []
            if step == saved:
                assert size_of(training.checkpoints) == before
            saved = step
            (tmp_path / "other").unlink()
        go_on(training, 1)
        assert read(training.checkpoints).step == training.progress.step

    assert on_a_small_disk(tmp_path, 300_000, work) == 0
    failures = capfd.readouterr().err.count("could not save a checkpoint")
    assert 3 <= failures < 20
    figure(failures_of_a_real_disk=failures, lost_checkpoints=0, leftover_bytes=0)


def fill(path, free):
    """Let a file take all the room but for some bytes."""
    room = os.statvfs(path.parent)
    with path.open("wb", buffering=0) as file:
        file.write(b"x" * max(0, room.f_bavail * room.f_frsize - free))


@FORKS
@pytest.mark.fault("F17", nightly=True)
@pytest.mark.parametrize("number", ["EIO", "ENOSPC", "EROFS"])
@pytest.mark.parametrize("call", ["fsync", "write", "rename", "mkdir", "chmod"])
def test_a_system_call_that_fails_costs_one_checkpoint_and_no_more(
    tmp_path, capfd, figure, call, number
):
    failures = 0
    while True:
        folder = tmp_path / str(failures)
        training = training_on(folder)
        go_on(training, 1)
        inject = f"inject={call}:error={number}:when={failures + 1}"
        watched = f"trace={call}"
        code = traced(
            lambda: os._exit(save_one(training)),  # noqa: B023
            "-e",
            watched,
            "-e",
            inject,
            out=tmp_path / "trace",
        )
        if "(INJECTED)" not in (tmp_path / "trace").read_text():
            break
        failures += 1
        assert code == 0
        assert read(training.checkpoints).step in (1, 2)
    assert failures >= 1
    figure(failures_by_strace=failures, lost_checkpoints=0, leftover_bytes=0)


def save_one(training):
    """Save once more; returns 0 if nothing half made is left and a checkpoint is found."""
    go_on(training, 1)
    return int(
        bool(left_behind(training.checkpoints)) or read(training.checkpoints).step not in (1, 2)
    )


@pytest.mark.fault("F17", nightly=True)
def test_a_training_whose_disk_is_full_for_a_while_ends_with_the_same_model(
    prepared, train_alone, tmp_path, monkeypatch, capsys, figure
):
    from citeflow import config

    settings = config.load(
        overrides=[*prepared.settings, "recovery.checkpoint_steps=2", "train.epochs=2"]
    )
    whole = train_alone(prepared.graph, tmp_path / "whole", tmp_path / "logs" / "whole", settings)
    real, refused = files.save_tensors, []

    def save_tensors(path, tensors):
        if len(refused) < 4 and "checkpoints" in str(path):
            refused.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, tensors)

    capsys.readouterr()
    monkeypatch.setattr(files, "save_tensors", save_tensors)
    model = train_alone(prepared.graph, tmp_path / "full", tmp_path / "logs" / "full", settings)
    assert len(refused) == 4
    assert capsys.readouterr().err.count("could not save a checkpoint") == 4
    assert (model / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    figure(failures=len(refused), lost_checkpoints=0, leftover_bytes=0)
