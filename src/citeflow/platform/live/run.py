"""The one run of a page, described from its own records: there is no database."""

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

from citeflow import local_runs
from citeflow.errors import CiteflowError, NotFoundError
from citeflow.local_runs import RunStatus
from citeflow.paths import RunPaths
from citeflow.platform.forms import MODEL
from citeflow.platform.live.shown import Shown
from citeflow.platform.phases import ENDED, STARTED
from citeflow.platform.records import Records, result_of
from citeflow.platform.schema import Can, RunBody, Score, State
from citeflow.platform.tails import Tails

STATES: dict[str, State] = {
    local_runs.RUNNING: "running",
    local_runs.SUCCEEDED: "succeeded",
    local_runs.FAILED: "failed",
    local_runs.STOPPED: "stopped",
    local_runs.INCOMPLETE: "stopped",
}

NOTHING = Can(cancel=False, resume=False, delete=False, promote=False)
"""The page only shows: Ctrl-C in the terminal ends a run, and the same command resumes it."""


@dataclass(frozen=True, slots=True)
class LiveRow:
    """The run, as its events need it."""

    id: str
    phase: str


@dataclass(slots=True)
class LiveRun:
    """The run of a page, as `Runs` are those of a platform; who has the page may see it."""

    shown: Shown
    _records: Records = field(init=False)

    def __post_init__(self) -> None:
        """Read nothing yet."""
        tails, paths = Tails(), self.shown.paths
        self._records = Records(paths, lambda after: tails.lines(paths.output_file, after))

    @property
    def id(self) -> str:
        """Its id in addresses, in which a name such as `tuning/trial-3` has no slash."""
        return self.shown.name.replace("/", ".")

    def row(self, account: object, run_id: str) -> LiveRow:
        """Return whether it has ended.

        Raises:
            NotFoundError: it is another run that is asked for.
        """
        if run_id != self.id:
            raise NotFoundError("no such run here", run_id)
        state = STATES[self._state(local_runs.read_status(self.shown.paths))]
        return LiveRow(run_id, STARTED if state == "running" else ENDED)

    def records(self, row: LiveRow) -> Records:
        """Return its records, with what is new."""
        self._records.update()
        return self._records

    def get(self, account: object, run_id: str) -> RunBody:
        """Describe it; the errors are those of `row`."""
        is_over = self.row(account, run_id).phase == ENDED
        shown, paths = self.shown, self.shown.paths
        with contextlib.suppress(CiteflowError, OSError, ImportError):
            self._records.update()
        status = local_runs.read_status(paths)
        found = self._state(status)
        created = status.created if status else _modified(paths)
        started = datetime.fromtimestamp(shown.started, UTC) if shown.started else created
        return RunBody(
            id=run_id,
            name=shown.name,
            task=shown.task,
            owner="",
            state=STATES[found],
            detail=_detail(status, found, paths),
            created=created,
            started=started,
            ended=(status.finished if status else created) if is_over else None,
            queue_position=None,
            score=self._score(found),
            spark=self._records.spark(),
            progress=None if is_over else self._records.progress,
            workers=shown.workers,
            dataset=shown.dataset,
            model=MODEL,
            settings=shown.settings,
            has_report=is_over and (shown.published / "report.html").is_file(),
            can=NOTHING,
        )

    def _state(self, status: RunStatus | None) -> str:
        report = self.shown.paths.report
        return local_runs.state_of(self.shown.paths, status, is_complete=report.is_dir())

    def _score(self, found: str) -> Score | None:
        if found != local_runs.SUCCEEDED:
            return self._records.newest_score()
        with contextlib.suppress(CiteflowError, OSError):
            return result_of(self.shown.task, self.shown.paths.report)
        return None


def _detail(status: RunStatus | None, found: str, paths: RunPaths) -> str:
    """Return why a run has ended, and how it goes on where it does."""
    if status is None or found == local_runs.RUNNING:
        return ""
    reason = status.error.partition("\n")[0].removeprefix("error: ")
    if status.state == local_runs.RUNNING:
        reason = "its process was killed"
    if found != local_runs.STOPPED:
        return reason
    return f"{reason}; the same command with --run-name {paths.name} resumes it"


def _modified(paths: RunPaths) -> datetime:
    """Return the time of a run that no pipeline has recorded, such as a trial."""
    return datetime.fromtimestamp(paths.folder.stat().st_mtime, UTC)
