"""Row F5: a process that dies at any call of a save leaves a checkpoint that is found and whole."""

import re
import signal
from collections import Counter

import pytest

from citeflow import files
from citeflow.files import replacing
from faults.small_saves import FORKS, calls_of, copied, dies_at, left_behind, read, save, traced

CALLS = (
    *("openat", "write", "fsync", "rename", "renameat2", "unlink", "unlinkat"),
    *("mkdir", "linkat", "rmdir", "chmod"),
)

SAVES = {
    "first": [4],
    "second": [2, 4],
    "deletes another": [1, 2, 4],
    "same step": [2, 4, 4],
}
"""Steps that are saved one after the other; the process dies within the last save."""


@pytest.fixture(params=SAVES.values(), ids=SAVES)
def saves(request, tmp_path):
    """The checkpoints before a save, that save, and the states that may be found after a death."""
    *before, last = request.param
    folder, backup, after = (tmp_path / name for name in ("checkpoints", "before", "after"))
    backup.mkdir()
    for step in before:
        save(backup, step, seed=step)
    save(copied(backup, after), last, seed=9)
    return folder, backup, lambda: save(folder, last, seed=9), [read(backup), read(after)]


def find(folder, allowed):
    """Return which state is found after a death; the next attempt deletes what is unfinished."""
    found = read(folder)
    assert found in allowed
    files.delete_unfinished(folder)
    assert left_behind(folder) == []
    assert read(folder) == found
    return allowed.index(found)


def die_at_each_call(folder, backup, work, allowed):
    """Let a save die at each of its calls; returns the names of the calls and what was found."""
    copied(backup, folder)
    calls = calls_of(work)
    outcomes = []
    for turn in range(1, len(calls) + 1):
        copied(backup, folder)
        assert dies_at(turn, work), f"call {turn}, {calls[turn - 1]}, did not come"
        outcomes.append(find(folder, allowed))
    return calls, outcomes


@pytest.mark.fault("F5")
def test_death_at_any_call_leaves_the_checkpoint_before_or_the_new_one(saves):
    calls, outcomes = die_at_each_call(*saves)
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {0, 1}
    assert {"open", "write", "fsync", "mkdir", "replace"} <= set(calls)


@pytest.mark.fault("F5")
def test_death_where_names_cannot_be_swapped_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    """As on NFS: the old folder is moved away first, and the checkpoint before it stands in."""
    monkeypatch.setattr(replacing, "_exchange", lambda work, path: False)
    folder, backup = tmp_path / "checkpoints", tmp_path / "before"
    allowed = []
    for step, seed in ((2, 2), (4, 4), (4, 9)):
        save(folder, step, seed)
        allowed.append(read(folder))
        if seed == 4:
            copied(folder, backup)
    _, outcomes = die_at_each_call(folder, backup, lambda: save(folder, 4, 9), allowed)
    assert set(outcomes) == {0, 1, 2}


@FORKS
@pytest.mark.fault("F5", nightly=True)
def test_kill_at_any_system_call_leaves_the_checkpoint_before_or_the_new_one(saves, tmp_path):
    folder, backup, work, allowed = saves
    deaths = Counter()
    for call in CALLS:
        while True:
            copied(backup, folder)
            inject = f"inject={call}:signal=KILL:when={deaths[call] + 1}"
            code = traced(work, "-e", f"trace={call}", "-e", inject, out=tmp_path / "trace")
            find(folder, allowed)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            deaths[call] += 1
        assert read(folder) == allowed[1]
    assert min(deaths[name] for name in ("openat", "write", "fsync", "rename", "mkdir")) >= 1


@FORKS
@pytest.mark.fault("F5")
def test_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path):
    folder = tmp_path / "checkpoints"
    trace = tmp_path / "trace"
    assert traced(lambda: save(folder, 4), "-e", "trace=openat,fsync,/^rename", out=trace) == 0
    before, after = [], []
    for line in trace.read_text().splitlines():
        if match := re.search(r"fsync\(\d+<([^>]*)>", line):
            (after if before and before[-1] == "renamed" else before).append(match[1])
        elif match := re.search(
            r'rename.*"([^"]*/\.step-00000004\.[^"/]*)".*/step-00000004"', line
        ):
            work = match[1]
            synced = {path.removeprefix(work) for path in before if path.startswith(work)}
            before.append("renamed")
    assert synced >= {"", "/manifest.json", "/progress.json", "/state.safetensors"}
    assert str(folder) in after
