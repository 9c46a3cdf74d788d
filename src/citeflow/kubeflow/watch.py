"""Watch a run to its end: why its pods do not run, and the error that a step ended with.

The API of Kubeflow Pipelines 2.17 tells neither. The pods tell both, where there is a kubeconfig
and its user may list them. Without one, the run is watched all the same.
"""

import contextlib
import itertools
from dataclasses import dataclass, field
from typing import Any

from citeflow.errors import CiteflowError, TrainingError, UnavailableError
from citeflow.kubeflow.client import KfpClient
from citeflow.kubeflow.outcome import FAILED, read_error, run_error
from citeflow.kubernetes import client as kubernetes
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_status import PodStatus, summarize
from citeflow.kubernetes.reaper import STEP_CONTAINER
from citeflow.utils.logging import log

STAGE = "app.kubernetes.io/component"

STARTING = ("", "ContainerCreating", "PodInitializing")
"""Reasons to wait that pass by themselves."""


def watch_run(
    client: KfpClient, run_id: str, *, timeout_s: float
) -> tuple[Any, CiteflowError | None]:
    """Return a run once it has ended, and the error that it stands for, None if it succeeded.

    Raises:
        UnavailableError: it has not ended in time, or the server does not answer.
    """
    pods = RunPods(run_id=run_id, cluster=_find_cluster(client))
    run = client.wait_for_run(run_id, timeout_s=timeout_s, look=pods.report)
    failed = client.failed_stages(run_id) if run.state == FAILED else {}
    return run, run_error(run, failed, pods.error)


@dataclass(kw_only=True, slots=True)
class RunPods:
    """The pods of a run: those of its steps, and of the jobs that the steps launched."""

    run_id: str
    cluster: KubeClient | None
    """None where there is none, or once it has refused to list pods."""

    _reported: dict[str, str] = field(default_factory=dict)
    _blind_because: str = ""

    def report(self) -> None:
        """Log why pods do not run or were started again, for each stage when that changes.

        A pod of no stage, such as a driver of Kubeflow Pipelines, is one of its own.
        """
        pods = sorted((pod for pod in self._list() if not pod.has_ended), key=_stage)
        for stage, group in itertools.groupby(pods, key=_stage):
            members = list(group)
            is_troubled = any(
                pod.waiting not in STARTING or any(each.restarts for each in pod.containers)
                for pod in members
            )
            state = summarize(members) if is_troubled else ""
            if state and state != self._reported.get(stage):
                log("run", "pods", of=stage, are=state)
            self._reported[stage] = state

    def error(self, stage: str) -> CiteflowError | None:
        """Return the error that the last pod of a stage to end has left."""
        ends = [
            container.end
            for pod in self._list()
            if _stage(pod) == stage
            for container in pod.containers
            if container.name == STEP_CONTAINER and container.end and container.end.exit_code
        ]
        last = max(ends, key=lambda end: str(end.finished), default=None)
        if last is None:
            return None
        return read_error(last.message) or TrainingError("the step ended with exit code", last)

    def _list(self) -> list[PodStatus]:
        if self.cluster is None:
            return []
        try:
            return self.cluster.pods(f"{RUN_ID}={self.run_id}")
        except CiteflowError as error:
            reason = f"{error.what}: {error.value}"
            if reason != self._blind_because:
                log("run", "does not see its pods", because=reason)
            self._blind_because = reason
            if not isinstance(error, UnavailableError):
                self.cluster = None
            return []


def _stage(pod: PodStatus) -> str:
    return pod.labels.get(STAGE) or pod.name


def _find_cluster(client: KfpClient) -> KubeClient | None:
    with contextlib.suppress(CiteflowError):
        return kubernetes.connect(namespace=client.pods_namespace, patience_s=0.0)
    return None
