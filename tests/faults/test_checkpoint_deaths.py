"""Row F5: a process that dies at any call of a save leaves a checkpoint that is found and whole."""

import re
import signal
from collections import Counter

import pytest

from citeflow import files
from citeflow.files import replacing
from faults.small_saves import FORKS, calls_of, copied, dies_at, left_behind, read, save, traced

CALLS = (
    "openat",
    "write",
    "fsync",
    "rename",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "linkat",
    "rmdir",
    "chmod",
)

SAVES = {
    "the first": [4],
    "the next": [2, 4],
    "one that makes another go": [1, 2, 4],
    "over the same step": [2, 4, 4],
}
"""Steps that are saved one after the other; the process dies within the last."""


@pytest.fixture(params=SAVES)
def saves(request, tmp_path):
    """Checkpoints as they are before a save, that save, and the states that may be found whenever it is cut."""
    *before, last = SAVES[request.param]
    folder, backup, after = (tmp_path / name for name in ("checkpoints", "before", "after"))
    backup.mkdir()
    for step in before:
        save(backup, step, seed=step)
    save(copied(backup, after), last, seed=9)
    return folder, backup, lambda: save(folder, last, seed=9), (read(backup), read(after))


def find(folder, allowed):
    """What is found after a death, and that the next attempt puts all in order."""
    found = read(folder)
    assert found in allowed
    files.delete_unfinished(folder)
    assert left_behind(folder) == []
    assert read(folder) == found
    return allowed.index(found)


@pytest.mark.fault("F5")
def test_a_death_at_any_call_of_a_save_leaves_the_one_before_or_the_new_one(saves, figure):
    folder, backup, work, allowed = saves
    copied(backup, folder)
    calls = calls_of(work)
    outcomes = []
    for turn in range(1, len(calls) + 1):
        copied(backup, folder)
        assert dies_at(turn, work), f"call {turn}, {calls[turn - 1]}, did not come"
        outcomes.append(find(folder, allowed))
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {0, 1}
    assert {"open", "write", "fsync", "mkdir", "replace"} <= set(calls)
    figure(deaths=len(calls), survived=len(outcomes))


@pytest.mark.fault("F5")
def test_a_death_where_names_can_not_be_swapped_leaves_a_whole_checkpoint(
    tmp_path, monkeypatch, figure
):
    """As on NFS: what is saved again is moved away first, and the one before it stands in."""
    monkeypatch.setattr(replacing, "_exchange", lambda work, path: False)
    folder, backup = tmp_path / "checkpoints", tmp_path / "before"
    allowed = []
    for step, seed in ((2, 2), (4, 4), (4, 9)):
        save(folder, step, seed)
        allowed.append(read(folder))
        if seed == 4:
            copied(folder, backup)
    copied(backup, folder)
    calls = calls_of(lambda: save(folder, 4, 9))
    found = set()
    for turn in range(1, len(calls) + 1):
        copied(backup, folder)
        assert dies_at(turn, lambda: save(folder, 4, 9))
        found.add(find(folder, allowed))
    assert found == {0, 1, 2}
    figure(deaths=len(calls), survived=len(calls))


@FORKS
@pytest.mark.fault("F5", nightly=True)
def test_a_kill_at_any_system_call_of_a_save_leaves_the_one_before_or_the_new_one(
    saves, tmp_path, figure
):
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
    assert (
        min(deaths[call] for call in ("openat", "write", "fsync", "rename", "mkdir", "chmod")) >= 1
    )
    figure(deaths_by_strace=deaths.total(), survived_of_strace=deaths.total())


@FORKS
@pytest.mark.fault("F5")
def test_all_of_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_then_its_name_is(
    tmp_path, figure
):
    folder = tmp_path / "checkpoints"
    code = traced(
        lambda: save(folder, 4), "-e", "trace=openat,fsync,/^rename", out=tmp_path / "trace"
    )
    assert code == 0
    lines = (tmp_path / "trace").read_text().splitlines()
    (named,) = [
        place
        for place, line in enumerate(lines)
        if re.search(r'rename.*"[^"]*/step-00000004"', line)
    ]
    before, after = (
        [match[1] for line in part if (match := re.search(r"fsync\(\d+<([^>]*)>", line))]
        for part in (lines[:named], lines[named:])
    )
    work = re.search(r'"([^"]*/\.step-00000004\.[^"/]*)"', lines[named])[1]
    synced = {path.removeprefix(work) for path in before if path.startswith(work)}
    assert synced >= {"", "/manifest.json", "/progress.json", "/state.safetensors"}
    assert str(folder) in after
    figure(synced_before_its_name=4)
