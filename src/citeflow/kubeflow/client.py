"""The pipelines, versions, experiments and runs on a server of Kubeflow Pipelines."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from citeflow.errors import NotFoundError, UnavailableError
from citeflow.kubeflow.calls import AlreadyExistsError, RawApi, UnansweredError, call
from citeflow.kubeflow.outcome import CANCELED, CANCELING, FAILED, TERMINAL, failed_stages
from citeflow.utils.logging import log, redact_url
from citeflow.utils.retry import Backoff

OUTAGE_S = 900.0
"""How long a run that is waited for is asked for: the server may be upgraded in the meantime."""

POLL = Backoff(first_pause_s=2.0, longest_pause_s=20.0)
"""Pauses between two looks at a run that is waited for."""

LOOKUP_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Pauses before each look for an object whose creation got no answer."""

ARCHIVED = "ARCHIVED"
"""Storage state of a run in the archive."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """A run to start from a version of a pipeline on the server."""

    experiment_id: str
    pipeline_id: str
    version_id: str
    name: str
    description: str
    """Unique, so that the run is found where the answer to its creation was lost."""

    parameters: Mapping[str, Any]
    service_account: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class KfpClient:
    """A server that answers, and the namespace of this user's runs. Methods return kfp's models."""

    kfp: Any = field(repr=False)
    """The kfp.Client, whose generated APIs are called."""

    host: str
    namespace: str
    """That of the profile in multi-user mode, else empty: a server alone has no namespaces."""

    pods_namespace: str
    names_are_dns: bool
    """Whether versions are Kubernetes objects, whose names are lower case."""

    def get_or_create_pipeline(self, name: str, description: str) -> Any:
        """Return the pipeline of this name; create it if there is none."""
        create = self.kfp.pipelines.pipeline_service_create_pipeline
        fields = {"name": name, "display_name": name, "description": description}
        body = self._model("Pipeline", **fields, **self._namespace())
        return _get_or_create(lambda: self.find_pipeline(name), create, body)

    def find_pipeline(self, name: str) -> Any:
        """Return the pipeline of this name, or None."""
        get = self.kfp.pipelines.pipeline_service_get_pipeline_by_name
        with contextlib.suppress(NotFoundError):
            return call(get, name, **self._namespace())
        return None

    def get_or_upload_version(
        self, pipeline_id: str, name: str, package: Path, description: str
    ) -> Any:
        """Return the version of this name of a pipeline; upload it if there is none."""
        unique = re.sub("[^a-z0-9.-]", "-", name.lower()) if self.names_are_dns else name

        def find() -> Any:
            versions = self._list_versions(pipeline_id)
            return next((each for each in versions if name in (each.name, each.display_name)), None)

        return _get_or_create(
            find,
            self.kfp.pipeline_uploads.upload_pipeline_version,
            str(package),
            name=unique,
            display_name=name,
            pipelineid=pipeline_id,
            description=description,
        )

    def newest_version(self, pipeline_id: str) -> Any:
        """Return the newest version of a pipeline, or None."""
        return next(self._list_versions(pipeline_id, page_size=1), None)

    def _list_versions(self, pipeline_id: str, *, page_size: int = 100) -> Iterator[Any]:
        token = ""
        while True:
            page = call(
                self.kfp.pipelines.pipeline_service_list_pipeline_versions,
                pipeline_id,
                page_token=token,
                page_size=page_size,
                sort_by="created_at desc",
            )
            yield from page.pipeline_versions or []
            token = page.next_page_token
            if not token:
                return

    def get_or_create_experiment(self, name: str, description: str) -> Any:
        """Return the experiment of this name; create it if there is none."""
        create = self.kfp.experiments.experiment_service_create_experiment
        fields = {"display_name": name, "description": description}
        body = self._model("Experiment", **fields, **self._namespace())
        return _get_or_create(lambda: self.find_experiment(name), create, body)

    def find_experiment(self, name: str) -> Any:
        """Return the experiment of this name, or None."""
        api = self.kfp.experiments.experiment_service_list_experiments
        only = json.dumps({"predicates": [_predicate("display_name", "EQUALS", name)]})
        page = call(api, filter=only, **self._namespace())
        return next(iter(page.experiments or []), None)

    def create_run(self, request: RunRequest) -> Any:
        """Start a run, once."""
        body = self._model("Run", **self._run_fields(request))

        def find() -> Any:
            runs = self.list_runs(experiment_id=request.experiment_id, name=request.name)
            return _described_as(request.description, runs)

        return _create(find, self.kfp.runs.run_service_create_run, body)

    def find_run(self, name: str, key: str) -> Any:
        """Return the run of this name whose description ends with a key, or None."""
        ending = f", {key}"
        runs = self.list_runs(name=name)
        return next((run for run in runs if (run.description or "").endswith(ending)), None)

    def create_recurring_run(
        self, request: RunRequest, *, cron: str, max_concurrency: int, catchup: bool
    ) -> Any:
        """Create a recurring run, once.

        Args:
            request: each of its runs.
            cron: second, minute, hour, day, month, weekday.
            max_concurrency: runs at a time.
            catchup: whether runs that were missed are made up for.
        """
        api = self.kfp.recurring_runs
        schedule = self._model("CronSchedule", cron=cron)
        body = self._model(
            "RecurringRun",
            mode="ENABLE",
            trigger=self._model("Trigger", cron_schedule=schedule),
            max_concurrency=str(max_concurrency),
            no_catchup=not catchup,
            **self._run_fields(request),
        )

        def find() -> Any:
            page = call(
                api.recurring_run_service_list_recurring_runs,
                experiment_id=request.experiment_id,
                page_size=100,
            )
            return _described_as(request.description, page.recurring_runs)

        return _create(find, api.recurring_run_service_create_recurring_run, body)

    def list_runs(
        self,
        *,
        experiment_id: str = "",
        name: str = "",
        archived: bool | None = None,
        limit: int = 100,
    ) -> list[Any]:
        """Return the newest runs, of an experiment or a name, archived or not, if given."""
        where = {"experiment_id": experiment_id} if experiment_id else self._namespace()
        predicates = []
        if name:
            predicates.append(_predicate("display_name", "EQUALS", name))
        if archived is not None:
            operation = "EQUALS" if archived else "NOT_EQUALS"
            predicates.append(_predicate("storage_state", operation, ARCHIVED))
        if predicates:
            where["filter"] = json.dumps({"predicates": predicates})
        api = self.kfp.runs.run_service_list_runs
        return call(api, page_size=limit, sort_by="created_at desc", **where).runs or []

    def get_run(self, id_or_name: str, *, patience_s: float | None = None) -> Any:
        """Return a run by its id, or the newest of its name.

        Raises:
            NotFoundError: there is none.
        """
        if _ID.fullmatch(id_or_name):
            api = self.kfp.runs.run_service_get_run
            return call(api, id_or_name, patience_s=patience_s)
        runs = self.list_runs(name=id_or_name, limit=1)
        if not runs:
            raise NotFoundError("no such run", id_or_name, hint="`citeflow runs list` names them")
        return runs[0]

    def failed_stages(self, run_id: str) -> dict[str, str]:
        """Return the stages of a run that failed, with what the server says of each."""
        path = f"/apis/v2beta1/runs/{run_id}"
        return failed_stages(call(RawApi(self.kfp).get, path, (("view", "FULL"),)))

    def archive_run(self, run_id: str, *, undo: bool = False) -> None:
        """Move a run to the archive, or back."""
        api = self.kfp.runs
        call(api.run_service_unarchive_run if undo else api.run_service_archive_run, run_id)

    def delete_run(self, run_id: str) -> None:
        """Delete a run from the server; what it left on the volume stays."""
        call(self.kfp.runs.run_service_delete_run, run_id)

    def terminate_run(self, run_id: str) -> None:
        """Ask the server to end a run."""
        call(self.kfp.runs.run_service_terminate_run, run_id)

    def wait_for_run(
        self, run_id: str, *, timeout_s: float, look: Callable[[], None] = lambda: None
    ) -> Any:
        """Return a run once it has ended; log its states as they come, and look at something else.

        A cancelled run ends as FAILED on the server. It is returned as CANCELED if the client saw
        that it was being cancelled.

        Raises:
            UnavailableError: it has not ended in time, or the server did not answer for OUTAGE_S.
        """
        until = time.monotonic() + timeout_s
        last = ""
        looks = 0
        while True:
            run = self.get_run(run_id, patience_s=OUTAGE_S)
            looks += 1
            if run.state and run.state != last:
                log("run", run.state.lower(), id=run_id)
                looks = 1
            if run.state in TERMINAL:
                if last == CANCELING and run.state == FAILED:
                    run.state = CANCELED
                return run
            look()
            last = run.state or last
            pause_s = POLL.pause_s(looks)
            if time.monotonic() + pause_s > until:
                hint = f"the run continues; `citeflow runs watch {run_id}`"
                state = last or "no state yet"
                raise UnavailableError("the run has not ended in time", state, hint=hint)
            time.sleep(pause_s)

    def run_url(self, run_id: str) -> str:
        """Return the URL of the page of a run."""
        return self.url(f"runs/details/{run_id}")

    def url(self, route: str) -> str:
        """Return the URL of a page of the Central Dashboard (multi-user) or of the UI of KFP."""
        base = os.environ.get("KF_PIPELINES_UI_ENDPOINT") or self.host
        base = redact_url(base).rstrip("/") or "/pipeline"
        if self.namespace:
            return f"{base.removesuffix('/pipeline')}/_/pipeline/?ns={self.namespace}#/{route}"
        return f"{base}/#/{route}"

    def _namespace(self) -> dict[str, Any]:
        return {"namespace": self.namespace} if self.namespace else {}

    def _model(self, kind: str, /, **values: Any) -> Any:
        return getattr(self.kfp.api_models, f"V2beta1{kind}")(**values)

    def _run_fields(self, request: RunRequest) -> dict[str, Any]:
        """Return the fields of a run, its pipeline by reference: the run page then links to it."""
        reference = self._model(
            "PipelineVersionReference",
            pipeline_id=request.pipeline_id,
            pipeline_version_id=request.version_id,
        )
        return {
            "experiment_id": request.experiment_id,
            "display_name": request.name,
            "description": request.description,
            "pipeline_version_reference": reference,
            "runtime_config": self._model("RuntimeConfig", parameters=dict(request.parameters)),
            "service_account": request.service_account or None,
        }


def _get_or_create(
    find: Callable[[], Any], method: Callable[..., Any], *args: Any, **options: Any
) -> Any:
    return find() or _create(find, method, *args, **options)


def _create(find: Callable[[], Any], method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Create an object; if the answer is lost, or somebody was faster, look for it."""
    try:
        return call(method, *args, creates=True, **options)
    except (UnansweredError, AlreadyExistsError):
        for pause_s in LOOKUP_PAUSES_S:
            time.sleep(pause_s)
            if found := find():
                return found
        raise


def _predicate(key: str, operation: str, value: str) -> dict[str, str]:
    return {"operation": operation, "key": key, "string_value": value}


def _described_as(description: str, objects: list[Any] | None) -> Any:
    return next((each for each in objects or [] if each.description == description), None)
