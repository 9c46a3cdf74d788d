"""The little of Kubeflow Trainer v2 that a TrainJob needs to run: its pods, and how it ends."""

import copy
from typing import Any

from .kube_objects import timestamp
from .pytorchjobs import is_true

BACKOFF_LIMIT = 6
"""Restarts of all containers together, as a Job of Kubernetes has it where nothing else is said."""


def reconcile(operator: Any, job: dict) -> None:
    status = copy.deepcopy(job.get("status") or {})
    spec, pods = job["spec"], operator.pods_of(job)
    deadline = spec.get("activeDeadlineSeconds")
    if is_true(status, "Complete") or is_true(status, "Failed"):
        return
    if spec.get("suspend"):
        for pod in pods:
            operator.delete_pod(pod)
        _set(status, "Suspended", "True", "Suspended", "TrainJob is suspended")
    else:
        if is_true(status, "Suspended"):
            _set(status, "Suspended", "False", "Resumed", "TrainJob is resumed")
        _run(operator, job, status, pods)
        if (
            deadline is not None
            and operator.seconds_since(job["metadata"]["creationTimestamp"]) >= deadline
        ):
            _fail(
                operator, status, pods, "DeadlineExceeded", "TrainJob exceeded its active deadline"
            )
    operator.write_status(job, status)


def _run(operator: Any, job: dict, status: dict, pods: list[dict]) -> None:
    nodes, name = job["spec"].get("trainer", {}).get("numNodes", 1), job["metadata"]["name"]
    there = {pod["metadata"]["name"] for pod in pods}
    for index in range(nodes):
        if f"{name}-node-0-{index}" not in there:
            operator.create_pod(job, f"{name}-node-0-{index}", *_pod(job, index, nodes))
    phases = [pod["status"].get("phase") for pod in pods]
    states = [state for pod in pods for state in pod["status"].get("containerStatuses") or []]
    if phases.count("Succeeded") == nodes:
        _set(status, "Complete", "True", "JobsCompleted", "jobset completed successfully")
    elif "Failed" in phases or sum(state["restartCount"] for state in states) > BACKOFF_LIMIT:
        _fail(operator, status, pods, "FailedJobs", "jobset failed due to one or more job failures")


def _fail(operator: Any, status: dict, pods: list[dict], reason: str, message: str) -> None:
    for pod in pods:
        if pod["status"].get("phase") in ("Pending", "Running"):
            operator.delete_pod(pod)
    _set(status, "Failed", "True", reason, message)


def _pod(job: dict, index: int, nodes: int) -> tuple[dict, dict]:
    """The labels and the template of a pod; of the patches of its runtime only labels and annotations are heeded."""
    name, trainer = job["metadata"]["name"], job["spec"].get("trainer", {})
    jobset = {"jobset-name": name, "replicatedjob-name": "node", "job-index": "0"}
    labels = {f"jobset.sigs.k8s.io/{key}": value for key, value in jobset.items()}
    labels |= {
        "batch.kubernetes.io/job-name": f"{name}-node-0",
        "batch.kubernetes.io/job-completion-index": str(index),
    }
    values = {
        "PET_NNODES": str(nodes),
        "PET_NPROC_PER_NODE": str(trainer.get("numProcPerNode", 1)),
        "PET_NODE_RANK": str(index),
        "PET_MASTER_ADDR": f"{name}-node-0-0.{name}",
        "PET_MASTER_PORT": "29400",
    }
    container = {key: trainer[key] for key in ("image", "command", "args") if key in trainer}
    own = [{"name": key, "value": value} for key, value in values.items()]
    container |= {"name": "node", "env": [*(trainer.get("env") or []), *own]}
    container["resources"] = trainer.get("resourcesPerNode") or {}
    return labels, {
        "metadata": _patched(job),
        "spec": {"restartPolicy": "OnFailure", "containers": [container]},
    }


def _patched(job: dict) -> dict:
    meta: dict = {}
    for patch in job["spec"].get("runtimePatches") or []:
        for replicated in (
            patch["trainingRuntimeSpec"]["template"]["spec"].get("replicatedJobs") or []
        ):
            found = replicated["template"]["spec"]["template"].get("metadata") or {}
            for field in ("labels", "annotations"):
                meta[field] = {**meta.get(field, {}), **(found.get(field) or {})}
    return meta


def _set(status: dict, type_: str, value: str, reason: str, message: str) -> None:
    conditions = status.setdefault("conditions", [])
    old = next((found for found in conditions if found["type"] == type_), {})
    if (old.get("status"), old.get("reason")) != (value, reason):
        kept = [found for found in conditions if found["type"] != type_]
        new = {"type": type_, "status": value, "reason": reason, "message": message}
        status["conditions"] = [*kept, {**new, "lastTransitionTime": timestamp()}]
