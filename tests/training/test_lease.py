"""Attempts at a run: numbered, owned by the newest, and ended when they get nowhere."""

import os
import shutil
import time

import pytest

from citeflow import files
from citeflow.errors import CorruptError, TrainingError
from citeflow.training import lease
from citeflow.training.lease import LeaseLost, claim

ROUNDS = 20
FORKS = pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # Python 3.12 fears for the other threads' locks


def claim_all(folder, steps, launch="one"):
    return [claim(folder, launch=launch, step=step).number for step in steps]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_attempts_are_numbered_from_one_and_say_where_they_begin(tmp_path):
    assert claim_all(tmp_path / "attempts", [0, 10]) == [1, 2]
    assert names(tmp_path / "attempts") == ["00001.json", "00002.json"]
    told = files.read_json(tmp_path / "attempts" / "00002.json")
    assert (told["launch"], told["step"]) == ("one", 10)
    assert abs(told["wall_time"] - time.time()) < 60


def test_the_newest_attempt_may_write_and_no_other(tmp_path):
    first = claim(tmp_path, launch="one", step=0)
    first.assert_held()
    second = claim(tmp_path, launch="two", step=0)
    second.assert_held()
    with pytest.raises(LeaseLost, match="attempt 2 has taken over from attempt 1"):
        first.assert_held()


def test_an_attempt_whose_run_was_deleted_may_not_write(tmp_path):
    attempt = claim(tmp_path / "attempts", launch="one", step=0)
    shutil.rmtree(tmp_path / "attempts")
    with pytest.raises(LeaseLost):
        attempt.assert_held()


@pytest.mark.fault("F10")
@pytest.mark.parametrize(
    "steps", [[0, 0, 0], [5, 5, 5], [0, 10, 20, 20, 20], [20, 10, 10], [20, 15, 10]]
)
def test_three_attempts_in_a_row_without_progress_are_the_last(tmp_path, figure, steps):
    claim_all(tmp_path, steps)
    before = names(tmp_path)
    with pytest.raises(
        TrainingError, match=f"3 attempts ended without progress beyond step: {steps[-1]}"
    ) as caught:
        claim(tmp_path, launch="one", step=steps[-1])
    assert caught.value.exit_code == 75
    assert "the log above" in caught.value.hint
    assert names(tmp_path) == before
    figure(rows_of_attempts_ended=1)


@pytest.mark.fault("F10")
@pytest.mark.parametrize(
    "steps", [[0, 0], [0, 0, 10, 10, 20, 20, 30], list(range(0, 500, 10)), [0, 0, 1, 1, 2]]
)
def test_attempts_that_get_further_may_be_as_many_as_it_takes(tmp_path, figure, steps):
    claim_all(tmp_path, steps)
    assert claim(tmp_path, launch="one", step=steps[-1]).number == len(steps) + 1
    figure(rows_of_attempts_that_go_on=1)


@pytest.mark.fault("F10")
def test_another_launch_has_attempts_of_its_own(tmp_path, figure):
    claim_all(tmp_path, [5, 5, 5])
    assert claim_all(tmp_path, [5, 5, 5], launch="two") == [4, 5, 6]
    with pytest.raises(TrainingError):
        claim(tmp_path, launch="two", step=5)
    figure(rows_of_attempts_ended=1)


@FORKS
@pytest.mark.fault("F20")
def test_of_two_that_claim_at_once_each_gets_a_number_of_its_own(tmp_path, figure):
    for turn in range(ROUNDS):
        folder, (wait, go) = tmp_path / str(turn), os.pipe()
        children = [_claim_in_a_child(folder, launch, wait, go) for launch in ("one", "two")]
        os.close(go)
        os.close(wait)
        numbers = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(numbers) == [1, 2]
        assert names(folder) == ["00001.json", "00002.json"]
        launches = {files.read_json(folder / f"{number:05d}.json")["launch"] for number in (1, 2)}
        assert launches == {"one", "two"}
    figure(rounds_of_two_claims=ROUNDS, numbers_given_twice=0)


def _claim_in_a_child(folder, launch, wait, go):
    child = os.fork()
    if child:
        return child
    number = 99
    try:
        os.close(go)
        os.read(wait, 1)  # comes back when the last that could write has closed it: all at once
        number = claim(folder, launch=launch, step=0).number
    finally:
        os._exit(number)


@pytest.mark.fault("F20")
def test_one_who_sees_an_old_list_takes_the_next_number_nevertheless(tmp_path, monkeypatch, figure):
    """As a shared disk may show it: what another has just claimed comes into sight late."""
    claim(tmp_path, launch="one", step=0)
    real, late = os.listdir, []

    def listdir(folder):
        late.append(folder)
        return [] if len(late) <= 3 else real(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    assert claim(tmp_path, launch="two", step=0).number == 2
    assert files.read_json(tmp_path / "00001.json")["launch"] == "one"
    assert len(late) > 3
    figure(numbers_given_twice=0)


@pytest.mark.fault("F20")
def test_a_launch_that_was_taken_over_can_not_claim_again(tmp_path, figure):
    claim_all(tmp_path, [0, 0])
    claim(tmp_path, launch="two", step=0)
    before = names(tmp_path)
    for _ in range(3):
        with pytest.raises(LeaseLost, match="belongs to a later launch"):
            claim(tmp_path, launch="one", step=100)
    assert names(tmp_path) == before
    assert claim(tmp_path, launch="two", step=0).number == 4
    figure(claims_refused=3)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"launch": "one", "step": "0"}', "[" * 100_000]
)
def test_an_attempt_that_is_none_is_told_by_name(tmp_path, content):
    files.write_text(tmp_path / "00001.json", content)
    with pytest.raises(CorruptError, match=r"00001\.json"):
        claim(tmp_path, launch="one", step=0)


def test_what_is_no_attempt_is_not_counted(tmp_path):
    for name in ("1.json", "00007.json.bak", "notes"):
        files.write_text(tmp_path / name, "mine")
    assert claim(tmp_path, launch="one", step=0).number == 1


def test_the_limit_is_three():
    assert lease.MOST_WITHOUT_PROGRESS == 3
