"""What citeflow asks a server of Kubeflow Pipelines for: pipelines, versions, experiments, runs."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citeflow.errors import (
    ConfigError,
    NotFoundError,
    StoppedError,
    TrainingError,
    UnavailableError,
)
from citeflow.kubeflow import api
from citeflow.utils.logging import log, redact_url

STANDALONE = "kubeflow"
"""Namespace of an installation of Kubeflow Pipelines alone."""

SUCCEEDED, CANCELED, CANCELING = "SUCCEEDED", "CANCELED", "CANCELING"
TERMINAL = {SUCCEEDED, CANCELED, "FAILED", "SKIPPED"}

OUTAGE_S = 900.0
"""How long a run is waited for while the server does not answer."""

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 20.0
LOOKED_FOR_S = (1.0, 2.0, 4.0, 8.0)
"""Pauses between looks for something whose making got no answer."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server that answers, and on whose behalf we ask."""

    client: Any
    host: str
    namespace: str
    """The profile's namespace in multi-user mode, else empty: a server alone has no namespaces."""

    pods_namespace: str
    names_are_dns: bool
    sleep: Callable[[float], None] = time.sleep

    def pipeline(self, name: str) -> Any:
        """The pipeline of this name, made if there is none."""
        space = self._space()
        body = self._model("Pipeline", name=name, display_name=name, **space)
        calls = self.client.pipelines

        def find() -> Any:
            with contextlib.suppress(NotFoundError):
                return self._ask(calls.pipeline_service_get_pipeline_by_name, name, **space)
            return None

        return self._made(find, lambda: self._make(calls.pipeline_service_create_pipeline, body))

    def version(self, pipeline_id: str, name: str, path: Path, description: str) -> Any:
        """The version of this name, uploaded if there is none."""
        unique = re.sub("[^a-z0-9.-]", "-", name.lower()) if self.names_are_dns else name
        listing, upload = self.client.pipelines, self.client.pipeline_uploads
        options = {
            "name": unique,
            "display_name": name,
            "pipelineid": pipeline_id,
            "description": description,
        }

        def find() -> Any:
            call, token = listing.pipeline_service_list_pipeline_versions, ""
            while True:
                page = self._ask(
                    call, pipeline_id, page_token=token, page_size=100, sort_by="created_at desc"
                )
                found = _only(
                    [
                        each
                        for each in page.pipeline_versions or []
                        if name in (each.name, each.display_name)
                    ]
                )
                token = page.next_page_token
                if found is not None or not token:
                    return found

        return self._made(
            find, lambda: self._make(upload.upload_pipeline_version, str(path), **options)
        )

    def experiment(self, name: str) -> Any:
        """The experiment of this name, made if there is none."""
        body = self._model("Experiment", display_name=name, **self._space())
        calls = self.client.experiments
        return self._made(
            lambda: self.find_experiment(name),
            lambda: self._make(calls.experiment_service_create_experiment, body),
        )

    def find_experiment(self, name: str) -> Any:
        """The experiment of this name, or None."""
        call = self.client.experiments.experiment_service_list_experiments
        return _only(
            self._ask(call, filter=_equals("display_name", name), **self._space()).experiments
        )

    def run(self, body: dict[str, Any]) -> Any:
        """Start a run, once."""
        run, calls = self._model("Run", **self._from_version(body)), self.client.runs

        def find() -> Any:
            found = self.runs(experiment_id=body["experiment_id"], name=body["display_name"])
            return _only([each for each in found if each.description == body["description"]])

        return self._made(find, lambda: self._make(calls.run_service_create_run, run), is_new=True)

    def recurring_run(
        self, body: dict[str, Any], *, cron: str, max_concurrency: int, catchup: bool
    ) -> Any:
        """Make a recurring run, once."""
        trigger = self._model("Trigger", cron_schedule=self._model("CronSchedule", cron=cron))
        schedule = {
            "trigger": trigger,
            "max_concurrency": str(max_concurrency),
            "no_catchup": not catchup,
        }
        model = self._model("RecurringRun", mode="ENABLE", **schedule, **self._from_version(body))
        calls = self.client.recurring_runs

        def find() -> Any:
            listed = self._ask(
                calls.recurring_run_service_list_recurring_runs,
                experiment_id=body["experiment_id"],
                page_size=100,
            )
            return _only(
                [e for e in listed.recurring_runs or [] if e.description == body["description"]]
            )

        make = calls.recurring_run_service_create_recurring_run
        return self._made(find, lambda: self._make(make, model), is_new=True)

    def runs(self, *, experiment_id: str = "", name: str = "", limit: int = 100) -> list[Any]:
        """Runs, the newest first."""
        where = {"experiment_id": experiment_id} if experiment_id else self._space()
        where |= {"filter": _equals("display_name", name)} if name else {}
        call = self.client.runs.run_service_list_runs
        return self._ask(call, page_size=limit, sort_by="created_at desc", **where).runs or []

    def find_run(self, wanted: str) -> Any:
        """A run by its id, or the newest of its name.

        Raises:
            NotFoundError: there is none.
        """
        if _ID.fullmatch(wanted):
            return self._ask(self.client.runs.run_service_get_run, wanted)
        found = self.runs(name=wanted, limit=1)
        if not found:
            raise NotFoundError("no such run", wanted, hint="`citeflow runs list` names them")
        return found[0]

    def terminate(self, run_id: str) -> None:
        """Ask the server to end a run."""
        self._ask(self.client.runs.run_service_terminate_run, run_id)

    def wait(self, run_id: str, *, timeout_s: float) -> Any:
        """The run, once it has ended; its states are told as they come.

        A run that was cancelled ends as FAILED on the server; one that was seen to be cancelled is told as CANCELED.

        Raises:
            UnavailableError: it has not ended in time, or the server did not answer for OUTAGE_S.
        """
        until, pause, last = time.monotonic() + timeout_s, SHORTEST_PAUSE_S, ""
        while True:
            run = self._ask(self.client.runs.run_service_get_run, run_id, patience_s=OUTAGE_S)
            if run.state and run.state != last:
                log("run", run.state.lower(), id=run_id)
                pause = SHORTEST_PAUSE_S
            if run.state in TERMINAL:
                run.state = CANCELED if (last, run.state) == (CANCELING, "FAILED") else run.state
                return run
            last = run.state or last
            if time.monotonic() + pause > until:
                hint = f"it goes on; `citeflow runs watch {run_id}`"
                raise UnavailableError(
                    "the run has not ended in time", last or "no state yet", hint=hint
                )
            self.sleep(pause)
            pause = min(LONGEST_PAUSE_S, 1.5 * pause)

    def run_page(self, run_id: str) -> str:
        """URL of the page of a run."""
        return self.page(f"runs/details/{run_id}")

    def page(self, route: str) -> str:
        """URL of a page: in the Central Dashboard in multi-user mode, else in the UI of Kubeflow Pipelines."""
        base = os.environ.get("KF_PIPELINES_UI_ENDPOINT") or self.host
        base = redact_url(base).rstrip("/") or "/pipeline"
        if self.namespace:
            return f"{base.removesuffix('/pipeline')}/_/pipeline/?ns={self.namespace}#/{route}"
        return f"{base}/#/{route}"

    def _space(self) -> dict[str, str]:
        return {"namespace": self.namespace} if self.namespace else {}

    def _model(self, kind: str, /, **values: Any) -> Any:
        return getattr(self.client.api_models, f"V2beta1{kind}")(**values)

    def _from_version(self, body: dict[str, Any]) -> dict[str, Any]:
        """A run's fields, the pipeline by its version on the server, so that the run page leads to it."""
        rest = {
            key: body[key]
            for key in ("experiment_id", "display_name", "description", "service_account")
        }
        ids = {"pipeline_id": body["pipeline_id"], "pipeline_version_id": body["version_id"]}
        reference = self._model("PipelineVersionReference", **ids)
        config = self._model("RuntimeConfig", parameters=body["parameters"])
        return {**rest, "pipeline_version_reference": reference, "runtime_config": config}

    def _ask(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return api.ask(call, *args, sleep=self.sleep, **options)

    def _make(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return api.ask(call, *args, makes=True, sleep=self.sleep, **options)

    def _made(
        self, find: Callable[[], Any], make: Callable[[], Any], *, is_new: bool = False
    ) -> Any:
        """Find something or make it; where making it got no answer, or somebody was faster, look for it."""
        found = None if is_new else find()
        if found is not None:
            return found
        try:
            return make()
        except (api.UnansweredError, api.AlreadyThereError):
            for pause in LOOKED_FOR_S:
                self.sleep(pause)
                found = find()
                if found is not None:
                    return found
            raise


def connect(
    *,
    host: str = "",
    namespace: str = "",
    token_file: Path | None = None,
    ssl_ca_cert: Path | None = None,
) -> Server:
    """Find the server; what is not given is found as kfp.Client does.

    Args:
        host: URL of the API or the UI, else $KF_PIPELINES_ENDPOINT, the cluster's own service, or the kubeconfig's.
        namespace: your profile's in multi-user mode; else where the pods of the server's runs are, by default kubeflow.
        token_file: holds the bearer token, else $KF_PIPELINES_SA_TOKEN_PATH names it.
        ssl_ca_cert: certificate authority of the server, as PEM.

    Raises:
        UnavailableError: kfp is not installed, or the server does not answer.
        ConfigError: the server refuses us, or is multi-user and there is no namespace.
    """
    client = api.connect(host=host, token_file=token_file, ssl_ca_cert=ssl_ca_cert)
    health = client.get_kfp_healthz()
    mine = namespace or client.get_user_namespace() if health.multi_user else ""
    if health.multi_user and not mine:
        raise ConfigError(
            "Kubeflow Pipelines is shared by several users",
            hint="--namespace with that of your profile",
        )
    return Server(
        client=client,
        host=host or os.environ.get("KF_PIPELINES_ENDPOINT", ""),
        namespace=mine,
        pods_namespace=mine or namespace or STANDALONE,
        names_are_dns=health.pipeline_store == "kubernetes",
    )


def check_ended_well(run: Any) -> None:
    """Tell how a run that did not succeed ended.

    Raises:
        TrainingError: it failed: exit code 75.
        StoppedError: it was cancelled: exit code 143.
    """
    if run.state == CANCELED:
        raise StoppedError("the run was cancelled", run.run_id)
    if run.state != SUCCEEDED:
        tasks = (run.run_details.task_details if run.run_details else None) or []
        failed = sorted(
            {task.display_name for task in tasks if task.state == "FAILED" and task.display_name}
        )
        what = f"the run ended as {run.state}" + (f" at {', '.join(failed)}" if failed else "")
        raise TrainingError(what, run.run_id, hint=f"`citeflow runs logs {run.run_id}`")


def _equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})


def _only(found: list[Any] | None) -> Any:
    return found[0] if found else None
