"""Rows F1 and F4 on Ray: a rank, an actor, the driver or the launcher is killed; the model is that
of torchrun alone, to the bit, and no process of Ray is left."""

import contextlib
import os
import signal
import subprocess
import sys

import psutil
import pytest

from citeflow import config
from citeflow.errors import TrainingError
from citeflow.training.ray_launch import DRIVER, train_on_ray
from faults.disturbed_training import Fault, Meanwhile, Training
from faults.test_killed_workers import CITEFLOW, three_kills

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")

LATEST_END_S = 90
"""Ray's own processes notice slowly that the others are gone."""


class RayTraining(Training):
    def launch(self, *faults, meanwhile=None):
        settings = config.load(overrides=self.overrides)
        with self.disturbed(*faults), Meanwhile(meanwhile):
            train_on_ray(self.graph, self.run, config=settings, workers=self.workers)
        return self.digest


@pytest.fixture
def run(prepared, tmp_path):
    yield RayTraining(prepared, tmp_path)
    assert left_of(tmp_path) == []


def left_of(data_root):
    """Return the processes of a training, those of its Ray too: all know where its faults are."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and any(
                str(data_root) in text for text in process.environ().values()
            ):
                found.append(process)
    return found


def processes(word, parent):
    """Return the processes below one whose command line has a word."""
    found = []
    for process in parent.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if word in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def actors(parent=None):
    """Return the processes of Ray that have a torchrun."""
    torchruns = processes("citeflow.training.torchrun", parent or psutil.Process())
    parents = {process.ppid() for process in torchruns} - {process.pid for process in torchruns}
    return [psutil.Process(pid) for pid in sorted(parents)]


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.fault("F1", nightly=True)) for seed in range(10)]
)
def test_killed_ranks_on_ray_change_no_bit(run, undisturbed, seed):
    run.launch(*three_kills(seed))
    assert len(run.events("fired", what="kill")) == 3
    assert len(run.starts) == 4
    assert run.mixed_attempts() == []
    run.require_as(undisturbed)
    run.require_tidy()


@pytest.mark.fault("F1", nightly=True)
@pytest.mark.fault("F4")
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("step", [5, 25])
def test_killed_actors_change_no_bit(run, undisturbed, rank, step):
    """Of the two, one holds the store at which the torchruns meet."""

    def kill():
        run.wait_for("fired")
        actors()[rank].kill()

    run.launch(Fault(what="pause", step=step, rank=None, seconds=3), meanwhile=kill)
    assert len(run.starts) >= 2
    run.require_as(undisturbed)


@pytest.mark.fault("F1", nightly=True)
def test_killed_driver_leaves_nothing_and_a_checkpoint(run, undisturbed, tmp_path):
    def kill():
        run.wait_for("fired")
        (driver,) = [each for each in psutil.Process().children() if DRIVER in each.cmdline()]
        driver.kill()

    with pytest.raises(TrainingError, match="-9"):
        run.launch(Fault(what="pause", step=25, rank=None, seconds=2), meanwhile=kill)
    assert left_of(tmp_path) == []
    run.launch()
    assert len(run.starts) == 2
    run.require_as(undisturbed)


@pytest.mark.fault("F6", nightly=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_launcher_on_ray_that_ends_leaves_nothing(run, undisturbed, tmp_path, number):
    """Asked to stop, the workers save; where their launcher is killed, they do so too."""
    arguments = ["train", str(run.graph), "--run-name", run.run.name, "--workers", "2"]
    arguments += ["--data-root", str(tmp_path), "--launcher", "ray"]
    arguments += [argument for override in run.overrides for argument in ("--set", override)]
    with run.disturbed(Fault(what="pause", step=25, rank=None, seconds=1)):
        launcher = subprocess.Popen([sys.executable, "-c", CITEFLOW, *arguments])
    run.wait_for("fired")
    others = psutil.Process(launcher.pid).children(recursive=True)
    os.kill(launcher.pid, number)
    code = launcher.wait(LATEST_END_S)
    assert code == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    _, alive = psutil.wait_procs(others, timeout=LATEST_END_S)
    assert alive == []
    run.launch()
    assert run.starts == [0, 26]
    run.require_as(undisturbed)
