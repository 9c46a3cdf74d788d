"""Rows F1 and F4: workers, torchrun or the launcher are killed within a step; the model is the same
to the bit."""

import random
import subprocess
import sys

import psutil
import pytest

from citeflow.training.preemption import LOST_PEER
from faults.disturbed_training import Fault, Training, family

LATEST_END_S = 20
POINTS = ("step", "agree", "update")
CITEFLOW = """
import sys
from citeflow.training import launch
launch.WORKER = "faults.disturbed_worker"
from citeflow.cli.main import main
sys.exit(main())
"""


def three_kills(seed):
    """A worker is killed in each of the first three attempts, the last time rank 0."""
    chosen = random.Random(seed)
    return [
        Fault(
            what="kill",
            at=chosen.choice(POINTS),
            step=chosen.randrange(10 * attempt, 10 * attempt + 9),
            rank=0 if attempt == 3 else 1,
            attempt=attempt,
        )
        for attempt in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(0, marks=pytest.mark.fault("F1")),
        *(pytest.param(seed, marks=pytest.mark.fault("F1", nightly=True)) for seed in (1, 2, 3, 4)),
    ],
)
@pytest.mark.fault("F4")
def test_kills_within_steps_change_nothing(run, undisturbed, seed):
    run.launch(*three_kills(seed))
    kills = run.events("fired", what="kill")
    assert len(kills) == 3
    assert len(run.starts) == 4
    assert run.mixed_attempts() == []
    for kill in kills:
        (other,) = run.events("left", attempt=kill["attempt"])
        assert other["rank"] != kill["rank"]
        assert run.starts[kill["attempt"]] - kill["step"] in (0, 1)
    assert run.losses["restart"] > 0
    assert undisturbed.losses["restart"] == undisturbed.losses["redone"] == 0
    run.require_as(undisturbed)
    run.require_tidy()


@pytest.mark.fault("F1", nightly=True)
def test_kill_of_both_workers_and_kill_at_an_evaluation(run, undisturbed):
    """At the evaluation the other worker computes for long, and is told by its standby."""
    both = Fault(what="kill", step=25, rank=None)
    one = Fault(what="kill", at="evaluate", step=30, attempt=2)
    other = Fault(what="pause", at="evaluate", step=30, rank=0, seconds=20, attempt=2)
    run.launch(both, one, other)
    assert len(run.events("fired", what="kill")) == 3
    assert [event["code"] for event in run.events("left", attempt=2)] == [LOST_PEER]
    assert run.starts == [0, 20, 30]
    assert run.losses["redone"] > 0
    run.require_as(undisturbed)


@pytest.mark.fault("F1", nightly=True)
def test_kill_among_three_workers(prepared, tmp_path):
    """Three workers add up in an order that two do not have: a restart must not change it."""
    whole, run = (Training(prepared, tmp_path / name, workers=3) for name in ("whole", "run"))
    whole.launch()
    run.launch(Fault(what="kill", step=15))
    assert run.starts == [0, 15]
    assert run.digest == whole.digest
    assert run.curve("history", "loss") == whole.curve("history", "loss")


@pytest.mark.fault("F1", nightly=True)
@pytest.mark.parametrize(
    "victims",
    [
        ("torchrun",),
        ("standby 0",),
        ("standby 1",),
        ("torchrun", "rank 0"),
        ("torchrun", "rank 0", "rank 1"),
    ],
    ids=" and ".join,
)
def test_kill_of_what_is_above_the_workers_changes_nothing(run, undisturbed, victims):
    """Only where both workers are killed is a step done again."""

    def kill():
        run.wait_for("fired", number=2)
        found = family()
        assert len(found) == 6
        for name in victims:
            found[name].kill()

    run.launch(Fault(what="pause", step=25, rank=None, seconds=1), meanwhile=kill)
    assert run.starts[0] == 0
    assert run.starts[1] in ((20,) if "rank 1" in victims else (25, 26))
    run.require_as(undisturbed)
    run.require_tidy()
    assert family() == {}


@pytest.mark.fault("F1", nightly=True)
def test_nothing_outlives_a_launcher_that_is_killed(prepared, tmp_path, undisturbed):
    run = Training(prepared, tmp_path)
    arguments = ["train", str(run.graph), "--run-name", run.run.name, "--workers", "2"]
    arguments += ["--data-root", str(tmp_path)]
    arguments += [argument for override in run.overrides for argument in ("--set", override)]
    with run.disturbed(Fault(what="pause", step=25, rank=None, seconds=1)):
        launcher = subprocess.Popen([sys.executable, "-c", CITEFLOW, *arguments])
    run.wait_for("fired")
    others = family(launcher.pid).values()
    launcher.kill()
    launcher.wait()
    gone, alive = psutil.wait_procs(others, timeout=LATEST_END_S)
    assert (len(gone), alive) == (6, [])
    run.launch()
    assert run.starts == [0, 26]
    run.require_as(undisturbed)
