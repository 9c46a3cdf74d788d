"""The operators of PyTorchJobs, TrainJobs and RayJobs, and the kubelet, of a cluster in memory."""

import contextlib
import copy
import json
import re
import shlex
import socket
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .kube_api import ApiError, container_status, timestamp
from .processes import Process, command_of

LABEL = "training.kubeflow.org/"
FOLDER = Path(__file__).parent / "recorded"
RECORDED = json.loads((FOLDER / "worker-pods.json").read_text())
"""States of workers' pods, as a real cluster answered on 2026-11-28."""

CONDITIONS = json.loads((FOLDER / "job-conditions.json").read_text())
"""Conditions of jobs as they were then, with NAME for the name of the job."""

(UNSCHEDULABLE,) = RECORDED["unschedulable"]["status"]["conditions"]


BACKOFF = (10.0, 300.0)
"""The kubelet's first and longest pause before it starts a container again, in seconds."""

RELIST_S = 1.0
"""Time in which the kubelet notices the end of a container."""


@dataclass(kw_only=True)
class Backoff:
    """Pauses before the starts of one container, as recorded: 1 s, 10 s, 20 s, ... 300 s.

    A container that ran for twice the longest pause begins anew.
    """

    first: float
    longest: float
    next_pause: float = 0.0
    started: float = 0.0

    def pause(self, finished):
        """Return the seconds between an end and the next start."""
        if not self.next_pause or finished - self.started > 2 * self.longest:
            pause, self.next_pause = min(RELIST_S, self.first), self.first
        else:
            pause, self.next_pause = self.next_pause, min(2 * self.next_pause, self.longest)
        self.started = finished + pause
        return pause


@dataclass(kw_only=True)
class Container:
    """The one container of a pod."""

    namespace: str
    pod: str
    uid: str
    job: str
    port: int
    backoff: Backoff
    created: float = field(default_factory=time.monotonic)
    process: Process | None = None
    steps: object = field(default_factory=lambda: iter(()))
    wake: float = 0.0
    restart_at: float | None = None
    kill_at: float | None = None


class TrainingOperator:
    """`with TrainingOperator(kube):` works by itself; `settle` is for tests without a thread.

    Pods wait for `start` and `finish`, or are `real` and run their command, or do what `script`
    yields for a pod: a str is logged, a float waits so many seconds, an int ends the container with
    this exit code, a function is called. `backoff` has the bounds of the pauses before a container
    starts again; `pod_start` are the seconds from a pod to its first container.
    """

    def __init__(
        self,
        kube,
        *,
        real=False,
        script=None,
        backoff=BACKOFF,
        pod_start=0.0,
        grace=5.0,
        cleans_all=False,
    ):
        self.kube = kube
        self.store = kube.store
        self.real = real
        self.script = script
        self.backoff = backoff
        self.pod_start = pod_start
        self.grace = grace
        self.cleans_all = cleans_all
        """Whether a job that reached its limits loses all its pods, as up to v1.9.3."""
        self.pause = 0.02
        """Longest seconds between two looks."""
        self.places = float("inf")
        """How many pods find a node."""
        self.refusal = ""
        """The API server's words on every new pod, if it refuses them."""
        self.containers = {}
        self.restarts = Counter()
        """How often the container of each pod was started again."""
        self._ports = {}
        self._closing = False
        self._error = None
        self._thread = threading.Thread(target=self._work)
        self.store.delete_pod = self._delete_pod

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        with self.store.changed:
            self._closing = True
            self.store.changed.notify_all()
        self._thread.join(10)
        for container in list(self.containers.values()):
            self._forget(container)
        if self._error:
            raise self._error

    def settle(self):
        version = None
        while version != self.store.version:
            version = self.store.version
            self._step()

    def _work(self):
        try:
            while not self._closing:
                self._step()
                with self.store.changed:
                    if not self._closing:
                        self.store.changed.wait(self.pause)
        except Exception as error:
            self._error = error

    def _step(self):
        with self.store.changed:
            for container in list(self.containers.values()):
                self._look_after(container)
            for plural, reconcile in (
                ("pytorchjobs", self._pytorchjob),
                ("trainjobs", self._trainjob),
                ("rayjobs", self._rayjob),
            ):
                if plural in self.store.kinds:
                    for job in self.store.list(plural):
                        status = copy.deepcopy(job.get("status") or {})
                        reconcile(job, status)
                        meta = job["metadata"]
                        if status != job.get("status"):
                            with contextlib.suppress(ApiError):
                                place = (plural, meta["namespace"], meta["name"])
                                self.store.patch(*place, {"status": status})

    # The operators

    def _pytorchjob(self, job, status):
        policy = job["spec"]["runPolicy"]
        pods = self._pods_of(job)
        if not status.get("conditions"):
            set_condition(job, status, "Created")
        if is_true(status, "Succeeded") or is_true(status, "Failed"):
            for pod in pods:
                if pod["status"]["phase"] in ("Pending", "Running"):
                    self._delete(pod)
            return
        if policy.get("suspend"):
            set_condition(job, status, "Suspended")
            return
        if is_true(status, "Suspended"):
            set_condition(job, status, "Suspended", "False")
        status.setdefault("startTime", timestamp())
        restarts = sum(container_status(pod).get("restartCount", 0) for pod in pods)
        if restarts >= max(policy["backoffLimit"], 1):
            for pod in pods if self.cleans_all else []:
                self._delete(pod)
            set_condition(job, status, "Failed")
            return
        spec = job["spec"]["pytorchReplicaSpecs"]["Worker"]
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        for index in range(spec["replicas"]):
            name = f"{job['metadata']['name']}-worker-{index}"
            if name not in by_name:
                labels = {
                    f"{LABEL}job-name": job["metadata"]["name"],
                    f"{LABEL}replica-type": "worker",
                    f"{LABEL}replica-index": str(index),
                }
                template = copy.deepcopy(spec["template"])
                template["spec"]["restartPolicy"] = spec["restartPolicy"]
                # The arguments of torchrun precede this.
                env = [{"name": "PET_NNODES", "value": "99"}]
                template["spec"]["containers"][0]["env"] += env
                self._create_pod(job, name, labels, template)
            elif by_name[name]["status"]["phase"] == "Failed":
                self._delete(by_name[name])
        phases = [pod["status"]["phase"] for pod in pods]
        if "Succeeded" in phases:
            status["completionTime"] = timestamp()
            set_condition(job, status, "Succeeded")
        elif "Running" in phases:
            set_condition(job, status, "Running")

    def _trainjob(self, job, status):
        pods = self._pods_of(job)
        if is_true(status, "Complete") or is_true(status, "Failed"):
            return
        trainer = job["spec"]["trainer"]
        name = job["metadata"]["name"]
        there = {pod["metadata"]["name"] for pod in pods}
        for index in range(trainer["numNodes"]):
            pod_name = f"{name}-node-0-{index}"
            if pod_name not in there:
                (patch,) = job["spec"]["runtimePatches"]
                (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
                template = copy.deepcopy(node["template"]["spec"]["template"])
                container = {key: trainer[key] for key in ("image", "command", "args", "env")}
                container |= {"name": "node", "resources": trainer["resourcesPerNode"]}
                template["spec"] |= {"containers": [container], "restartPolicy": "OnFailure"}
                labels = {"jobset.sigs.k8s.io/jobset-name": name}
                self._create_pod(job, pod_name, labels, template)
        phases = [pod["status"]["phase"] for pod in pods]
        restarts = sum(container_status(pod).get("restartCount", 0) for pod in pods)
        if phases.count("Succeeded") == trainer["numNodes"]:
            set_condition(job, status, "Complete")
        elif "Failed" in phases or restarts > self._backoff_limit(job):
            set_condition(job, status, "Failed")

    def _rayjob(self, job, status):
        """KubeRay: a cluster of head and workers, and the submitter when all of them run."""
        spec, name = job["spec"], job["metadata"]["name"]
        pods = self._pods_of(job)
        if status.get("jobDeploymentStatus") in ("Complete", "Failed"):
            for pod in pods:
                if "ray.io/node-type" in pod["metadata"]["labels"]:
                    self._delete(pod)
            return
        if spec.get("suspend"):
            status["jobDeploymentStatus"] = "Suspended"
            return
        if status.get("jobDeploymentStatus", "Suspended") == "Suspended":
            cluster = f"{name}-{job['metadata']['uid'][:5]}"
            status |= {"startTime": timestamp(), "rayClusterName": cluster, "jobStatus": ""}
            status["jobDeploymentStatus"] = "Initializing"
        cluster = status["rayClusterName"]
        wanted = {f"{cluster}-head": ("head", spec["rayClusterSpec"]["headGroupSpec"])}
        for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
            for index in range(group["replicas"]):
                wanted[f"{cluster}-{group['groupName']}-worker-{index}"] = ("worker", group)
        nodes = {pod["metadata"]["name"]: pod for pod in pods}
        for pod_name, (node_type, group) in wanted.items():
            if pod_name not in nodes:
                template = copy.deepcopy(group["template"])
                # It waits for work, and is no process of its own here.
                template["spec"]["restartPolicy"] = "Always"
                labels = {"ray.io/node-type": node_type, "ray.io/cluster": cluster}
                self._create_pod(job, pod_name, labels, template)
        is_ready = all(
            nodes.get(each, {"status": {}})["status"].get("phase") == "Running" for each in wanted
        )
        submitter = nodes.get(f"{name}-s7k2q")
        if is_ready and not submitter:
            template = copy.deepcopy(spec["submitterPodTemplate"])
            container = template["spec"]["containers"][0]
            # There is no Ray on the other pods: the driver starts one of its own.
            *words, job_file = shlex.split(spec["entrypoint"])
            folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp") if self.real else "/none"
            container |= {"command": [*words, f"--here={folder}", job_file]}
            token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
            container["env"] += [{"name": key, "value": text} for key, text in token.items()]
            self._create_pod(job, f"{name}-s7k2q", {}, template)
        elif submitter:
            status |= {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
            phase = submitter["status"]["phase"]
            if phase == "Succeeded":
                status |= {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
            elif phase == "Failed":
                status |= {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}
                status |= {"reason": "AppFailed", "message": "Job entrypoint command failed"}

    def _backoff_limit(self, job):
        """The limit of the Job, which counts the restarts of all its pods; 6 by default."""
        runtime = self.kube.get("clustertrainingruntimes", "", job["spec"]["runtimeRef"]["name"])
        if runtime is None:
            return 6
        (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
        return node["template"]["spec"].get("backoffLimit", 6)

    def _pods_of(self, job):
        uid = job["metadata"]["uid"]
        namespace = job["metadata"]["namespace"]
        return [
            copy.deepcopy(pod)
            for (plural, space, _), pod in sorted(self.store.objects.items())
            if (plural, space) == ("pods", namespace)
            and uid in [owner["uid"] for owner in pod["metadata"].get("ownerReferences") or []]
        ]

    def _create_pod(self, job, name, labels, template):
        """Create a pod and its service; a pod of an earlier job may be in the way for a while."""
        meta = job["metadata"]
        owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "controller": True}
        owner |= {"name": meta["name"], "uid": meta["uid"]}
        given = template["metadata"]
        metadata = {"name": name, "ownerReferences": [owner], "annotations": given["annotations"]}
        metadata["labels"] = {**given["labels"], **labels}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        if self.refusal:
            self._report_refusal(job, name)
            return
        with contextlib.suppress(ApiError):
            pod = self.store.create("pods", meta["namespace"], pod)
            port = self._ports.setdefault(meta["uid"], free_port())
            uid = pod["metadata"]["uid"]
            first, longest = self.backoff
            self.containers[uid] = Container(
                namespace=meta["namespace"],
                pod=name,
                uid=uid,
                job=meta["name"],
                port=port,
                backoff=Backoff(first=first, longest=longest),
            )
            if self._has_place(pod):
                self.hold(name, "ContainerCreating")
            else:
                self.keep_unscheduled(name)
        with contextlib.suppress(ApiError):
            service = {"apiVersion": "v1", "kind": "Service"}
            service["metadata"] = {"name": name, "ownerReferences": [owner]}
            self.store.create("services", meta["namespace"], service)

    def _has_place(self, pod):
        pods = self.store.list("pods")
        return sum(bool(each["spec"].get("nodeName")) for each in pods) < self.places

    def _report_refusal(self, job, name):
        """Report as the training operator, or the controller of Jobs, does."""
        meta = job["metadata"]
        if job["kind"] == "PyTorchJob":
            about, reason = meta["name"], "FailedCreatePod"
        elif job["kind"] == "RayJob":
            about = f"{meta['name']}-{meta['uid'][:5]}"
            reason = f"FailedToCreate{'Head' if name.endswith('head') else 'Worker'}Pod"
        else:
            about, reason = f"{meta['name']}-node-0", "FailedCreate"
        message = f'Error creating: pods "{name}" is forbidden: {self.refusal}'
        self.report(meta["namespace"], about, reason, message)

    def report(self, namespace, about, reason, message):
        """Record an event, or that it happened again."""
        metadata = {"name": f"{about}.{reason.lower()}", "namespace": namespace}
        event = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "reason": reason}
        event |= {"message": message, "involvedObject": {"name": about, "namespace": namespace}}
        if self.kube.get("events", namespace, metadata["name"]) is None:
            self.kube.put({**event, "lastTimestamp": timestamp()})

    def _delete(self, pod):
        meta = pod["metadata"]
        with contextlib.suppress(ApiError):
            self.store.delete("services", meta["namespace"], meta["name"])
        self._delete_pod(("pods", meta["namespace"], meta["name"]))

    # The kubelet

    def delete_pod(self, namespace, name):
        """Delete a pod as kubectl does: its container gets time to end."""
        with self.store.changed:
            self._delete_pod(("pods", namespace, name))

    def _delete_pod(self, key):
        pod = self.store.objects[key]
        container = self.containers.get(pod["metadata"]["uid"])
        if container and container.process and pod["status"]["phase"] == "Running":
            if "deletionTimestamp" not in pod["metadata"]:
                self.store.patch(*key, {"metadata": {"deletionTimestamp": timestamp()}})
        else:
            self.store.delete(*key)

    def start(self, name):
        """Start a container, for the first time or again."""
        container, state = self._find(name)
        if container.restart_at is not None:
            state["restartCount"] += 1
            self.restarts[name] += 1
            if "terminated" in state["state"]:
                state["lastState"] = state["state"]
        container.restart_at = None
        state |= {"state": {"running": {"startedAt": timestamp()}}, "ready": True}
        self._write(container, state, "Running")
        pod = self.kube.get("pods", container.namespace, container.pod)
        if runs_ray(pod):
            return
        if self.real:
            argv, environment = command_of(pod, lambda text: localized(text, container))
            argv = self._inside(pod, hosting(argv, is_host=name.endswith("-0")))
            container.process = Process(argv, {**environment, **self._given(pod)}, container.uid)
        elif self.script:
            container.steps = iter(self.script(pod))

    def _given(self, pod):
        """Return what the environment of a container has besides that of its pod's spec."""
        return {}

    def _inside(self, pod, argv):
        """Return the command that runs a container's in its place."""
        return argv

    def finish(self, name, exit_code, reason="", message=""):
        """End a container; it starts again where its restart policy says so."""
        container, state = self._find(name)
        container.process = None
        container.steps = iter(())
        end = {"exitCode": exit_code, "reason": reason or ("Error" if exit_code else "Completed")}
        end |= {"finishedAt": timestamp(), "message": message}
        pod = self.kube.get("pods", container.namespace, container.pod)
        state["ready"] = False
        is_final = pod["spec"].get("restartPolicy") == "Never"
        if exit_code and not is_final and "deletionTimestamp" not in pod["metadata"]:
            now = time.monotonic()
            is_first = not container.backoff.next_pause
            pause = container.backoff.pause(now)
            container.restart_at = now + pause
            if not is_first:
                where = f"pod={name}_{container.namespace}({container.uid})"
                message = f"back-off {pause:g}s restarting failed container={state['name']} {where}"
                waiting = {"reason": "CrashLoopBackOff", "message": message}
                state |= {"state": {"waiting": waiting}, "lastState": {"terminated": end}}
            else:
                state["state"] = {"terminated": end}
            self._write(container, state, "Running")
        else:
            state["state"] = {"terminated": end}
            self._write(container, state, "Failed" if exit_code else "Succeeded")

    def hold(self, name, reason):
        """Keep a pod Pending for a reason such as ImagePullBackOff."""
        container, state = self._find(name)
        state["state"] = {"waiting": {"reason": reason}}
        self._write(container, state, "Pending")

    def keep_unscheduled(self, name):
        status = {"phase": "Pending", "conditions": [UNSCHEDULABLE], "containerStatuses": None}
        self._show(name, {"spec": {"nodeName": None}, "status": status})

    def replay(self, name, state):
        """Let a pod be in a recorded state."""
        recorded = RECORDED[state]
        node = {"nodeName": recorded["spec"].get("nodeName")}
        self._show(name, {"spec": node, "status": {"podIP": None, **recorded["status"]}})

    def _show(self, name, patch):
        container, _ = self._find(name)
        self.kube.patch("pods", container.namespace, name, patch)

    def write(self, name, text):
        container, _ = self._find(name)
        self.kube.write_log(container.namespace, name, text)

    def _look_after(self, container):
        pod = self.kube.get("pods", container.namespace, container.pod)
        is_gone = pod is None or pod["metadata"]["uid"] != container.uid
        while not is_gone and container.process and container.process.lines:
            at, line = container.process.lines.popleft()
            self.kube.write_log(container.namespace, container.pod, line, at=at)
        if is_gone:
            self._forget(container)
        elif "deletionTimestamp" in pod["metadata"]:
            self._end(container)
        elif not pod["spec"].get("nodeName"):
            if self._has_place(pod):
                self.hold(container.pod, "ContainerCreating")
        elif pod["status"]["phase"] == "Pending" and (self.real or self.script):
            if time.monotonic() >= container.created + self.pod_start:
                self.start(container.pod)
        elif container.restart_at is not None:
            if time.monotonic() >= container.restart_at:
                self.start(container.pod)
        elif pod["status"]["phase"] == "Running":
            self._advance(container)

    def _advance(self, container):
        if container.process:
            code = container.process.exit_code()
            if code is not None and not container.process.lines:
                self.finish(container.pod, code)
            return
        while time.monotonic() >= container.wake:
            action = next(container.steps, None)
            if isinstance(action, str):
                self.kube.write_log(container.namespace, container.pod, action)
            elif isinstance(action, float):
                container.wake = time.monotonic() + action
            elif isinstance(action, int):
                self.finish(container.pod, action)
            elif action:
                action()
            else:
                return

    def _end(self, container):
        """Bring the process of a deleted pod to its end."""
        process = container.process
        if process and container.kill_at is None:
            process.terminate()
            container.kill_at = time.monotonic() + self.grace
        elif process and process.exit_code() is None and time.monotonic() >= container.kill_at:
            process.kill()
        if not process or process.exit_code() is not None:
            self._forget(container)
            self.store.delete("pods", container.namespace, container.pod)

    def _forget(self, container):
        if container.process:
            container.process.kill()
        self.containers.pop(container.uid, None)

    def _find(self, name):
        """Return the newest pod of a name, and the state of its container."""
        container = next(found for found in reversed(self.containers.values()) if found.pod == name)
        pod = self.kube.get("pods", container.namespace, name)
        first = pod["spec"]["containers"][0]
        new = {"name": first["name"], "image": first["image"], "imageID": "", "ready": False}
        new |= {"restartCount": 0, "state": {}, "lastState": {}}
        return container, container_status(pod) or new

    def _write(self, container, state, phase):
        ip = {} if phase == "Pending" else {"podIP": "127.0.0.1"}
        conditions = [{"type": "PodScheduled", "status": "True"}]
        status = {"phase": phase, "conditions": conditions, "containerStatuses": [state], **ip}
        patch = {"spec": {"nodeName": "node-0"}, "status": status}
        self.kube.patch("pods", container.namespace, container.pod, patch)


def runs_ray(pod):
    """Tell whether a pod is a node of Ray, which waits for work."""
    return "ray.io/node-type" in pod["metadata"]["labels"]


def set_condition(job, status, type_, value="True"):
    """Set a condition; the end of a job makes Running false."""
    conditions = status.setdefault("conditions", [])
    if any((old["type"], old["status"]) == (type_, value) for old in conditions):
        return
    kept = [old for old in conditions if old["type"] != type_]
    if type_ in ("Failed", "Succeeded"):
        kept = [{**old, "status": "False"} if old["type"] == "Running" else old for old in kept]
    recorded = CONDITIONS[job["kind"]].get(type_, {})
    said = {key: text.replace("NAME", job["metadata"]["name"]) for key, text in recorded.items()}
    new = {"type": type_, "status": value, "lastTransitionTime": timestamp()}
    status["conditions"] = [*kept, {**new, **said}]


def is_true(status, type_):
    conditions = status.get("conditions") or []
    return any((each["type"], each["status"]) == (type_, "True") for each in conditions)


def localized(text, container):
    """Replace the names of pods and the fixed port: there is only localhost here."""
    hosts = rf"\b{re.escape(container.job)}-(worker|node-0)-\d+(\.[-a-z0-9.]+)?\b"
    return re.sub(r"(?<![\w.])23456\b", str(container.port), re.sub(hosts, "127.0.0.1", text))


def hosting(argv, *, is_host):
    """Tell torchrun whether it hosts the store: all pods have the address of pod 0 here."""
    conf = "--rdzv-conf="
    return [f"{word},is_host={is_host}" if word.startswith(conf) else word for word in argv]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
