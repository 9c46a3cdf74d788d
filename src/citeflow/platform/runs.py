"""Runs: submitted, described, cancelled, resumed, compared and deleted, each by its own user."""

import contextlib
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from citeflow import config, own_model, paths
from citeflow.config import CITATION
from citeflow.errors import CiteflowError, NotFoundError, UnavailableError
from citeflow.paths import RunPaths
from citeflow.platform import comparison, forms, preview, store
from citeflow.platform.accounts import Account
from citeflow.platform.backends.base import Backend, RunState, Submitted, paths_of
from citeflow.platform.beneath import check_plain, leads_beneath
from citeflow.platform.environments import Environments
from citeflow.platform.phases import ENDED, QUEUED, STARTED
from citeflow.platform.queue import CANCELLED, Queue, detail_of, order, submitted
from citeflow.platform.records import OpenRecords, Records, result_of
from citeflow.platform.schema import Can, Comparison, PreviewBody, RunBody, Score, Submission
from citeflow.platform.store import Store, TableRow
from citeflow.platform.submissions import Submissions
from citeflow.platform.uploads import Uploads
from citeflow.serving.problems import ProblemError
from citeflow.tasks import load_settings

MAX_WAITING = 100
"""Runs of one user in the queue."""

MAX_COMPARED = 20


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of all users."""

    store: Store
    backend: Backend
    queue: Queue
    environments: Environments
    uploads: Uploads
    opened: OpenRecords = field(default_factory=OpenRecords)

    def preview(self, account: Account, wanted: Submission) -> PreviewBody:
        """Say what a submission would start, and whether it fits the quota."""
        planned = self._submissions.plan(account, wanted)
        detail = self._submissions.objection(account, wanted.workers, planned.memory)
        if not detail and planned.memory is None:
            detail = "the memory is not known before the data has been read"
        run = Submitted(
            id="preview",
            user=account.name,
            name=wanted.name or "preview",
            task=wanted.task,
            dataset=planned.source,
            settings=config.to_yaml(planned.settings),
            workers=wanted.workers,
            cores=wanted.workers,
            memory=planned.memory or 0,
            attempt=1,
        )
        return PreviewBody(
            yaml=self.backend.job(run),
            memory=planned.memory,
            seconds=preview.seconds(planned.settings),
            fits=not self._submissions.objection(account, wanted.workers, planned.memory),
            detail=detail,
        )

    def submit(self, account: Account, wanted: Submission, key: str) -> RunBody:
        """Put a run into the queue.

        Args:
            account: whose it is.
            wanted: the run.
            key: a repeated submission with the same key finds the first one's run.

        Raises:
            ProblemError: it does not fit the quota, or a run has its name.
            ConfigError: a setting is wrong.
        """
        planned = self._submissions.plan(account, wanted)
        if objection := self._submissions.objection(account, wanted.workers, planned.memory):
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, objection)
        run_id = id_of(account.name, key)
        suffix = f"{time.strftime('%Y%m%d-%H%M%S')}-{run_id[:4]}"
        values = {
            "id": run_id,
            "user": account.name,
            "name": wanted.name or paths.make_name(planned.label, suffix),
            "task": wanted.task,
            "dataset": planned.label,
            "model": ", ".join(each.name for each in planned.own.values())[:200] or forms.MODEL,
            "source": planned.source,
            "settings": forms.given_settings(wanted),
            "yaml": config.to_yaml(planned.settings),
            "workers": wanted.workers,
            "memory": planned.memory or 0,
            "created": store.now(),
            "phase": QUEUED,
            "attempt": 1,
            "is_cancelled": False,
        }
        with self.store.write() as connection:
            of_id = store.runs.c.id == run_id
            if before := connection.execute(select(store.runs).where(of_id)).one_or_none():
                return self._repeated(before, values)
            waiting = (store.runs.c.user == account.name) & (store.runs.c.phase == QUEUED)
            counted = connection.execute(select(func.count()).where(waiting)).scalar() or 0
            if counted >= MAX_WAITING:
                detail = f"{MAX_WAITING} of your runs are waiting already"
                raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, detail)
            # Here, where no deletion of another run can take the files away.
            self._submissions.bring(account, planned)
            place = 1 + (connection.execute(select(func.max(store.runs.c.place))).scalar() or 0)
            try:
                connection.execute(insert(store.runs).values(**values, place=place))
            except IntegrityError:
                detail = f"one of your runs is called {values['name']} already"
                raise ProblemError(HTTPStatus.CONFLICT, detail, field="name") from None
        self.queue.wake()
        return self.get(account, run_id)

    def list(
        self, account: Account, *, state: str, limit: int, before: float | None
    ) -> list[RunBody]:
        """Describe the runs of a user, the newest first."""
        query = select(store.runs).where(store.runs.c.user == account.name)
        if before is not None:
            query = query.where(store.runs.c.created < before)
        query = query.order_by(store.runs.c.created.desc(), store.runs.c.id)
        if not state:
            query = query.limit(limit)
        with self.store.read() as connection:
            rows = connection.execute(query).all()
        positions = self._positions(rows)
        described = (self.describe(row, positions) for row in rows)
        chosen: list[RunBody] = []
        for body in described:
            if len(chosen) == limit:
                break
            if not state or body.state == state:
                chosen.append(body)
        return chosen

    def get(self, account: Account, run_id: str) -> RunBody:
        """Describe a run.

        Raises:
            NotFoundError: the user has no such run.
        """
        row = self.row(account, run_id)
        return self.describe(row, self._positions([row]))

    def row(self, account: Account, run_id: str) -> TableRow:
        """Return the row of a run.

        Raises:
            NotFoundError: the user has no such run.
        """
        own = (store.runs.c.id == run_id) & (store.runs.c.user == account.name)
        with self.store.read() as connection:
            row = connection.execute(select(store.runs).where(own)).one_or_none()
        if row is None:
            raise NotFoundError("no such run", run_id)
        return row

    def paths(self, row: TableRow) -> RunPaths:
        """Return the paths of a run."""
        return paths_of(self.backend, submitted(row))

    def records(self, row: TableRow) -> Records:
        """Return the records of a run, with what is new."""
        run = submitted(row)

        def lines(after: int) -> Sequence[str]:
            return [self._without_root(row.user, each) for each in self.backend.lines(run, after)]

        def make() -> Records:
            return Records(paths_of(self.backend, run), lines)

        found = self.opened.get(row.id, make)
        found.update()
        return found

    def cancel(self, account: Account, run_id: str) -> RunBody:
        """Ask a run to stop, or take it out of the queue.

        Raises:
            ProblemError: it has ended.
        """
        row = self.row(account, run_id)
        of_run = (store.runs.c.id == row.id) & (store.runs.c.attempt == row.attempt)
        is_waiting = of_run & (store.runs.c.phase == QUEUED)
        is_at_work = of_run & (store.runs.c.phase == STARTED)
        ended = {"phase": ENDED, "state": "stopped", "detail": CANCELLED, "ended": store.now()}
        with self.store.write() as connection:
            taken = connection.execute(update(store.runs).where(is_waiting).values(**ended))
            marked = connection.execute(
                update(store.runs).where(is_at_work).values(is_cancelled=True)
            )
        if not taken.rowcount and not marked.rowcount:
            raise ProblemError(HTTPStatus.CONFLICT, "the run has ended already")
        self.queue.wake()
        return self.get(account, run_id)

    def resume(self, account: Account, run_id: str) -> RunBody:
        """Put a run that was stopped or has failed into the queue again.

        Raises:
            ProblemError: it is not one of these.
        """
        row = self.row(account, run_id)
        can_go_on = (
            (store.runs.c.id == row.id)
            & (store.runs.c.phase == ENDED)
            & store.runs.c.state.in_(("stopped", "failed"))
        )
        with self.store.write() as connection:
            place = 1 + (connection.execute(select(func.max(store.runs.c.place))).scalar() or 0)
            again = {
                "phase": QUEUED,
                "place": place,
                "attempt": store.runs.c.attempt + 1,
                "state": None,
                "detail": "",
                "ended": None,
            }
            changed = connection.execute(update(store.runs).where(can_go_on).values(**again))
        if not changed.rowcount:
            detail = "only a run that was stopped, or has failed, can be resumed"
            raise ProblemError(HTTPStatus.CONFLICT, detail)
        self.queue.wake()
        return self.get(account, run_id)

    def delete(self, account: Account, run_id: str) -> None:
        """Delete a run with its files.

        Raises:
            ProblemError: it has not ended, or its model is in use.
        """
        row = self.row(account, run_id)
        if row.phase != ENDED:
            raise ProblemError(HTTPStatus.CONFLICT, "the run has not ended", hint="cancel it first")
        of_run = store.model_versions.c.run == row.id
        with self.store.write() as connection:
            version = connection.execute(select(store.model_versions).where(of_run)).one_or_none()
            if version is not None:
                self._check_unused(connection, version)
                connection.execute(delete(store.model_versions).where(of_run))
            # First the files: a run that is listed can be deleted again.
            self.backend.delete(submitted(row))
            connection.execute(delete(store.runs).where(store.runs.c.id == row.id))
            self._delete_own_files(connection, row)
        self.opened.forget(row.id)

    def compare(self, account: Account, ids: Sequence[str]) -> Comparison:
        """Put runs side by side.

        Raises:
            NotFoundError: the user has no such run.
            ProblemError: there are too many, or none.
        """
        if not 1 <= len(ids) <= MAX_COMPARED:
            detail = f"1 to {MAX_COMPARED} runs can be compared"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="ids")
        rows = [self.row(account, each) for each in ids]
        positions = self._positions(rows)
        return Comparison(
            runs=[self.describe(row, positions) for row in rows],
            rows=comparison.table([self._figures(row) for row in rows]),
            settings=comparison.differences(rows),
            series=[
                series for row in rows for series in comparison.series(row.id, self.records(row))
            ],
        )

    def ended(self, row: TableRow, state: RunState) -> None:
        """Keep the score and the curve of a run that has ended, for the list."""
        score = self._score(row, state.phase)
        spark: list[float] = []
        with contextlib.suppress(CiteflowError, OSError, ImportError):
            spark = [each for each in self.records(row).spark() if math.isfinite(each)]
        values = {"score": score.model_dump() if score else None, "spark": spark}
        with self.store.write() as connection:
            connection.execute(update(store.runs).where(store.runs.c.id == row.id).values(**values))

    def describe(self, row: TableRow, positions: Mapping[str, int]) -> RunBody:
        """Describe a run; `positions` has the places of runs in the queue."""
        state, detail, started, ended = self._state(row)
        detail = self._without_root(row.user, detail)
        is_live = state in ("running", "stopping")
        records = None
        if is_live:
            with contextlib.suppress(CiteflowError, OSError, ImportError):
                records = self.records(row)
        score, spark = row.score, row.spark or []
        if records is not None:
            spark = records.spark()
            score = {"name": records.score_name(), "value": spark[-1]} if spark else None
        has_ended = state in ("stopped", "succeeded", "failed")
        return RunBody(
            id=row.id,
            name=row.name,
            task=row.task,
            owner=row.user,
            state=state,
            detail=detail,
            created=to_time(row.created),
            started=started,
            ended=ended,
            queue_position=positions.get(row.id),
            score=Score.model_validate(score) if score else None,
            spark=spark,
            progress=records.progress if records is not None else None,
            workers=row.workers,
            dataset=row.dataset,
            model=row.model,
            settings=row.settings,
            has_report=(self.paths(row).published / "report.html").is_file(),
            can=Can(
                cancel=state in ("queued", "running"),
                resume=state in ("stopped", "failed"),
                delete=has_ended,
                promote=state == "succeeded" and row.task == CITATION,
            ),
        )

    def _state(self, row: TableRow) -> tuple[Any, str, datetime | None, datetime | None]:
        started = to_time(row.started) if row.started else None
        if row.phase == QUEUED:
            return "queued", self._why_waiting(row), started, None
        if row.phase == ENDED:
            ended = to_time(row.ended) if row.ended else None
            return row.state, row.detail, started, ended
        try:
            found = self.backend.state(submitted(row))
        except UnavailableError as error:
            return "running", f"{error.what}: {error.value}", started, None
        if found.phase in ("succeeded", "failed", "stopped"):
            return found.phase, detail_of(row, found), found.started, found.ended
        detail = found.detail or ("starting" if found.phase != "running" else "")
        return "stopping" if row.is_cancelled else "running", detail, found.started, None

    def _without_root(self, user: str, text: str) -> str:
        """Shorten the paths of a text to those below the data root of a user.

        The server's own folders are nobody's business.
        """
        root = str(self.backend.folder(user))
        return text.replace(f"{root}/", "").replace(root, ".") if root in text else text

    def _why_waiting(self, row: TableRow) -> str:
        with self.store.read() as connection:
            size = connection.execute(
                select(store.users.c.size).where(store.users.c.name == row.user)
            ).scalar()
        if size is None:
            return "waits for an environment"
        quota = self.backend.sizes()[size]
        if row.workers > quota.cores or row.memory > quota.memory:
            return "needs more than the environment has"
        return "waits for its turn"

    def _positions(self, rows: Sequence[TableRow]) -> dict[str, int]:
        if not any(row.phase == QUEUED for row in rows):
            return {}
        with self.store.read() as connection:
            ordered = order(self.queue.standing(connection))
        return {run_id: place for place, run_id in enumerate(ordered, 1)}

    def _repeated(self, before: TableRow, values: Mapping[str, object]) -> RunBody:
        same = ("user", "task", "dataset", "source", "settings", "workers", "yaml")
        if any(getattr(before, name) != values[name] for name in same):
            detail = "another submission had this Idempotency-Key"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        return self.describe(before, {})

    def _check_unused(self, connection: Any, version: TableRow) -> None:
        for table, what in ((store.deployments, "deployed"), (store.aliases, "named by an alias")):
            is_of = (
                (table.c.user == version.user)
                & (table.c.model == version.model)
                & (table.c.version == version.version)
            )
            if table is store.aliases:
                is_of &= table.c.alias != "candidate"
            if connection.execute(select(table).where(is_of)).first() is not None:
                detail = f"its model, version {version.version} of {version.model}, is {what}"
                raise ProblemError(HTTPStatus.CONFLICT, detail)

    def _delete_own_files(self, connection: Connection, row: TableRow) -> None:
        """Delete the files of a model of one's own that no run of the user names any more."""
        root = self.backend.folder(row.user)
        if not forms.OWN.keys() & row.settings.keys():
            return
        if not leads_beneath(root, root / own_model.FOLDER):
            return
        others = select(store.runs.c.yaml).where(store.runs.c.user == row.user)
        texts = [other.yaml for other in connection.execute(others)]
        for path in own_model.paths(load_settings(row.task, text=row.yaml), root):
            if not any(path.stem in text for text in texts):
                path.unlink(missing_ok=True)

    def _score(self, row: TableRow, phase: str) -> Score | None:
        if phase != "succeeded":
            return None
        with contextlib.suppress(CiteflowError, OSError):
            run = self.paths(row)
            check_plain(run.data_root, run.report)
            return result_of(row.task, run.report)
        return None

    def _figures(self, row: TableRow) -> dict[str, float]:
        if self._state(row)[0] != "succeeded":
            return {}
        return comparison.figures(row, self.paths(row))

    @property
    def _submissions(self) -> Submissions:
        return Submissions(self.backend, self.environments, self.uploads)


def id_of(user: str, key: str) -> str:
    """Return an id: that which follows from a key, so that a repeat has the same, or a new one."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{user}\n{key}").hex if key else uuid.uuid4().hex


def to_time(seconds: float) -> datetime:
    """Return seconds since 1970 as a time."""
    return datetime.fromtimestamp(seconds, UTC)
