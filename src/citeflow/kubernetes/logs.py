"""Follow the logs of all pods of a job through waiting, restarts, cut connections, replacements."""

import calendar
import collections
import contextlib
import random
import re
import sys
import threading
import time

from kubernetes import client as k8s

from citeflow.kubernetes.client import CONNECTION_ERRORS, KubeClient
from citeflow.kubernetes.job_status import PodStatus
from citeflow.kubernetes.launchers import Launcher

REOPEN_S = 10.0
"""Pause before a log that ended is opened again."""

KEPT_LINES = 30
"""Lines of each pod that are repeated when it fails."""

LAST_READ_S = 20.0
"""Longest wait for the end of the logs once the job has ended."""

Time = tuple[int, int]
"""Seconds and nanoseconds; a datetime would drop the nanoseconds that tell lines apart."""

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")


class LogFollower:
    """Prints the lines of a job's pods to stderr, once each, behind the names of their replicas.

    There is a thread for each name of a pod. It stays when another pod of that name comes.
    """

    def __init__(self, client: KubeClient, launcher: Launcher) -> None:
        """Follow nothing yet; `update` says which pods there are."""
        self._client = client
        self._launcher = launcher
        self._ended = threading.Event()
        self._pods: dict[str, PodStatus] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._last_lines: dict[str, collections.deque[str]] = {}
        self._last_time: dict[str, Time] = {}

    def update(self, pods: list[PodStatus]) -> None:
        """Replace the known pods, and follow those that have started."""
        self._pods = {pod.name: pod for pod in pods if self._launcher.has_log(pod)}
        for name, pod in self._pods.items():
            if name not in self._threads and pod.has_started:
                self._last_lines[name] = collections.deque(maxlen=KEPT_LINES)
                thread = threading.Thread(target=self._follow, args=(name,), daemon=True)
                self._threads[name] = thread
                thread.start()

    def last_lines(self, pod: str) -> list[str]:
        """Return the last lines of a pod."""
        return list(self._last_lines.get(pod, []))

    def finish(self) -> None:
        """Let the threads read to the end of their logs, for a while."""
        self._ended.set()
        deadline = time.monotonic() + LAST_READ_S
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _follow(self, name: str) -> None:
        """Read the log again whenever it ends, until the job has ended."""
        is_last = False
        complete_uid = ""  # of the pod that has ended and was read to its end
        while not is_last:
            is_last = self._ended.is_set()
            pod = self._pods.get(name)
            if pod and pod.uid != complete_uid:
                with contextlib.suppress(k8s.ApiException, *CONNECTION_ERRORS):
                    self._read(pod)
                    complete_uid = pod.uid if pod.has_ended else ""
            self._ended.wait(REOPEN_S * random.uniform(0.8, 1.2))

    def _read(self, pod: PodStatus) -> None:
        seen = self._last_time.get(pod.name, (0, 0))
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seen[0])) if seen[0] else None
        container = self._launcher.container
        for line in self._client.follow_log(pod.name, container, since=since):
            when, text = split_time(line)
            if when is not None:
                # The server rounds `since` down to seconds, so some lines come twice.
                if when <= seen:
                    continue
                self._last_time[pod.name] = max(when, self._last_time.get(pod.name, seen))
            self._last_lines[pod.name].append(text)
            print(f"{self._launcher.replica(pod)} | {text}", file=sys.stderr, flush=True)


def split_time(line: str) -> tuple[Time | None, str]:
    """Split the time that the server puts in front of a line from the line itself."""
    match = _TIMESTAMP.match(line)
    if not match:
        return None, line
    base, fraction, zone = match.groups()
    seconds = calendar.timegm(time.strptime(base, "%Y-%m-%dT%H:%M:%S"))
    if zone != "Z":
        offset = 3600 * int(zone[1:3]) + 60 * int(zone[4:6])
        seconds -= offset if zone[0] == "+" else -offset
    return (seconds, int((fraction or "").ljust(9, "0"))), line[match.end() :]
