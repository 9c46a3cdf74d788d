"""The runs of this machine: recorded as they go, listed, archived and deleted afterwards."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import RawIOBase, TextIOBase
from pathlib import Path
from typing import TextIO

from citeflow import files
from citeflow.artifacts import EVAL_REPORT
from citeflow.errors import CiteflowError, ConfigError, CorruptError, NotFoundError, StoppedError
from citeflow.paths import RunPaths, is_name
from citeflow.report import REPORT
from citeflow.tasks import task_of
from citeflow.tasks.base import Results
from citeflow.utils import records
from citeflow.utils.records import Record

RUNNING = "RUNNING"
SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
STOPPED = "STOPPED"
"""Ended by a signal; the same command resumes it."""
INCOMPLETE = "INCOMPLETE"
"""Without a report, and not made by a pipeline that would have recorded its end."""

KEPT_VARIABLE = "CITEFLOW_OUTPUT_KEPT"
"""Environment variable that is set where somebody else keeps what a pipeline prints."""

NAMED = "`citeflow runs list --local` names them, below --data-root"


class RunStatus(Record):
    """A pipeline of this machine, as it records itself."""

    dataset: str
    """As it was given, without secrets."""

    state: str
    created: datetime
    """First start."""

    finished: datetime | None = None
    """Last end."""

    error: str = ""


@contextlib.contextmanager
def recorded(run: RunPaths, dataset: str) -> Iterator[None]:
    """Record the state of a pipeline while the block runs it, and how it ends.

    Raises:
        UnavailableError: another pipeline runs under this name.
    """
    with files.exclusive(run.pipeline_lock):
        before = read_status(run)
        created = before.created if before else _now()
        status = RunStatus(dataset=dataset, state=RUNNING, created=created)
        _write_status(run, status)
        run.archived_file.unlink(missing_ok=True)
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(OSError):  # such as a full disk, the error itself
                _write_status(run, _ended(status, error))
            raise
        _write_status(run, _ended(status, None))


@contextlib.contextmanager
def output_kept(run: RunPaths) -> Iterator[None]:
    """Append what the block prints on stderr to a file of the run too; a full disk ends nothing."""
    with contextlib.ExitStack() as stack:
        if KEPT_VARIABLE not in os.environ:
            with contextlib.suppress(OSError):
                file = stack.enter_context(_open_output(run.output_file))
                stack.enter_context(contextlib.redirect_stderr(_Tee(sys.stderr, file)))
        yield


def _open_output(path: Path) -> RawIOBase:
    """Open a file to append to, and nothing else that code of one's own may have put there."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)


class _Tee(TextIOBase):
    """A text stream whose lines a file gets as well."""

    def __init__(self, stream: TextIO, file: RawIOBase) -> None:
        self._stream = stream
        self._file = file

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._file.write(text.encode(errors="backslashreplace"))
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


@dataclass(frozen=True, slots=True)
class LocalRuns:
    """The runs below a data root."""

    data_root: Path

    def list(self, *, experiment: str, limit: int, archived: bool) -> list[dict[str, object]]:
        """Describe runs, the newest first.

        Args:
            experiment: only its runs; empty for those that are part of none, and experiments.
            limit: at most.
            archived: those that are archived, in place of those that are not.

        Raises:
            NotFoundError: no such experiment.
        """
        folder = self._folder(experiment) if experiment else self.data_root / "runs"
        found = [
            RunPaths.of_folder(self.data_root, folder / name) for name in files.names_in(folder)
        ]
        chosen = [run for run in found if _is_run(run) and run.archived_file.exists() == archived]
        return [_describe(run) for run in sorted(chosen, key=_created_s, reverse=True)[:limit]]

    def show(self, name: str) -> dict[str, object]:
        """Describe a run in full: settings, scores, and the bytes that it takes.

        Raises:
            NotFoundError: no such run.
        """
        run = self._find(name)
        described = {
            **_describe(run),
            "archived": run.archived_file.exists(),
            "bytes": _bytes_of(run),
        }
        results = _read_results(run)
        if results is None:
            return described
        return {**described, "test": results.test(), "config": results.report.config.to_dict()}

    def archive(self, name: str, *, undo: bool) -> dict[str, object]:
        """Leave a run out of the list, or put it back; its files stay where they are.

        Raises:
            NotFoundError: no such run.
        """
        run = self._find(name)
        if undo:
            run.archived_file.unlink(missing_ok=True)
        else:
            files.write_json(run.archived_file, {"archived": _now().isoformat()})
        return {"name": run.name, "archived": not undo}

    def delete(self, name: str) -> dict[str, object]:
        """Delete an archived run with its model, report, checkpoints and logs.

        What it published to another folder, its index where it is deployed, and the graph stay.

        Raises:
            NotFoundError: no such run.
            ConfigError: it is not archived.
            UnavailableError: it is running.
        """
        run = self._find(name)
        if not run.archived_file.exists():
            hint = f"`citeflow runs archive --local {name}` first"
            raise ConfigError("the run is not archived", name, hint=hint)
        with contextlib.ExitStack() as held:
            for lock in self._locks(run):
                held.enter_context(files.exclusive(lock))
            freed = _bytes_of(run)
            files.delete_directory(run.logs)
            files.delete_directory(run.folder)
        return {"name": run.name, "deleted": [str(run.folder), str(run.logs)], "bytes": freed}

    def _locks(self, run: RunPaths) -> Iterator[Path]:
        """Yield the locks of a run, of the experiment that it is part of, and of its own trials."""
        yield from (run.pipeline_lock, run.lock_file)
        if run.is_trial:
            yield RunPaths(self.data_root, run.name.partition("/")[0]).pipeline_lock
        yield from _trial_locks(run)

    def _find(self, name: str) -> RunPaths:
        run = RunPaths.of_folder(self.data_root, self._folder(name))
        if not _is_run(run):
            raise NotFoundError("no such run", run.folder, hint=NAMED)
        return run

    def _folder(self, name: str) -> Path:
        folder = RunPaths(self.data_root, name).folder
        if not all(map(is_name, name.split("/"))) or not folder.is_dir():
            raise NotFoundError("no such run", folder, hint=NAMED)
        return folder


def _created(run: RunPaths, status: RunStatus | None) -> datetime | None:
    return status.created if status else _modified(run.folder)


def _created_s(run: RunPaths) -> float:
    """Return the time of the first start in seconds, by which times of any zone have an order."""
    created = _created(run, read_status(run))
    return created.timestamp() if created else 0.0


def _describe(run: RunPaths) -> dict[str, object]:
    status = read_status(run)
    results = _read_results(run)
    created = _created(run, status)
    finished = status.finished if status else _modified(run.report / REPORT)
    return {
        "name": run.name,
        "state": state_of(run, status, is_complete=results is not None),
        "created": created.isoformat(timespec="seconds") if created else None,
        "finished": finished.isoformat(timespec="seconds") if finished else None,
        "dataset": status.dataset if status else results.report.dataset if results else None,
        "score": _score(results) if results else None,
        "error": (status.error if status else "") or None,
        "path": str(run.folder),
    }


def _score(results: Results) -> dict[str, float]:
    compared = results.report.compared()
    return {compared.names[1]: compared.test}


def _trial_locks(run: RunPaths) -> list[Path]:
    """Return the locks of an experiment's trainings, which outlive a pipeline that is killed."""
    return sorted(run.folder.glob(f"*/{run.lock_file.name}"))


def state_of(run: RunPaths, status: RunStatus | None, *, is_complete: bool) -> str:
    """Return the state of a run by its status and its locks; `is_complete` if it has a report."""
    if any(map(files.is_held, (run.pipeline_lock, run.lock_file, *_trial_locks(run)))):
        return RUNNING
    if status:
        # A pipeline that was killed could not record its end.
        return STOPPED if status.state == RUNNING else status.state
    return SUCCEEDED if is_complete else INCOMPLETE


def _ended(status: RunStatus, error: BaseException | None) -> RunStatus:
    state = SUCCEEDED
    if isinstance(error, KeyboardInterrupt):
        error = StoppedError("stopped by a signal", "SIGINT")
    if error:
        state = STOPPED if isinstance(error, StoppedError) else FAILED
    text = str(error) if isinstance(error, CiteflowError) else repr(error) if error else ""
    return status.model_copy(update={"state": state, "finished": _now(), "error": text})


def read_status(run: RunPaths) -> RunStatus | None:
    """Read the status of a run; one that cannot be read is none, as a list must not end with it."""
    try:
        values = files.read_json(run.status_file)
        return records.load(RunStatus, values, error=CorruptError)
    except (NotFoundError, CorruptError, OSError):
        return None


def _write_status(run: RunPaths, status: RunStatus) -> None:
    files.write_json(run.status_file, status.model_dump(mode="json"))


def _read_results(run: RunPaths) -> Results | None:
    try:
        return task_of(run.report, EVAL_REPORT).results(run.report)
    except (NotFoundError, CorruptError):
        return None


def _is_run(run: RunPaths) -> bool:
    """Tell a run, or an experiment, from the folders of models and checkpoints in one."""
    return any(path.exists() for path in (run.status_file, run.job_file, run.report))


def _modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None


def _bytes_of(run: RunPaths) -> int:
    total = 0
    for top in (run.folder, run.logs):
        for folder, _, names in os.walk(top):  # it bears folders that vanish, as in a training
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += (Path(folder) / name).lstat().st_size
    return total


def _now() -> datetime:
    return datetime.now(UTC)
