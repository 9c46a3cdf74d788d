"""What the objects of a cluster say about a job, in the words that a person needs."""

import datetime
import math
from dataclasses import dataclass
from typing import Any

from kubernetes import client as k8s

from citeflow.kubernetes.job_objects import PYTORCH_JOB, TRAIN_JOB

Json = dict[str, Any]

SELECTORS = {
    PYTORCH_JOB: "training.kubeflow.org/job-name",
    TRAIN_JOB: "jobset.sigs.k8s.io/jobset-name",
}
"""The label by which the pods of a job are found."""

ENDS = {"Succeeded": True, "Complete": True, "Failed": False}
"""The conditions that end a job, of either kind; all others are passing."""

HOPELESS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
}
"""Reasons for which a container does not start, that do not pass by themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """How a job ended, as it says itself."""

    succeeded: bool
    reason: str


def end_of(job: Json) -> End | None:
    """The terminal condition of a job, or None while there is none."""
    for condition in job.get("status", {}).get("conditions") or []:
        if condition.get("type") in ENDS and condition.get("status") == "True":
            reason = condition.get("message") or condition.get("reason") or condition["type"]
            return End(succeeded=ENDS[condition["type"]], reason=str(reason))
    return None


def overdue_s(job: Json) -> float:
    """For how many seconds a job has been past its deadline, below 0 before; one that waits in a queue is not."""
    if is_suspended(job):
        return -math.inf
    spec = job["spec"]
    limit = spec.get("runPolicy", spec).get("activeDeadlineSeconds", math.inf)
    began = job.get("status", {}).get("startTime") or job["metadata"]["creationTimestamp"]
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(began)
    return float(age.total_seconds() - limit)


def is_suspended(job: Json) -> bool:
    """Whether the job waits in a queue."""
    conditions = job.get("status", {}).get("conditions") or []
    return any(
        each.get("type") == "Suspended" and each.get("status") == "True" for each in conditions
    )


def has_started(pod: k8s.V1Pod) -> bool:
    """Whether a container of the pod runs or ran, so that there is a log."""
    states = pod.status.container_statuses or []
    return any(each.state.running or each.state.terminated or each.restart_count for each in states)


def has_ended(pod: k8s.V1Pod) -> bool:
    """Whether the pod has ended for good."""
    return pod.status.phase in ("Succeeded", "Failed")


def summary(pods: list[k8s.V1Pod]) -> str:
    """How many pods are in which phase, what they wait for, and how often they were started again."""
    phases: dict[str, int] = {}
    for pod in pods:
        phases[pod.status.phase] = phases.get(pod.status.phase, 0) + 1
    parts = [f"{count} {phase.lower()}" for phase, count in sorted(phases.items())] or [
        "no pods yet"
    ]
    restarts = sum(
        status.restart_count for pod in pods for status in pod.status.container_statuses or []
    )
    parts += [f"{restarts} restarts"] if restarts else []
    return ", ".join([*parts, *sorted({text for pod in pods if (text := waits_for(pod))})])


def waits_for(pod: k8s.V1Pod) -> str:
    """Why a pod does not run, or an empty text."""
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return str(condition.message or condition.reason)
    for status in pod.status.container_statuses or []:
        if status.state.waiting:
            return str(status.state.waiting.reason)
    return ""


def is_hopeless(pod: k8s.V1Pod) -> bool:
    """Whether the pod waits for something that does not come by itself, such as an image that does not exist."""
    return waits_for(pod) in HOPELESS


def failed_container(
    pods: list[k8s.V1Pod],
) -> tuple[k8s.V1Pod, k8s.V1ContainerStateTerminated] | None:
    """The container that ended first with an exit code other than 0, and its pod."""
    ends = []
    for pod in pods:
        for status in pod.status.container_statuses or []:
            for state in (status.state, status.last_state):
                if state and state.terminated and state.terminated.exit_code:
                    ends.append((pod, state.terminated))
    return min(ends, key=lambda end: end[1].finished_at or _NEVER) if ends else None


def how(end: k8s.V1ContainerStateTerminated) -> str:
    """An exit code, and what Kubernetes says of it."""
    reason = f" ({end.reason})" if end.reason and end.reason != "Error" else ""
    return f"{end.exit_code}{reason}"


_NEVER = datetime.datetime.max.replace(tzinfo=datetime.UTC)
