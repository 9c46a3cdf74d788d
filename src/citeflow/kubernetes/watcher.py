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
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.job_status import (
    IMAGE_REASONS,
    OOM_KILLED,
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
from citeflow.kubernetes.oom import OomKills
from citeflow.kubernetes.placement import Placement
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

NO_SUCH_IMAGE_S = 60.0
"""The same where the registry says that there is none, or none for this cluster."""

NO_SUCH_IMAGE = (
    "not found",
    "manifest unknown",
    "denied",
    "unauthorized",
    "InvalidImageName",
    "ErrImageNeverPull",
)
"""Words of registries and kubelets that waiting does not change."""

BEGIN_AGAIN_S = (60.0, 300.0)
"""Bounds of the random pause before a job that gave back its places is created again."""


@dataclass(kw_only=True, slots=True)
class JobWatcher:
    """One job, from its creation to its model."""

    client: KubeClient
    launcher: Launcher
    spec: JobSpec
    job: KubeObject
    """The job that is rendered from it."""

    run: RunPaths
    is_complete: Callable[[], bool]
    """Checks whether the job's model is there, whole."""

    out_of_memory: Callable[[], TrainingError]
    """Makes the error of a training that does not fit into the memory of its pods."""

    clock: Callable[[], float] = time.monotonic
    _since: dict[str, float] = field(default_factory=dict)
    _began: float = field(init=False)
    _follower: LogFollower = field(init=False)
    _placement: Placement = field(init=False)
    _kills: OomKills = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._follower = LogFollower(self.client, self.launcher)
        self._placement = Placement(
            client=self.client,
            launcher=self.launcher,
            spec=self.spec,
            name=self.name,
            clock=self.clock,
        )
        self._kills = OomKills(launcher=self.launcher, checkpoints=self.run.checkpoints)

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
            while self._create_or_adopt(prepare):
                if self._wait():
                    break
                self._give_back()
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
            elif found.is_deleting:
                self._check_goes(found)
            elif found.end:
                log("launch", "removes a job that ended without this model", name=self.name)
                self.client.delete(self.launcher, self.name, as_of=found)
            elif not self._is_own(found):
                log("launch", "waits for another run of this name to end", name=self.name)
            elif self._adopt(found):
                log("launch", "takes over", kind=kind, name=self.name)
                return True
            self.client.sleep(POLL_S / 4)
        return False

    def _check_goes(self, found: JobStatus) -> None:
        """Check that a job is not being deleted for ever.

        Raises:
            ConfigError: it is.
        """
        if self.held_for(f"deleting {found.uid}", True) > FOREIGN_JOB_S:
            what = f"a {self.launcher.kind} of this name is deleted, but does not go"
            hint = f"what holds it are the finalizers in `kubectl get {self.launcher.name} -o yaml`"
            raise ConfigError(what, self.name, hint=hint)

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
        if self._own_job():
            log("launch", "stops the job", name=self.name)
            self.client.delete(self.launcher, self.name)

    def _own_job(self) -> JobStatus | None:
        """Return the job, unless it is gone; another run may have made one of its name since."""
        found = self.client.job(self.launcher, self.name)
        # The digest covers the id of the run.
        digest = self.job["metadata"]["annotations"][SPEC_SHA256]
        return found if found and found.spec_sha256 == digest else None

    def _adopt(self, found: JobStatus) -> bool:
        """Let this step's pod own the job too, so that it outlives the earlier attempt's pod."""
        own = self.job["metadata"].get("ownerReferences", [])
        missing = [owner for owner in own if owner not in found.owners]
        if not missing:
            return True
        return self.client.set_owners(self.launcher, found, [*found.owners, *missing])

    def _wait(self) -> bool:
        """Poll until the model is complete and the job has ended, or neither can happen.

        Returns:
            False if the job shall give back the places that its pods have.
        """
        reported = ""
        seen: dict[str, PodStatus] = {}
        while True:
            job = self._own_job()
            pods = self.client.pods(self.launcher.pod_selector(self.name))
            # Pods that are gone may be those that tell why the job failed.
            seen |= {pod.uid: pod for pod in pods}
            self._follower.update(pods)
            self._placement.update(job, pods)
            self._kills.update(pods)
            state = self._state(job, pods)
            if state != reported:
                log("launch", "pods", are=state)
                reported = state
            if self._is_over(job, list(seen.values())):
                return True
            try:
                self._end_if_hopeless(job, pods)
                if self._placement.gives_back():
                    return False
            except TrainingError:
                self._stop(job, list(seen.values()))
                raise
            self.client.sleep(POLL_S * random.uniform(0.9, 1.1))

    def _state(self, job: JobStatus | None, pods: list[PodStatus]) -> str:
        if job and job.is_suspended:
            return "waits in its queue"
        return ", ".join(filter(None, [summarize(pods), self._placement.report]))

    def _give_back(self) -> None:
        pause_s = random.uniform(*BEGIN_AGAIN_S)
        tries = self._placement.tries
        log("launch", "gives back its places", name=self.name, tries=tries, seconds=pause_s)
        self.client.delete(self.launcher, self.name)
        self.client.sleep(pause_s)

    def _is_over(self, job: JobStatus | None, pods: list[PodStatus]) -> bool:
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
        if self.held_for("ended", end is not None) > VISIBILITY_DELAY_S:
            self._stop(job, pods)
            raise self._failure(pods, end.reason if end else "")
        return False

    def _end_if_hopeless(self, job: JobStatus | None, pods: list[PodStatus]) -> None:
        """End a job that would go on for nothing; `pods` are those of now.

        Raises:
            TrainingError: it is one.
        """
        if job and self._overdue_s(job) > OVERDUE_S:
            hint = "raise deadline_hours in `job`"
            raise TrainingError("the job has passed its deadline", self.name, hint=hint)
        stuck = next((pod for pod in pods if pod.is_unrecoverable), None)
        stuck_s = self.held_for("unrecoverable", stuck is not None)
        if stuck and stuck_s > _patience_s(stuck):
            raise _not_started(stuck)
        replica = self._kills.killed_in_vain()
        if self.held_for("out of memory", replica != "") > VISIBILITY_DELAY_S:
            log("launch", "was killed twice without progress", pod=replica, reason=OOM_KILLED)
            raise self.out_of_memory()
        restarts = sum(each.restarts for pod in pods for each in pod.containers)
        # A TrainJob has no such limit of its own: its runtime's is for all jobs.
        if restarts > max(1, self.spec.container_restarts):
            hint = "the last lines of the pod that failed first are above; `job` has restarts"
            raise TrainingError("too many restarts of the pods' containers", restarts, hint=hint)

    def _overdue_s(self, job: JobStatus) -> float:
        """Return the seconds since the deadline; it counts over all jobs that were created."""
        if self._placement.tries == 0 or job.is_suspended:
            return job.overdue_s()
        return self.clock() - self._began - job.deadline_s

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
            if end.reason == OOM_KILLED:
                hint = f"raise memory in `job`, which is {self.spec.pod_memory}"
            return TrainingError(f"no model: {pod.name} ended with exit code", end, hint=hint)
        what = f"{self.launcher.kind} {self.name} ended without a model"
        return TrainingError(what, reason, hint=hint)


def _patience_s(pod: PodStatus) -> float:
    is_clear = any(words in pod.trouble for words in NO_SUCH_IMAGE)
    return NO_SUCH_IMAGE_S if is_clear else UNRECOVERABLE_S


def _not_started(pod: PodStatus) -> TrainingError:
    """Return the error of a pod that waits for something that does not come."""
    waiting = next(each for each in pod.containers if each.waiting)
    if waiting.waiting not in IMAGE_REASONS:
        hint = f"`kubectl describe pod {pod.name}` says more"
        return TrainingError(f"{pod.name} does not start", pod.trouble, hint=hint)
    hint = "push it, or name another: {image: ...} as `job`; docs/images.md has the ways to a node"
    return TrainingError("no image for the pods", f"{waiting.image}: {pod.trouble}", hint=hint)
