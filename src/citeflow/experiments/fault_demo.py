"""`citeflow demo faults`: a training is disturbed while one can watch, and compared with one that was not."""

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path

import psutil

from citeflow import config, files, stages
from citeflow import paths as runs
from citeflow.config import Config
from citeflow.errors import TrainingError
from citeflow.reporting.recovery import Curve, Recovery
from citeflow.utils.logging import log

SETTINGS = (
    "synthetic.num_papers=3000",
    "data.eval_negatives=100",
    "data.holdout=0.1",
    "model.hidden_channels=64",
    "train.nodes_per_batch=500",
    "train.epochs=20",
    "train.num_validations=12",
    "recovery.checkpoint_steps=20",
)
"""About half a minute of training on two cores."""

KILL_AT = 0.45
"""Share of the steps that are done when the worker is killed."""

LOOK_EVERY_S = 0.02
DELAY_S = 1.0
"""Between a checkpoint and the kill, so that there is something to lose."""


def demonstrate(root: Path, *, workers: int) -> Recovery:
    """Train twice, and kill a worker the second time.

    Args:
        root: folder for all that is made.
        workers: of each training, two at least.

    Raises:
        TrainingError: the training ended before the worker could be killed.
    """
    settings = config.load(overrides=SETTINGS)
    raw = stages.download("synthetic", data_root=root, config=settings)
    graph = stages.preprocess(raw, data_root=root, config=settings)
    log("demo", "trains undisturbed", workers=workers)
    whole, began = _train(graph, root, "undisturbed", settings, workers)
    undisturbed = _curves(runs.log_folder(root, "undisturbed"), began)[-1]
    log("demo", "trains once more, and kills a worker")
    killer = _Killer(
        runs.run_folder(root, "disturbed"), at_step=round(KILL_AT * undisturbed.step[-1])
    )
    killer.start()
    try:
        other, began = _train(graph, root, "disturbed", settings, workers)
    finally:
        killer.give_up()
    return _recovery(root, settings, workers, undisturbed, killer, began, (whole, other))


def _train(graph: Path, root: Path, name: str, settings: Config, workers: int) -> tuple[str, float]:
    """Train from the start; returns the digest of the weights, and the time of the start."""
    run_dir, log_dir = runs.run_folder(root, name), runs.log_folder(root, name)
    for folder in (run_dir, log_dir):
        files.delete_directory(folder)
    began = time.time()
    model = stages.train(graph, run_dir=run_dir, log_dir=log_dir, config=settings, workers=workers)
    return files.sha256_of_file(model / "model.safetensors"), began


class _Killer(threading.Thread):
    """Waits for a step, kills a worker, and watches how the others end."""

    def __init__(self, run_dir: Path, *, at_step: int) -> None:
        super().__init__(name="killer", daemon=True)
        self._checkpoints, self._at_step = run_dir / "checkpoints", at_step
        self._given_up = threading.Event()
        self.killed = self.noticed = 0.0

    def run(self) -> None:
        """Kill one worker once, and wait until the others are gone."""
        while not self._is_time():
            if self._given_up.wait(LOOK_EVERY_S):
                return
        self._given_up.wait(DELAY_S)
        workers = _workers()
        victim = next((process for process in workers if _rank(process) == 1), None)
        if victim is None:
            return
        self.killed = time.time()
        victim.send_signal(signal.SIGKILL)
        log("demo", "killed a worker", rank=1, pid=victim.pid)
        _, alive = psutil.wait_procs(workers, timeout=60)
        self.noticed = 0.0 if alive else time.time()

    def give_up(self) -> None:
        """End the thread."""
        self._given_up.set()
        self.join()

    def _is_time(self) -> bool:
        return any(
            int(place.name.partition("-")[2]) >= self._at_step
            for place in self._checkpoints.glob("step-*")
        )


def _workers() -> list[psutil.Process]:
    """The processes below this one that train."""
    below = psutil.Process(os.getpid()).children(recursive=True)
    return [process for process in below if _rank(process) is not None]


def _rank(process: psutil.Process) -> int | None:
    """Its rank, if it is a worker that still lives."""
    try:
        rank = process.environ().get("RANK")
    except psutil.Error:
        return None
    return int(rank) if rank else None


def _recovery(
    root: Path,
    settings: Config,
    workers: int,
    undisturbed: Curve,
    killer: _Killer,
    began: float,
    model_sha256: tuple[str, str],
) -> Recovery:
    attempts = [
        files.read_json(path)
        for path in sorted((runs.run_folder(root, "disturbed") / "attempts").iterdir())
    ]
    if not killer.noticed or len(attempts) < 2:
        raise TrainingError(
            "the training ended before a worker was killed", "disturbed", hint="run it again"
        )
    curves = _curves(runs.log_folder(root, "disturbed"), began)
    return Recovery(
        workers=workers,
        steps=undisturbed.evaluated_step[-1],
        checkpoint_steps=settings.recovery.checkpoint_steps,
        undisturbed=undisturbed,
        attempts=curves,
        killed_s=killer.killed - began,
        noticed_s=killer.noticed - began,
        restarted_s=attempts[1]["wall_time"] - began,
        killed_step=curves[0].step[-1],
        resumed_step=attempts[1]["step"],
        model_sha256=model_sha256,
    )


def _curves(log_dir: Path, began: float) -> list[Curve]:
    """What each start of a training wrote into TensorBoard's files, that which later starts took back as well."""
    from citeflow.reporting.event_files import read_scalars

    paths = sorted(log_dir.glob("events.*"))
    found = [(read_scalars(path, "train/loss"), read_scalars(path, "valid/mrr")) for path in paths]
    return [
        Curve(
            seconds=[entry.wall_time - began for entry in taken],
            step=[entry.step for entry in taken],
            evaluated_step=[entry.step for entry in evaluated],
            valid_mrr=[entry.value for entry in evaluated],
        )
        for taken, evaluated in found
    ]


def as_json(recovery: Recovery) -> files.Json:
    """The figures, without the curves."""
    values = dataclasses.asdict(recovery)
    return {
        name: value for name, value in values.items() if name not in ("undisturbed", "attempts")
    }
