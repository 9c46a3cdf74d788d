"""Run one job on a cluster to its end, however often the step that launched it is repeated.

The condition of the job is not believed: "Succeeded" says that one worker ended well, and "Failed"
may come after the model was complete. A model is complete when its manifest, which is written last,
matches its files and the inputs that were asked for.
"""

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from citeflow import files
from citeflow.errors import ConfigError, TrainingError
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_status import (
    SPEC_SHA256,
    JobEnd,
    JobStatus,
    KubeObject,
    PodStatus,
    first_failure,
    summarize,
)
from citeflow.kubernetes.launchers import Launcher
from citeflow.kubernetes.logs import LogFollower
from citeflow.paths import RunPaths
from citeflow.training.launch import is_final, read_error
from citeflow.utils.logging import log

POLL_S = 8.0
"""Time between two polls of the job and its pods, which are two requests."""

VISIBILITY_DELAY_S = 60.0
"""A shared file system may show so late what a worker wrote."""

COMPLETION_GRACE_S = 120.0
"""Longest wait for the end of a job whose model is complete."""

FOREIGN_JOB_S = 300.0
"""Longest wait for another run's job of the same name: the reaper deletes an orphan by then."""

OVERDUE_S = 60.0
"""Time that a job may run past its deadline: not every operator ends it."""

UNRECOVERABLE_S = 600.0
"""Time that a pod may wait for an image that can not be pulled, and the like."""


@dataclass(kw_only=True, slots=True)
class JobWatcher:
    """One job, from its creation to its model."""

    client: KubeClient
    launcher: Launcher
    job: KubeObject
    """The rendered job."""

    run: RunPaths
    is_complete: Callable[[], bool]
    """Checks whether the job's model is there, whole."""

    clock: Callable[[], float] = time.monotonic
    _since: dict[str, float] = field(default_factory=dict)
    _follower: LogFollower = field(init=False)

    def __post_init__(self) -> None:
        self._follower = LogFollower(self.client, self.launcher)

    @property
    def name(self) -> str:
        """Name of the job."""
        return str(self.job["metadata"]["name"])

    def train(self, prepare: Callable[[], None]) -> None:
        """Create the job or adopt that of an earlier attempt, and wait until it has ended.

        Args:
            prepare: writes what the workers read; called before a job is created.

        Raises:
            ConfigError: a job of this name belongs to something else, or the cluster refuses.
            TrainingError: the job ended without a model.
            UnavailableError: the API does not answer; repeating the step adopts the job.
            CiteflowError: the error that a worker ended with.
        """
        try:
            if not self._create_or_adopt(prepare):
                return
            self._wait()
        except KeyboardInterrupt:
            self._delete_own()
            raise
        self._follower.finish()

    def held_for(self, condition: str, holds: bool) -> float:
        """Return for how many seconds a condition has held without a break."""
        if not holds:
            self._since.pop(condition, None)
            return 0.0
        now = self.clock()
        return now - self._since.setdefault(condition, now)

    def _create_or_adopt(self, prepare: Callable[[], None]) -> bool:
        """Return whether a job runs now; False if the model is complete."""
        kind = self.launcher.kind
        while not self.is_complete():
            found = self.client.job(self.launcher, self.name)
            if found is None:
                # An error of the last job would end this one.
                files.delete(self.run.folder, self.run.error_file.name)
                prepare()
                if self.client.create(self.launcher, self.job):
                    namespace = self.client.namespace
                    log("launch", "created", kind=kind, name=self.name, namespace=namespace)
                    return True
            elif found.end or found.is_deleting:
                log("launch", "removes a job that ended without this model", name=self.name)
                self.client.delete(self.launcher, self.name, as_of=found)
            elif not self._is_own(found):
                log("launch", "waits for another run of this name to end", name=self.name)
            elif self._adopt(found):
                log("launch", "takes over", kind=kind, name=self.name)
                return True
            self.client.sleep(POLL_S / 4)
        return False

    def _is_own(self, found: JobStatus) -> bool:
        """Tell whether a running job is of this run.

        Raises:
            ConfigError: it is of another run, which writes to the same folder and does not end,
                or of this one, with other settings.
        """
        metadata = self.job["metadata"]
        same_run = bool(found.run_id == metadata["labels"][RUN_ID])
        same_spec = bool(found.spec_sha256 == metadata["annotations"][SPEC_SHA256])
        other = ""
        if self.held_for("foreign", not same_run) > FOREIGN_JOB_S:
            other = "another run"
        elif same_run and not same_spec:
            other = "the same run with other settings"
        if other:
            command = f"kubectl delete {self.launcher.name} {self.name}"
            raise ConfigError(
                f"there is a {self.launcher.kind} of this name, of {other}",
                self.name,
                hint=f"delete it, or choose another run name: {command}",
            )
        return same_run

    def _delete_own(self) -> None:
        """Delete the job, which may exist although the answer to its creation never came."""
        found = self.client.job(self.launcher, self.name)
        # The digest covers the id of the run.
        digest = self.job["metadata"]["annotations"][SPEC_SHA256]
        if found and found.spec_sha256 == digest:
            log("launch", "stops the job", name=self.name)
            self.client.delete(self.launcher, self.name)

    def _adopt(self, found: JobStatus) -> bool:
        """Let this step's pod own the job too, so that it outlives the earlier attempt's pod."""
        own = self.job["metadata"].get("ownerReferences", [])
        missing = [owner for owner in own if owner not in found.owners]
        if not missing:
            return True
        return self.client.set_owners(self.launcher, found, [*found.owners, *missing])

    def _wait(self) -> None:
        """Poll until the model is complete and the job has ended, or neither can happen."""
        reported = ""
        seen: dict[str, PodStatus] = {}
        while True:
            job = self.client.job(self.launcher, self.name)
            pods = self.client.pods(self.launcher.pod_selector(self.name))
            # Pods that are gone may be those that tell why the job failed.
            seen |= {pod.uid: pod for pod in pods}
            self._follower.update(pods)
            state = "waits in its queue" if job and job.is_suspended else summarize(pods)
            if state != reported:
                log("launch", "pods", are=state)
                reported = state
            is_stuck = any(pod.is_unrecoverable for pod in pods)
            stuck_s = self.held_for("unrecoverable", is_stuck)
            if self._is_over(job, list(seen.values()), stuck_s):
                return
            self.client.sleep(POLL_S * random.uniform(0.9, 1.1))

    def _is_over(self, job: JobStatus | None, pods: list[PodStatus], stuck_s: float) -> bool:
        """Tell whether the training has succeeded; `pods` are those that there are and were.

        Raises:
            CiteflowError: it has failed.
        """
        end = job.end if job else JobEnd(succeeded=False, reason="it was deleted")
        if self.is_complete():
            return self._has_ended(end)
        error = read_error(self.run.error_file)
        if error and is_final(error):
            self._stop(job, pods)
            raise error
        if stuck_s > UNRECOVERABLE_S:
            self._stop(job, pods)
            hint = "`kubectl describe pod` says why"
            raise TrainingError("pods do not start", summarize(pods), hint=hint)
        if job and job.overdue_s() > OVERDUE_S:
            self._stop(job, pods)
            hint = "raise deadline_hours in `job`"
            raise TrainingError("the job has passed its deadline", self.name, hint=hint)
        if self.held_for("ended", end is not None) > VISIBILITY_DELAY_S:
            self._stop(job, pods)
            raise self._failure(pods, end.reason if end else "")
        return False

    def _has_ended(self, end: JobEnd | None) -> bool:
        """Tell whether nothing of a job whose model is complete is waited for any more."""
        if end is None and self.held_for("complete", True) < COMPLETION_GRACE_S:
            return False
        if end is None:
            log("launch", "ends a job whose model is complete", name=self.name)
            self.client.delete(self.launcher, self.name)
        elif not end.succeeded:
            reason = end.reason
            log("launch", "has a complete model of a job that says it failed", reason=reason)
        return True

    def _stop(self, job: JobStatus | None, pods: list[PodStatus]) -> None:
        """Delete a job that still runs, and repeat the last lines of the pod that failed."""
        if job and job.end is None:
            self.client.delete(self.launcher, self.name)
        self._follower.finish()
        if failure := first_failure(pods):
            pod, end = failure
            lines = self._follower.last_lines(pod.name) or end.message.splitlines()
            text = "\n".join([f"--- last lines of {pod.name}", *lines, "---"])
            print(text, file=sys.stderr, flush=True)

    def _failure(self, pods: list[PodStatus], reason: str) -> TrainingError:
        hint = "the pod's last lines are above; the same run resumes from its checkpoint"
        if failure := first_failure(pods):
            pod, end = failure
            return TrainingError(f"no model: {pod.name} ended with exit code", end, hint=hint)
        what = f"{self.launcher.kind} {self.name} ended without a model"
        return TrainingError(what, reason, hint=hint)
