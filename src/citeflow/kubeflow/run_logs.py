"""The logs of a run's pods: those of its stages, and those of the workers of a job.

They are read again and again rather than streamed: a pod that is gone, a connection that is cut and
a pod that comes later then need no special case.
"""

import contextlib
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException

import urllib3
from kubernetes import client as k8s

from citeflow.kubernetes.client import TIMEOUT_S, Api
from citeflow.kubernetes.job_status import has_started
from citeflow.kubernetes.logs import split_time

POLL_S = 3.0
"""Pause between two reads."""

OVERLAP_S = 10.0
"""Read again, so that no line is lost between two reads; lines seen are left out by their times."""

STEP_CONTAINER = "main"
"""Name that Argo gives the container of a stage."""

WORKER_CONTAINERS = ("pytorch", "node")
"""Names of the containers of workers, of a PyTorchJob and of a TrainJob."""

_REPLICA = re.compile(r"(master|worker|node)-\d+(-\d+)?")


@dataclass(kw_only=True, slots=True)
class RunLogs:
    """Prints what the pods of a run write, each line once, after the name of its stage."""

    api: Api
    run_id: str
    step: str = ""
    """One of the pipeline's stages, or empty for all."""

    _shown: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Time of the last line that was printed, by the pod's uid."""

    _read_at: dict[str, float] = field(default_factory=dict)
    """Monotonic time of the last read, by the pod's uid."""

    def print_new(self) -> int:
        """Print the lines that are new; return the number of pods."""
        selector = f"pipeline/runid={self.run_id},app.kubernetes.io/part-of=citeflow"
        if self.step:
            selector += f",app.kubernetes.io/component={self.step}"
        pods = self.api.pods(selector)
        pods.sort(key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name))
        for pod in filter(has_started, pods):
            # A pod may be gone by now, or its node away: the next read tries again.
            with contextlib.suppress(
                k8s.ApiException, urllib3.exceptions.HTTPError, HTTPException, OSError
            ):
                self._print_pod(pod)
        return len(pods)

    def follow(self, has_ended: Callable[[], bool]) -> None:
        """Print until the run has ended, and the lines that were left then."""
        while True:
            is_last = has_ended()
            self.print_new()
            if is_last:
                return
            self.api.sleep(POLL_S)

    def _print_pod(self, pod: k8s.V1Pod) -> None:
        uid = pod.metadata.uid
        last = self._shown.get(uid, (0, 0))
        read_at = time.monotonic()
        for line in self._read_lines(pod):
            when, text = split_time(line)
            if when is None or when > last:
                last = when or last
                print(f"{_label(pod)} | {text}", flush=True)
        self._shown[uid] = last
        self._read_at[uid] = read_at

    def _read_lines(self, pod: k8s.V1Pod) -> list[str]:
        since = {}
        if pod.metadata.uid in self._read_at:
            elapsed_s = time.monotonic() - self._read_at[pod.metadata.uid]
            since["since_seconds"] = math.ceil(elapsed_s + OVERLAP_S)
        response = k8s.CoreV1Api(self.api.client).read_namespaced_pod_log(
            pod.metadata.name,
            self.api.namespace,
            container=_container(pod),
            timestamps=True,
            _preload_content=False,  # the client would return the repr of bytes
            _request_timeout=TIMEOUT_S,
            **since,
        )
        lines: list[str] = response.data.decode(errors="replace").splitlines()
        return lines


def _container(pod: k8s.V1Pod) -> str:
    names = [container.name for container in pod.spec.containers]
    working = (*WORKER_CONTAINERS, STEP_CONTAINER)
    return next((name for name in working if name in names), names[0])


def _label(pod: k8s.V1Pod) -> str:
    """Return the stage, and for a worker its replica: `train`, `train worker-0`."""
    stage = (pod.metadata.labels or {}).get("app.kubernetes.io/component", pod.metadata.name)
    replica = _REPLICA.search(pod.metadata.name) if _container(pod) != STEP_CONTAINER else None
    return f"{stage} {replica[0]}" if replica else stage
