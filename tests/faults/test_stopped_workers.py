"""SIGTERM in every phase: the workers save if there is anything new, end soon, and leave nothing half-written."""

import os
import signal
import time

import psutil
import pytest

from citeflow.errors import StoppedError
from faults.disturbed_training import Fault, family

LATEST_END_S = 20
IN_STEP = Fault(what="pause", step=25, rank=None, seconds=1)


def stop(run, figure, *faults, wait_for, then_s=0.0, times=1):
    """Train until a fault has fired, and stop the launcher then, which is this process; returns the error.

    All processes are gone in time, and the last they did was to end.
    """
    asked, processes = [], []

    def ask():
        run.wait_for("fired", **wait_for)
        processes.extend(family())
        time.sleep(then_s)
        asked.append(time.monotonic())
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)

    with pytest.raises(StoppedError) as caught:
        run.launch(*faults, meanwhile=ask)
    seconds = time.monotonic() - asked[0] - 0.3 * times
    assert seconds < LATEST_END_S
    assert len(processes) == 3
    assert not any(map(psutil.Process.is_running, processes))
    assert caught.value.exit_code == 143
    assert not (run.run_dir / "model").exists()
    figure(sigterm_to_exit_max_s=round(seconds, 1))
    return caught.value


@pytest.mark.fault("F6", nightly=True)
def test_the_launcher_is_stopped_and_both_workers_save_the_same_step(run, undisturbed, figure):
    error = stop(run, figure, IN_STEP, wait_for={"number": 2})
    assert error.value == "step 26"
    assert {told["code"] for told in run.events("left")} == {143}
    assert run.checkpoints == [20, 26]
    run.launch()
    assert run.starts == [0, 26]
    run.require_as(undisturbed)
    figure(stops=1, saved_the_same_step=1, steps_redone=0)


@pytest.mark.fault("F6", nightly=True)
@pytest.mark.parametrize("ranks", [(0, 1), (0,), (1,)])
def test_workers_that_are_stopped_save_the_same_step_and_go_on_without_the_launcher(
    run, undisturbed, figure, ranks
):
    ended = []

    def ask():
        run.wait_for("fired", number=2)
        _, *workers = family()
        began = time.monotonic()
        for rank in ranks:
            workers[rank].terminate()
        told = run.wait_for("left", number=2, attempt=1)
        psutil.wait_procs(workers, timeout=LATEST_END_S)
        ended.append((time.monotonic() - began, {each["code"] for each in told}))

    run.launch(IN_STEP, meanwhile=ask)
    ((seconds, codes),) = ended
    assert codes == {143}
    assert seconds < LATEST_END_S
    assert run.starts == [0, 26]
    assert run.mixed_attempts() == []
    run.require_as(undisturbed)
    figure(stops=1, saved_the_same_step=1, steps_redone=0, sigterm_to_exit_max_s=round(seconds, 1))


PHASES = {
    "start-up": (
        [Fault(what="pause", place="start", rank=None, seconds=5)],
        {"number": 2},
        0.0,
        [],
    ),
    "joining": (
        [
            Fault(what="pause", place="start", rank=0),
            Fault(what="pause", place="start", seconds=15),
        ],
        {"number": 2},
        2.0,
        [],
    ),
    "evaluation": (
        [Fault(what="pause", place="evaluate", step=30, rank=None, seconds=4)],
        {"number": 2},
        0.0,
        [30],
    ),
    "save": ([Fault(what="pause", place="save", step=39, rank=0, seconds=2)], {}, 0.0, [41]),
    "twice": ([IN_STEP], {"number": 2}, 0.0, [26]),
    "calibration": ([Fault(what="pause", place="calibrate", rank=0, seconds=4)], {}, 0.0, [60]),
}
"""By phase: what holds the workers there, what is waited for, how much longer, and where training goes on from."""


@pytest.mark.fault("F7", nightly=True)
@pytest.mark.parametrize("phase", PHASES)
def test_a_stop_in_any_phase_leaves_nothing_half_written(run, undisturbed, figure, phase):
    faults, wait_for, then_s, resumes_at = PHASES[phase]
    stop(run, figure, *faults, wait_for=wait_for, then_s=then_s, times=2 if phase == "twice" else 1)
    if resumes_at:
        run.require_tidy()
    run.launch()
    assert run.starts[-1:] == (resumes_at or [0])
    run.require_tidy()
    run.require_as(undisturbed)
    figure(phases=1)
