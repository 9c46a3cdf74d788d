"""Trains on a cluster: one job for each step of a run, however often the step is repeated; what ends it is the model.

The job's own condition is not believed: "Succeeded" says that one worker ended well, "Failed" may come after the model
was complete. A model is complete when its manifest, which is written last, matches its files and what was asked for.
"""

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kubernetes import client as k8s

from citeflow import files
from citeflow.errors import ConfigError, TrainingError
from citeflow.kubernetes import job_status
from citeflow.kubernetes.client import Api, Json
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_objects import SPEC_SHA256
from citeflow.kubernetes.logs import LogFollower
from citeflow.training.launch import is_final, read_error
from citeflow.utils.logging import log

POLL_S = 8.0
"""Time between two looks at the job and its pods; two requests each."""

SEEN_LATE_S = 60.0
"""A file system that others share may show what a worker wrote only so long after it did."""

STRAGGLERS_S = 120.0
"""How long the job is waited for once the model is complete."""

FOREIGN_S = 300.0
"""How long the job of another run that has the same name, and so the same folder, is waited for: the reaper's time."""

OVERDUE_S = 60.0
"""How long a job may run past its deadline: not every operator ends it."""

HOPELESS_S = 600.0
"""How long a pod may wait for what does not come by itself."""


@dataclass(kw_only=True, slots=True)
class Launch:
    """One job on its way."""

    api: Api
    job: Json
    """As it is sent."""

    run_dir: Path
    is_complete: Callable[[], bool]
    """Whether the model that the job shall make is there, whole."""

    clock: Callable[[], float] = time.monotonic
    since: dict[str, float] = field(default_factory=dict)
    """When something was seen for the first time."""

    @property
    def kind(self) -> str:
        """PyTorchJob or TrainJob."""
        return str(self.job["kind"])

    @property
    def name(self) -> str:
        """Name of the job."""
        return str(self.job["metadata"]["name"])

    def lasted(self, what: str, holds: bool) -> float:
        """For how many seconds something has held without a break."""
        if not holds:
            self.since.pop(what, None)
            return 0.0
        return self.clock() - self.since.setdefault(what, self.clock())


def run(launch: Launch, prepare: Callable[[], None]) -> None:
    """Create the job, or take over the one that an earlier attempt of this step created, and stay until it has ended.

    Args:
        launch: the job and what it shall make.
        prepare: writes what the workers read; called before a job is created.

    Raises:
        ConfigError: a job of this name belongs to something else, or the cluster refuses.
        TrainingError: the job ended without a model.
        UnavailableError: the API does not answer; the job goes on, and the same step again takes it over.
        CiteflowError: whatever error a worker left behind.
    """
    if not _create_or_adopt(launch, prepare):
        return
    follower = LogFollower(launch.api, launch.name)
    try:
        _wait(launch, follower)
    except KeyboardInterrupt:
        log("launch", "stops the job", name=launch.name)
        launch.api.delete(launch.kind, launch.name)
        raise
    follower.finish()


def _create_or_adopt(launch: Launch, prepare: Callable[[], None]) -> bool:
    """See to it that there is one job that runs; returns whether it is needed, as the model may be complete."""
    while not launch.is_complete():
        found = launch.api.get(launch.kind, launch.name)
        if found is None:
            files.delete(launch.run_dir, "error.json")
            prepare()
            if launch.api.create(launch.job):
                log(
                    "launch",
                    "created",
                    kind=launch.kind,
                    name=launch.name,
                    namespace=launch.api.namespace,
                )
                return True
        elif job_status.end_of(found) or "deletionTimestamp" in found["metadata"]:
            log("launch", "removes a job that ended without this model", name=launch.name)
            launch.api.delete(launch.kind, launch.name, as_of=found)
        elif not _is_own(launch, found):
            log("launch", "waits for another run of this name to end", name=launch.name)
        elif _take_over(launch, found):
            log("launch", "takes over", kind=launch.kind, name=launch.name)
            return True
        launch.api.sleep(POLL_S / 4)
    return False


def _is_own(launch: Launch, found: Json) -> bool:
    """Whether a job that runs is of this run; one of another run is waited for, as it writes to the same folder.

    Raises:
        ConfigError: it is of another run and goes on, or of this one and shall do something else.
    """
    asked, there = launch.job["metadata"], found["metadata"]
    same_run = bool(there.get("labels", {}).get(RUN_ID) == asked["labels"][RUN_ID])
    same_spec = there.get("annotations", {}).get(SPEC_SHA256) == asked["annotations"][SPEC_SHA256]
    if (same_run and not same_spec) or launch.lasted("foreign", not same_run) > FOREIGN_S:
        what = "the same run with other settings" if same_run else "another run"
        hint = f"delete it, or choose another run name: kubectl delete {launch.kind.lower()} {launch.name}"
        raise ConfigError(
            f"there is a {launch.kind} of this name, of {what}", launch.name, hint=hint
        )
    return same_run


def _take_over(launch: Launch, found: Json) -> bool:
    """Let the job belong to this step's pod too, so that it stays when the earlier attempt's pod is deleted."""
    there = found["metadata"].get("ownerReferences", [])
    missing = [
        owner for owner in launch.job["metadata"].get("ownerReferences", []) if owner not in there
    ]
    if not missing:
        return True
    version = found["metadata"]["resourceVersion"]
    return launch.api.patch_metadata(
        launch.kind,
        launch.name,
        {"resourceVersion": version, "ownerReferences": [*there, *missing]},
    )


def _wait(launch: Launch, follower: LogFollower) -> None:
    """Stay until the model is complete and the job has ended, or until it is clear that there will be none."""
    told = ""
    seen: dict[str, k8s.V1Pod] = {}
    selector = f"{job_status.SELECTORS[launch.kind]}={launch.name}"
    while True:
        job = launch.api.get(launch.kind, launch.name)
        pods = launch.api.pods(selector)
        seen |= {pod.metadata.uid: pod for pod in pods}
        follower.see(pods)
        told = _tell(job, pods, told)
        hopeless = launch.lasted("hopeless", any(map(job_status.is_hopeless, pods))) > HOPELESS_S
        if _is_over(launch, job, list(seen.values()), follower, hopeless=hopeless):
            return
        launch.api.sleep(POLL_S * random.uniform(0.9, 1.1))


def _is_over(
    launch: Launch,
    job: Json | None,
    pods: list[k8s.V1Pod],
    follower: LogFollower,
    *,
    hopeless: bool,
) -> bool:
    """Whether all is done and well; `pods` are those that there are and were.

    Raises:
        CiteflowError: it is over, without a model.
    """
    end = (
        job_status.end_of(job) if job else job_status.End(succeeded=False, reason="it was deleted")
    )
    if launch.is_complete():
        if end is None and launch.lasted("complete", True) < STRAGGLERS_S:
            return False
        if end is None:
            log("launch", "ends a job whose model is complete", name=launch.name)
            launch.api.delete(launch.kind, launch.name)
        elif not end.succeeded:
            log("launch", "has a complete model of a job that says it failed", reason=end.reason)
        return True
    error = read_error(launch.run_dir / "error.json")
    if error and is_final(error):
        _end(launch, job, pods, follower)
        raise error
    if hopeless:
        _end(launch, job, pods, follower)
        raise TrainingError(
            "pods do not start", job_status.summary(pods), hint="`kubectl describe pod` says why"
        )
    if job and job_status.overdue_s(job) > OVERDUE_S:
        _end(launch, job, pods, follower)
        raise TrainingError(
            "the job has passed its deadline", launch.name, hint="raise deadline_hours in `job`"
        )
    if launch.lasted("ended", end is not None) > SEEN_LATE_S:
        _end(launch, None, pods, follower)
        raise _failure(launch, pods, end.reason if end else "")
    return False


def _end(launch: Launch, job: Json | None, pods: list[k8s.V1Pod], follower: LogFollower) -> None:
    """End a job that still runs, and tell the last lines of the pod that failed."""
    failed = job_status.failed_container(pods)
    if job is not None and job_status.end_of(job) is None:
        launch.api.delete(launch.kind, launch.name)
    follower.finish()
    if failed:
        pod, end = failed
        lines = follower.last_lines(pod.metadata.name) or (end.message or "").splitlines()
        print(
            f"--- last lines of {pod.metadata.name}",
            *lines,
            "---",
            sep="\n",
            file=sys.stderr,
            flush=True,
        )


def _failure(launch: Launch, pods: list[k8s.V1Pod], reason: str) -> TrainingError:
    hint = "the last lines of the pod are above; the same run again goes on from its checkpoint"
    failed = job_status.failed_container(pods)
    if failed:
        pod, end = failed
        return TrainingError(
            f"no model: {pod.metadata.name} ended with exit code", job_status.how(end), hint=hint
        )
    return TrainingError(f"{launch.kind} {launch.name} ended without a model", reason, hint=hint)


def _tell(job: Json | None, pods: list[k8s.V1Pod], told: str) -> str:
    """Say how the pods are, when it has changed."""
    now = "waits in its queue" if job and job_status.is_suspended(job) else job_status.summary(pods)
    if now != told:
        log("launch", "pods", are=now)
    return now
