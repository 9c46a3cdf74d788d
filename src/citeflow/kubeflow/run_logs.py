"""The logs of a run's pods: those of the steps, and those of the workers that the train step started.

They are read again and again rather than streamed: a pod that is gone, a connection that is cut and a pod that comes
later then need no care of their own.
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

AGAIN_S = 3.0
"""Pause between two looks."""

OVERLAP_S = 10.0
"""What is read again, so that nothing is lost between two looks; lines that were shown are left out by their times."""

WORKER, STEP = "pytorch", "main"
"""Names of the containers that do the work."""

_REPLICA = re.compile(r"(master|worker|node)-\d+(-\d+)?")


@dataclass(kw_only=True, slots=True)
class RunLogs:
    """Prints what the pods of a run write, each line once, behind the name of its step."""

    api: Api
    run_id: str
    step: str = ""
    """One of the pipeline's steps, or empty for all."""

    _shown: dict[str, tuple[int, int]] = field(default_factory=dict)
    _read: dict[str, float] = field(default_factory=dict)

    def show(self) -> int:
        """Print what is new; returns the number of pods."""
        selector = f"pipeline/runid={self.run_id},app.kubernetes.io/part-of=citeflow"
        selector += f",app.kubernetes.io/component={self.step}" if self.step else ""
        pods = sorted(
            self.api.pods(selector),
            key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name),
        )
        for pod in filter(has_started, pods):
            with contextlib.suppress(
                k8s.ApiException, urllib3.exceptions.HTTPError, HTTPException, OSError
            ):
                self._show_pod(pod)
        return len(pods)

    def follow(self, has_ended: Callable[[], bool]) -> None:
        """Print until the run has ended, and what was left then."""
        while True:
            is_last = has_ended()
            self.show()
            if is_last:
                return
            self.api.sleep(AGAIN_S)

    def _show_pod(self, pod: k8s.V1Pod) -> None:
        uid, since = pod.metadata.uid, self._shown.get(pod.metadata.uid, (0, 0))
        began = time.monotonic()
        for line in self._lines(pod):
            when, text = split_time(line)
            if when is None or when > since:
                since = when or since
                print(f"{_name(pod)} | {text}", flush=True)
        self._shown[uid], self._read[uid] = since, began

    def _lines(self, pod: k8s.V1Pod) -> list[str]:
        last = self._read.get(pod.metadata.uid)
        recent = (
            {}
            if last is None
            else {"since_seconds": math.ceil(time.monotonic() - last + OVERLAP_S)}
        )
        response = k8s.CoreV1Api(self.api.client).read_namespaced_pod_log(
            pod.metadata.name,
            self.api.namespace,
            container=_container(pod),
            timestamps=True,
            _preload_content=False,  # else bytes come as Python writes them
            _request_timeout=TIMEOUT_S,
            **recent,
        )
        lines: list[str] = response.data.decode(errors="replace").splitlines()
        return lines


def _container(pod: k8s.V1Pod) -> str:
    names = [container.name for container in pod.spec.containers]
    return next((name for name in (WORKER, STEP) if name in names), names[0])


def _name(pod: k8s.V1Pod) -> str:
    """The step, and for a worker which one: `train`, `train worker-0`."""
    step = (pod.metadata.labels or {}).get("app.kubernetes.io/component", pod.metadata.name)
    replica = _REPLICA.search(pod.metadata.name) if _container(pod) != STEP else None
    return f"{step} {replica[0]}" if replica else step
