"""Rows F6 and F7: SIGTERM in every phase; the workers save what is new, end soon, and leave nothing
half-written."""

import os
import signal
import time
from typing import NamedTuple

import psutil
import pytest

from citeflow.errors import StoppedError
from faults.disturbed_training import Fault, family, ranks

LATEST_END_S = 20


class Phase(NamedTuple):
    """A point of the training at which the launcher is stopped."""

    faults: list[Fault]
    """What holds the workers there."""

    resumes_at: int
    """The first step of the next launch."""

    number: int = 2
    """So many faults fire before the stop."""

    then_s: float = 0.0
    signals: int = 1


PHASES = [
    Phase([Fault(what="pause", at="start", rank=None, seconds=5)], 0),
    Phase(
        [
            Fault(what="pause", at="start", rank=0),
            Fault(what="pause", at="start", seconds=15),
        ],
        0,
        then_s=2.0,
    ),
    Phase([Fault(what="pause", step=25, rank=None, seconds=1)], 26),
    Phase([Fault(what="pause", at="evaluate", step=30, rank=None, seconds=4)], 30),
    Phase(
        [
            Fault(what="pause", at="save", step=40, rank=0, seconds=2),
            Fault(what="pause", step=40, rank=None, seconds=1),
        ],
        41,
        number=3,
    ),
    Phase([Fault(what="pause", step=45, rank=None, seconds=1)], 46, signals=2),
    Phase([Fault(what="pause", at="calibrate", rank=0, seconds=4)], 60, number=1),
]
"""Start-up, joining, a step, an evaluation, a save, a step (with two signals), the calibration."""


def stop(run, phase):
    """Train until the faults of a phase have fired, and stop this process, the launcher."""
    asked, processes = [], []
    before = len(run.events("fired"))

    def ask():
        run.wait_for("fired", number=before + phase.number)
        processes.extend(family().values())
        time.sleep(phase.then_s)
        asked.append(time.monotonic())
        for _ in range(phase.signals):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)

    with pytest.raises(StoppedError) as caught:
        run.launch(*phase.faults, meanwhile=ask)
    assert time.monotonic() - asked[0] - 0.3 * phase.signals < LATEST_END_S
    assert len(processes) == 6
    assert not any(map(psutil.Process.is_running, processes))
    assert caught.value.exit_code == 143
    assert not (run.run_dir / "model").exists()


@pytest.mark.fault("F6", nightly=True)
@pytest.mark.fault("F7", nightly=True)
def test_stops_in_every_phase_leave_nothing_half_written(run, undisturbed):
    resumed_at = 0
    for phase in PHASES:
        stop(run, phase)
        if resumed_at:
            assert run.starts[-1] == resumed_at
        if resumed_at := phase.resumes_at:
            run.require_tidy()
            assert run.checkpoints[-1] == resumed_at
    run.launch()
    assert run.starts[-1] == resumed_at
    run.require_tidy()
    run.require_as(undisturbed)


@pytest.mark.fault("F6", nightly=True)
def test_stopped_workers_save_the_same_step_and_continue_without_the_launcher(run, undisturbed):
    stops = [(25, (0, 1)), (35, (0,)), (45, (1,))]
    faults = [
        Fault(what="pause", step=step, rank=None, seconds=1, attempt=attempt)
        for attempt, (step, _) in enumerate(stops, start=1)
    ]

    def ask():
        for attempt, (_, asked) in enumerate(stops, start=1):
            run.wait_for("fired", number=2, attempt=attempt)
            workers = ranks()
            began = time.monotonic()
            for rank in asked:
                workers[rank].terminate()
            left = run.wait_for("left", number=2, attempt=attempt)
            assert {event["code"] for event in left} == {143}
            psutil.wait_procs(workers, timeout=LATEST_END_S)
            assert time.monotonic() - began < LATEST_END_S

    run.launch(*faults, meanwhile=ask)
    assert run.starts == [0, 26, 36, 46]
    assert run.mixed_attempts() == []
    run.require_as(undisturbed)
