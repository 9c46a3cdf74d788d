"""Two real ranks, started once, for all tests of trainings by two workers."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from citeflow import config, files
from citeflow.evaluation import trained_model
from citeflow.paths import RunPaths
from citeflow.training.launch import make_job, write_job

MINUTES = 0.03
PATIENCE_S = 120
TRAIN = """
import sys
from pathlib import Path
from citeflow import config
from citeflow.errors import CiteflowError
from citeflow.paths import RunPaths
from citeflow.training.launch import train_locally

graph, root, name, *overrides = sys.argv[1:]
try:
    run = RunPaths(Path(root), name)
    train_locally(Path(graph), run, config=config.load(overrides=overrides), workers=2)
except CiteflowError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
"""A command that trains by two workers."""


def events(log_dir, tag):
    """Steps of a curve, as TensorBoard reads them."""
    if not log_dir.exists():
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = EventAccumulator(str(log_dir), size_guidance={"scalars": 0}).Reload()
    return [event.step for event in log.Scalars(tag)] if tag in log.Tags()["scalars"] else []


def wait_for(condition, process):
    """Wait until something holds, at most for PATIENCE_S and while a process runs."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, "it ended early"
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def kill_family(process):
    """End a process that a failed test left running, and all below it."""
    if process.poll() is None:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            each.kill()
        process.wait()


@dataclass(frozen=True)
class Job:
    """A training by the two ranks, and what each of them found."""

    run: RunPaths

    @property
    def ranks(self):
        return [files.read_json(self.run.folder / f"rank-{rank}.json") for rank in (0, 1)]

    @property
    def model(self):
        return trained_model.load(self.run.model)

    @property
    def weights(self):
        return (self.run.model / "model.safetensors").read_bytes()


@dataclass(frozen=True)
class Stopped:
    """A training that was stopped, as it was left."""

    run: RunPaths
    exit_code: int
    log: str
    steps_done: int
    steps_shown_live: list[int]
    seconds_to_end: float
    survivors: list[psutil.Process]
    left_a_model: bool


@dataclass(frozen=True)
class TwoRanks:
    """What two ranks did after they were started once."""

    folder: Path
    jobs: dict[str, Job]

    @property
    def collectives(self):
        paths = [self.folder / f"collectives-{rank}.json" for rank in (0, 1)]
        return [json.loads(path.read_text()) for path in paths]


@pytest.fixture(scope="session")
def stopped(prepared, tmp_path_factory):
    """A training that got a SIGTERM after the first validation."""
    root = tmp_path_factory.mktemp("stopped")
    run = RunPaths(root, "r")
    command = [sys.executable, "-c", TRAIN, str(prepared.graph), str(root), "r"]
    with (root / "stderr").open("wb") as stderr:
        process = subprocess.Popen([*command, *prepared.settings], stderr=stderr)
        try:
            wait_for(lambda: events(run.logs, "valid/mrr"), process)
            shown = events(run.logs, "valid/mrr")
            family = psutil.Process(process.pid).children(recursive=True)
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            exit_code = process.wait(PATIENCE_S)
            _, survivors = psutil.wait_procs(family, timeout=1)
        finally:
            kill_family(process)
    newest = files.verify(max(run.checkpoints.iterdir()), "Checkpoint")
    return Stopped(
        run=run,
        exit_code=exit_code,
        log=(root / "stderr").read_text(),
        steps_done=newest.facts["step"],
        steps_shown_live=shown,
        seconds_to_end=time.monotonic() - start,
        survivors=survivors,
        left_a_model=run.model.exists(),
    )


@pytest.fixture(scope="session")
def two_ranks(prepared, stopped, tmp_path_factory):
    """The collectives, and trainings of the small graph; the one that was stopped among them."""
    root = tmp_path_factory.mktemp("jobs")
    changes = {
        "undisturbed": [],
        "by time": [f"train.minutes={MINUTES}"],
        "whole graph": ["train.nodes_per_batch=400", "train.epochs=2", "train.num_validations=1"],
        "few": ["train.epochs=0.1", "train.num_validations=50"],
    }
    runs = {name: RunPaths(root, name.replace(" ", "-")) for name in changes}
    for name, overrides in changes.items():
        settings = config.load(overrides=[*prepared.settings, *overrides])
        write_job(make_job(prepared.graph, runs[name], settings))
    runs = {"resumed": stopped.run, **runs}
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [
        Path(__file__).with_name("ranks.py"),
        root,
        *(run.job_file for run in runs.values()),
    ]
    subprocess.run(
        [sys.executable, "-m", *command, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=3 * PATIENCE_S,
    )
    return TwoRanks(folder=root, jobs={name: Job(run) for name, run in runs.items()})


@pytest.fixture(scope="session")
def jobs(two_ranks):
    """The trainings by name."""
    return two_ranks.jobs
