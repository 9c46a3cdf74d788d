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

from citeflow.cluster import watching
from citeflow.cluster.api import Api

AGAIN_S = 10.0
"""Pause before a log that ended is opened again."""

KEPT_LINES = 30
"""Lines of each pod that are told again when it failed."""

LAST_READ_S = 20.0
"""How long the end of the logs is waited for when the job has ended."""

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")


class LogFollower:
    """Prints what the pods of a job write, each line behind the name of its pod, every line once."""

    def __init__(self, api: Api, job: str) -> None:
        self._api, self._job = api, job
        self._ended = threading.Event()
        self._pods: dict[str, k8s.V1Pod] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._last: dict[str, collections.deque[str]] = {}
        self._since: dict[str, tuple[int, int]] = {}

    def see(self, pods: list[k8s.V1Pod]) -> None:
        """Take note of the pods that there are now, and follow those that have begun to write."""
        self._pods = {pod.metadata.uid: pod for pod in pods}
        for uid, pod in self._pods.items():
            if uid not in self._threads and watching.has_started(pod):
                self._last[uid] = collections.deque(maxlen=KEPT_LINES)
                thread = threading.Thread(target=self._follow, args=(uid, pod.metadata.name), daemon=True)
                self._threads[uid] = thread
                thread.start()

    def last_lines(self, pod: k8s.V1Pod) -> list[str]:
        """The last lines that a pod wrote."""
        return list(self._last.get(pod.metadata.uid, []))

    def finish(self) -> None:
        """Let the threads read to the end of their logs, for a while."""
        self._ended.set()
        until = time.monotonic() + LAST_READ_S
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))

    def _follow(self, uid: str, pod: str) -> None:
        """Read to the end, again and again, until that end is the pod's own."""
        while True:
            is_last = self._ended.is_set() or uid not in self._pods or watching.has_ended(self._pods[uid])
            with contextlib.suppress(k8s.ApiException, urllib3.exceptions.HTTPError, HTTPException, OSError):
                self._read(uid, pod)
                if is_last:
                    return
            if self._ended.is_set() or uid not in self._pods:
                return
            self._ended.wait(AGAIN_S * random.uniform(0.8, 1.2))

    def _read(self, uid: str, pod: str) -> None:
        since = self._since.get(uid, (0, 0))
        start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since[0])) if since[0] else None
        for line in self._api.log_lines(pod, self._container(uid), since=start):
            when, text = split_time(line)
            if when is None or when > since:
                self._since[uid] = when or self._since.get(uid, since)
                self._last[uid].append(text)
                print(f"{pod.removeprefix(self._job).strip('-')} | {text}", file=sys.stderr, flush=True)

    def _container(self, uid: str) -> str:
        pod = self._pods.get(uid)
        return str(pod.spec.containers[0].name) if pod else ""


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
