"""Trainings of sixty steps by real workers, with planned faults."""

import contextlib
import json
import os
import re
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import pytest

from citeflow import config, files
from citeflow.paths import RunPaths
from citeflow.training import launch
from citeflow.training.checkpoint import MAX_KEPT
from faults import disturbed_worker

STEPS = 60
BETWEEN_CHECKPOINTS = 10
SETTINGS = [
    "train.epochs=7.5",
    "train.num_validations=2",
    f"recovery.checkpoint_steps={BETWEEN_CHECKPOINTS}",
]
PATIENCE_S = 180
NAMES = r"citeflow|torchrun|(standby|rank) \d+"
TESTS = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault of a worker at a point of its training; None means any."""

    what: str
    at: str = "step"
    step: int | None = None
    rank: int | None = 1
    attempt: int | None = 1
    """Counted from 1 within a launch."""

    seconds: float = 0.0


class Training:
    """A run of the small graph, launched as often as it takes."""

    def __init__(self, prepared, data_root, *overrides, workers=2):
        self.workers = workers
        self.graph = prepared.graph
        self.run = RunPaths(data_root, "run")
        self.run_dir = self.run.folder
        self.overrides = [*prepared.settings, *SETTINGS, *overrides]
        self.file = data_root / "events.jsonl"

    @contextlib.contextmanager
    def disturbed(self, *faults):
        """Give these faults to the workers that start within the block."""
        with pytest.MonkeyPatch.context() as patch:
            plan = {"events": str(self.file), "faults": [asdict(fault) for fault in faults]}
            patch.setenv(disturbed_worker.VARIABLE, json.dumps(plan))
            patch.setenv("PYTHONPATH", TESTS, prepend=os.pathsep)
            patch.setattr(launch, "WORKER", disturbed_worker.__name__)
            yield

    def launch(self, *faults, meanwhile=None):
        """Train with faults, and call `meanwhile` on a thread; returns the model's digest."""
        settings = config.load(overrides=self.overrides)
        with self.disturbed(*faults), Meanwhile(meanwhile):
            launch.train_locally(self.graph, self.run, config=settings, workers=self.workers)
        return self.digest

    @property
    def digest(self):
        return files.sha256_of_file(self.run_dir / "model" / "model.safetensors")

    def events(self, event, **facts):
        """The events of the workers, in the order of time."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        wanted = {"event": event, **facts}
        return [line for line in map(json.loads, lines) if wanted.items() <= line.items()]

    def wait_for(self, event, *, number=1, **facts):
        """Wait until there are so many events of a kind; returns them."""
        end = time.monotonic() + PATIENCE_S
        while len(events := self.events(event, **facts)) < number:
            assert time.monotonic() < end, f"{event} does not come"
            time.sleep(0.02)
        return events

    @property
    def starts(self):
        """The first step of each attempt, from the run's own record."""
        leases = sorted((self.run_dir / "attempts").glob("*.json"))
        return [files.read_json(path)["step"] for path in leases]

    @property
    def losses(self):
        """The seconds that went into no step of the model, by cause, from its own record."""
        train = files.read_json(self.run_dir / "model" / "model.json")["train"]
        assert train["goodput"] * train["wall_seconds"] == pytest.approx(
            train["wall_seconds"] - sum(train["losses"].values())
        )
        return train["losses"]

    @property
    def checkpoints(self):
        """Steps of the checkpoints, each verified; any other file in their folder is a failure."""
        folders = sorted((self.run_dir / "checkpoints").iterdir())
        return [files.verify(folder, "Checkpoint").facts["step"] for folder in folders]

    def record(self, name):
        """The model's own record: its `history` or its `evaluations`."""
        lines = (self.run_dir / "model" / f"{name}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def curve(self, name, value):
        """A value of a record by step."""
        return {entry["step"]: entry[value] for entry in self.record(name)}

    def require_as(self, other):
        """Require model, losses and scores of another run; no step comes twice or is missing."""
        assert self.digest == other.digest
        for name, value in (("evaluations", "valid_mrr"), ("history", "loss")):
            assert self.curve(name, value) == other.curve(name, value)
        assert [entry["step"] for entry in self.record("history")] == list(range(1, STEPS + 1))

    def require_tidy(self):
        """Require whole checkpoints, no more than are kept, and no unfinished file."""
        assert len(self.checkpoints) <= MAX_KEPT
        assert [path for path in self.run_dir.rglob("*") if path.name.startswith(".")] == []

    def mixed_attempts(self):
        """Attempts of which not every worker has the same number and first step."""
        began = {(line["pid"], line["number"], line["step"]) for line in self.events("began")}
        return [one for one in began if sum(one[1:] == other[1:] for other in began) != 2]


class Meanwhile(threading.Thread):
    """A function that runs during a block; its failure is the block's."""

    def __init__(self, act):
        super().__init__()
        self.act = act
        self.error = None

    def __enter__(self):
        if self.act:
            self.start()

    def __exit__(self, *_):
        if self.act:
            self.join(PATIENCE_S)
        if self.error:
            raise self.error

    def run(self):
        try:
            self.act()
        except BaseException as error:
            self.error = error


def family(pid=None):
    """Return the processes of a training below one (by default this one), by their names."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process.name()] = process
    return {name: found[name] for name in sorted(found) if re.fullmatch(NAMES, name)}


def ranks(pid=None):
    """Return the workers that run at the moment, in the order of their ranks."""
    return [process for name, process in family(pid).items() if name.startswith("rank ")]
