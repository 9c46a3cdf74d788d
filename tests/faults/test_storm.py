"""Workers are killed again and again, some of them while they start."""

import random
import time

import psutil
import pytest

from citeflow.training.checkpoint import KEPT
from faults.disturbed_training import STEPS, Fault, Training, family

STORM_S = 180
STEP_S = 1.5
IN_START_UP = 0.2
"""Share of the kills that come before a step."""


class Storm:
    """Kills a worker about every fifteen seconds, and looks at torchrun, the launcher and the disk before."""

    def __init__(self, run):
        self.run, self.chosen = run, random.Random(0)
        self.kills, self.in_start_up, self.seen, self.folders = [], 0, [], []

    def blow(self):
        end = time.monotonic() + STORM_S
        while time.monotonic() < end and not self.is_over():
            if in_start_up := self.chosen.random() < IN_START_UP:
                time.sleep(self.chosen.uniform(0, 4))
            else:
                self.wait_for_begin()
                time.sleep(self.chosen.uniform(4, 12))
            self.strike(in_start_up)

    def is_over(self):
        return (self.run.run_dir / "model").exists()

    def wait_for_begin(self):
        last = self.kills[-1] if self.kills else 0.0
        while (
            not self.is_over() and sum(told["at"] > last for told in self.run.events("began")) < 2
        ):
            time.sleep(0.1)

    def strike(self, in_start_up):
        while len(found := family()) < 3 and not self.is_over():
            time.sleep(0.1)
        if self.is_over():
            return
        torchrun, *workers = found
        self.seen.append({"torchrun": held(torchrun), "launcher": held(psutil.Process())})
        self.folders.append(len(list((self.run.run_dir / "checkpoints").glob("*"))))
        self.chosen.choice(workers).kill()
        self.kills.append(time.monotonic())
        self.in_start_up += in_start_up
        psutil.wait_procs(workers)

    def growth(self, what):
        """How much more was held before the last kill than before the second one."""
        _, first, *_, last = (seen[what] for seen in self.seen)
        return {name: last[name] - first[name] for name in first}


def held(process):
    memory_mib = process.memory_info().rss / 2**20
    return {"memory_mib": memory_mib, "files": process.num_fds(), "threads": process.num_threads()}


@pytest.mark.fault("F9", nightly=True)
def test_a_training_in_a_storm_of_kills_makes_the_model_of_an_undisturbed_one(
    prepared, tmp_path, undisturbed, figure
):
    """An undisturbed training of as long steps is taken to need their pauses, and the time of one without them."""
    run = Training(prepared, tmp_path / "run", "recovery.checkpoint_steps=2")
    storm = Storm(run)
    run.launch(Fault(what="pause", step=None, attempt=None, seconds=STEP_S), meanwhile=storm.blow)
    assert len(storm.kills) >= 8
    run.require_as(undisturbed)
    run.require_tidy()
    torchrun, launcher = storm.growth("torchrun"), storm.growth("launcher")
    for growth in (torchrun, launcher):
        assert growth["memory_mib"] < 32
        assert growth["files"] <= 4
        assert growth["threads"] <= 4
    assert max(storm.folders) <= KEPT + 2  # one that is written, and one that is not yet deleted
    clean_s = undisturbed.seconds + STEPS * STEP_S
    figure(
        kills=len(storm.kills),
        kills_in_start_up=storm.in_start_up,
        identical=1,
        makespan_ratio=round(run.seconds / clean_s, 2),
        steps_kept_percent=round(100 * STEPS / len(run.events("fired")), 1),
        memory_grown_mib=round(max(torchrun["memory_mib"], launcher["memory_mib"]), 1),
        files_grown=float(max(torchrun["files"], launcher["files"])),
        threads_grown=float(max(torchrun["threads"], launcher["threads"])),
    )
