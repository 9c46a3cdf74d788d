"""Print the logs of a run's pods: those of its steps, and of the jobs that the steps launched.

Logs are polled rather than streamed: pods that are gone, connections that are cut and pods that
come later then need no care of their own.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from kubernetes import client as k8s

from citeflow.kubernetes.client import CONNECTION_ERRORS, TIMEOUT_S, KubeClient
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_status import PodStatus
from citeflow.kubernetes.launchers import LAUNCHERS, Launcher
from citeflow.kubernetes.logs import Time, split_time
from citeflow.kubernetes.reaper import STEP_CONTAINER

POLL_S = 3.0
OVERLAP_S = 10.0
"""Time that is read twice, so that no line falls between two polls; lines seen are left out."""


class Shown(NamedTuple):
    """The last line of a log that was printed."""

    time: Time = (0, 0)
    num_lines: int = 0
    """Lines of that very nanosecond that were printed: a block of text may come at once."""


def new_lines(lines: Iterable[str], shown: Shown) -> tuple[list[str], Shown]:
    """Return the texts behind those that were printed before, and the new last line."""
    last, count = shown
    known = shown.num_lines
    texts = []
    for line in lines:
        when, text = split_time(line)
        if when is not None:
            if when < last:
                continue
            if when == shown.time and known:
                known -= 1
                continue
            count = count + 1 if when == last else 1
            last = when
        texts.append(text)
    return texts, Shown(last, count)


@dataclass(kw_only=True, slots=True)
class RunLogs:
    """Prints each line of a run's pods once, behind the name of its step."""

    client: KubeClient
    run_id: str
    step: str = ""
    """One step of the pipeline, or empty for all."""

    _shown: dict[str, Shown] = field(default_factory=dict)
    _last_poll: dict[str, float] = field(default_factory=dict)

    def poll(self) -> int:
        """Print the new lines; return the number of pods."""
        selector = f"{RUN_ID}={self.run_id},app.kubernetes.io/part-of=citeflow"
        if self.step:
            selector += f",app.kubernetes.io/component={self.step}"
        pods = sorted(self.client.pods(selector), key=lambda pod: (pod.created, pod.name))
        for pod in pods:
            if pod.has_started:
                with contextlib.suppress(k8s.ApiException, *CONNECTION_ERRORS):
                    self._print_new_lines(pod)
        return len(pods)

    def follow(self, has_ended: Callable[[], bool]) -> None:
        """Print until the run has ended, and once more then."""
        while True:
            is_last = has_ended()
            self.poll()
            if is_last:
                return
            self.client.sleep(POLL_S)

    def _print_new_lines(self, pod: PodStatus) -> None:
        launcher = launcher_of(pod)
        replica = launcher.replica(pod) if launcher else ""
        if launcher and not launcher.has_log(pod):
            return
        step = pod.labels.get("app.kubernetes.io/component", pod.name)
        started = time.monotonic()
        lines = self._lines(pod, launcher.container if launcher else STEP_CONTAINER)
        texts, self._shown[pod.uid] = new_lines(lines, self._shown.get(pod.uid, Shown()))
        for text in texts:
            print(f"{f'{step} {replica}'.strip()} | {text}", flush=True)
        self._last_poll[pod.uid] = started

    def _lines(self, pod: PodStatus, container: str) -> list[str]:
        last = self._last_poll.get(pod.uid)
        recent = {}
        if last is not None:
            recent["since_seconds"] = math.ceil(time.monotonic() - last + OVERLAP_S)
        response = k8s.CoreV1Api(self.client.api).read_namespaced_pod_log(
            pod.name,
            self.client.namespace,
            container=container if container in pod.container_names else pod.container_names[0],
            timestamps=True,
            _preload_content=False,  # or the package returns the repr of the bytes
            _request_timeout=TIMEOUT_S,
            **recent,
        )
        lines: list[str] = response.data.decode(errors="replace").splitlines()
        return lines


def launcher_of(pod: PodStatus) -> Launcher | None:
    """Return the kind of the job that a pod works for; None for that of a step."""
    launchers = LAUNCHERS.values()
    return next((launcher for launcher in launchers if launcher.pod_label in pod.labels), None)
