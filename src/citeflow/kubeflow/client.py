"""A client of Kubeflow Pipelines: kfp.Client finds the server and signs in, its generated API asks.

kfp.Client's own methods print links on stdout, wait for ever for an answer, and write into the home
directory. `KfpClient.call` therefore calls the generated API below them, which takes a time limit.

A request that reads is repeated while the server does not answer. A request that creates is not,
unless it certainly was not carried out: where its answer is lost, the client looks for the new
object by name. So nothing is created twice.
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, NoReturn

from citeflow.errors import (
    INSTALL,
    CiteflowError,
    ConfigError,
    NotFoundError,
    StoppedError,
    TrainingError,
    UnavailableError,
)
from citeflow.utils.logging import log, redact_url
from citeflow.utils.retry import Backoff, TransientError, retry

STANDALONE = "kubeflow"
"""Namespace of an installation of Kubeflow Pipelines alone."""

SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
CANCELED = "CANCELED"
CANCELING = "CANCELING"
TERMINAL = {SUCCEEDED, FAILED, CANCELED, "SKIPPED"}

TIMEOUT_S = (5.0, 60.0)
"""Longest wait for a connection, and for an answer; an upload is compiled before it is answered."""

BACKOFF = Backoff(first_pause_s=0.5, longest_pause_s=15.0, patience_s=15.0)
"""Attempts of a request while the server does not answer."""

OUTAGE_S = 900.0
"""The same while a run is waited for: the server may be upgraded in the meantime."""

POLL = Backoff(first_pause_s=2.0, longest_pause_s=20.0)
"""Pauses between two looks at a run that is waited for."""

LOOKUP_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Pauses before each look for an object whose creation got no answer."""

TRANSIENT = {408, 429, 500, 502, 503, 504}
"""Statuses that mean: ask again."""

SHOWN_CHARS = 300
"""At most so much of a server's own message is printed."""

IS_HOST_RIGHT = "is --host (or $KF_PIPELINES_ENDPOINT) right, and the port forwarded?"

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class UnansweredError(UnavailableError):
    """A request was sent and may have been carried out, but no answer came."""


class AlreadyExistsError(ConfigError):
    """An object of this name exists."""


class _NoAnswerError(TransientError):
    """No answer, or one that means: ask again."""

    def __init__(self, reason: str, *, was_sent: bool) -> None:
        super().__init__(reason)
        self.was_sent = was_sent


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

    sleep: Callable[[float], None] = time.sleep

    def get_or_create_pipeline(self, name: str) -> Any:
        """Return the pipeline of this name; create it if there is none."""
        api = self.kfp.pipelines
        body = self._model("Pipeline", name=name, display_name=name, **self._namespace())
        found = self.find_pipeline(name)
        return found or self._create(
            lambda: self.find_pipeline(name), api.pipeline_service_create_pipeline, body
        )

    def find_pipeline(self, name: str) -> Any:
        """Return the pipeline of this name, or None."""
        get = self.kfp.pipelines.pipeline_service_get_pipeline_by_name
        with contextlib.suppress(NotFoundError):
            return self.call(get, name, **self._namespace())
        return None

    def get_or_upload_version(
        self, pipeline_id: str, name: str, package: Path, description: str
    ) -> Any:
        """Return the version of this name of a pipeline; upload it if there is none."""
        unique = re.sub("[^a-z0-9.-]", "-", name.lower()) if self.names_are_dns else name

        def find() -> Any:
            for version in self._list_versions(pipeline_id):
                if name in (version.name, version.display_name):
                    return version
            return None

        return find() or self._create(
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
            page = self.call(
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

    def get_or_create_experiment(self, name: str) -> Any:
        """Return the experiment of this name; create it if there is none."""
        create = self.kfp.experiments.experiment_service_create_experiment
        body = self._model("Experiment", display_name=name, **self._namespace())
        found = self.find_experiment(name)
        return found or self._create(lambda: self.find_experiment(name), create, body)

    def find_experiment(self, name: str) -> Any:
        """Return the experiment of this name, or None."""
        api = self.kfp.experiments.experiment_service_list_experiments
        page = self.call(api, filter=_equals("display_name", name), **self._namespace())
        return next(iter(page.experiments or []), None)

    def create_run(self, request: RunRequest) -> Any:
        """Start a run, once."""
        body = self._model("Run", **self._run_fields(request))

        def find() -> Any:
            runs = self.list_runs(experiment_id=request.experiment_id, name=request.name)
            return _described_as(request.description, runs)

        return self._create(find, self.kfp.runs.run_service_create_run, body)

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
            page = self.call(
                api.recurring_run_service_list_recurring_runs,
                experiment_id=request.experiment_id,
                page_size=100,
            )
            return _described_as(request.description, page.recurring_runs)

        return self._create(find, api.recurring_run_service_create_recurring_run, body)

    def list_runs(self, *, experiment_id: str = "", name: str = "", limit: int = 100) -> list[Any]:
        """Return the newest runs, of one experiment or of one name if these are given."""
        where = {"experiment_id": experiment_id} if experiment_id else self._namespace()
        if name:
            where["filter"] = _equals("display_name", name)
        api = self.kfp.runs.run_service_list_runs
        return self.call(api, page_size=limit, sort_by="created_at desc", **where).runs or []

    def get_run(self, id_or_name: str, *, patience_s: float | None = None) -> Any:
        """Return a run by its id, or the newest of its name.

        Raises:
            NotFoundError: there is none.
        """
        if _ID.fullmatch(id_or_name):
            api = self.kfp.runs.run_service_get_run
            return self.call(api, id_or_name, patience_s=patience_s)
        runs = self.list_runs(name=id_or_name, limit=1)
        if not runs:
            raise NotFoundError("no such run", id_or_name, hint="`citeflow runs list` names them")
        return runs[0]

    def terminate_run(self, run_id: str) -> None:
        """Ask the server to end a run."""
        self.call(self.kfp.runs.run_service_terminate_run, run_id)

    def wait_for_run(self, run_id: str, *, timeout_s: float) -> Any:
        """Return a run once it has ended; log its states as they come.

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
            last = run.state or last
            pause_s = POLL.pause_s(looks)
            if time.monotonic() + pause_s > until:
                hint = f"the run continues; `citeflow runs watch {run_id}`"
                state = last or "no state yet"
                raise UnavailableError("the run has not ended in time", state, hint=hint)
            self.sleep(pause_s)

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

    def call(
        self,
        method: Callable[..., Any],
        *args: Any,
        creates: bool = False,
        patience_s: float | None = None,
        **options: Any,
    ) -> Any:
        """Call a method of the generated API, again while the server does not answer.

        Args:
            method: the method.
            args: its arguments.
            creates: a second call would create a second object.
            patience_s: time for all attempts; by default that of BACKOFF.
            options: keyword arguments of the method.

        Raises:
            UnavailableError: the server did not answer in time.
            UnansweredError: the object was perhaps created.
            ConfigError, NotFoundError: the server refuses.
        """

        def attempt() -> Any:
            try:
                return _call_once(method, *args, **options)
            except _NoAnswerError as error:
                if creates and error.was_sent:
                    hint = "look for it on the server before you create it again"
                    what = "no answer from Kubeflow Pipelines"
                    raise UnansweredError(what, error, hint=hint) from None
                raise

        backoff = BACKOFF
        if patience_s is not None:
            backoff = dataclasses.replace(BACKOFF, patience_s=patience_s)
        try:
            return retry(attempt, backoff, subject="kfp", sleep=self.sleep)
        except TransientError as error:
            what = "Kubeflow Pipelines does not answer"
            raise UnavailableError(what, error, hint=IS_HOST_RIGHT) from None

    def _create(
        self, find: Callable[[], Any], method: Callable[..., Any], *args: Any, **options: Any
    ) -> Any:
        """Create an object; if the answer is lost, or somebody was faster, look for it."""
        try:
            return self.call(method, *args, creates=True, **options)
        except (UnansweredError, AlreadyExistsError):
            for pause_s in LOOKUP_PAUSES_S:
                self.sleep(pause_s)
                found = find()
                if found is not None:
                    return found
            raise

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


def connect(
    *,
    host: str = "",
    namespace: str = "",
    token_file: Path | None = None,
    ssl_ca_cert: Path | None = None,
) -> KfpClient:
    """Find a server that answers. What is not given is found as kfp.Client does.

    Args:
        host: URL of the API or the UI; by default $KF_PIPELINES_ENDPOINT, the service in the
            cluster of this pod, or the service as the kubeconfig reaches it.
        namespace: that of your profile in multi-user mode; else that of the pods of the server's
            runs, by default kubeflow.
        token_file: the bearer token, read again for each request; by default what
            $KF_PIPELINES_SA_TOKEN_PATH names.
        ssl_ca_cert: certificate authority of the server, as PEM.

    Raises:
        UnavailableError: kfp is not installed, or the server does not answer.
        ConfigError: the server refuses us, or is multi-user and there is no namespace.
    """
    if host and not host.startswith(("http://", "https://")):
        raise ConfigError("--host", host, hint="a URL that begins with http:// or https://")
    kfp_client = _client_class()
    credentials = _credentials(token_file)
    authority = str(_existing(ssl_ca_cert)) if ssl_ca_cert else None
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # one at every start, meant for users of kfp 1
        client = kfp_client(host=host or None, credentials=credentials, ssl_ca_cert=authority)
    health = client.get_kfp_healthz()
    profile = ""
    if health.multi_user:
        profile = namespace or client.get_user_namespace()
        if not profile:
            hint = "--namespace with that of your profile"
            raise ConfigError("Kubeflow Pipelines is shared by several users", hint=hint)
    return KfpClient(
        kfp=client,
        host=host or os.environ.get("KF_PIPELINES_ENDPOINT", ""),
        namespace=profile,
        pods_namespace=profile or namespace or STANDALONE,
        names_are_dns=health.pipeline_store == "kubernetes",
    )


def check_succeeded(run: Any) -> None:
    """Raise the error that a run which has ended stands for.

    Raises:
        TrainingError: it failed: exit code 75.
        StoppedError: it was cancelled: exit code 143.
    """
    if run.state == CANCELED:
        raise StoppedError("the run was cancelled", run.run_id)
    if run.state != SUCCEEDED:
        failed = ", ".join(failed_stages(run))
        what = f"the run ended as {run.state}" + (f" at {failed}" if failed else "")
        raise TrainingError(what, run.run_id, hint=f"`citeflow runs logs {run.run_id}`")


def failed_stages(run: Any) -> list[str]:
    """Return the stages of a run that failed.

    The server reports Argo's nodes as tasks too: the workflow and its root, drivers, executors, and
    the retries of each with a number in brackets. They are left out.
    """
    stages = set()
    for task in (run.run_details.task_details if run.run_details else None) or []:
        name = re.sub(r"\(\d+\)$", "", task.display_name or "")
        pods = [child.pod_name for child in task.child_tasks or [] if child.pod_name]
        workflows = {pod.rpartition("-")[0] for pod in pods}
        is_node = name in {"root", "executor", *workflows} or name.endswith("-driver")
        if task.state == FAILED and name and not is_node:
            stages.add(name)
    return sorted(stages)


def _client_class() -> Any:
    try:
        import kfp
    except ImportError:
        raise UnavailableError("package is not installed", "kfp", hint=INSTALL) from None
    import urllib3

    class Client(kfp.Client):  # type: ignore[misc]
        """kfp.Client without its own retries, its prints and its file in the home directory."""

        def _load_config(self, *args: Any, **options: Any) -> Any:
            config = super()._load_config(*args, **options)
            config.retries = urllib3.Retry(
                total=0, redirect=False, respect_retry_after_header=False
            )
            return config

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            unbound = KfpClient(
                kfp=self, host="", namespace="", pods_namespace="", names_are_dns=False
            )
            return unbound.call(self.healthzs.healthz_service_get_healthz)

        def set_user_namespace(self, namespace: str) -> None:
            self._context_setting["namespace"] = namespace

    return Client


def _credentials(token_file: Path | None) -> Any:
    path = token_file or os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    if not path:
        return None
    if len(_existing(Path(path)).read_text().split()) != 1:
        raise ConfigError("not a file with one token", path)
    from kfp.client import ServiceAccountTokenVolumeCredentials

    return ServiceAccountTokenVolumeCredentials(path=str(path))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise NotFoundError("no such file", path)
    return path


def _call_once(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    import urllib3
    from kfp_server_api import ApiException  # type: ignore[import-untyped]

    client = method.__self__.api_client  # type: ignore[attr-defined]
    host = redact_url(client.configuration.host)
    try:
        value = method(*args, _request_timeout=TIMEOUT_S, **options)
    except ApiException as error:
        if error.status in TRANSIENT:
            reason = f"{host}: {error.status} {_message(error.body)}"
            raise _NoAnswerError(reason, was_sent=error.status != 429) from None
        raise _to_user_error(error, host) from None
    except urllib3.exceptions.MaxRetryError as error:
        _raise_unreached(error.reason, host)
    except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
        raise _NoAnswerError(f"{host}: {type(error).__name__}", was_sent=True) from None
    except ValueError:
        what = "not an answer of Kubeflow Pipelines"
        raise ConfigError(what, host, hint=IS_HOST_RIGHT) from None
    if "html" in (client.last_response.getheader("content-type") or ""):
        raise _login_error(host, "a page instead of data")
    return value


def _raise_unreached(reason: object, host: str) -> NoReturn:
    import urllib3

    if isinstance(reason, urllib3.exceptions.SSLError):
        message = " ".join(str(reason).split())[:SHOWN_CHARS]
        hint = "https or http? Or --ssl-ca-cert FILE"
        raise ConfigError("no trusted connection", f"{host}: {message}", hint=hint) from None
    unsent = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    was_sent = not isinstance(reason, unsent)
    raise _NoAnswerError(f"{host}: {type(reason).__name__}", was_sent=was_sent) from None


def _to_user_error(error: Any, host: str) -> CiteflowError:
    """Say what the server refuses, and what to do about it."""
    message = _message(error.body) or str(error.reason)
    if error.status == 401:
        hint = f"give another --token-file ({message})"
        return ConfigError("Kubeflow Pipelines refuses the token", host, hint=hint)
    if error.status == 403:
        hint = "is --namespace your profile's, and may this account use pipelines there?"
        return ConfigError("not allowed by Kubeflow Pipelines", message, hint=hint)
    if 300 <= error.status < 400:
        target = str(error.headers.get("Location", "")).partition("?")[0]
        return _login_error(host, f"a redirection to {redact_url(target)}")
    if error.status == 404:
        what = "Kubeflow Pipelines has no such object"
        return NotFoundError(what, message, hint=IS_HOST_RIGHT)
    kind = AlreadyExistsError if error.status == 409 else ConfigError
    return kind("Kubeflow Pipelines refuses", f"{error.status} {message}")


def _login_error(host: str, answer: str) -> ConfigError:
    hint = "a login page? Give --token-file, or forward the port of ml-pipeline-ui as --host"
    return ConfigError(f"{host} answers with", answer, hint=hint)


def _message(body: object) -> str:
    """Return the message of an error of gRPC, of an upload, or plain text."""
    text = body if isinstance(body, str) else ""
    with contextlib.suppress(ValueError, AttributeError):
        values = json.loads(text)
        keys = ("message", "error_message", "error")
        text = str(next((values[key] for key in keys if values.get(key)), ""))
    words = " ".join(text.split())
    return "" if words.startswith("<") else words[:SHOWN_CHARS]


def _equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})


def _described_as(description: str, objects: list[Any] | None) -> Any:
    return next((each for each in objects or [] if each.description == description), None)
