"""Starts the ranks of a training on this machine, through torchrun, and turns their end into a model or an error."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from citeflow import files
from citeflow.config import Config
from citeflow.cores import environment, memory_limit, oom_kills
from citeflow.errors import CiteflowError, StoppedError, TrainingError, from_record
from citeflow.training import memory
from citeflow.training.stops import stop_with_parent

WORKER = "citeflow.training.worker"
RESTARTS = 20
"""How often torchrun may start the workers again; attempts without progress end much earlier."""

POLL_S = 0.2
GRACE_S = 60
"""torchrun gives its workers 30 s to save before it kills them."""

OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Every start of the workers meets in a store of its own; in torchrun's they find addresses of those that are dead."""


def train_here(graph: Path, *, run_dir: Path, log_dir: Path, config: Config, workers: int) -> Path:
    """Train with `workers` processes; a run that was stopped goes on from its checkpoint.

    Raises:
        UnavailableError: another process trains this run.
        StoppedError: SIGTERM came.
        TrainingError: a worker ended without a model.
        CiteflowError: whatever error a worker left behind.
    """
    advice = memory.foretell(graph, config, workers, memory_limit())
    with files.exclusive(run_dir / "train.lock"):
        kills = oom_kills()
        files.delete(run_dir, "error.json")
        begin_job(run_dir, job_of(graph, log_dir, config))
        command = [*_torchrun(workers), str(run_dir / "job.json")]
        code, was_stopped = _run(command, {**environment(os.environ, workers), **OWN_STORE}, run_dir)
    if code != 0 and not was_stopped and oom_kills() > kills:
        raise TrainingError("out of memory", advice, hint=memory.HINT)
    error = error_of_a_worker(run_dir)
    if error and (is_final(error) or (code != 0 and was_stopped)):
        raise error
    if code != 0 and was_stopped:
        hint = "run it again; it goes on from its last checkpoint, if there is one"
        raise StoppedError("training was asked to stop", "before it could save once more", hint=hint)
    if code != 0:
        hint = "the worker's own last lines are above; run the same command to go on from the checkpoint"
        raise TrainingError("a training worker ended with exit code", code, hint=hint)
    return run_dir / "model"


def job_of(graph: Path, log_dir: Path, config: Config) -> files.Json:
    """What a worker has to know of its task."""
    return {"graph": str(graph.absolute()), "log_dir": str(log_dir.absolute()), "config": config.to_dict()}


def error_of_a_worker(run_dir: Path) -> CiteflowError | None:
    """The error that a worker left."""
    path = run_dir / "error.json"
    return from_record(files.read_json(path)) if path.is_file() else None


def is_final(error: CiteflowError) -> bool:
    """Whether it is useless to start the workers again; a worker that was asked to stop can go on."""
    return error.exit_code < 128


def begin_job(run_dir: Path, task: files.Json) -> None:
    """Write the job file that the workers read, for a launch of its own."""
    files.write_json(run_dir / "job.json", {**task, "launch": secrets.token_hex(8)})


def _torchrun(workers: int) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    return [*launcher, "--max-restarts", str(RESTARTS), "-m", WORKER]


def _run(command: list[str], environment: dict[str, str], run_dir: Path) -> tuple[int, bool]:
    """Run to the end; a SIGTERM that comes meanwhile is passed on, so that the workers can save.

    Args:
        command: torchrun, which starts all workers again when one is lost.
        environment: of the workers.
        run_dir: where they leave errors.

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
        process = subprocess.Popen(command, env=environment, preexec_fn=stop_with_parent)
        running.append(process)
        if received:
            process.terminate()
        return _wait(process, run_dir, received), bool(received)
    finally:
        signal.signal(signal.SIGTERM, old)
        for process in running:
            if process.poll() is None:
                process.terminate()
                process.wait(GRACE_S)


def _wait(process: subprocess.Popen[bytes], run_dir: Path, received: list[int]) -> int:
    """Wait for torchrun, and end it where a worker says that another attempt would end as this one."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)
        error = None if received else error_of_a_worker(run_dir)
        if error and is_final(error):
            process.terminate()
            return process.wait(GRACE_S)
