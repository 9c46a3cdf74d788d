"""The logs of the containers of an in-memory cluster, one log per start of a container."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from .kube_objects import ApiError, is_set

WAITING_WORDS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}
FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, kw_only=True)
class Line:
    at: datetime
    text: str

    def shown(self, has_timestamp: bool) -> str:
        nanoseconds = self.at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
        return f"{nanoseconds} {self.text}\n" if has_timestamp else f"{self.text}\n"


@dataclass(frozen=True, kw_only=True)
class Place:
    """One start of one container."""

    uid: str
    container: str
    start: int


class Logs:
    """Guarded by the lock of the store."""

    def __init__(self, changed: threading.Condition) -> None:
        self.changed = changed
        self.lines: dict[Place, list[Line]] = {}

    def write(self, pod: dict, text: str, container: str = "", at: datetime | None = None) -> None:
        name = container or pod["spec"]["containers"][0]["name"]
        start = _state(pod, name).get("restartCount", 0)
        self.append(Place(uid=pod["metadata"]["uid"], container=name, start=start), text, at)

    def append(self, place: Place, text: str, at: datetime | None = None) -> None:
        with self.changed:
            new = [
                Line(at=at or datetime.now(UTC), text=line) for line in text.splitlines() or [""]
            ]
            self.lines.setdefault(place, []).extend(new)
            self.changed.notify_all()

    def read(self, place: Place, query: dict[str, str]) -> list[Line]:
        """The lines that `query` asks for among those written so far."""
        since = _since(query)
        found = [line for line in self.lines.get(place, []) if since is None or line.at >= since]
        tail = int(query.get("tailLines") or len(found))
        return found[len(found) - tail :] if tail < len(found) else found

    def follow(
        self, place: Place, query: dict[str, str], is_over: Callable[[], bool]
    ) -> Iterator[str]:
        """The lines there are and those to come, until the container has ended."""
        with self.changed:
            batch, seen = self.read(place, query), len(self.lines.get(place, []))
        while True:
            yield from (line.shown(is_set(query, "timestamps")) for line in batch)
            with self.changed:
                self.changed.wait_for(
                    lambda n=seen: len(self.lines.get(place, [])) > n or is_over(), timeout=60
                )
                batch = self.lines.get(place, [])[seen:]
                seen += len(batch)
                if not batch and is_over():
                    return


class IsOver:
    """Whether the container's start that a log belongs to is in the past."""

    def __init__(
        self, place: Place, find: Callable[[str], dict | None], is_cut: Callable[[], bool]
    ) -> None:
        self.place, self.find, self.is_cut = place, find, is_cut

    def __call__(self) -> bool:
        if self.is_cut():
            return True
        pod = self.find(self.place.uid)
        if pod is None or pod.get("status", {}).get("phase") in FINISHED:
            return True
        state = _state(pod, self.place.container)
        return state.get("restartCount", 0) > self.place.start or "running" not in state.get(
            "state", {"running": {}}
        )


def place_of(pod: dict, query: dict[str, str]) -> Place | None:
    """The log that is asked for, as the kubelet chooses it; none where the pod is on no node yet."""
    name, container = pod["metadata"]["name"], _container(pod, query.get("container"))
    state = _state(pod, container)
    now, restarts = state.get("state", {}), state.get("restartCount", 0)
    has_last = "terminated" in state.get("lastState", {})
    is_between = "waiting" in now and has_last
    if is_set(query, "previous"):
        if not has_last:
            raise ApiError(
                400, f'previous terminated container "{container}" in pod "{name}" not found'
            )
        return Place(
            uid=pod["metadata"]["uid"],
            container=container,
            start=restarts if is_between else restarts - 1,
        )
    phase = pod.get("status", {}).get("phase", "Pending")
    if phase == "Pending" and _is_unscheduled(pod):
        return None
    if ("waiting" in now and not has_last) or (phase == "Pending" and not now):
        reason = now.get("waiting", {}).get("reason", "ContainerCreating")
        told = WAITING_WORDS.get(reason, reason)
        raise ApiError(400, f'container "{container}" in pod "{name}" is waiting to start: {told}')
    return Place(uid=pod["metadata"]["uid"], container=container, start=restarts)


def _container(pod: dict, asked: str | None) -> str:
    names = [container["name"] for container in pod["spec"].get("containers", [])]
    others = [container["name"] for container in pod["spec"].get("initContainers", [])]
    pod_name = pod["metadata"]["name"]
    if asked is None and len(names) > 1:
        told = " ".join(names)
        raise ApiError(
            400, f"a container name must be specified for pod {pod_name}, choose one of: [{told}]"
        )
    if asked is not None and asked not in names + others:
        raise ApiError(400, f"container {asked} is not valid for pod {pod_name}")
    return asked or names[0]


def _state(pod: dict, container: str) -> dict:
    states = pod.get("status", {}).get("containerStatuses") or []
    return next((state for state in states if state["name"] == container), {})


def _is_unscheduled(pod: dict) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(
        (found["type"], found["status"]) == ("PodScheduled", "False") for found in conditions
    )


def _since(query: dict[str, str]) -> datetime | None:
    if "sinceTime" in query and "sinceSeconds" in query:
        raise ApiError(422, "at most one of `sinceTime` or `sinceSeconds` may be specified")
    if "sinceSeconds" in query:
        if int(query["sinceSeconds"]) < 1:
            raise ApiError(422, "sinceSeconds: Invalid value: must be greater than 0")
        return datetime.fromtimestamp(
            datetime.now(UTC).timestamp() - int(query["sinceSeconds"]), UTC
        )
    if "sinceTime" not in query:
        return None
    try:
        # The API server hands the time on to the kubelet in whole seconds.
        return datetime.fromisoformat(query["sinceTime"]).replace(microsecond=0)
    except ValueError as error:
        raise ApiError(400, f"sinceTime: {error}") from error
