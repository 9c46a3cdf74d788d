"""Deletes jobs that nobody waits for any more: their run has ended, or the step that started them has.

A job is deleted by Kubernetes when the pod that owns it is deleted, and by the operator at its deadline. But the pod of
a cancelled run stays for a day, and Kubeflow Pipelines gives a step no time to clean up. So this runs every minute.
"""

import datetime
from typing import Any

from kubernetes import client as k8s

from citeflow.cluster import watching
from citeflow.cluster.api import KINDS, Api
from citeflow.cluster.placement import RUN_ID
from citeflow.console import log

Json = dict[str, Any]

GRACE_S = 120.0
"""How long a job may be without a step that waits for it: a step that is repeated takes it over in this time."""

ENDED = ("Succeeded", "Failed", "Error")


def reap(api: Api, *, dry_run: bool = False, now: datetime.datetime | None = None) -> list[str]:
    """Delete what is left over in a namespace; returns the names of the jobs.

    Raises:
        CiteflowError: the API refuses, or does not answer.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    found = [(kind, job) for kind in KINDS for job in api.jobs(kind) if watching.end_of(job) is None]
    if not found:
        return []
    workflows = {workflow["metadata"]["labels"][RUN_ID]: workflow for workflow in api.workflows()}
    pods = {pod.metadata.uid: pod for pod in api.pods("app.kubernetes.io/part-of=citeflow")}
    gone = []
    for kind, job in found:
        reason = _why(job, workflows, pods, now)
        if reason:
            name = str(job["metadata"]["name"])
            log("reap", "would delete" if dry_run else "deletes", kind=kind, name=name, reason=reason)
            if not dry_run:
                api.delete(kind, name)
            gone.append(name)
    return gone


def _why(job: Json, workflows: dict[str, Json], pods: dict[str, k8s.V1Pod], now: datetime.datetime) -> str:
    """Why nobody waits for a job, or an empty text; a job without an owner was sent by hand, and is left alone."""
    metadata = job["metadata"]
    owners = [owner["uid"] for owner in metadata.get("ownerReferences", []) if owner["kind"] == "Pod"]
    age = (now - _time(metadata["creationTimestamp"])).total_seconds()
    if not owners or age < GRACE_S:
        return ""
    workflow = workflows.get(metadata.get("labels", {}).get(RUN_ID, ""))
    if workflow is None:
        return "its run is gone"
    phase = workflow.get("status", {}).get("phase", "")
    if phase in ENDED:
        return f"its run has ended: {phase}"
    if all(_ended_long_ago(pods.get(uid), now) for uid in owners):
        return "its step has ended"
    return ""


def _ended_long_ago(pod: k8s.V1Pod | None, now: datetime.datetime) -> bool:
    if pod is None:
        return True
    if not watching.has_ended(pod):
        return False
    ends = [status.state.terminated for status in pod.status.container_statuses or [] if status.state.terminated]
    last = max((end.finished_at for end in ends if end.finished_at), default=pod.metadata.creation_timestamp)
    return bool((now - last).total_seconds() > GRACE_S)


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
