"""Deletes jobs that nobody waits for any more: their run has ended, or the step that started them has.

A job is deleted by Kubernetes when the pod that owns it is deleted, and by the operator at its deadline. But the pod of
a cancelled run stays for a day, and Kubeflow Pipelines gives a step no time to clean up. So this runs every minute.
"""

import datetime
from typing import Any

from kubernetes import client as k8s

from citeflow.kubernetes import job_status
from citeflow.kubernetes.client import KINDS, Api
from citeflow.kubernetes.identity import RUN_ID
from citeflow.utils.logging import log

Json = dict[str, Any]

GRACE_S = 200.0
"""How long a job may be without a step that waits for it: a step that is repeated takes it over in this time."""

YOUNG_S = 60.0
"""Jobs younger than this are left alone."""

STEP = "main"
"""The container that Argo runs a step's code in."""

ENDED = ("Succeeded", "Failed", "Error")


def reap(api: Api, *, dry_run: bool = False, now: datetime.datetime | None = None) -> list[str]:
    """Delete what is left over in a namespace; returns the names of the jobs.

    Raises:
        CiteflowError: the API refuses, or does not answer.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    found = [
        (kind, job) for kind in KINDS for job in api.jobs(kind) if job_status.end_of(job) is None
    ]
    if not found:
        return []
    run_ids = {job["metadata"]["labels"].get(RUN_ID, "") for _, job in found} - {""}
    workflows = {
        workflow["metadata"]["labels"][RUN_ID]: workflow for workflow in api.workflows(run_ids)
    }
    gone = []
    for kind, job in found:
        reason = _why(api, job, workflows, now)
        if reason:
            name = str(job["metadata"]["name"])
            if not dry_run and not api.delete(kind, name, as_of=job):
                continue
            log(
                "reap",
                "would delete" if dry_run else "deleted",
                kind=kind,
                name=name,
                reason=reason,
            )
            gone.append(name)
    return gone


def _why(api: Api, job: Json, workflows: dict[str, Json], now: datetime.datetime) -> str:
    """Why nobody waits for a job, or an empty text; a job without an owner was sent by hand, and is left alone."""
    metadata = job["metadata"]
    owners = [owner for owner in metadata.get("ownerReferences", []) if owner["kind"] == "Pod"]
    age = (now - datetime.datetime.fromisoformat(metadata["creationTimestamp"])).total_seconds()
    if not owners or age < YOUNG_S:
        return ""
    if job_status.overdue_s(job) > GRACE_S:
        return "it has passed its deadline"
    workflow = workflows.get(metadata["labels"].get(RUN_ID, ""), {})
    phase = workflow.get("status", {}).get("phase", "")
    if phase in ENDED:
        return f"its run has ended: {phase}"
    if all(_ended_long_ago(api.pod(owner["name"]), owner["uid"], now) for owner in owners):
        return "its step has ended"
    return ""


def _ended_long_ago(pod: k8s.V1Pod | None, uid: str, now: datetime.datetime) -> bool:
    """Whether nothing of a step runs any more; Argo's own container may outlive the one that does the work."""
    if pod is None or pod.metadata.uid != uid:
        return True
    ends = {status.name: status.state.terminated for status in pod.status.container_statuses or []}
    if not job_status.has_ended(pod) and not ends.get(STEP):
        return False
    times = [end.finished_at for end in ends.values() if end and end.finished_at]
    last = max(times, default=pod.metadata.creation_timestamp)
    return bool((now - last).total_seconds() > GRACE_S)
