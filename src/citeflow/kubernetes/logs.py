"""Follows the logs of all pods of a job at once: through waiting, restarts, cut connections and pods that come anew."""

import calendar
import collections
import contextlib
import random
import re
import sys
import threading
import time
from http.client import HTTPException

import urllib3
from kubernetes import client as k8s

from citeflow.kubernetes import job_status
from citeflow.kubernetes.client import Api

AGAIN_S = 10.0
"""Pause before a log that ended is opened again."""

KEPT_LINES = 30
"""Lines of each pod that are told again when it failed."""

LAST_READ_S = 20.0
"""How long the end of the logs is waited for when the job has ended."""

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")


class LogFollower:
    """Prints what the pods of a job write, each line behind the name of its pod, every line once.

    A thread for each name of a pod, which stays when the pod is replaced by another one of the same name.
    """

    def __init__(self, api: Api, job: str) -> None:
        self._api, self._job = api, job
        self._ended = threading.Event()
        self._pods: dict[str, k8s.V1Pod] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._last: dict[str, collections.deque[str]] = {}
        self._since: dict[str, tuple[int, int]] = {}

    def see(self, pods: list[k8s.V1Pod]) -> None:
        """Take note of the pods that there are now, and follow those that have begun to write."""
        self._pods = {pod.metadata.name: pod for pod in pods}
        for name, pod in self._pods.items():
            if name not in self._threads and job_status.has_started(pod):
                self._last[name] = collections.deque(maxlen=KEPT_LINES)
                thread = threading.Thread(target=self._follow, args=(name,), daemon=True)
                self._threads[name] = thread
                thread.start()

    def last_lines(self, pod: str) -> list[str]:
        """The last lines that a pod wrote."""
        return list(self._last.get(pod, []))

    def finish(self) -> None:
        """Let the threads read to the end of their logs, for a while."""
        self._ended.set()
        until = time.monotonic() + LAST_READ_S
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))

    def _follow(self, name: str) -> None:
        """Read to the end of the log, again and again, unless it is the end of a pod that writes no more."""
        is_last, done = False, ""
        while not is_last:
            is_last = self._ended.is_set()
            pod = self._pods.get(name)
            if pod and pod.metadata.uid != done:
                with contextlib.suppress(
                    k8s.ApiException, urllib3.exceptions.HTTPError, HTTPException, OSError
                ):
                    self._read(pod)
                    done = pod.metadata.uid if job_status.has_ended(pod) else ""
            self._ended.wait(AGAIN_S * random.uniform(0.8, 1.2))

    def _read(self, pod: k8s.V1Pod) -> None:
        name = str(pod.metadata.name)
        since = self._since.get(name, (0, 0))
        start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since[0])) if since[0] else None
        for line in self._api.log_lines(name, pod.spec.containers[0].name, since=start):
            when, text = split_time(line)
            if when is None or when > since:
                self._since[name] = max(when or since, self._since.get(name, since))
                self._last[name].append(text)
                print(
                    f"{name.removeprefix(self._job).strip('-')} | {text}",
                    file=sys.stderr,
                    flush=True,
                )


def split_time(line: str) -> tuple[tuple[int, int] | None, str]:
    """The time that the server puts in front of a line, as seconds and nanoseconds, and the line itself."""
    match = _STAMP.match(line)
    if not match:
        return None, line
    base, fraction, zone = match.groups()
    seconds = calendar.timegm(time.strptime(base, "%Y-%m-%dT%H:%M:%S"))
    if zone != "Z":
        offset = 3600 * int(zone[1:3]) + 60 * int(zone[4:6])
        seconds -= offset if zone[0] == "+" else -offset
    return (seconds, int((fraction or "").ljust(9, "0"))), line[match.end() :]
