"""The models of each user: a version for each run that succeeded, aliases, and what is deployed.

The registry is the platform's own, as its users have no accounts at MLflow; the rule by which a
version may follow the champion is that of `citeflow models promote`. Where MLflow is set up, runs
are published there as well.
"""

import math
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from citeflow import files
from citeflow.artifacts import SERVING_INDEX, TRAINED_MODEL
from citeflow.config import CITATION
from citeflow.errors import CiteflowError, CorruptError, DataError, NotFoundError, UnavailableError
from citeflow.paths import RunPaths
from citeflow.platform import store
from citeflow.platform.accounts import Account
from citeflow.platform.backends.base import Backend, RunState, paths_of
from citeflow.platform.beneath import check_plain, leads_beneath
from citeflow.platform.queue import submitted
from citeflow.platform.schema import DeploymentBody, ModelBody, VersionBody
from citeflow.platform.store import Store, TableRow
from citeflow.report import Report
from citeflow.reporting.registered_models import (
    CANDIDATE,
    CHAMPION,
    Version,
    check_better,
)
from citeflow.serving.deploying import CURRENT, deploy, service_folder
from citeflow.serving.problems import ProblemError

PROTOCOL = "ogb"
"""Protocol whose test MRR decides which version is better."""

INDEX_S = 3_600.0
"""Longest time to make an index."""

ALIASES = (CHAMPION, CANDIDATE)

CODE = "model.code"
"""Setting of a run whose model has code of its own."""


@dataclass(frozen=True, slots=True)
class Models:
    """The models of all users."""

    store: Store
    backend: Backend
    _failed: dict[str, str] = field(default_factory=dict)
    """Reasons why an index could not be made, by its folder."""
    _at_work: dict[str, threading.Thread] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def register(self, row: TableRow, state: RunState) -> None:
        """Add a version for a run of citations that succeeded; repeated, it changes nothing."""
        if state.phase != "succeeded" or row.task != CITATION:
            return
        run = paths_of(self.backend, submitted(row))
        try:
            for folder in (run.report, run.model):
                check_plain(run.data_root, folder)
            report = Report.read(run.report)
            manifest = files.read_manifest(run.model, TRAINED_MODEL)
            scores = _scores(report)
        except (CiteflowError, OSError):
            return  # of a run whose files were deleted by hand, or made by hostile code
        values = {
            "user": row.user,
            "model": model_name(row.dataset),
            "run": row.id,
            "run_name": row.name,
            "dataset": report.dataset,
            "sha256": manifest.sha256,
            "graph": str(manifest.inputs.get("PreparedGraph", "")),
            "scores": scores,
            "created": store.now(),
        }
        of_model = (store.model_versions.c.user == row.user) & (
            store.model_versions.c.model == values["model"]
        )
        newest = select(func.max(store.model_versions.c.version)).where(of_model)
        is_there = select(store.model_versions).where(store.model_versions.c.run == row.id)
        with self.store.write() as connection:
            if connection.execute(is_there).first() is not None:
                return
            number = 1 + (connection.execute(newest).scalar() or 0)
            connection.execute(insert(store.model_versions).values(**values, version=number))
            _set_alias(connection, row.user, str(values["model"]), CANDIDATE, number)

    def list(self, account: Account, seconds: "Seconds") -> list[ModelBody]:
        """Describe the models of a user by name."""
        own = store.model_versions.c.user == account.name
        newest_first = store.model_versions.c.version.desc()
        with self.store.read() as connection:
            rows = connection.execute(
                select(store.model_versions).where(own).order_by(newest_first)
            ).all()
            aliases = connection.execute(
                select(store.aliases).where(store.aliases.c.user == account.name)
            ).all()
            deployed = connection.execute(
                select(store.deployments).where(store.deployments.c.user == account.name)
            ).all()
            coded = _coded(connection, account.name)
        versions: dict[str, list[VersionBody]] = {}
        for row in rows:
            named = [
                each.alias
                for each in aliases
                if (each.model, each.version) == (row.model, row.version)
            ]
            body = _version_body(row, named, has_code=row.run in coded)
            versions.setdefault(row.model, []).append(body)
        deployment_of = {each.model: each.version for each in deployed}
        return [
            ModelBody(
                name=name,
                versions=versions[name],
                deployment=self._deployment(account, name, deployment_of[name], seconds)
                if name in deployment_of
                else None,
            )
            for name in sorted(versions)
        ]

    def get(self, account: Account, model: str, seconds: "Seconds") -> ModelBody:
        """Describe a model.

        Raises:
            NotFoundError: the user has no such model.
        """
        for body in self.list(account, seconds):
            if body.name == model:
                return body
        raise NotFoundError("no such model", model)

    def set_alias(
        self, account: Account, model: str, alias: str, number: int, *, force: bool
    ) -> None:
        """Let an alias name a version; the champion only moves to a better one, unless forced.

        Raises:
            NotFoundError: there is no such version.
            ProblemError: it is no better than the champion, or the alias is none.
        """
        if alias not in ALIASES:
            hint = " or ".join(ALIASES)
            raise ProblemError(HTTPStatus.NOT_FOUND, "no such alias", hint=hint)
        with self.store.write() as connection:
            wanted = _to_version(_row(connection, account.name, model, number))
            of_alias = _of_alias(account.name, model, alias)
            before = connection.execute(select(store.aliases.c.version).where(of_alias)).scalar()
            if alias == CHAMPION and before not in (None, number) and not force:
                current = _to_version(_row(connection, account.name, model, before))
                try:
                    check_better(wanted, current, PROTOCOL)
                except DataError as error:
                    raise ProblemError(
                        HTTPStatus.CONFLICT,
                        _refusal(error, model, number),
                        hint="compare both runs; force promotes it all the same",
                    ) from None
            _set_alias(connection, account.name, model, alias, number)

    def chosen(self, account: Account, model: str) -> TableRow:
        """Return the version that answers: the deployed one, else the champion, else the newest.

        Versions with code of their own are passed over.

        Raises:
            NotFoundError: the user has no such model.
            ProblemError: all of its versions have code of their own.
        """
        of_model = _of_model(store.model_versions, account.name, model)
        of_deployment = _of_model(store.deployments, account.name, model)
        of_alias = _of_alias(account.name, model, CHAMPION)
        with self.store.read() as connection:
            rows = connection.execute(select(store.model_versions).where(of_model)).all()
            if not rows:
                raise NotFoundError("no such model", model)
            coded = _coded(connection, account.name)
            deployed = select(store.deployments.c.version).where(of_deployment)
            champion = select(store.aliases.c.version).where(of_alias)
            wanted = [connection.execute(query).scalar() for query in (deployed, champion)]
        able = {row.version: row for row in rows if row.run not in coded}
        if not able:
            raise _cannot_answer()
        return next((able[each] for each in wanted if each in able), able[max(able)])

    def deploy(self, account: Account, model: str, number: int) -> None:
        """Let a version answer: its index is made, and put where `citeflow serve --watch` looks.

        Raises:
            NotFoundError: there is no such version.
            ProblemError: it has code of its own.
        """
        of_model = _of_model(store.deployments, account.name, model)
        with self.store.write() as connection:
            row = _row(connection, account.name, model, number)
            if row.run in _coded(connection, account.name):
                raise _cannot_answer()
            connection.execute(delete(store.deployments).where(of_model))
            connection.execute(
                insert(store.deployments).values(user=account.name, model=model, version=number)
            )
        self._failed.pop(str(self._run(row).index), None)
        self._begin(row)

    def undeploy(self, account: Account, model: str) -> None:
        """Let no version answer.

        Raises:
            NotFoundError: none does.
        """
        of_model = _of_model(store.deployments, account.name, model)
        with self.store.write() as connection:
            if not connection.execute(delete(store.deployments).where(of_model)).rowcount:
                raise NotFoundError("not deployed", model)
        files.delete_directory(self._service(account.name, model))

    def index(self, row: TableRow) -> Path | None:
        """Return the index of a version; None while it is made.

        Raises:
            ProblemError: it could not be made.
        """
        folder = self._run(row).index
        if (folder / files.MANIFEST).is_file() and not self._is_at_work(folder):
            return folder
        if reason := self._failed.pop(str(folder), ""):
            raise ProblemError(HTTPStatus.CONFLICT, f"the index could not be made: {reason}")
        self._begin(row)
        return None

    def _deployment(
        self, account: Account, model: str, number: int, seconds: "Seconds"
    ) -> DeploymentBody:
        with self.store.read() as connection:
            row = _row(connection, account.name, model, number)
        index = self._run(row).index
        detail = self._failed.get(str(index), "")
        state = "failed" if detail else "preparing"
        if self._is_served(account, row):
            state = "ready"
        elif not detail:
            self._begin(row)  # also where a server was killed meanwhile
        p50, p99 = seconds.percentiles((account.name, model, number))
        return DeploymentBody.model_validate(
            {"version": number, "state": state, "detail": detail, "p50": p50, "p99": p99}
        )

    def _is_served(self, account: Account, row: TableRow) -> bool:
        try:
            link = self._service(account.name, row.model) / CURRENT
            manifest = files.read_manifest(link, SERVING_INDEX)
        except (CiteflowError, OSError):
            return False
        return bool(manifest.inputs.get("TrainedModel") == row.sha256)

    def _service(self, user: str, model: str) -> Path:
        """Return the folder of what is deployed.

        Raises:
            CorruptError: pods of the user have put a link in its place.
        """
        root = self.backend.folder(user)
        folder = service_folder(root, model)
        if not leads_beneath(root, folder):
            raise CorruptError("the folder of the service leads elsewhere", model)
        return folder

    def _run(self, row: TableRow) -> RunPaths:
        return RunPaths(self.backend.folder(row.user), row.run_name)

    def _is_at_work(self, folder: Path) -> bool:
        thread = self._at_work.get(str(folder))
        return thread is not None and thread.is_alive()

    def _begin(self, row: TableRow) -> None:
        """Make the index of a version in a thread, unless that is under way."""
        folder = self._run(row).index
        with self._lock:
            if not self._is_at_work(folder):
                thread = threading.Thread(target=self._make, args=(row,), daemon=True)
                self._at_work[str(folder)] = thread
                thread.start()

    def _make(self, row: TableRow) -> None:
        run = self._run(row)
        try:
            check_plain(run.data_root, run.model)
            make_index(run)
            with self.store.read() as connection:
                of_model = _of_model(store.deployments, row.user, row.model)
                deployed = connection.execute(
                    select(store.deployments.c.version).where(of_model)
                ).scalar()
            if deployed == row.version:
                deploy(run.index, self._service(row.user, row.model))
        except CiteflowError as error:
            self._failed[str(run.index)] = f"{error.what}: {error.value}"
        except OSError as error:
            self._failed[str(run.index)] = error.strerror or type(error).__name__


class Seconds:
    """The last times of answers, by the version that gave them."""

    KEPT = 1_000

    def __init__(self) -> None:
        """Keep none yet."""
        self._of: dict[tuple[str, str, int], list[float]] = {}

    def add(self, version: tuple[str, str, int], seconds: float) -> None:
        """Add the time of an answer."""
        times = self._of.setdefault(version, [])
        times.append(seconds)
        del times[: -self.KEPT]

    def percentiles(self, version: tuple[str, str, int]) -> tuple[float | None, float | None]:
        """Return median and 99th percentile of the times; None where there are none."""
        times = sorted(self._of.get(version, ()))
        if not times:
            return None, None
        return times[len(times) // 2], times[min(len(times) - 1, int(0.99 * len(times)))]


def model_name(dataset: str) -> str:
    """Return the name of the model that runs of a dataset are versions of."""
    last = dataset.rstrip("/").rpartition("/")[2].partition(".")[0].lower()
    return "-".join(re.findall(r"[a-z0-9]+", last))[:63].strip("-") or CITATION


def make_index(run: RunPaths) -> None:
    """Make the index of a run in a process of its own: the server goes on answering meanwhile.

    Raises:
        UnavailableError: it took too long.
        CiteflowError: it could not be made.
    """
    command = [sys.executable, "-P", "-m", "citeflow", "index", run.name]
    command += ["--data-root", str(run.data_root)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INDEX_S, check=False)
    except subprocess.TimeoutExpired:
        raise UnavailableError("the index was not made within an hour", run.name) from None
    if done.returncode:
        errors = re.findall(r"^error: (.+)$", done.stderr, re.MULTILINE)
        raise CiteflowError(errors[-1] if errors else "no index", run.name)


def _scores(report: Report) -> dict[str, float]:
    """Return the test MRR by protocol, of those that had a source: JSON knows no NaN."""
    found = {name: report.mrr(name) for name in ("ogb", *report.protocols)}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _coded(connection: Connection, user: str) -> set[str]:
    """Return the ids of the runs of a user whose models have code of their own."""
    columns = (store.runs.c.id, store.runs.c.settings)
    rows = connection.execute(select(*columns).where(store.runs.c.user == user))
    return {row.id for row in rows if CODE in row.settings}


def _cannot_answer() -> ProblemError:
    detail = "a model with code of its own cannot be asked: only its training runs the code"
    return ProblemError(HTTPStatus.CONFLICT, detail)


def _refusal(error: DataError, model: str, number: int) -> str:
    """Say in words of the page why a version cannot be the champion."""
    what = error.what.replace(f"models:/{model}/{number}", f"version {number}")
    own, _, best = str(error.value).replace(f"{PROTOCOL} MRR", "test MRR").rpartition(", ")
    return f"{what}: {own} against {best}"


def _row(connection: Connection, user: str, model: str, number: int) -> TableRow:
    of_version = _of_model(store.model_versions, user, model) & (
        store.model_versions.c.version == number
    )
    row = connection.execute(select(store.model_versions).where(of_version)).one_or_none()
    if row is None:
        raise NotFoundError("no such version", f"{model}, version {number}")
    return row


def _of_model(table: Any, user: str, model: str) -> Any:
    return (table.c.user == user) & (table.c.model == model)


def _of_alias(user: str, model: str, alias: str) -> Any:
    return _of_model(store.aliases, user, model) & (store.aliases.c.alias == alias)


def _set_alias(connection: Connection, user: str, model: str, alias: str, number: int) -> None:
    of_alias = _of_alias(user, model, alias)
    changed = connection.execute(update(store.aliases).where(of_alias).values(version=number))
    if not changed.rowcount:
        values = {"user": user, "model": model, "alias": alias, "version": number}
        connection.execute(insert(store.aliases).values(**values))


def _to_version(row: TableRow) -> Version:
    return Version(
        name=row.model,
        number=row.version,
        aliases=(),
        run=row.run_name,
        dataset=row.dataset,
        sha256=row.sha256,
        data=row.graph,
        metric="MRR",
        scores=dict(row.scores),
        decisive=PROTOCOL,
        created="",
    )


def _version_body(row: TableRow, aliases: Sequence[str], *, has_code: bool) -> VersionBody:
    scores: Mapping[str, float] = row.scores
    return VersionBody.model_validate(
        {
            "version": row.version,
            "run": row.run,
            "run_name": row.run_name,
            "created": row.created,
            "dataset": row.dataset,
            "scores": scores,
            "score": scores.get(PROTOCOL),
            "aliases": sorted(aliases),
            "has_code": has_code,
        }
    )
