"""Rows F1, F4 and F9: ten kills in a training, at random over ranks, torchrun and both at once,
while it starts, takes steps, validates or saves."""

import contextlib
import json
import random
import time

import psutil
import pytest

from faults.disturbed_training import PATIENCE_S, Fault, family

KILLS = 10
STEP_S = 0.3
IN_START_UP = 0.25
"""Share of the kills that do not wait for a step; two in a row at most, as the third start at one
step ends a training."""

RANKS = (("rank 0",), ("rank 1",))
ABOVE = (
    ("torchrun",),
    ("rank 0", "rank 1"),
    ("torchrun", "rank 1"),
    ("standby 0",),
    ("standby 1",),
)


class Killer:
    """Kills and looks on."""

    def __init__(self, run, seed):
        self.run = run
        self.chosen = random.Random(seed)
        self.kills = []

    def work(self):
        in_start_up = 0
        while len(self.kills) < KILLS and not self.is_over():
            if in_start_up < 2 and self.chosen.random() < IN_START_UP:
                in_start_up += 1
                time.sleep(self.chosen.uniform(0, 1.5))
            else:
                in_start_up = 0
                self.wait_for_steps()
                time.sleep(self.chosen.uniform(0, 1.0))
            self.strike(self.chosen.choice(RANKS if self.chosen.random() < 0.6 else ABOVE))

    def is_over(self):
        return (self.run.run_dir / "model").exists()

    def wait_for_steps(self):
        end = time.monotonic() + PATIENCE_S
        last = self.kills[-1]["at"] if self.kills else 0.0
        while (
            not self.is_over() and sum(line["at"] > last for line in self.run.events("fired")) < 4
        ):
            assert time.monotonic() < end, "no step comes"
            time.sleep(0.02)

    def strike(self, names):
        end = time.monotonic() + PATIENCE_S
        while not (found := family()).keys() >= set(names) and not self.is_over():
            assert time.monotonic() < end, f"{names} do not come"
            time.sleep(0.02)
        if self.is_over():
            return
        is_any_killed = False
        for name in names:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended by itself
                found[name].kill()
                is_any_killed = True
        if is_any_killed:
            self.kills.append({"at": time.monotonic(), "names": names})

    def summary(self):
        """Steps that were done again, and seconds to the next step, for each kill of one rank."""
        fired = self.run.events("fired")
        redone, seconds = [], []
        times = [0.0, *(kill["at"] for kill in self.kills), float("inf")]
        for kill, begin, end in zip(self.kills, times, times[2:], strict=False):
            before = [line for line in fired if begin < line["at"] < kill["at"]]
            workers = {line["pid"] for line in before}
            after = [line for line in fired if kill["at"] < line["at"] < end]
            # The one that is left may begin another step before it notices.
            starts = [line for line in after if line["pid"] not in workers]
            if kill["names"] in RANKS and before and starts:
                redone.append(max(0, before[-1]["step"] - starts[0]["step"]))
                seconds.append(round(starts[0]["at"] - kill["at"], 2))
        return {"kills": len(self.kills), "redone": redone, "seconds": seconds}


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.fault("F9", nightly=True)) for seed in range(10)]
)
@pytest.mark.fault("F1")
@pytest.mark.fault("F4")
def test_ten_kills_at_random_change_no_bit(run, undisturbed, seed, capfd):
    killer = Killer(run, seed)
    run.launch(Fault(what="pause", attempt=None, rank=None, seconds=STEP_S), meanwhile=killer.work)
    with capfd.disabled():
        print(json.dumps({"seed": seed, **killer.summary()}), flush=True)
    assert len(killer.kills) == KILLS
    run.require_as(undisturbed)
    run.require_tidy()
    assert family() == {}
    assert set(killer.summary()["redone"]) <= {0}
