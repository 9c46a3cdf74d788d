"""The seam for kinds of training jobs: what a launcher knows, and what all of them share.

A new kind is a new module beside this one, a line in LAUNCHERS, and its rule in the Roles of
manifests/base/rbac.yaml. The registry is read where neither torch nor the kubernetes package is
installed, so launchers import both inside methods.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from citeflow.errors import ConfigError
from citeflow.files import sha256_of_json
from citeflow.kubernetes.identity import JobIdentity
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.job_status import SPEC_SHA256, JobStatus, KubeObject, PodStatus

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prerequisite:
    """A cluster-wide object that a job refers to."""

    group: str
    version: str
    kind: str
    plural: str
    name: str
    hint: str


class Launcher(ABC):
    """A kind of job that trains in pods, created as a custom resource."""

    name: ClassVar[str]
    """Name in the pipeline's parameter `launcher` and in `--launcher`."""

    kind: ClassVar[str]
    group: ClassVar[str]
    version: ClassVar[str]
    plural: ClassVar[str]

    install_hint: ClassVar[str]
    """How to bring the operator onto a cluster that lacks it."""

    pod_label: ClassVar[str]
    """Label that the operator gives each pod; its value is the name of the job."""

    container: ClassVar[str]
    """Container of a pod whose log has the lines of the workers."""

    works_here: ClassVar[bool] = False
    """True if the launcher trains on this machine where there is no cluster."""

    memory_overhead: ClassVar[int] = 0
    """Memory of a pod besides that of the training, in bytes."""

    def render(self, spec: JobSpec, identity: JobIdentity) -> KubeObject:
        """Render the custom resource, with a digest of all that was asked for.

        Raises:
            ConfigError: the namespace or the run id is none.
        """
        if not _NAMESPACE.fullmatch(identity.namespace):
            raise ConfigError("namespace", identity.namespace, hint="a-z, 0-9 and -")
        if not _LABEL_VALUE.fullmatch(identity.run_id):
            hint = "at most 63 of letters, digits, -, _ and ."
            raise ConfigError("run id", identity.run_id, hint=hint)
        queue = {"kueue.x-k8s.io/queue-name": spec.queue} if spec.queue else {}
        annotations = {
            "citeflow.org/run": identity.run_name,
            "citeflow.org/task-sha256": identity.task_sha256,
        }
        metadata: KubeObject = {
            "annotations": annotations,
            "labels": {**identity.labels, **queue},
            "name": identity.name,
            "namespace": identity.namespace,
        }
        job: KubeObject = {
            "apiVersion": f"{self.group}/{self.version}",
            "kind": self.kind,
            "metadata": metadata,
            "spec": to_plain(self.job_spec(spec, identity)),
        }
        annotations[SPEC_SHA256] = sha256_of_json(job)
        if identity.owner:
            reference = {"name": identity.owner.name, "uid": identity.owner.uid}
            metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", **reference}]
        return job

    @abstractmethod
    def job_spec(self, spec: JobSpec, identity: JobIdentity) -> object:
        """Return the `spec` of the custom resource: plain values, or models of the SDK."""

    @abstractmethod
    def status(self, job: KubeObject) -> JobStatus:
        """Read a job of this kind."""

    def suspension(self, is_suspended: bool) -> KubeObject:
        """Return the change of a job that ends its pods until it is taken back."""
        return {"spec": {"suspend": is_suspended}}

    def pod_selector(self, job_name: str) -> str:
        """Return the label selector of the job's pods."""
        return f"{self.pod_label}={job_name}"

    def pod_creator(self, job: JobStatus) -> str:
        """Name the object that makes the pods: the cluster's events about refused pods are its."""
        return job.name

    def replica(self, pod: PodStatus) -> str:
        """Name a pod within its job, as log lines begin; empty where the pod runs no rank."""
        return pod.name.removeprefix(pod.labels.get(self.pod_label, "")).strip("-")

    def has_log(self, pod: PodStatus) -> bool:
        """Tell whether the log of a pod is of interest."""
        return bool(self.replica(pod))

    def num_pods(self, spec: JobSpec) -> int:
        """Count the pods that must have places at the same time."""
        return spec.workers

    def takes_place(self, pod: PodStatus) -> bool:
        """Tell whether a pod is one of them."""
        return True

    def prerequisites(self, spec: JobSpec) -> tuple[Prerequisite, ...]:
        """List the cluster-wide objects that the job refers to."""
        return ()


def priority_class(spec: JobSpec) -> tuple[Prerequisite, ...]:
    """List the PriorityClass of pods that name one."""
    needed = Prerequisite(
        group="scheduling.k8s.io",
        version="v1",
        kind="PriorityClass",
        plural="priorityclasses",
        name=spec.priority_class,
        hint="kubectl apply -k manifests/overlays/..., or {priority_class: ''} as `job`",
    )
    return (needed,) if spec.priority_class else ()


def to_plain(value: object) -> object:
    """Turn models of Kubernetes' SDKs into plain values, without the fields that are None."""
    from kubernetes import client as k8s

    with k8s.ApiClient(k8s.Configuration()) as api:
        return _without_none(api.sanitize_for_serialization(value))


def _without_none(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_none(entry) for name, entry in value.items() if entry is not None}
    return [_without_none(entry) for entry in value] if isinstance(value, list) else value
