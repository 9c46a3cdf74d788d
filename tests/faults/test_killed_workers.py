"""Workers, torchrun and the launcher are killed within a step: the same model comes out, to the bit."""

import random
import statistics
import subprocess
import sys

import psutil
import pytest

from citeflow.errors import TrainingError
from faults.disturbed_training import BETWEEN_CHECKPOINTS, STEPS, Fault, Training, family

LATEST_END_S = 20
PLACES = ("step", "agree", "update")
CITEFLOW = """
import sys
from citeflow.training import launch
launch.WORKER = "faults.disturbed_worker"
from citeflow.cli import main
sys.exit(main())
"""


def measured(run, figure, kills):
    """Require that the kills happened and cost no more than they may; hand the figures over."""
    redone, detection_s, restart_s = zip(*run.kills(), strict=True)
    assert len(redone) == kills
    assert max(redone) <= BETWEEN_CHECKPOINTS
    figure(kills=kills, steps_redone_max=float(max(redone)))
    figure(detection_max_s=round(max(detection_s), 2), restart_max_s=round(max(restart_s), 1))
    return detection_s, restart_s


@pytest.fixture(scope="module")
def killed(prepared, tmp_path_factory):
    """A training that lost a worker in each of its first three attempts, the last time rank 0."""
    run = Training(prepared, tmp_path_factory.mktemp("killed") / "run")
    chosen = random.Random(0)
    kills = [
        Fault(
            what="kill",
            place=place,
            step=chosen.randrange(10 * attempt, 10 * attempt + 9),
            attempt=attempt,
        )
        for attempt, place in enumerate(PLACES[:2], start=1)
    ]
    run.launch(
        *kills, Fault(what="kill", place="agree", step=chosen.randrange(32, 39), rank=0, attempt=3)
    )
    return run


@pytest.mark.fault("F1")
def test_a_training_whose_workers_are_killed_within_steps_makes_the_model_of_an_undisturbed_one(
    killed, undisturbed, figure
):
    measured(killed, figure, kills=3)
    killed.require_as(undisturbed)
    killed.require_tidy()
    figure(identical=1, runs=1)


@pytest.mark.fault("F4")
def test_where_rank_0_dies_all_leave_and_no_two_attempts_mix(killed, undisturbed, figure):
    (kill,) = killed.events("fired", what="kill", rank=0)
    (other,) = killed.events("left", rank=1, attempt=kill["attempt"])
    assert len(killed.starts) == 4
    assert len(killed.events("began")) == 2 * 4
    assert killed.mixed_attempts() == []
    killed.require_as(undisturbed)
    figure(mixed_attempts=0, others_left_after_s=round(other["at"] - kill["at"], 2))


@pytest.fixture(scope="module")
def seconds():
    """Seconds until the others left and until all went on, of all seeds so far."""
    return [], []


@pytest.mark.fault("F1", nightly=True)
@pytest.mark.parametrize("seed", range(20))
def test_a_kill_of_rank_1_at_any_step_changes_nothing(run, undisturbed, figure, seconds, seed):
    chosen = random.Random(seed)
    run.launch(Fault(what="kill", place=chosen.choice(PLACES), step=chosen.randrange(1, STEPS)))
    for all_s, some_s in zip(seconds, measured(run, figure, kills=1), strict=True):
        all_s.extend(some_s)
    run.require_as(undisturbed)
    run.require_tidy()
    figure(identical=1, runs=1)
    if seed == 19:
        detection_s, restart_s = map(statistics.median, seconds)
        figure(detection_p50_s=round(detection_s, 2), restart_p50_s=round(restart_s, 1))


@pytest.mark.fault("F1", nightly=True)
def test_where_a_worker_is_killed_at_an_evaluation_the_other_ends_no_training(
    run, undisturbed, figure
):
    """It is asked to stop by torchrun, which then starts both again."""
    other = Fault(what="pause", place="evaluate", step=30, rank=0, seconds=20)
    run.launch(Fault(what="kill", place="evaluate", step=30), other)
    assert len(run.events("fired")) == 2
    assert [told["code"] for told in run.events("left", attempt=1)] == [143]
    assert run.starts == [0, 30]
    run.require_as(undisturbed)
    figure(identical=1, runs=1, kills=1)


@pytest.mark.fault("F1", nightly=True)
def test_where_both_workers_are_killed_all_start_again(run, undisturbed, figure):
    run.launch(Fault(what="kill", step=25, rank=None))
    assert len(run.events("fired", what="kill")) == 2
    assert run.starts == [0, 20]
    run.require_as(undisturbed)
    figure(identical=1, runs=1, kills=2)


@pytest.mark.fault("F1", nightly=True)
def test_workers_whose_torchrun_is_killed_save_and_end(run, undisturbed, figure):
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
    figure(identical=1, runs=1, kills=1)


@pytest.mark.fault("F1", nightly=True)
def test_nothing_outlives_a_launcher_that_is_killed(prepared, tmp_path, undisturbed, figure):
    run = Training(prepared, tmp_path / "runs" / "r")
    run.run_dir.parent.mkdir()
    settings = [argument for override in run.overrides for argument in ("--set", override)]
    arguments = [
        "train",
        str(run.graph),
        "--run-name",
        "r",
        "--workers",
        "2",
        "--data-root",
        str(tmp_path),
    ]
    with run.disturbed(Fault(what="pause", step=25, rank=None, seconds=1)):
        launcher = subprocess.Popen([sys.executable, "-c", CITEFLOW, *arguments, *settings])
    run.wait_for("fired")
    others = family(launcher.pid)
    launcher.kill()
    launcher.wait()
    gone, alive = psutil.wait_procs(others, timeout=LATEST_END_S)
    assert (len(gone), alive) == (3, [])
    run.launch()
    assert run.starts == [0, 26]
    run.require_as(undisturbed)
    figure(identical=1, runs=1, kills=1)
