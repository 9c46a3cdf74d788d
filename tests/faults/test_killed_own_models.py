"""Row F1 for a model of one's own: a worker in the sandbox is killed, and the bits are the same."""

import subprocess
import sys
import time

import psutil
import pytest

from citeflow import files, own_model
from citeflow.errors import ConfigError
from citeflow.evaluation import trained_model
from citeflow.paths import RunPaths
from citeflow.tasks import evaluate
from citeflow.training import sandbox

PROBLEM = sandbox.find_problem()
pytestmark = [
    pytest.mark.skipif(bool(PROBLEM), reason=f"no sandbox here: {PROBLEM}"),
    pytest.mark.fault("F1", nightly=True),
    pytest.mark.fault("F47", nightly=True),
]

SETTINGS = ["train.epochs=7.5", "train.num_validations=2", "recovery.checkpoint_steps=10"]


PATIENCE_S = 180


class OwnTraining:
    """A training of sixty steps by two workers in a sandbox, started by a command."""

    def __init__(self, prepared, checkout, root, name):
        self.graph = prepared.graph
        self.run = RunPaths(root, name)
        self.file = checkout / "examples" / "own_model" / "encoder.py"
        self.settings = [*prepared.settings, *SETTINGS, f"model.code={self.file}"]

    def start(self):
        settings = [word for setting in self.settings for word in ("--set", setting)]
        where = ["--data-root", str(self.run.data_root), "--run-name", self.run.name]
        command = [sys.executable, "-m", "citeflow", "train", str(self.graph), *where, *settings]
        return subprocess.Popen([*command, "--workers", "2"])

    @property
    def starts(self):
        return len(files.names_in(self.run.leases))

    @property
    def digest(self):
        return files.sha256_of_file(self.run.model / "model.safetensors")


def kill_a_worker(training, process):
    """Kill the worker that started last, once there is a checkpoint."""
    end = time.monotonic() + PATIENCE_S
    while not list(training.run.checkpoints.glob("step-*")):
        assert process.poll() is None, "it ended early"
        assert time.monotonic() < end, "no checkpoint comes"
        time.sleep(0.02)
    found = psutil.Process(process.pid).children(recursive=True)
    workers = [each for each in found if each.name().startswith("rank ")]
    assert len(workers) == 2
    max(workers, key=lambda each: each.pid).kill()


def test_killed_worker_of_an_own_model_leaves_the_same_bits(prepared, checkout, tmp_path):
    whole = OwnTraining(prepared, checkout, tmp_path, "whole")
    assert whole.start().wait() == 0
    killed = OwnTraining(prepared, checkout, tmp_path, "killed")
    process = killed.start()
    try:
        kill_a_worker(killed, process)
        assert process.wait() == 0
    finally:
        process.kill()  # a sandbox ends with the command
        process.wait()
    assert (whole.starts, killed.starts) == (1, 2)
    assert killed.digest == whole.digest
    report = evaluate(killed.run.model, data=killed.graph, run=killed.run)
    assert own_model.is_evaluated(killed.run.model, report)
    with pytest.raises(ConfigError, match="the model has code of its own"):
        trained_model.load(killed.run.model)
