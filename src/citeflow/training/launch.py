"""Starts the ranks of a training on this machine, through torchrun, and turns their end into a model or an error."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import psutil

from citeflow import files
from citeflow.config import Config
from citeflow.errors import (
    CiteflowError,
    NotFoundError,
    StoppedError,
    TrainingError,
    error_from_dict,
)
from citeflow.training import memory
from citeflow.training.lease import NO_PROGRESS
from citeflow.training.preemption import stop_with_parent
from citeflow.utils.system import environment, memory_limit, oom_kills

WORKER = "citeflow.training.worker"
RESTARTS = 20
"""How often torchrun may start the workers again; attempts without progress end much earlier."""

POLL_S = 0.2
GRACE_S = 60
"""torchrun gives its workers 30 s to save before it kills them."""

OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Every start of the workers meets in a store of its own; in torchrun's they find addresses of those that are dead."""


def train_locally(
    graph: Path, *, run_dir: Path, log_dir: Path, config: Config, workers: int
) -> Path:
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
        code, was_stopped = _run(
            command, {**environment(os.environ, workers), **OWN_STORE}, run_dir
        )
    error = error_of_a_worker(run_dir)
    if (
        code != 0
        and not was_stopped
        and oom_kills() > kills
        and (error is None or error.what == NO_PROGRESS)
    ):
        raise TrainingError("out of memory", advice, hint=memory.HINT)
    if error and (is_final(error) or (code != 0 and was_stopped)):
        raise error
    if code != 0 and was_stopped:
        hint = "run it again; it goes on from its last checkpoint, if there is one"
        raise StoppedError("training was asked to stop", "outside of a step", hint=hint)
    if code != 0:
        hint = "the worker's own last lines are above; run the same command to go on from the checkpoint"
        raise TrainingError("a training worker ended with exit code", code, hint=hint)
    return run_dir / "model"


def job_of(graph: Path, log_dir: Path, config: Config) -> files.Json:
    """What a worker has to know of its task."""
    return {
        "graph": str(graph.absolute()),
        "log_dir": str(log_dir.absolute()),
        "config": config.to_dict(),
    }


def error_of_a_worker(run_dir: Path) -> CiteflowError | None:
    """The error that a worker left, as far as it can be read just now."""
    try:
        return error_from_dict(files.read_json(run_dir / "error.json"))
    except (NotFoundError, OSError):
        return None


def is_final(error: CiteflowError) -> bool:
    """Whether it is useless to start the workers again; a worker that was asked to stop can go on."""
    return error.exit_code < 128


def begin_job(run_dir: Path, task: files.Json) -> None:
    """Write the job file that the workers read, for a launch of its own."""
    files.write_json(run_dir / "job.json", {**task, "launch": secrets.token_hex(8)})


def _torchrun(workers: int) -> list[str]:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(workers),
    ]
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
        for process in (
            running if len(received) == 1 else []
        ):  # a second signal makes torchrun leave its workers behind
            process.send_signal(number)

    parent, old = os.getpid(), signal.signal(signal.SIGTERM, pass_on)
    try:
        process = subprocess.Popen(
            command, env=environment, preexec_fn=lambda: stop_with_parent(parent.__eq__)
        )
        running.append(process)
        if received:
            process.terminate()
        return _wait(process, run_dir, received), bool(received)
    finally:
        signal.signal(signal.SIGTERM, old)
        for process in running:
            if process.poll() is None:
                _end(process, ask=not received)


def _wait(process: subprocess.Popen[bytes], run_dir: Path, received: list[int]) -> int:
    """Wait for torchrun, and end it where a worker says that another attempt would end as this one."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)
        error = None if received else error_of_a_worker(run_dir)
        if error and is_final(error):
            return _end(process)


def _end(process: subprocess.Popen[bytes], *, ask: bool = True) -> int:
    """Let torchrun end its workers, once; kill all of them if that takes too long."""
    if ask:
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(GRACE_S)
    for each in psutil.Process(process.pid).children(recursive=True):
        each.kill()
    process.kill()
    return process.wait()
