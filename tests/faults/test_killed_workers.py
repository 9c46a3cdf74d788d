"""Rows F1 and F4: workers, torchrun or the launcher are killed within a step; the model is the same
to the bit."""

import random
import subprocess
import sys

import psutil
import pytest

from citeflow.errors import TrainingError
from faults.disturbed_training import BETWEEN_CHECKPOINTS, Fault, Training, family

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
        again = run.starts[kill["attempt"]]
        assert kill["step"] - again <= BETWEEN_CHECKPOINTS
    run.require_as(undisturbed)
    run.require_tidy()


@pytest.mark.fault("F1", nightly=True)
def test_kill_of_both_workers_and_kill_at_an_evaluation(run, undisturbed):
    """At the evaluation torchrun asks the other worker to stop, and then starts both again."""
    both = Fault(what="kill", step=25, rank=None)
    one = Fault(what="kill", at="evaluate", step=30, attempt=2)
    other = Fault(what="pause", at="evaluate", step=30, rank=0, seconds=20, attempt=2)
    run.launch(both, one, other)
    assert len(run.events("fired", what="kill")) == 3
    assert [event["code"] for event in run.events("left", attempt=2)] == [143]
    assert run.starts == [0, 20, 30]
    run.require_as(undisturbed)


@pytest.mark.fault("F1", nightly=True)
def test_kill_among_three_workers(prepared, tmp_path):
    """Three workers add up in an order that two do not have: a restart must not change it."""
    whole, run = (Training(prepared, tmp_path / name, workers=3) for name in ("whole", "run"))
    whole.launch()
    run.launch(Fault(what="kill", step=15))
    assert run.starts == [0, 10]
    assert run.digest == whole.digest
    assert run.curve("history", "loss") == whole.curve("history", "loss")


@pytest.mark.fault("F1", nightly=True)
def test_workers_whose_torchrun_is_killed_save_and_end(run, undisturbed):
    ended = []

    def kill():
        run.wait_for("fired")
        torchrun, *workers = family()
        torchrun.kill()
        ended.extend(psutil.wait_procs(workers, timeout=LATEST_END_S))

    with pytest.raises(TrainingError, match="-9"):
        run.launch(Fault(what="pause", step=25, rank=None, seconds=1), meanwhile=kill)
    gone, alive = ended
    assert (len(gone), alive) == (2, [])
    assert not (run.run_dir / "model").exists()
    run.launch()
    assert run.starts == [0, 26]
    run.require_as(undisturbed)


@pytest.mark.fault("F1", nightly=True)
def test_nothing_outlives_a_launcher_that_is_killed(prepared, tmp_path, undisturbed):
    run = Training(prepared, tmp_path)
    arguments = ["train", str(run.graph), "--run-name", run.run.name, "--workers", "2"]
    arguments += ["--data-root", str(tmp_path)]
    arguments += [argument for override in run.overrides for argument in ("--set", override)]
    with run.disturbed(Fault(what="pause", step=25, rank=None, seconds=1)):
        launcher = subprocess.Popen([sys.executable, "-c", CITEFLOW, *arguments])
    run.wait_for("fired")
    others = family(launcher.pid)
    launcher.kill()
    launcher.wait()
    gone, alive = psutil.wait_procs(others, timeout=LATEST_END_S)
    assert (len(gone), alive) == (3, [])
    run.launch()
    assert run.starts == [0, 26]
    run.require_as(undisturbed)
