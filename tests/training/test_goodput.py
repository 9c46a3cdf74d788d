"""The account of a training's wall time, with a clock that the tests set."""

import contextlib
import os

import pytest

from citeflow.paths import RunPaths
from citeflow.reporting import formatting
from citeflow.reporting.tensorboard import RunLog
from citeflow.training import goodput
from citeflow.training.checkpoint import Progress
from citeflow.training.goodput import CAUSES, Attempt, Goodput, book_lost, read_attempts
from citeflow.training.launch import WorkerJob, write_job

ZERO = dict.fromkeys(CAUSES, 0.0)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def progress_of(spent_at=0.0, **spent):
    return Progress(spent={**ZERO, **spent}, spent_at=spent_at)


def lost(since=0.0, *, launched_at, now, attempts=()):
    spent, cause = book_lost(
        progress_of(since, steps=50.0),
        launched_at=launched_at,
        attempts=[Attempt(began=began, last_sign=last) for began, last in attempts],
        now=now,
    )
    assert spent.pop("steps") == 50
    return {name: seconds for name, seconds in spent.items() if seconds}, cause


def test_account_has_every_moment_once():
    clock = Clock(1000.0)
    progress = progress_of(1000.0)
    account = Goodput(progress, "start", clock=clock)
    clock.now = 1007.0
    account.switch("steps")
    for _ in range(4):
        clock.now += 0.5
        with account.measure("waiting"):
            clock.now += 0.25
    with account.measure("validation"):
        clock.now += 3
        with account.measure("checkpoint"):
            clock.now += 2
        clock.now += 1
    account.switch("validation")
    clock.now += 5
    account.switch("validation")
    assert {name: seconds for name, seconds in progress.spent.items() if seconds} == {
        "start": 7,
        "steps": 2,
        "waiting": 1,
        "validation": 9,
        "checkpoint": 2,
    }
    assert progress.spent_at == clock.now == 1000 + sum(progress.spent.values())
    assert goodput.ratio(progress.spent) == pytest.approx(2 / 21)
    assert goodput.losses(progress.spent).keys() == formatting.LOSSES.keys()


def test_account_leaves_a_block_that_fails_to_the_next_attempt():
    clock = Clock(10.0)
    progress = progress_of(10.0)
    account = Goodput(progress, "steps", clock=clock)
    clock.now = 12.0
    with contextlib.suppress(OSError), account.measure("validation"):
        clock.now = 15.0
        raise OSError("lost peer")
    assert (progress.spent["steps"], progress.spent["validation"]) == (2, 0)
    assert progress.spent_at == 12


def test_account_books_nothing_of_a_clock_that_goes_back():
    clock = Clock(12.0)
    progress = progress_of(12.0)
    account = Goodput(progress, "steps", clock=clock)
    clock.now = 11.0
    account.switch("validation")
    clock.now = 13.0
    account.switch("steps")
    assert (progress.spent["steps"], progress.spent["validation"]) == (0, 1)


def test_first_start_is_a_start_from_the_launch():
    assert lost(launched_at=100.0, now=108.0) == ({"start": 8}, "start")


def test_kill_loses_the_steps_since_the_state_and_the_restart():
    attempts = [(105.0, 150.0)]
    expected = ({"redone": 20, "restart": 6}, "restart")
    assert lost(130.0, launched_at=100.0, now=156.0, attempts=attempts) == expected


def test_state_that_survivors_hand_over_loses_no_step():
    attempts = [(105.0, 149.9)]
    expected = ({"restart": 6}, "restart")
    assert lost(150.0, launched_at=100.0, now=156.0, attempts=attempts) == expected


def test_attempts_without_a_state_lose_their_steps_and_all_restarts():
    attempts = [(105.0, 111.0), (118.0, 130.0)]
    expected = ({"start": 5, "redone": 18, "restart": 17}, "restart")
    assert lost(launched_at=100.0, now=140.0, attempts=attempts) == expected
    attempts = [(90.0, 120.0), (126.0, 130.0)]
    expected = ({"redone": 14, "restart": 16}, "restart")
    assert lost(110.0, launched_at=80.0, now=140.0, attempts=attempts) == expected


def test_time_between_two_launches_is_no_loss():
    day = 86_400.0
    assert lost(150.0, launched_at=day, now=day + 7) == ({"start": 7}, "start")
    killed = [(105.0, 160.0)]
    expected = ({"redone": 10, "start": 7}, "start")
    assert lost(150.0, launched_at=day, now=day + 7, attempts=killed) == expected


def test_fresh_start_forgets_an_earlier_launch_without_a_state():
    expected = ({"start": 7}, "start")
    assert lost(launched_at=500.0, now=507.0, attempts=[(105.0, 160.0)]) == expected


def test_clocks_of_other_machines_give_no_negative_time():
    """A disk whose clock is ahead, and a state of a machine whose clock is ahead."""
    assert lost(130.0, launched_at=100.0, now=140.0, attempts=[(150.0, 160.0)]) == (
        {"restart": 10},
        "restart",
    )
    assert lost(200.0, launched_at=100.0, now=140.0) == ({}, "restart")


def test_read_attempts_finds_those_that_lived_after_a_moment(tmp_path):
    for last_sign in (1_000_000_100, 1_000_000_200):
        log = RunLog(tmp_path, purge_step=None)
        log.step({"step": 1, "wall_time": 1.0, "loss": 1.0, "lr": 1.0, "positives_per_s": 1.0})
        log.close()
        newest = sorted(tmp_path.iterdir())[-1]
        os.utime(newest, (last_sign, last_sign))
    (found,) = read_attempts(tmp_path, since=1_000_000_150.0)
    assert found.last_sign == 1_000_000_200
    assert found.began > 1_700_000_000
    assert read_attempts(tmp_path / "none", since=0.0) == []


def test_resume_counts_from_the_launch_or_where_none_is_known_from_now(group, tmp_path):
    run = RunPaths(tmp_path, "r")
    progress = Progress()
    account = goodput.resume(progress, run, group)
    assert progress.spent == ZERO
    write_job(WorkerJob(data=tmp_path, data_root=tmp_path, run="r", config={}))
    account = goodput.resume(progress, run, group)
    account.switch("steps")
    assert progress.spent["start"] > 0
    assert {name for name, seconds in progress.spent.items() if seconds} == {"start"}
