"""Runs on this machine: each a process `citeflow run` that goes on when the server ends.

What the server itself goes by (settings, process, output) lies outside of the run's own folder, in
which code of one's own may write.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

import citeflow
from citeflow import files, local_runs
from citeflow.errors import NotFoundError
from citeflow.local_runs import RunStatus
from citeflow.platform.backends import detached
from citeflow.platform.backends.base import (
    EnvironmentState,
    Phase,
    Resources,
    RunState,
    Submitted,
    paths_of,
)
from citeflow.platform.tails import Tails
from citeflow.training import sandbox
from citeflow.utils.progress import LINE_EVERY_VARIABLE
from citeflow.utils.system import memory_limit, num_cores

CITEFLOW = (sys.executable, "-P", "-m", "citeflow")

FOLDER = "processes"
"""Folder below a user's own that has one for each run."""

OUTPUT = "output.log"
SETTINGS = "settings.yaml"
STOPPED = "stop.json"
"""The attempt that was asked to stop: a second signal would end it at once."""

LINE_EVERY_S = 5
"""Seconds between two lines of progress, which the page reads."""

SECRET = "CITEFLOW_PLATFORM_"
"""Prefix of the server's own variables, which a run does not get."""

SHARE = 0.9
"""Of the machine's memory that runs may have; the rest is the server's and the system's."""

END_BYTES = 64 * 1024
"""End of the output in which the error of a command stands."""

PHASES: Mapping[str, Phase] = {
    local_runs.SUCCEEDED: "succeeded",
    local_runs.FAILED: "failed",
    local_runs.STOPPED: "stopped",
    local_runs.RUNNING: "stopped",  # a pipeline that was killed could not record its end
}


class LocalBackend:
    """Runs below one folder of this machine, which has a data root for each user."""

    def __init__(self, root: Path, *, program: Sequence[str] = CITEFLOW) -> None:
        """Take the folder.

        Args:
            root: of all users.
            program: command line of `citeflow`, absolute.
        """
        self._root = root
        self._program = program
        self._lock = threading.Lock()
        self._children: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        self._tails = Tails()

    def sizes(self) -> Mapping[str, Resources]:
        """Return a quarter of the machine, half of it, and all."""
        whole = self.capacity()
        return {
            "S": _part(whole, 4),
            "M": _part(whole, 2),
            "L": whole,
        }

    def capacity(self) -> Resources:
        """Return the machine."""
        self._root.mkdir(parents=True, exist_ok=True)
        return Resources(
            cores=num_cores(),
            memory=int(SHARE * memory_limit()),
            disk=shutil.disk_usage(self._root).total,
        )

    def code_problem(self) -> str:
        """Say why there is no sandbox, or why it would show the files of all users; "" else."""
        readable = [Path(sys.prefix), Path(sys.base_prefix), Path(citeflow.__file__).parents[1]]
        for each in (*readable, *map(Path, sandbox.SYSTEM)):
            if self._root.resolve().is_relative_to(each.resolve()):
                return f"the platform's --data lies in {each}, which code could read"
        return sandbox.find_problem()

    def ensure_environment(self, user: str, size: Resources) -> None:
        """Make the folder of a user; the queue sees to the rest."""
        self.folder(user).mkdir(parents=True, exist_ok=True, mode=0o700)

    def environment(self, user: str) -> EnvironmentState:
        """Return that it is ready: it is a folder."""
        return EnvironmentState(state="ready")

    def remove_environment(self, user: str) -> None:
        """Delete the folder of a user."""
        files.delete_directory(self.folder(user))

    def suspend(self, user: str) -> None:
        """Do nothing: what is at work here goes on to its end."""

    def wake(self, user: str) -> None:
        """Do nothing, as `suspend` does."""

    def folder(self, user: str) -> Path:
        """Return the data root of a user."""
        return self._root / "users" / user

    def start(self, run: Submitted) -> None:
        """Start a process for the attempt."""
        key = (run.id, run.attempt)
        with self._lock:
            self._reap()
            if key in self._children:
                return
            paths = paths_of(self, run)
            paths.folder.mkdir(parents=True, exist_ok=True)
            folder = self.process_folder(run)
            folder.mkdir(parents=True, exist_ok=True)
            files.write_text(folder / SETTINGS, run.settings)
            with (folder / OUTPUT).open("ab") as output:
                self._children[key] = subprocess.Popen(
                    self._command(run, folder),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=output,
                    cwd=paths.folder,
                    env=_environment(),
                    start_new_session=True,
                )

    def state(self, run: Submitted) -> RunState:
        """Return how the attempt stands, by its lock and by what the pipeline has recorded."""
        folder = self.process_folder(run)
        with self._lock:
            self._reap()
            is_coming = (run.id, run.attempt) in self._children
        # In this order: an attempt holds its lock before it is written down, and until it ends.
        attempt = detached.read_attempt(folder)
        is_alive = detached.is_alive(folder)
        if attempt is None or attempt.attempt < run.attempt:
            return RunState(phase="pending" if is_coming or is_alive else "absent")
        started = datetime.fromtimestamp(attempt.started, UTC)
        if is_alive:
            return RunState(phase="running", started=started)
        status = local_runs.read_status(paths_of(self, run))
        if status is None or (status.finished and status.finished < started):
            return _of_output(folder / OUTPUT, started)
        return _of_status(status, started)

    def cancel(self, run: Submitted) -> None:
        """Send the signal upon which a pipeline stops, once."""
        folder = self.process_folder(run)
        attempt = detached.read_attempt(folder)
        if attempt is None or attempt.attempt != run.attempt or not detached.is_alive(folder):
            return
        with contextlib.suppress(NotFoundError):
            if files.read_json(folder / STOPPED) == {"attempt": run.attempt}:
                return
        files.write_json(folder / STOPPED, {"attempt": run.attempt})
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(attempt.pid)
            if process.create_time() <= attempt.started:  # no later one of the same number
                process.send_signal(signal.SIGTERM)

    def delete(self, run: Submitted) -> None:
        """Delete the folders of a run and its logs."""
        paths = paths_of(self, run)
        files.delete_directory(paths.logs)
        files.delete_directory(paths.folder)
        files.delete_directory(self.process_folder(run))

    def lines(self, run: Submitted, after: int) -> Sequence[str]:
        """Return lines of the output; a last line that is not whole yet is left out."""
        return self._tails.lines(self.process_folder(run) / OUTPUT, after)

    def job(self, run: Submitted) -> str:
        """Return what `citeflow launch --dry-run` would print of the run for a cluster."""
        from citeflow.platform.preview import render

        return render(run, self.folder(run.user))

    def process_folder(self, run: Submitted) -> Path:
        """Return the folder of settings, process and output of a run."""
        return self.folder(run.user) / FOLDER / run.name

    def _command(self, run: Submitted, folder: Path) -> list[str]:
        return [
            *(sys.executable, "-P", "-m", detached.MODULE, str(folder), str(run.attempt)),
            ",".join(map(str, self._free_cores(run))),
            *(*self._program, "run"),
            *("--run-name", run.name, "--data-root", str(self.folder(run.user))),
            *("--dataset", run.dataset, "--workers", str(run.workers)),
            *("--config", str(folder / SETTINGS)),
        ]

    def _free_cores(self, run: Submitted) -> list[int]:
        """Return cores for a run that no other has; none where there are too few: it may use any.

        The numbers of cores mean nothing where a container has a quota of time instead.
        """
        cores = sorted(os.sched_getaffinity(0))
        if num_cores() != len(cores):
            return []
        taken: set[int] = set()
        for lock in self._root.glob(f"users/*/{FOLDER}/*/{detached.LOCK}"):
            attempt = detached.read_attempt(lock.parent)
            if attempt is not None and files.is_held(lock):
                taken.update(attempt.cores)
        free = [core for core in cores if core not in taken][: run.cores]
        return free if len(free) == run.cores else []

    def _reap(self) -> None:
        """Forget the children that have ended."""
        for key, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[key]


def _part(whole: Resources, parts: int) -> Resources:
    return Resources(
        cores=max(1, whole.cores // parts),
        memory=whole.memory // parts,
        disk=whole.disk // parts,
    )


def _environment() -> dict[str, str]:
    # Nobody has read the code of the users, whatever the one who started the server trusts.
    dropped = (SECRET, sandbox.TRUST_VARIABLE)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    more = {LINE_EVERY_VARIABLE: str(LINE_EVERY_S), local_runs.KEPT_VARIABLE: "1"}
    return {**inherited, **more}


def _of_status(status: RunStatus, started: datetime) -> RunState:
    is_killed = status.state == local_runs.RUNNING
    detail = "its process was killed" if is_killed else _first_line(status.error)
    return RunState(
        phase=PHASES[status.state], detail=detail, started=started, ended=status.finished
    )


def _of_output(output: Path, started: datetime) -> RunState:
    """Return the end of a command that has recorded nothing: by the error that it printed."""
    with contextlib.suppress(FileNotFoundError), output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - END_BYTES))
        errors = re.findall(r"^error: (.+)$", file.read().decode(errors="replace"), re.MULTILINE)
        if errors:
            return RunState(phase="failed", detail=errors[-1], started=started)
    return RunState(phase="stopped", detail="its process was killed", started=started)


def _first_line(error: str) -> str:
    return error.partition("\n")[0].removeprefix("error: ")
