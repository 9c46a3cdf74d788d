"""Trainings of sixty steps by two real workers, to which something happens."""

import contextlib
import json
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import pytest

from citeflow import config, files
from citeflow.training import launch
from citeflow.training.checkpoint import KEPT
from faults import disturbed_worker

STEPS, BETWEEN_CHECKPOINTS = 60, 10
SETTINGS = [
    "train.epochs=7.5",
    "train.num_validations=2",
    f"recovery.checkpoint_steps={BETWEEN_CHECKPOINTS}",
]
PATIENCE_S = 180
TESTS = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a worker does at a place of its training; None means any."""

    what: str
    place: str = "step"
    step: int | None = None
    rank: int | None = 1
    attempt: int | None = 1
    """Counted from 1 within a launch."""

    seconds: float = 0.0


class Training:
    """A run of the small graph, launched as often as it takes."""

    def __init__(self, prepared, run_dir, *overrides, workers=2):
        self.workers = workers
        self.graph, self.run_dir, self.log_dir = (
            prepared.graph,
            run_dir,
            run_dir.parent / f"{run_dir.name}-log",
        )
        self.overrides = [*prepared.settings, *SETTINGS, *overrides]
        self.file = run_dir.parent / f"{run_dir.name}-events.jsonl"

    @contextlib.contextmanager
    def disturbed(self, *faults):
        """Let the workers that start meanwhile have these faults."""
        with pytest.MonkeyPatch.context() as patch:
            plan = {"events": str(self.file), "faults": [asdict(fault) for fault in faults]}
            patch.setenv(disturbed_worker.VARIABLE, json.dumps(plan))
            patch.setenv("PYTHONPATH", TESTS, prepend=os.pathsep)
            patch.setattr(launch, "WORKER", disturbed_worker.__name__)
            yield

    def launch(self, *faults, meanwhile=None):
        """Train with faults; `meanwhile` is called on a thread of its own.

        Returns:
            The digest of the model.
        """
        where = {
            "run_dir": self.run_dir,
            "log_dir": self.log_dir,
            "config": config.load(overrides=self.overrides),
        }
        with self.disturbed(*faults), Meanwhile(meanwhile):
            began = time.monotonic()
            launch.train_locally(self.graph, **where, workers=self.workers)
            self.seconds = time.monotonic() - began
        return self.digest

    @property
    def digest(self):
        return files.sha256_of_file(self.run_dir / "model" / "model.safetensors")

    def events(self, event, **facts):
        """What the workers told, in the order of time."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        wanted = {"event": event, **facts}
        return [told for told in map(json.loads, lines) if wanted.items() <= told.items()]

    def wait_for(self, event, *, number=1, **facts):
        """The events of a kind, once there are so many of them."""
        end = time.monotonic() + PATIENCE_S
        while len(found := self.events(event, **facts)) < number:
            assert time.monotonic() < end, f"{event} does not come"
            time.sleep(0.02)
        return found

    @property
    def starts(self):
        """Where each attempt began, from the run's own record."""
        return [
            files.read_json(path)["step"]
            for path in sorted((self.run_dir / "attempts").glob("*.json"))
        ]

    @property
    def checkpoints(self):
        """Steps of the checkpoints, each of them verified; anything else in their folder is a failure."""
        places = sorted((self.run_dir / "checkpoints").iterdir())
        return [files.verify(place, "Checkpoint").facts["step"] for place in places]

    def told(self, name):
        """The model's own record: its `history` or its `evaluations`."""
        return [
            json.loads(line)
            for line in (self.run_dir / "model" / f"{name}.jsonl").read_text().splitlines()
        ]

    def curve(self, name, value):
        """A value of it by step."""
        return {entry["step"]: entry[value] for entry in self.told(name)}

    def kills(self):
        """Of each kill: the steps done again, and the seconds until the other worker left and until all went on."""
        begun = {told["attempt"]: told for told in self.events("began")}
        for kill in self.events("fired", what="kill"):
            (left,) = self.events("left", attempt=kill["attempt"])
            again = begun[kill["attempt"] + 1]
            yield kill["step"] - again["step"], left["at"] - kill["at"], again["at"] - kill["at"]

    def require_as(self, undisturbed):
        """The model and all that is told of it are those of another run; no step is told twice, and none is missing."""
        assert self.digest == undisturbed.digest
        assert self.curve("evaluations", "valid_mrr") == undisturbed.curve(
            "evaluations", "valid_mrr"
        )
        assert self.curve("history", "loss") == undisturbed.curve("history", "loss")
        steps = [entry["step"] for entry in self.told("history")]
        assert steps == list(range(1, STEPS + 1))

    def require_tidy(self):
        """Nothing but whole checkpoints, and no more of them than are kept; nothing half-written beside them."""
        assert len(self.checkpoints) <= KEPT
        assert [path for path in self.run_dir.rglob("*") if path.name.startswith(".")] == []

    def mixed_attempts(self):
        """Attempts of which not every worker knows the same number and first step."""
        begun = {(told["pid"], told["number"], told["step"]) for told in self.events("began")}
        return [one for one in begun if sum(one[1:] == other[1:] for other in begun) != 2]


class Meanwhile(threading.Thread):
    """Something that happens during a block; its failure is the block's."""

    def __init__(self, act):
        super().__init__()
        self.act, self.error = act, None

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
    """torchrun, which a process started (this one, if none is given), and its workers by rank; as many as there are."""
    parent, found = psutil.Process(pid), {}
    for process in parent.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            rank, is_torchrun = process.environ().get("RANK"), process.ppid() == parent.pid
            if disturbed_worker.__name__ in process.cmdline() and (rank or is_torchrun):
                found[-1 if is_torchrun else int(rank)] = process
    return [found[rank] for rank in sorted(found)]
