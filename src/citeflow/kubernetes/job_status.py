"""The state of jobs and pods, as typed records read from the objects of a cluster."""

import datetime
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from citeflow.kubernetes.identity import RUN_ID

KubeObject: TypeAlias = dict[str, Any]
"""An object of the Kubernetes API as JSON has it."""

SPEC_SHA256 = "citeflow.org/spec-sha256"
"""Annotation with the digest of a job as it was rendered."""

UNRECOVERABLE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
}
"""Reasons for which a container does not start until somebody intervenes."""

IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
"""Those of them that are about the image."""

OOM_KILLED = "OOMKilled"

_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: ErrImagePull: )?')
_PREEMPTION = re.compile(r"( no new claims to deallocate,)? preemption: .*", re.DOTALL)

_END_OF_TIME = datetime.datetime.max.replace(tzinfo=datetime.UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobEnd:
    """The terminal condition of a job."""

    succeeded: bool
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStatus:
    """A job as its custom resource describes it."""

    name: str
    uid: str
    resource_version: str
    run_id: str
    spec_sha256: str
    created: datetime.datetime
    started: datetime.datetime
    """When the deadline began to count: the creation, for operators that note no start."""

    deadline_s: float
    owners: tuple[KubeObject, ...]
    """The ownerReferences."""

    is_deleting: bool
    is_suspended: bool
    """True if the job waits in a queue."""

    end: JobEnd | None
    pods_owner: str = ""
    """Name of the object that makes the pods, where the status says it."""

    @classmethod
    def read(cls, job: KubeObject, *, deadline_s: float | None, success: str) -> "JobStatus":
        """Read a job whose kind follows the conventions of Kubeflow.

        Args:
            job: the custom resource.
            deadline_s: its activeDeadlineSeconds.
            success: type of the condition that says that it succeeded; `Failed` is the other end.
        """
        metadata = job["metadata"]
        created = metadata["creationTimestamp"]
        return cls(
            name=str(metadata["name"]),
            uid=str(metadata["uid"]),
            resource_version=str(metadata["resourceVersion"]),
            run_id=str((metadata.get("labels") or {}).get(RUN_ID, "")),
            spec_sha256=str((metadata.get("annotations") or {}).get(SPEC_SHA256, "")),
            created=datetime.datetime.fromisoformat(created),
            started=datetime.datetime.fromisoformat(
                job.get("status", {}).get("startTime") or created
            ),
            deadline_s=math.inf if deadline_s is None else deadline_s,
            owners=tuple(metadata.get("ownerReferences") or ()),
            is_deleting="deletionTimestamp" in metadata,
            is_suspended="Suspended" in _true_conditions(job),
            end=_end_of(job, success),
        )

    def overdue_s(self, now: datetime.datetime | None = None) -> float:
        """Return the seconds since the deadline, negative before it and while suspended."""
        if self.is_suspended:
            return -math.inf
        now = now or datetime.datetime.now(datetime.UTC)
        return (now - self.started).total_seconds() - self.deadline_s


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerEnd:
    """The termination of a container."""

    exit_code: int
    reason: str
    message: str
    finished: datetime.datetime | None

    @property
    def is_specific(self) -> bool:
        """True if the reason says more than the exit code, such as OOMKilled."""
        return self.reason not in ("", "Error")

    def __str__(self) -> str:
        return f"{self.exit_code} ({self.reason})" if self.is_specific else str(self.exit_code)


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerStatus:
    """The state of a container of a pod."""

    name: str
    restarts: int
    is_running: bool
    waiting: str
    """Reason why it does not run yet, or not again."""

    end: ContainerEnd | None
    last_end: ContainerEnd | None
    """Termination of the start before this one."""

    image: str = ""
    message: str = ""
    """The kubelet's words on what the container waits for: those of the registry for an image."""

    @property
    def failures(self) -> list[ContainerEnd]:
        """Terminations with an exit code other than 0, the newest first."""
        return [end for end in (self.end, self.last_end) if end and end.exit_code]

    @property
    def trouble(self) -> str:
        """Reason why the container does not run, or was killed last, or an empty text."""
        killed = [end.reason for end in self.failures if end.is_specific][:1]
        waiting = f"{self.waiting}: {self.message}" if self.message else self.waiting
        return ", ".join(filter(None, [*killed, waiting]))


@dataclass(frozen=True, kw_only=True, slots=True)
class PodStatus:
    """The state of a pod."""

    name: str
    uid: str
    labels: dict[str, str]
    created: datetime.datetime
    phase: str
    container_names: tuple[str, ...]
    containers: tuple[ContainerStatus, ...]
    """States of the containers, none before the pod is on a node."""

    unschedulable: str
    """Reason why no node takes the pod, in the scheduler's words."""

    has_node: bool = False
    is_deleting: bool = False
    """True if it was asked to end, and so has its node for some seconds more."""

    reason: str = ""
    """Why the kubelet ended the pod, such as Evicted."""

    message: str = ""

    @classmethod
    def read(cls, pod: Any) -> "PodStatus":
        """Read a V1Pod of the kubernetes package."""
        refused = next(
            (
                condition
                for condition in pod.status.conditions or []
                if condition.type == "PodScheduled"
                and condition.status == "False"
                # A queue holds such a pod back.
                and condition.reason != "SchedulingGated"
            ),
            None,
        )
        return cls(
            name=pod.metadata.name,
            uid=pod.metadata.uid,
            labels=dict(pod.metadata.labels or {}),
            created=pod.metadata.creation_timestamp,
            phase=pod.status.phase or "Unknown",
            container_names=tuple(container.name for container in pod.spec.containers),
            containers=tuple(map(_read_container, pod.status.container_statuses or [])),
            unschedulable=_PREEMPTION.sub("", refused.message or "") if refused else "",
            has_node=bool(pod.spec.node_name),
            is_deleting=pod.metadata.deletion_timestamp is not None,
            reason=pod.status.reason or "",
            message=pod.status.message or "",
        )

    @property
    def has_started(self) -> bool:
        """True if a container runs or ran, so that there is a log."""
        return any(each.is_running or each.end or each.restarts for each in self.containers)

    @property
    def has_ended(self) -> bool:
        """True if the pod has ended for good."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def waiting(self) -> str:
        """Reason why the pod does not run, or an empty text."""
        reasons = [self.unschedulable, *(container.waiting for container in self.containers)]
        return next(filter(None, reasons), "")

    @property
    def trouble(self) -> str:
        """Reason why the pod does not run, or was killed, in the cluster's words; empty if none."""
        ended = f"{self.reason}: {self.message}" if self.message else self.reason
        reasons = [self.unschedulable, ended, *(each.trouble for each in self.containers)]
        return next(filter(None, reasons), "")

    @property
    def is_unrecoverable(self) -> bool:
        """True if the pod waits for something like an image that does not exist."""
        return self.waiting in UNRECOVERABLE_REASONS


def summarize(pods: Iterable[PodStatus]) -> str:
    """Describe pods in a line: phases, restarts, and the reasons why some do not run."""
    pods = list(pods)
    phases = Counter(pod.phase.lower() for pod in pods)
    parts = [f"{count} {phase}" for phase, count in sorted(phases.items())] or ["no pods yet"]
    restarts = sum(container.restarts for pod in pods for container in pod.containers)
    if restarts:
        parts.append(f"{restarts} restarts")
    return ", ".join([*parts, *sorted({pod.trouble for pod in pods if pod.trouble})])


def first_failure(pods: Iterable[PodStatus]) -> tuple[PodStatus, ContainerEnd] | None:
    """Return the container that failed before all others, with its pod."""
    ends = [(pod, end) for pod in pods for each in pod.containers for end in each.failures]
    return min(ends, key=lambda entry: entry[1].finished or _END_OF_TIME, default=None)


def _true_conditions(job: KubeObject) -> dict[str, KubeObject]:
    conditions = job.get("status", {}).get("conditions") or []
    return {each["type"]: each for each in conditions if each.get("status") == "True"}


def _end_of(job: KubeObject, success: str) -> JobEnd | None:
    conditions = _true_conditions(job)
    for type_, succeeded in ((success, True), ("Failed", False)):
        if type_ in conditions:
            condition = conditions[type_]
            reason = condition.get("message") or condition.get("reason") or type_
            return JobEnd(succeeded=succeeded, reason=str(reason))
    return None


def _read_container(status: Any) -> ContainerStatus:
    waiting = status.state.waiting if status.state else None
    return ContainerStatus(
        name=status.name,
        restarts=status.restart_count,
        is_running=bool(status.state and status.state.running),
        waiting=(waiting.reason or "") if waiting else "",
        end=_read_end(status.state),
        last_end=_read_end(status.last_state),
        image=status.image,
        message=_read_message(waiting) if waiting else "",
    )


def _read_message(waiting: Any) -> str:
    if waiting.reason not in UNRECOVERABLE_REASONS:
        return ""  # how long the kubelet waits, which changes all the time
    return _BACK_OFF.sub("", waiting.message or "")


def _read_end(state: Any) -> ContainerEnd | None:
    if not state or not state.terminated:
        return None
    return ContainerEnd(
        exit_code=state.terminated.exit_code,
        reason=state.terminated.reason or "",
        message=state.terminated.message or "",
        finished=state.terminated.finished_at,
    )
