"""Starts the workers of a training on this machine through torchrun, and awaits model or error."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

import psutil
from pydantic import JsonValue

from citeflow import files, own_model
from citeflow.config import CITATION, RecoveryConfig, TaskConfig
from citeflow.errors import (
    CiteflowError,
    CorruptError,
    NotFoundError,
    StoppedError,
    TrainingError,
    error_from_dict,
)
from citeflow.paths import RunPaths
from citeflow.tasks import get_task
from citeflow.training.lease import NO_PROGRESS
from citeflow.training.preemption import stop_with_parent
from citeflow.training.sandbox import Sandbox, of_training, pass_on
from citeflow.utils import records
from citeflow.utils.logging import log, printable
from citeflow.utils.records import Record
from citeflow.utils.signals import receivers
from citeflow.utils.system import ignored_variables, memory_limit, oom_kills, worker_environment

TORCHRUN = "citeflow.training.torchrun"
WORKER = "citeflow.training.worker"

MAX_RESTARTS = 20
"""How often torchrun may start the workers again; starts without progress end much earlier."""

LOOPBACK = "127.0.0.1"
CONNECT_S = 5.0

POLL_S = 0.2

GRACE_S = 60
"""Time that torchrun gets to end; it gives its workers 30 s of it to save."""

OUTPUT_S = 10
"""Time for the last output of a sandbox to be printed."""

MIB = 2**20


class WorkerJob(Record):
    """Content of job.json: everything that a worker has to know, here and in a pod."""

    task: str = CITATION
    """Key in `citeflow.tasks.TASKS`."""

    data: Path
    """Prepared data: a PreparedGraph for citations."""

    data_root: Path
    """Folder that holds the runs and their logs."""

    run: str
    """Name of the run."""

    launch: str = ""
    """Token of the command that started the workers; every launch has one of its own."""

    launched_at: float = 0.0
    """When that command did so, in seconds since 1970; 0 where it is not known."""

    config: dict[str, JsonValue]
    """All settings by section and key, which the task reads into its own record."""

    @property
    def paths(self) -> RunPaths:
        """Paths of the run."""
        return RunPaths(self.data_root, self.run)

    @property
    def recovery(self) -> RecoveryConfig:
        """Settings of the recovery from faults, which every task has."""
        return records.load(RecoveryConfig, self.config.get("recovery", {}), name="recovery")

    @property
    def has_own_code(self) -> bool:
        """True if the model is made by code of one's own."""
        model = self.config.get("model")
        return isinstance(model, dict) and bool(model.get("code"))

    @property
    def sha256(self) -> str:
        """Digest of everything but the launch: what two launches of one training share."""
        return files.sha256_of_json(self.model_dump(mode="json", exclude={"launch", "launched_at"}))


def make_job(data: Path, run: RunPaths, config: TaskConfig) -> WorkerJob:
    """Describe a training for its workers, which may be started in another folder."""
    return WorkerJob(
        task=config.task,
        data=data.absolute(),
        data_root=run.data_root.absolute(),
        run=run.name,
        config=config.to_dict(),
    )


def write_job(job: WorkerJob) -> None:
    """Write job.json, with a launch token of its own, and the time."""
    launch = {"launch": secrets.token_hex(8), "launched_at": time.time()}
    launched = job.model_copy(update=launch)
    files.write_json(job.paths.job_file, launched.model_dump(mode="json"))


def read_job(file: Path) -> WorkerJob:
    """Read job.json.

    Raises:
        NotFoundError: there is none.
        CorruptError: it is not what `write_job` writes.
    """
    hint = "run the command that started the training again"
    return records.load(
        WorkerJob, files.read_json(file), name=str(file), error=CorruptError, hint=hint
    )


def train_locally(
    data: Path,
    run: RunPaths,
    *,
    config: TaskConfig,
    workers: int,
    command: list[str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Path:
    """Train with `workers` processes; a run that was stopped is resumed from its checkpoint.

    Args:
        data: what the task's `preprocess` has made.
        run: paths of the run.
        config: all settings.
        workers: number of processes.
        command: starts them, up to the path of job.json; torchrun if None.
        variables: of its environment, besides those that every worker has.

    Returns:
        The TrainedModel.

    Raises:
        UnavailableError: another process trains this run.
        StoppedError: SIGTERM came.
        TrainingError: a worker ended without a model.
        CiteflowError: the error that a worker reported.
    """
    job = make_job(data, run, config)
    own_files = own_model.open_files(config, run.data_root)
    check_loopback()
    with files.exclusive(run.lock_file):
        kills = oom_kills()
        files.delete(run.folder, run.error_file.name)
        write_job(job)
        command = [*(command or torchrun_command(workers)), str(run.job_file)]
        if ignored := ignored_variables(os.environ):
            log("train", "ignored by workers on this machine", variables=" ".join(ignored))
        common = worker_environment(os.environ, workers)
        environment = {**common, **(variables or {})}
        sandbox = of_training(config, data=job.data, run=job.paths, own_files=own_files)
        try:
            exit_code, was_stopped = run_workers(command, environment, run, sandbox)
        finally:
            if sandbox is not None:
                sandbox.close()
    error = read_error(run.error_file)
    # A worker that is killed leaves no error, and the third in a row reports a lack of progress.
    is_unexplained = error is None or error.what == NO_PROGRESS
    if exit_code != 0 and not was_stopped and is_unexplained and oom_kills() > kills:
        raise out_of_memory(job, workers, memory_limit())
    if error and (is_final(error) or (exit_code != 0 and was_stopped)):
        raise error
    if exit_code != 0 and was_stopped:
        hint = "run it again; it goes on from its last checkpoint, if there is one"
        raise StoppedError("training was asked to stop", "outside of a step", hint=hint)
    if exit_code != 0:
        hint = (
            "the worker's own last lines are above; run the same command to go on from the "
            "checkpoint"
        )
        raise TrainingError("a training worker ended with exit code", exit_code, hint=hint)
    # Code of one's own may end a worker as if all were done.
    if job.has_own_code and not (run.model / files.MANIFEST).is_file():
        raise TrainingError("the training ended without a model", run.folder, hint="run it again")
    return run.model


def check_loopback() -> None:
    """Check that processes of this machine can connect, which torchrun tries for minutes.

    Raises:
        CiteflowError: they cannot.
    """
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=CONNECT_S).close()
    except OSError as error:
        hint = "bring the loopback interface up, as with: ip link set lo up"
        value = f"{LOOPBACK}: {error.strerror or error}"
        raise CiteflowError("workers of one machine cannot connect", value, hint=hint) from None


def read_error(file: Path) -> CiteflowError | None:
    """Return the error that a worker reported, if it can be read at the moment.

    A worker may run code that nobody trusts: its words are printed as one line each.
    """
    try:
        error = error_from_dict(files.read_plain_json(file))
    except (NotFoundError, OSError):
        return None
    except (TypeError, ValueError):
        raise CorruptError("not an error of a worker", file) from None
    what, value, hint = map(printable, (error.what, error.value, error.hint))
    exit_code = error.exit_code if 0 < error.exit_code < 256 else type(error).exit_code
    return type(error)(what, value, hint=hint, exit_code=exit_code)


def is_final(error: CiteflowError) -> bool:
    """Return True if starting the workers again is useless; one that was stopped can resume."""
    return error.exit_code < 128


def torchrun_command(workers: int) -> list[str]:
    """Return the command that starts the workers, up to the arguments of the worker."""
    return [
        sys.executable,
        "-P",  # a file torch.py in the working folder is data, never code
        "-m",
        TORCHRUN,
        "--standalone",
        "--local-addr",
        LOOPBACK,  # the name of the machine may not resolve
        "--nproc-per-node",
        str(workers),
        "--max-restarts",
        str(MAX_RESTARTS),
        "-m",
        WORKER,
    ]


def run_workers(
    command: list[str], environment: dict[str, str], run: RunPaths, sandbox: Sandbox | None = None
) -> tuple[int, bool]:
    """Run torchrun to its end; a SIGTERM is forwarded once, so that the workers can save.

    Args:
        command: torchrun, which starts all workers again when one is lost.
        environment: of torchrun and the workers.
        run: the run, where workers leave an error.
        sandbox: where they run; None for no sandbox.

    Returns:
        The exit code, and whether a SIGTERM came.

    Raises:
        TrainingError: the sandbox has exceeded a limit.
    """
    received: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        # A second signal would make torchrun end and leave its workers behind.
        if len(received) == 1:
            for process in running:
                _ask_to_end(process)

    parent = os.getpid()
    old = signal.signal(signal.SIGTERM, forward)
    try:
        process = subprocess.Popen(
            command if sandbox is None else sandbox.command(command, environment),
            # What bubblewrap has in its environment could be read out of its memory.
            env=environment if sandbox is None else {},
            preexec_fn=lambda: stop_with_parent(parent.__eq__),
            # Out of a sandbox comes a pipe: what is printed there is no text for a terminal.
            stdin=None if sandbox is None else subprocess.DEVNULL,
            stdout=None if sandbox is None else subprocess.PIPE,
            stderr=None if sandbox is None else subprocess.STDOUT,
        )
        running.append(process)
        if sandbox is not None:
            sandbox.attach(process)
        if received:
            _ask_to_end(process)
        with _passing_on(process):
            exit_code = _wait(process, run, received, sandbox)
    finally:
        signal.signal(signal.SIGTERM, old)
        for process in running:
            if process.poll() is None:
                _end(process, ask=not received and sandbox is None)
    return exit_code, bool(received)


def out_of_memory(job: WorkerJob, workers: int, allowed: int, *, hint: str = "") -> TrainingError:
    """Return the error of a training that was killed for its memory.

    Args:
        job: the training.
        workers: processes that share the memory.
        allowed: bytes.
        hint: what to do first; the task knows what else.
    """
    task = get_task(job.task)
    needed = task.memory_needed(job.data, job.config, workers, allowed=allowed)
    hints = "; ".join(filter(None, [hint, task.memory_hint]))
    return TrainingError("out of memory", compare_memory(needed, allowed), hint=hints)


def check_memory_budget(job: WorkerJob, workers: int, allowed: int) -> None:
    """Log a warning where a training is likely to need more memory than it may use.

    Args:
        job: the training.
        workers: processes that share the memory.
        allowed: bytes.
    """
    task = get_task(job.task)
    needed = task.memory_needed(job.data, job.config, workers, allowed=allowed)
    if needed > allowed:
        advice = compare_memory(needed, allowed)
        log("train", "may run out of memory", advice=advice, hint=task.memory_hint)


def compare_memory(needed: int, allowed: int) -> str:
    """Say in one line how much memory is allowed and needed."""
    estimate = "needs about" if needed > allowed else "more than the estimated"
    return f"limit {allowed // MIB:,} MiB, {estimate} {needed // MIB:,} MiB"


@contextlib.contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Print what comes through the pipe of a process while the block runs."""
    if process.stdout is None:
        yield
        return
    printer = threading.Thread(target=pass_on, args=(process.stdout,), daemon=True)
    printer.start()
    yield
    printer.join(OUTPUT_S)


def _ask_to_end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to torchrun; a sandbox that has not started it yet ends at once."""
    with contextlib.suppress(psutil.NoSuchProcess):
        asked = list(receivers(psutil.Process(process.pid)))
        for each in asked:
            each.terminate()
        if not asked:
            process.terminate()


def _wait(
    process: subprocess.Popen[bytes], run: RunPaths, received: list[int], sandbox: Sandbox | None
) -> int:
    """Wait for torchrun; end it where a worker reports what would come again."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)
        if sandbox is not None and (excess := sandbox.find_excess(process.pid)):
            process.kill()
            raise excess
        error = None if received else read_error(run.error_file)
        if error and is_final(error):
            return _end(process)


def _end(process: subprocess.Popen[bytes], *, ask: bool = True) -> int:
    """Let torchrun end its workers; kill all of them if that takes too long."""
    if ask:
        _ask_to_end(process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(GRACE_S)
    for each in psutil.Process(process.pid).children(recursive=True):
        each.kill()
    process.kill()
    return process.wait()
