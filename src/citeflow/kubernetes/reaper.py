"""Delete jobs that nobody waits for: their run has ended, or the step that started them has.

Kubernetes deletes a job with the pod that owns it, and the operator ends it at its deadline. But
the pod of a cancelled run stays as long as its Workflow, an hour where Kubeflow Pipelines 2.17 has
its own settings, and a step gets no time to clean up. So this runs every minute.
"""

import datetime

from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.job_status import JobStatus, PodStatus
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.utils.logging import log

GRACE_S = 200.0
"""Time that a job may lack a step that waits for it: a repeated step adopts it by then."""

YOUNG_S = 60.0
"""Jobs younger than this are left alone."""

STEP_CONTAINER = "main"
"""Container in which Argo runs a step's code."""

ENDED_PHASES = ("Succeeded", "Failed", "Error")


def reap(
    client: KubeClient, *, dry_run: bool = False, now: datetime.datetime | None = None
) -> list[str]:
    """Delete the orphaned jobs of a namespace, and return their names.

    Raises:
        CiteflowError: the API refuses, or does not answer.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    running = [
        (launcher, job)
        for launcher in LAUNCHERS.values()
        for job in client.jobs(launcher)
        if job.end is None
    ]
    if not running:
        return []
    run_ids = {job.run_id for _, job in running} - {""}
    phases = client.workflow_phases(run_ids)
    names = []
    for launcher, job in running:
        reason = _orphan_reason(client, job, phases.get(job.run_id, ""), now)
        if not reason or not (dry_run or client.delete(launcher, job.name, as_of=job)):
            continue
        event = "would delete" if dry_run else "deleted"
        log("reap", event, kind=launcher.kind, name=job.name, reason=reason)
        names.append(job.name)
    return names


def delete_jobs_of_run(client: KubeClient, run_id: str) -> list[str]:
    """Delete the jobs of a run that is cancelled, and return their names: Argo ends its pods only.

    Raises:
        CiteflowError: the API refuses, or does not answer.
    """
    deleted = []
    for launcher in LAUNCHERS.values():
        for job in client.jobs(launcher):
            if job.run_id == run_id and client.delete(launcher, job.name):
                name = f"{launcher.kind}/{job.name}"
                log("runs", "deleted", job=name)
                deleted.append(name)
    return deleted


def _orphan_reason(
    client: KubeClient, job: JobStatus, run_phase: str, now: datetime.datetime
) -> str:
    """Say why nobody waits for a job, or return an empty text."""
    owners = [owner for owner in job.owners if owner["kind"] == "Pod"]
    if not owners or (now - job.created).total_seconds() < YOUNG_S:
        return ""  # without an owner, somebody launched it by hand
    if job.overdue_s(now) > GRACE_S:
        return "it has passed its deadline"
    if run_phase in ENDED_PHASES:
        return f"its run has ended: {run_phase}"
    if all(_has_ended(client.pod(owner["name"]), owner["uid"], now) for owner in owners):
        return "its step has ended"
    return ""


def _has_ended(pod: PodStatus | None, uid: str, now: datetime.datetime) -> bool:
    """Tell whether a step ended more than the grace time ago.

    Argo's own container may outlive the one that does the work.
    """
    if pod is None or pod.uid != uid:
        return True
    ends = {container.name: container.end for container in pod.containers if container.end}
    if not pod.has_ended and STEP_CONTAINER not in ends:
        return False
    times = [end.finished for end in ends.values() if end.finished]
    return (now - max(times, default=pod.created)).total_seconds() > GRACE_S
