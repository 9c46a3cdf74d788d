"""The lease: numbered, held by the newest, and refused to starts without progress."""

import os
import shutil
import time

import pytest

from citeflow import files
from citeflow.errors import CorruptError, TrainingError
from citeflow.training.lease import LeaseLost, acquire

ROUNDS = 8
FORKS = pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # Python 3.12 fears for the other threads' locks


def acquire_all(folder, steps, launch="one"):
    return [acquire(folder, launch=launch, step=step).number for step in steps]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_acquire_numbers_from_one_and_records_the_start(tmp_path):
    assert acquire_all(tmp_path / "attempts", [0, 10]) == [1, 2]
    assert names(tmp_path / "attempts") == ["00001.json", "00002.json"]
    told = files.read_json(tmp_path / "attempts" / "00002.json")
    assert (told["launch"], told["step"]) == ("one", 10)
    assert abs(told["wall_time"] - time.time()) < 60


def test_assert_held_holds_for_the_newest_only(tmp_path):
    first = acquire(tmp_path, launch="one", step=0)
    first.assert_held()
    second = acquire(tmp_path, launch="two", step=0)
    second.assert_held()
    with pytest.raises(LeaseLost, match="attempt 2 has taken over from attempt 1"):
        first.assert_held()


def test_assert_held_fails_where_the_run_was_deleted(tmp_path):
    attempt = acquire(tmp_path / "attempts", launch="one", step=0)
    shutil.rmtree(tmp_path / "attempts")
    with pytest.raises(LeaseLost):
        attempt.assert_held()


@pytest.mark.fault("F10")
@pytest.mark.parametrize(
    "steps", [[0, 0, 0], [5, 5, 5], [0, 10, 20, 20, 20], [20, 10, 10], [20, 15, 10]]
)
def test_acquire_refuses_a_fourth_start_without_progress(tmp_path, steps):
    acquire_all(tmp_path, steps)
    before = names(tmp_path)
    with pytest.raises(
        TrainingError, match=f"3 attempts ended without progress beyond step: {steps[-1]}"
    ) as caught:
        acquire(tmp_path, launch="one", step=steps[-1])
    assert caught.value.exit_code == 75
    assert "the log above" in caught.value.hint
    assert names(tmp_path) == before


@pytest.mark.fault("F10")
@pytest.mark.parametrize(
    "steps", [[0, 0], [0, 0, 10, 10, 20, 20, 30], list(range(0, 200, 10)), [0, 0, 1, 1, 2]]
)
def test_acquire_allows_any_number_of_starts_with_progress(tmp_path, steps):
    acquire_all(tmp_path, steps)
    assert acquire(tmp_path, launch="one", step=steps[-1]).number == len(steps) + 1


@pytest.mark.fault("F10")
def test_acquire_counts_the_starts_of_each_launch(tmp_path):
    acquire_all(tmp_path, [5, 5, 5])
    assert acquire_all(tmp_path, [5, 5, 5], launch="two") == [4, 5, 6]
    with pytest.raises(TrainingError):
        acquire(tmp_path, launch="two", step=5)


@FORKS
@pytest.mark.fault("F20")
def test_acquire_of_two_processes_gives_two_numbers(tmp_path):
    for turn in range(ROUNDS):
        folder, (wait, go) = tmp_path / str(turn), os.pipe()
        children = [_acquire_in_a_child(folder, launch, wait, go) for launch in ("one", "two")]
        os.close(go)
        os.close(wait)
        numbers = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(numbers) == [1, 2]
        assert names(folder) == ["00001.json", "00002.json"]
        launches = {files.read_json(folder / f"{number:05d}.json")["launch"] for number in (1, 2)}
        assert launches == {"one", "two"}


def _acquire_in_a_child(folder, launch, wait, go):
    child = os.fork()
    if child:
        return child
    number = 99
    try:
        os.close(go)
        os.read(wait, 1)  # comes back when the last that could write has closed it: all at once
        number = acquire(folder, launch=launch, step=0).number
    finally:
        os._exit(number)


@pytest.mark.fault("F20")
def test_acquire_retries_on_a_stale_directory_listing(tmp_path, monkeypatch):
    """As a shared disk may show it: what another has just claimed comes into sight late."""
    acquire(tmp_path, launch="one", step=0)
    real, late = os.listdir, []

    def listdir(folder):
        late.append(folder)
        return [] if len(late) <= 3 else real(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    assert acquire(tmp_path, launch="two", step=0).number == 2
    assert files.read_json(tmp_path / "00001.json")["launch"] == "one"
    assert len(late) > 3


@pytest.mark.fault("F20")
def test_acquire_refuses_a_launch_that_was_taken_over(tmp_path):
    acquire_all(tmp_path, [0, 0])
    acquire(tmp_path, launch="two", step=0)
    before = names(tmp_path)
    for _ in range(3):
        with pytest.raises(LeaseLost, match="belongs to a later launch"):
            acquire(tmp_path, launch="one", step=100)
    assert names(tmp_path) == before
    assert acquire(tmp_path, launch="two", step=0).number == 4


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"launch": "one", "step": "0"}', "[" * 100_000]
)
def test_acquire_names_a_file_that_is_no_lease(tmp_path, content):
    files.write_text(tmp_path / "00001.json", content)
    with pytest.raises(CorruptError, match=r"00001\.json"):
        acquire(tmp_path, launch="one", step=0)


def test_acquire_ignores_other_files(tmp_path):
    for name in ("1.json", "00007.json.bak", "notes"):
        files.write_text(tmp_path / name, "mine")
    assert acquire(tmp_path, launch="one", step=0).number == 1
