"""Row F9: workers are killed again and again, some of them while they start."""

import random
import time

import psutil
import pytest

from citeflow.training.checkpoint import MAX_KEPT
from faults.disturbed_training import Fault, Training, family, ranks

STORM_S = 180
STEP_S = 1.5
IN_START_UP = 0.2
"""Share of the kills that come before a step."""


class Storm:
    """Kills a worker every ten seconds or so, and looks at torchrun, the launcher and the disk
    before."""

    def __init__(self, run):
        self.run = run
        self.chosen = random.Random(0)
        self.kills = []
        self.held = []
        self.folders = []

    def blow(self):
        end = time.monotonic() + STORM_S
        while time.monotonic() < end and not self.is_over():
            if self.chosen.random() < IN_START_UP:
                time.sleep(self.chosen.uniform(0, 4))
            else:
                self.wait_for_a_step()
                time.sleep(self.chosen.uniform(3, 8))
            self.strike()

    def is_over(self):
        return (self.run.run_dir / "model").exists()

    def wait_for_a_step(self):
        last = self.kills[-1] if self.kills else 0.0
        while (
            not self.is_over() and sum(line["at"] > last for line in self.run.events("began")) < 2
        ):
            time.sleep(0.1)

    def strike(self):
        while len(workers := ranks()) < 2 and not self.is_over():
            time.sleep(0.1)
        if self.is_over():
            return
        above = [process for name, process in family().items() if not name.startswith("rank ")]
        self.held.append([resources_of(each) for each in (*above, psutil.Process())])
        self.folders.append(len(list((self.run.run_dir / "checkpoints").glob("*"))))
        self.chosen.choice(workers).kill()
        self.kills.append(time.monotonic())
        psutil.wait_procs(workers, timeout=STORM_S)


def resources_of(process):
    memory_mib = process.memory_info().rss / 2**20
    return {"memory_mib": memory_mib, "files": process.num_fds(), "threads": process.num_threads()}


@pytest.mark.fault("F9", nightly=True)
def test_storm_of_kills_changes_nothing_and_nothing_grows(prepared, tmp_path, undisturbed):
    run = Training(prepared, tmp_path, "recovery.checkpoint_steps=2")
    storm = Storm(run)
    run.launch(Fault(what="pause", attempt=None, seconds=STEP_S), meanwhile=storm.blow)
    assert len(storm.kills) >= 8
    run.require_as(undisturbed)
    run.require_tidy()
    for first, last in zip(storm.held[1], storm.held[-1], strict=True):
        assert last["memory_mib"] - first["memory_mib"] < 32
        assert last["files"] - first["files"] <= 4
        assert last["threads"] - first["threads"] <= 4
    assert (
        max(storm.folders) <= MAX_KEPT + 2
    )  # one that is written, and one that is not yet deleted
