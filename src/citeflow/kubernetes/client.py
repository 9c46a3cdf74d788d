"""Client of the Kubernetes API: each call has a time limit, and is repeated while nobody answers.

A call that is repeated may have been carried out the first time. So creation reports that there is
such an object already, deletion of what is gone is no error, and callers look at what there is.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kubernetes import client as k8s
from kubernetes import config as k8s_config
from yaml import YAMLError

from citeflow.errors import CiteflowError, ConfigError, UnavailableError
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_status import JobStatus, KubeObject, PodStatus
from citeflow.kubernetes.launchers import Launcher
from citeflow.kubernetes.rbac import PolicyRule
from citeflow.kubernetes.scheduling import Event, Node
from citeflow.utils.retry import Backoff, TransientError, retry

Result = TypeVar("Result")

TIMEOUT_S = (5.0, 30.0)
"""Longest wait for a connection, and for an answer."""

SILENCE_S = 300.0
"""A log stream without a line for so long is opened again: a lost connection is silent too."""

PATIENCE_S = 900.0
"""How long a call is repeated while the API does not answer."""

LONGEST_PAUSE_S = 30.0

TRANSIENT_STATUS = {408, 410, 429, 500, 502, 503, 504}

CONNECTION_ERRORS = (urllib3.exceptions.HTTPError, HTTPException, OSError)
"""Errors of a connection, as the kubernetes package lets them through."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_LIMITS: dict[str, Any] = {"_request_timeout": TIMEOUT_S}


@dataclass(frozen=True, kw_only=True, slots=True)
class KubeClient:
    """The API of a cluster, in one namespace."""

    api: k8s.ApiClient
    namespace: str
    sleep: Callable[[float], None] = time.sleep
    patience_s: float = PATIENCE_S

    def job(self, launcher: Launcher, name: str) -> JobStatus | None:
        """Return a job, or None if there is none."""
        with _ignored(404):
            call = self._jobs.get_namespaced_custom_object
            return launcher.status(self._call(call, *self._path(launcher), name))
        return None

    def jobs(self, launcher: Launcher) -> list[JobStatus]:
        """List citeflow's jobs of a kind; none where the cluster does not know the kind."""
        with _ignored(404):
            selector = "app.kubernetes.io/managed-by=citeflow"
            call = self._jobs.list_namespaced_custom_object
            found = self._call(call, *self._path(launcher), label_selector=selector)
            return [launcher.status(job) for job in found["items"]]
        return []

    def create(self, launcher: Launcher, job: KubeObject) -> bool:
        """Create a job; return False if there is one of its name already.

        Raises:
            ConfigError: the cluster has no such kind of job, or no such namespace.
        """
        try:
            self._call(self._jobs.create_namespaced_custom_object, *self._path(launcher), job)
        except k8s.ApiException as error:
            if error.status == 404:
                what = f"{launcher.kind} in {self.namespace}"
                hint = "`citeflow doctor` says what is missing: the operator, or the namespace"
                raise ConfigError("the cluster does not know", what, hint=hint) from None
            return False
        return True

    def serves(self, launcher: Launcher) -> bool:
        """Return whether the cluster has a kind of job."""
        with _ignored(404):
            call = self._jobs.get_api_resources
            found = self._call(call, launcher.group, launcher.version)
            return any(resource.name == launcher.plural for resource in found.resources)
        return False

    def is_allowed(self, rule: PolicyRule, verb: str) -> bool:
        """Return whether this client may do something, which every account may ask."""
        attributes = rule.attributes(self.namespace, verb)
        spec = k8s.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        call = k8s.AuthorizationV1Api(self.api).create_self_subject_access_review
        review = self._call(call, k8s.V1SelfSubjectAccessReview(spec=spec))
        return bool(review.status.allowed)

    def set_owners(self, launcher: Launcher, job: JobStatus, owners: list[KubeObject]) -> bool:
        """Replace the ownerReferences of a job; return False if it has changed or is gone."""
        metadata = {"resourceVersion": job.resource_version, "ownerReferences": owners}
        with _ignored(404, 409):
            call = self._jobs.patch_namespaced_custom_object
            self._call(call, *self._path(launcher), job.name, {"metadata": metadata})
            return True
        return False

    def delete(self, launcher: Launcher, name: str, *, as_of: JobStatus | None = None) -> bool:
        """Delete a job and, after it, its pods.

        Args:
            launcher: kind of the job.
            name: its name.
            as_of: leave the job alone if it has changed since.

        Returns:
            False if it has changed.
        """
        options: KubeObject = {"propagationPolicy": "Background"}
        if as_of:
            version = {"uid": as_of.uid, "resourceVersion": as_of.resource_version}
            options["preconditions"] = version
        call = self._jobs.delete_namespaced_custom_object
        with _ignored(409):
            with _ignored(404):
                self._call(call, *self._path(launcher), name, body=options)
            return True
        return False

    def workflow_phases(self, run_ids: set[str]) -> dict[str, str]:
        """Return the phases of Argo's workflows, by the id of the pipeline run."""
        with _ignored(404):
            found = self._call(
                self._jobs.list_namespaced_custom_object,
                "argoproj.io",
                "v1alpha1",
                self.namespace,
                "workflows",
                label_selector=f"{RUN_ID} in ({','.join(sorted(run_ids))})",
            )
            return {
                workflow["metadata"]["labels"][RUN_ID]: workflow.get("status", {}).get("phase", "")
                for workflow in found["items"]
            }
        return {}

    def pod(self, name: str) -> PodStatus | None:
        """Return a pod, or None if there is none."""
        with _ignored(404):
            call = k8s.CoreV1Api(self.api).read_namespaced_pod
            return PodStatus.read(self._call(call, name, self.namespace))
        return None

    def pods(self, selector: str) -> list[PodStatus]:
        """List the pods with certain labels."""
        call = k8s.CoreV1Api(self.api).list_namespaced_pod
        found = self._call(call, self.namespace, label_selector=selector)
        return [PodStatus.read(pod) for pod in found.items]

    def events(self, about: str) -> list[Event]:
        """List the events about the object of a name; none where they may not be read."""
        call = k8s.CoreV1Api(self.api).list_namespaced_event
        with contextlib.suppress(ConfigError):
            selector = f"involvedObject.name={about}"
            found = self._call(call, self.namespace, field_selector=selector)
            return [Event.read(event) for event in found.items]
        return []

    def nodes(self) -> list[Node]:
        """List the nodes; none where they may not be read, as no Role of a namespace allows."""
        with contextlib.suppress(ConfigError):
            found = self._call(k8s.CoreV1Api(self.api).list_node)
            return [Node.read(node) for node in found.items]
        return []

    def follow_log(self, pod: str, container: str, *, since: str | None) -> Iterator[str]:
        """Stream the lines of a container's log, each behind its time, until the stream ends.

        Raises:
            ApiException, HTTPError: there is no log now.
        """
        with contextlib.closing(self._open_log(pod, container, since, follow=True)) as response:
            rest = b""
            for chunk in response.stream(2**16):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)

    def read_log(self, pod: str, container: str, *, since: str | None) -> list[str]:
        """Return the lines that a container has written so far, each behind its time.

        Raises:
            ApiException, HTTPError: there is no log now.
        """
        with contextlib.closing(self._open_log(pod, container, since, follow=False)) as response:
            text: str = response.read().decode(errors="replace")
        return text.removesuffix("\n").split("\n") if text else []

    def _open_log(self, pod: str, container: str, since: str | None, *, follow: bool) -> Any:
        query = [("container", container), ("timestamps", "true")]
        if follow:
            query.append(("follow", "true"))
        if since:
            # Not in CoreV1Api, which knows sinceSeconds alone: that depends on two clocks.
            query.append(("sinceTime", since))
        return self.api.call_api(
            f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log",
            "GET",
            query_params=query,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=(TIMEOUT_S[0], SILENCE_S if follow else TIMEOUT_S[1]),
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        body: KubeObject | None = None,
        query: Mapping[str, str] | None = None,
        absent: tuple[int, ...] = (),
    ) -> KubeObject:
        """Send a request and return its answer; an empty object for a status among `absent`.

        Raises:
            UnavailableError: the server does not answer.
            ConfigError: it refuses.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        with _ignored(*absent):
            try:
                answer: KubeObject = self._call(
                    self.api.call_api,
                    path,
                    method,
                    query_params=list((query or {}).items()),
                    header_params={"Accept": "application/json", "Content-Type": kind},
                    body=body,
                    response_type="object",
                    auth_settings=["BearerToken"],
                    _return_http_data_only=True,
                )
                return answer
            except k8s.ApiException as error:
                if error.status in absent:
                    raise
                raise to_refusal(error, self.namespace) from None
        return {}

    @property
    def _jobs(self) -> k8s.CustomObjectsApi:
        return k8s.CustomObjectsApi(self.api)

    def _path(self, launcher: Launcher) -> tuple[str, str, str, str]:
        return launcher.group, launcher.version, self.namespace, launcher.plural

    def _call(self, call: Callable[..., Any], *args: object, **options: object) -> Any:
        """Call a method of the kubernetes package until the server answers.

        Raises:
            UnavailableError: it did not for `patience_s`.
            CiteflowError: it refuses.
            ApiException: there is no such object (404), or one already (409).
        """

        def attempt() -> Any:
            try:
                return call(*args, **options, **_LIMITS)
            except k8s.ApiException as error:
                if error.status in (404, 409):
                    raise
                if error.status not in TRANSIENT_STATUS and not _was_cut(error):
                    raise to_refusal(error, self.namespace) from None
                reason = f"{error.status} {error.reason}"
                raise TransientError(reason, wait_s=_retry_after(error)) from None
            except CONNECTION_ERRORS as error:
                raise TransientError(type(error).__name__) from None

        backoff = Backoff(
            first_pause_s=1.0,
            longest_pause_s=LONGEST_PAUSE_S,
            patience_s=self.patience_s,
            jitter=0.5,
        )
        try:
            return retry(attempt, backoff, subject="cluster", sleep=self.sleep)
        except TransientError as error:
            raise UnavailableError(
                "the Kubernetes API does not answer", error, hint="try again later"
            ) from None


def connect(*, namespace: str = "", patience_s: float = PATIENCE_S) -> KubeClient:
    """Connect to the cluster that this pod runs on, or to that of the kubeconfig.

    Raises:
        ConfigError: there is neither, or no namespace is known.
    """
    configuration = k8s.Configuration()
    default = ""
    try:
        if (SERVICE_ACCOUNT / "token").is_file():
            k8s_config.load_incluster_config(client_configuration=configuration)
            default = own_namespace()
        else:
            k8s_config.load_kube_config(client_configuration=configuration)
            _, active = k8s_config.list_kube_config_contexts()
            default = active["context"].get("namespace", "default")
    except (
        k8s_config.ConfigException,
        OSError,
        TypeError,
        KeyError,
        AttributeError,
        YAMLError,
    ) as error:  # all of which the kubernetes package raises for files that are no kubeconfig
        hint = "set KUBECONFIG to the file of your cluster, or run it in one of its pods"
        reason = str(error).splitlines()[0]
        raise ConfigError("no connection to a cluster", reason, hint=hint) from None
    configuration.retries = False  # KubeClient's own say what they wait for
    return KubeClient(
        api=k8s.ApiClient(configuration), namespace=namespace or default, patience_s=patience_s
    )


def own_namespace() -> str:
    """Return the namespace of the pod that this process runs in, or an empty text."""
    path = SERVICE_ACCOUNT / "namespace"
    return path.read_text().strip() if path.is_file() else ""


def to_refusal(error: k8s.ApiException, namespace: str) -> CiteflowError:
    """Turn an answer that refuses into an error with the server's own message."""
    if not error.status:
        reason = " ".join(str(error.reason).split())
        hint = "is certificate-authority of the kubeconfig that of this server?"
        return ConfigError("no trusted connection to the cluster", reason, hint=hint)
    message = f"{error.status} {error.reason}"
    with contextlib.suppress(ValueError, KeyError, TypeError):
        message = str(json.loads(error.body)["message"])
    hint = f"in namespace {namespace}"
    if "exceeded quota" in message:
        hint = f"`kubectl -n {namespace} describe resourcequota` shows what is in use"
    elif "denied the request" in message:
        hint = "a webhook denies it, whatever the rights: `citeflow doctor` says what is missing"
    elif error.status == 403:
        hint = "`citeflow doctor` says which rights are missing"
    return ConfigError("the cluster refuses", message, hint=hint)


def _was_cut(error: k8s.ApiException) -> bool:
    """Tell whether TLS failed halfway, which the kubernetes package reports as an answer."""
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
