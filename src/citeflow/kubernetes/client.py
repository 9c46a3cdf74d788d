"""The few calls to the Kubernetes API that citeflow makes, each with a time limit, repeated while nobody answers.

A call that was repeated may have been carried out the first time. So creating answers "there is one already", deleting
what is gone is no error, and whoever calls looks at what there is.
"""

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kubernetes import client as k8s
from kubernetes import config as k8s_config
from yaml import YAMLError

from citeflow.errors import CiteflowError, ConfigError, UnavailableError
from citeflow.kubernetes.job_objects import PYTORCH_JOB, TRAIN_JOB
from citeflow.utils.logging import log

Json = dict[str, Any]
Result = TypeVar("Result")

KINDS = {
    PYTORCH_JOB: ("kubeflow.org", "v1", "pytorchjobs"),
    TRAIN_JOB: ("trainer.kubeflow.org", "v1alpha1", "trainjobs"),
}
WORKFLOWS = ("argoproj.io", "v1alpha1", "workflows")

TIMEOUT_S = (5.0, 30.0)
"""Longest wait for a connection, and for an answer."""

QUIET_S = 300.0
"""A log that says nothing for so long is opened anew, since a connection that was lost says nothing either."""

PATIENCE_S = 900.0
"""How long a call is repeated while the API does not answer."""

LONGEST_PAUSE_S = 30.0
PASSING = {408, 410, 429, 500, 502, 503, 504}
"""Answers that mean: ask again."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, kw_only=True, slots=True)
class Api:
    """A namespace of a cluster."""

    client: k8s.ApiClient
    namespace: str
    sleep: Callable[[float], None] = time.sleep
    patience_s: float = PATIENCE_S

    def get(self, kind: str, name: str) -> Json | None:
        """A job, or None."""
        found: Json | None = None
        with _ignored(404):
            found = self._ask(
                lambda jobs: jobs.get_namespaced_custom_object(*self._of(kind), name, **_LIMITED)
            )
        return found

    def jobs(self, kind: str) -> list[Json]:
        """All jobs of citeflow; none where the cluster does not know the kind."""
        return self._list(*KINDS[kind], "app.kubernetes.io/managed-by=citeflow")

    def create(self, job: Json) -> bool:
        """Create a job; returns whether there was none of its name yet.

        Raises:
            ConfigError: the cluster has no such kind of job, or no such namespace.
        """
        try:
            self._ask(
                lambda jobs: jobs.create_namespaced_custom_object(
                    *self._of(job["kind"]), job, **_LIMITED
                )
            )
        except k8s.ApiException as error:
            if error.status == 404:
                hint = "`citeflow doctor` says what is missing: the training operator, Kubeflow Trainer, the namespace"
                raise ConfigError(
                    "the cluster does not know", f"{job['kind']} in {self.namespace}", hint=hint
                ) from None
            return False
        return True

    def patch_metadata(self, kind: str, name: str, metadata: Json) -> bool:
        """Merge into a job's metadata; returns False if it changed meanwhile or is gone."""
        body = {"metadata": metadata}
        with _ignored(404, 409):
            self._ask(
                lambda jobs: jobs.patch_namespaced_custom_object(
                    *self._of(kind), name, body, **_LIMITED
                )
            )
            return True
        return False

    def delete(self, kind: str, name: str, *, as_of: Json | None = None) -> bool:
        """Delete a job and, after it, its pods; returns False if it has changed since it was seen.

        Args:
            kind: PyTorchJob or TrainJob.
            name: its name.
            as_of: the job as it was seen, if that matters; if it has changed since, it is left alone.
        """
        options: Json = {"propagationPolicy": "Background"}
        if as_of:
            options["preconditions"] = {
                field: as_of["metadata"][field] for field in ("uid", "resourceVersion")
            }
        try:
            self._ask(
                lambda jobs: jobs.delete_namespaced_custom_object(
                    *self._of(kind), name, body=options, **_LIMITED
                )
            )
        except k8s.ApiException as error:
            if error.status not in (404, 409):
                raise
            return bool(error.status == 404)
        return True

    def workflows(self, run_ids: set[str]) -> list[Json]:
        """Argo's workflows of certain pipeline runs."""
        return self._list(*WORKFLOWS, f"pipeline/runid in ({','.join(sorted(run_ids))})")

    def pod(self, name: str) -> k8s.V1Pod | None:
        """A pod, or None."""
        core, found = k8s.CoreV1Api(self.client), None
        with _ignored(404):
            found = self._patient(
                lambda: core.read_namespaced_pod(name, self.namespace, **_LIMITED), "pods"
            )
        return found

    def pods(self, selector: str) -> list[k8s.V1Pod]:
        """Pods with certain labels."""
        core = k8s.CoreV1Api(self.client)
        answer = self._patient(
            lambda: core.list_namespaced_pod(self.namespace, label_selector=selector, **_LIMITED),
            "pods",
        )
        return list(answer.items)

    def log_lines(self, pod: str, container: str, *, since: str | None) -> Iterator[str]:
        """Lines of a container's log as they are written, each behind its time; ends when the connection does.

        Raises:
            ApiException, HTTPError: the log is not to be had now.
        """
        query = [("container", container), ("follow", "true"), ("timestamps", "true")]
        query += [("sinceTime", since)] if since else []
        response = self.client.call_api(
            f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log",
            "GET",
            query_params=query,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=(TIMEOUT_S[0], QUIET_S),
        )
        with contextlib.closing(response):
            begun = b""
            for chunk in response.stream(2**16):
                *lines, begun = (begun + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)

    def _list(self, group: str, version: str, plural: str, selector: str) -> list[Json]:
        with _ignored(404):
            answer = self._ask(
                lambda jobs: jobs.list_namespaced_custom_object(
                    group, version, self.namespace, plural, label_selector=selector, **_LIMITED
                )
            )
            return list(answer["items"])
        return []

    def _of(self, kind: str) -> tuple[str, str, str, str]:
        group, version, plural = KINDS[kind]
        return group, version, self.namespace, plural

    def _ask(self, call: Callable[[k8s.CustomObjectsApi], Any]) -> Any:
        return self._patient(lambda: call(k8s.CustomObjectsApi(self.client)), "jobs")

    def _patient(self, call: Callable[[], Result], what: str) -> Result:
        """Carry out a call, again while the server is not to be reached or asks for time.

        Raises:
            UnavailableError: it was not to be reached for `patience_s`.
            CiteflowError: the server refuses; its reason.
            ApiException: there is no such thing (404), or there is one already (409).
        """
        began, pause = time.monotonic(), 0.5
        while True:
            try:
                return call()
            except k8s.ApiException as error:
                if error.status in (404, 409):
                    raise
                if error.status not in PASSING and not _was_cut(error):
                    raise refusal(error, self.namespace) from None
                reason, least = f"{error.status} {error.reason}", _retry_after(error)
            except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
                reason, least = type(error).__name__, 0.0
            if time.monotonic() - began > self.patience_s:
                raise UnavailableError(
                    "the Kubernetes API does not answer", reason, hint="try again later"
                )
            pause = min(LONGEST_PAUSE_S, 2 * pause)
            log("cluster", "waits for the API", asking_for=what, reason=reason)
            self.sleep(max(least, pause * random.uniform(0.5, 1.0)))


_LIMITED: Json = {"_request_timeout": TIMEOUT_S}


def connect(*, namespace: str = "", patience_s: float = PATIENCE_S) -> Api:
    """The cluster that this pod runs on, or the one of the kubeconfig.

    Raises:
        ConfigError: there is neither, or no namespace is known.
    """
    configuration, here = k8s.Configuration(), ""
    try:
        if (SERVICE_ACCOUNT / "token").is_file():
            k8s_config.load_incluster_config(client_configuration=configuration)
            here = own_namespace()
        else:
            k8s_config.load_kube_config(client_configuration=configuration)
            _, active = k8s_config.list_kube_config_contexts()
            here = active["context"].get("namespace", "default")
    except (
        k8s_config.ConfigException,
        OSError,
        TypeError,
        KeyError,
        AttributeError,
        YAMLError,
    ) as error:
        hint = "set KUBECONFIG to the file of your cluster, or run it in one of its pods"
        raise ConfigError("no cluster to talk to", str(error).splitlines()[0], hint=hint) from None
    configuration.retries = False  # ours, which say what they wait for
    return Api(
        client=k8s.ApiClient(configuration), namespace=namespace or here, patience_s=patience_s
    )


def own_namespace() -> str:
    """The namespace of the pod that this process runs in, or an empty text."""
    path = SERVICE_ACCOUNT / "namespace"
    return path.read_text().strip() if path.is_file() else ""


def refusal(error: k8s.ApiException, namespace: str) -> CiteflowError:
    """What the server says, with what to do about it."""
    message, hint = f"{error.status} {error.reason}", f"in namespace {namespace}"
    with contextlib.suppress(ValueError, KeyError, TypeError):
        message = str(json.loads(error.body)["message"])
    if error.status == 403:
        hint = "`citeflow doctor` says which rights are missing"
    return ConfigError("the cluster refuses", message, hint=hint)


def _was_cut(error: k8s.ApiException) -> bool:
    """Whether the connection ended while TLS was agreed upon, which the client tells like an answer."""
    return not error.status and "CERTIFICATE_VERIFY_FAILED" not in str(error.reason)


def _retry_after(error: k8s.ApiException) -> float:
    text = (error.headers or {}).get("Retry-After", "")
    return min(LONGEST_PAUSE_S, float(text)) if text.isdecimal() else 0.0


@contextlib.contextmanager
def _ignored(*status: int) -> Iterator[None]:
    try:
        yield
    except k8s.ApiException as error:
        if error.status not in status:
            raise
