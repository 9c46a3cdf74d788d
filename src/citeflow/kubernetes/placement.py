"""Decide what to do where the pods of a job do not all get a place.

Without a scheduler for gangs, two jobs can hold one place each and wait for each other for ever. So
a job that has some of its places, but not all, gives them back after a while, and begins again.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from citeflow.errors import TrainingError
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.job_status import JobStatus, PodStatus
from citeflow.kubernetes.launchers import Launcher
from citeflow.kubernetes.scheduling import (
    CORDONED,
    PRIORITY_CLASS,
    QUOTA,
    REFUSED,
    is_adding_a_node,
    is_refused_for_good,
    last_words,
    mount_failure,
    too_large,
)

ASK_AFTER_S = 5.0
"""Time that pods may be missing before the cluster is asked why."""

ASK_AGAIN_S = 30.0
"""Time between two such questions: each is a request of its own."""

MOUNT_S = 600.0
"""Time that a pod may wait for a volume of which the cluster reports that it can not be mounted."""

HOPELESS_S = 60.0
"""Time that a hopeless state must last. An autoscaler says within it that it adds a node."""

MAX_PARTIAL_TRIES = 3
"""Tries that may end with some of the places, where a job has never had all of them."""


@dataclass(kw_only=True, slots=True)
class Placement:
    """The places of a job's pods, over all tries of one launcher."""

    client: KubeClient
    launcher: Launcher
    spec: JobSpec
    name: str
    """Name of the job."""

    clock: Callable[[], float] = time.monotonic
    words: str = ""
    """Why a pod has no place, in the words of the scheduler or of the API server."""

    refusal: str = ""
    """The API server's words, where it refuses to create pods."""

    unmounted: str = ""
    """The kubelet's words, where it can not mount a volume."""

    tries: int = 0
    """How often the job gave back its places."""

    _placed: int = 0
    _has_pods: bool = False
    _unschedulable: str = ""
    """Name of a pod that no node takes."""

    _short_since: float = math.inf
    _asked: float = -math.inf
    _nothing_fits: str | None = None
    """What no node has enough of; None before the nodes were looked at."""

    _was_whole: bool = False
    _creating_since: float = math.inf

    @property
    def report(self) -> str:
        """The report of the cluster besides the states of the pods, or an empty text."""
        return self.refusal or self.unmounted

    def update(self, job: JobStatus | None, pods: list[PodStatus]) -> None:
        """Look at the pods of now, and ask the cluster about those that are missing."""
        self._has_pods = bool(pods)
        wanted = self.launcher.num_pods(self.spec)
        pods = [pod for pod in pods if pod.phase != "Failed" and self.launcher.takes_place(pod)]
        # A pod that is being deleted still has its node, and gives it up.
        self._placed = sum(pod.has_node and not pod.is_deleting for pod in pods)
        waits = job is not None and job.end is None and not job.is_suspended
        if not waits or self._placed >= wanted:
            self._was_whole |= waits
            self._forget()
            self._ask_about_mounts([pod for pod in pods if pod.waiting == "ContainerCreating"])
            return
        now = self.clock()
        self._short_since = min(self._short_since, now)
        refused = [pod for pod in pods if pod.unschedulable and not pod.is_deleting]
        self._unschedulable = refused[0].name if refused else ""
        if refused:
            self.words = refused[0].unschedulable
        if job and self._is_due(self._short_since):
            self._ask(job, is_missing=len(pods) < wanted)

    def gives_back(self) -> bool:
        """Tell whether the job has waited long enough with a part of its places.

        Raises:
            TrainingError: it will not get all of them.
        """
        if self.unmounted and self.clock() - self._creating_since > MOUNT_S:
            hint = (
                "docs/cluster.md says how the volume is made; `citeflow doctor` looks at its claim"
            )
            raise TrainingError("no volume for the pods", self.unmounted, hint=hint)
        short_s = max(0.0, self.clock() - self._short_since)
        patience_s = 60 * self.spec.unschedulable_minutes
        if not self.words:
            if short_s > patience_s and not self._has_pods:
                hint = f"does its operator run? Else {self.launcher.install_hint}"
                what = f"nothing makes pods for the {self.launcher.kind}"
                raise TrainingError(what, self.name, hint=hint)
            return False
        self._end_if_hopeless(short_s)
        if short_s <= patience_s:
            return False
        # A job that had a place before is known to fit, and waits for others to end.
        if self._placed == 0 and (self.tries > 0 or self._was_whole):
            return False
        is_last = not self._was_whole and self.tries + 1 >= MAX_PARTIAL_TRIES
        if self._placed == 0 or is_last:
            wanted = self.launcher.num_pods(self.spec)
            what = f"no place for the pods of {self.name}, {self._placed} of {wanted}"
            raise TrainingError(f"{what} have one", self.words, hint=self._hint())
        self.tries += 1
        self._forget()
        return True

    def _is_due(self, since: float) -> bool:
        """Tell whether the cluster shall be asked now about a state that lasts since then."""
        now = self.clock()
        if now - since < ASK_AFTER_S or now - self._asked < ASK_AGAIN_S:
            return False
        self._asked = now
        return True

    def _ask_about_mounts(self, creating: list[PodStatus]) -> None:
        """Ask why a pod that has a node is not made."""
        if not creating:
            self.unmounted = ""
            self._creating_since = math.inf
            return
        self._creating_since = min(self._creating_since, self.clock())
        if self._is_due(self._creating_since):
            pod = creating[0]
            self.unmounted = mount_failure(self.client.events(pod.name), pod.created)

    def _ask(self, job: JobStatus, *, is_missing: bool) -> None:
        """Ask for the events about the pods that are not there, or for the sizes of the nodes."""
        if is_missing:
            events = self.client.events(self.launcher.pod_creator(job))
            self.refusal = last_words(events, REFUSED, job.created)
            self.words = self.refusal or self.words
        elif self._unschedulable:
            self.refusal = ""
            if self._nothing_fits is None:
                self._nothing_fits = too_large(self.spec, self.client.nodes())
            if self._nothing_fits and is_adding_a_node(self.client.events(self._unschedulable)):
                self._nothing_fits = ""

    def _end_if_hopeless(self, short_s: float) -> None:
        if short_s <= HOPELESS_S:
            return
        if self._nothing_fits:
            value = f"{self._nothing_fits} ({self.words})"
            raise TrainingError("no node is large enough for a pod", value, hint=self._hint())
        if is_refused_for_good(self.refusal):
            raise TrainingError("the cluster refuses the pods", self.refusal, hint=self._hint())

    def _hint(self) -> str:
        if PRIORITY_CLASS in self.words:
            return "apply the manifests again, or give {priority_class: ''} as `job`"
        if QUOTA in self.words:
            return (
                "ask for less in `job`, or for a larger quota; unschedulable_minutes waits longer"
            )
        if CORDONED in self.words:
            return "`kubectl get nodes` shows those that are cordoned, `kubectl uncordon` opens one"
        if self.refusal:
            return "change `job`, or what the namespace allows: `citeflow doctor` shows it"
        return (
            "ask for less in `job`, such as {cpu: 250m, memory: 1536Mi}, or for fewer workers; "
            "unschedulable_minutes waits longer"
        )

    def _forget(self) -> None:
        self.words = self.refusal = self._unschedulable = ""
        self._nothing_fits = None
        self._short_since = math.inf
