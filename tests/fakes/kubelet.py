"""What becomes of the pods of an in-memory cluster: scripted by a test, or run as processes."""

import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .kube_api import KubeApi
from .kube_logs import Place
from .kube_objects import timestamp
from .processes import Process, command_of

Script = Callable[[dict], Iterable[str | int | float | Callable[[], object]]]


@dataclass(kw_only=True)
class Container:
    """The first container of a pod, the only one that is run."""

    namespace: str
    pod: str
    uid: str
    hosts: str
    """A pattern of the names that stand for pods of the same job."""
    port: int
    process: Process | None = None
    steps: Iterator[Any] = field(default_factory=lambda: iter(()))
    wake: float = 0.0
    restart_at: float | None = None
    kill_at: float | None = None


class Kubelet:
    def __init__(
        self,
        api: KubeApi,
        *,
        real: bool,
        script: Script | None,
        restart_delay: float,
        grace: float,
        replace: dict[str, str],
        environment: dict[str, str],
        cwd: str | None,
    ) -> None:
        self.api, self.real, self.script, self.cwd = api, real, script, cwd
        self.restart_delay, self.grace = restart_delay, grace
        self.replace, self.environment = replace, environment
        self.containers: dict[str, Container] = {}
        self.stuck: set[str] = set()
        """Names of pods that do not end when deleted, as on a node that was lost."""
        self._ports: dict[str, int] = {}
        api.store.lingers = self._lingers

    def accept(self, pod: dict, owner: dict) -> None:
        """Schedule a pod that was just made."""
        meta, job = pod["metadata"], re.escape(owner["metadata"]["name"])
        port = self._ports.setdefault(owner["metadata"]["uid"], free_port())
        hosts = rf"\b{job}-(worker|master|node-0)-\d+(\.[-a-z0-9.]+)?\b"
        place = {"namespace": meta["namespace"], "pod": meta["name"], "uid": meta["uid"]}
        self.containers[meta["uid"]] = Container(**place, hosts=hosts, port=port)
        self._patch(self.containers[meta["uid"]], {"spec": {"nodeName": "node-0"}})
        self.hold(meta["name"], "ContainerCreating")

    def step(self) -> None:
        for container in list(self.containers.values()):
            pod = self.api.get("pods", container.namespace, container.pod)
            self._take_lines(container, pod)
            if pod is None or pod["metadata"]["uid"] != container.uid:
                self._forget(container)
            elif "deletionTimestamp" in pod["metadata"]:
                self._end(container, pod)
            elif pod["status"]["phase"] == "Pending" and (self.real or self.script):
                self.start(container.pod)
            elif container.restart_at is not None:
                if time.monotonic() >= container.restart_at:
                    self.start(container.pod)
            elif pod["status"]["phase"] == "Running":
                self._advance(container)

    def close(self) -> None:
        for container in list(self.containers.values()):
            self._forget(container)

    # One pod

    def start(self, name: str) -> None:
        """Start a container, for the first time or again."""
        container, state = self._find(name)
        has_ended = container.restart_at is not None
        container.restart_at = None
        state |= {"state": {"running": {"startedAt": timestamp()}}, "ready": True, "started": True}
        state["restartCount"] += has_ended
        self._write_state(container, state, phase="Running")
        pod = self.api.get("pods", container.namespace, container.pod)
        if self.real:
            argv, environment = command_of(pod, lambda text: self._replaced(text, container))
            try:
                container.process = Process(
                    argv, {**self.environment, **environment}, container.uid, self.cwd
                )
            except OSError as error:
                self.finish(name, 128, "StartError", str(error))
        elif self.script:
            container.steps = iter(self.script(pod))

    def finish(
        self, name: str, exit_code: int, reason: str | None = None, message: str | None = None
    ) -> None:
        """End a container; it starts again where its restart policy says so."""
        container, state = self._find(name)
        container.process, container.steps = None, iter(())
        end = {"exitCode": exit_code, "reason": reason or ("Error" if exit_code else "Completed")}
        times = {
            "startedAt": state["state"].get("running", {}).get("startedAt"),
            "finishedAt": timestamp(),
        }
        message = message or (self._last_lines(container, state) if exit_code else None)
        end = {**end, **times, **({"message": message} if message else {})}
        pod = self.api.get("pods", container.namespace, container.pod)
        policy = pod["spec"].get("restartPolicy", "Always")
        state |= {"ready": False, "started": False}
        if "deletionTimestamp" not in pod["metadata"] and (
            policy == "Always" or (policy == "OnFailure" and exit_code)
        ):
            container.restart_at = time.monotonic() + self.restart_delay
            waiting = {
                "reason": "CrashLoopBackOff",
                "message": f"back-off restarting failed container of pod {name}",
            }
            state |= {"state": {"waiting": waiting}, "lastState": {"terminated": end}}
            self._write_state(container, state, phase="Running")
        else:
            state |= {"state": {"terminated": end}}
            self._write_state(container, state, phase="Failed" if exit_code else "Succeeded")

    def hold(self, name: str, reason: str, message: str = "") -> None:
        """Keep a pod Pending for a reason such as ImagePullBackOff."""
        container, state = self._find(name)
        state |= {"state": {"waiting": {"reason": reason, "message": message}}, "ready": False}
        self._write_state(container, state, phase="Pending")

    def keep_unscheduled(self, name: str, message: str) -> None:
        container, _ = self._find(name)
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        status = {"phase": "Pending", "conditions": [condition], "containerStatuses": None}
        self._patch(container, {"spec": {"nodeName": None}, "status": status})

    def evict(self, name: str) -> None:
        container, _ = self._find(name)
        self._stop(container)
        status = {
            "phase": "Failed",
            "reason": "Evicted",
            "message": "The node was low on resource: memory.",
        }
        self._patch(container, {"status": status})

    # Within

    def _find(self, name: str) -> tuple[Container, dict]:
        """The newest pod of that name, and the state of its container."""
        container = next(found for found in reversed(self.containers.values()) if found.pod == name)
        pod = self.api.get("pods", container.namespace, name)
        first = pod["spec"]["containers"][0]
        new = {
            "name": first["name"],
            "image": first.get("image", ""),
            "imageID": "",
            "ready": False,
        }
        new |= {"restartCount": 0, "state": {}, "lastState": {}}
        return container, (pod["status"].get("containerStatuses") or [new])[0]

    def _advance(self, container: Container) -> None:
        if container.process:
            code = container.process.exit_code()
            if code is not None:
                self._take_lines(
                    container, self.api.get("pods", container.namespace, container.pod)
                )
                self.finish(container.pod, code)
            return
        while (
            time.monotonic() >= container.wake
            and (action := next(container.steps, None)) is not None
        ):
            if isinstance(action, str):
                self.api.write_log(container.namespace, container.pod, action)
            elif isinstance(action, float):
                container.wake = time.monotonic() + action
            elif isinstance(action, int):
                self.finish(container.pod, action)
            else:
                action()

    def _end(self, container: Container, pod: dict) -> None:
        """Bring a deleted pod nearer to its end."""
        if container.pod in self.stuck:
            return
        process = container.process
        if process and container.kill_at is None:
            process.terminate()
            own = pod["metadata"].get("deletionGracePeriodSeconds", 30)
            container.kill_at = time.monotonic() + min(self.grace, own)
        elif process and process.exit_code() is None and time.monotonic() >= container.kill_at:
            process.kill()
        if not process or process.exit_code() is not None:
            self._take_lines(container, pod)
            self._forget(container)
            self.api.store.delete(
                self.api.store.kind_of("pods"), container.namespace, container.pod, grace=0
            )

    def _take_lines(self, container: Container, pod: dict | None) -> None:
        while pod and container.process and container.process.lines:
            at, line = container.process.lines.popleft()
            self.api.logs.write(pod, line, at=at)

    def _forget(self, container: Container) -> None:
        self._stop(container)
        self.containers.pop(container.uid, None)

    def _stop(self, container: Container) -> None:
        if container.process:
            container.process.kill()
        container.process, container.steps, container.restart_at = None, iter(()), None

    def _lingers(self, pod: dict) -> bool:
        is_over = pod["status"].get("phase") in ("Succeeded", "Failed")
        return (
            pod["metadata"]["uid"] in self.containers and "nodeName" in pod["spec"] and not is_over
        )

    def _write_state(self, container: Container, state: dict, phase: str) -> None:
        ready = {
            "type": "Ready",
            "status": "True" if phase == "Running" and state.get("ready") else "False",
        }
        ip = {} if phase == "Pending" else {"podIP": "127.0.0.1", "hostIP": "127.0.0.1"}
        status = {
            "phase": phase,
            "conditions": [{"type": "PodScheduled", "status": "True"}, ready],
            **ip,
        }
        self._patch(
            container,
            {"spec": {"nodeName": "node-0"}, "status": {**status, "containerStatuses": [state]}},
        )

    def _patch(self, container: Container, patch: dict) -> None:
        self.api.patch("pods", container.namespace, container.pod, patch)

    def _last_lines(self, container: Container, state: dict) -> str:
        """What the container said last, for pods that ask for that as their termination message."""
        pod = self.api.get("pods", container.namespace, container.pod)
        if pod["spec"]["containers"][0].get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return ""
        place = Place(uid=container.uid, container=state["name"], start=state["restartCount"])
        return "".join(line.shown(False) for line in self.api.logs.lines.get(place, [])[-80:])[
            -2048:
        ]

    def _replaced(self, text: str, container: Container) -> str:
        """There are no names here but localhost's, no fixed ports, and none of a container's folders."""
        text = re.sub(container.hosts, "127.0.0.1", text)
        text = re.sub(r"(?<![\w.])(23456|29400)\b", str(container.port), text)
        for old, new in self.replace.items():
            text = text.replace(old, new)
        return text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
