"""Starts the ranks of a training on this machine, through torchrun, and turns their end into a model or an error."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from citeflow import files
from citeflow.config import Config
from citeflow.cores import environment
from citeflow.errors import StoppedError, TrainingError, from_record

GRACE_S = 60
"""torchrun gives its workers 30 s to save before it kills them."""


def train_here(graph: Path, *, run_dir: Path, log_dir: Path, config: Config, workers: int) -> Path:
    """Train with `workers` processes; a run that was stopped goes on from its checkpoint.

    Raises:
        UnavailableError: another process trains this run.
        StoppedError: SIGTERM came.
        TrainingError: a worker ended without a model.
        CiteflowError: whatever error a worker left behind.
    """
    with files.exclusive(run_dir / "train.lock"):
        files.write_json(run_dir / "job.json", job_of(graph, log_dir, config))
        files.delete(run_dir, "error.json")
        code, was_stopped = _run([*_torchrun(workers), str(run_dir / "job.json")], environment(os.environ, workers))
    if (run_dir / "error.json").exists():
        raise from_record(files.read_json(run_dir / "error.json"))
    if code != 0 and was_stopped:
        hint = "run it again; it goes on from its last checkpoint, if there is one"
        raise StoppedError("training was asked to stop", "before it could save once more", hint=hint)
    if code != 0:
        hint = "the worker's own last lines are above; run the same command to go on from the checkpoint"
        raise TrainingError("a training worker ended with exit code", code, hint=hint)
    return run_dir / "model"


def job_of(graph: Path, log_dir: Path, config: Config) -> files.Json:
    """What a worker has to know, as it reads it from the job file."""
    return {"graph": str(graph.absolute()), "log_dir": str(log_dir.absolute()), "config": config.to_dict()}


def _torchrun(workers: int) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    return [*launcher, "-m", "citeflow.training.worker"]


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, bool]:
    """Run to the end; a SIGTERM that comes meanwhile is passed on, so that the workers can save.

    Returns:
        The exit code, and whether a SIGTERM came.
    """
    received: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in running if len(received) == 1 else []:  # a second signal makes torchrun leave its workers behind
            process.send_signal(number)

    old = signal.signal(signal.SIGTERM, pass_on)
    try:
        process = subprocess.Popen(command, env=environment)
        running.append(process)
        if received:
            process.terminate()
        return process.wait(), bool(received)
    finally:
        signal.signal(signal.SIGTERM, old)
        for process in running:
            if process.poll() is None:
                process.terminate()
                process.wait(GRACE_S)
