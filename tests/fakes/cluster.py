"""A whole cluster on loopback, on which `make e2e` runs: every pod is processes of this machine."""

import contextlib
import http.client
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from e2e import artifacts
from kubernetes.utils import parse_quantity

from citeflow import __version__

from . import kfp_server
from .argo import Argo
from .kube_api import KubeApi, timestamp
from .operator import Container, TrainingOperator
from .recorded import recorded

SITE = Path(__file__).parent / "site"
CORES = 2
IMAGES = {f"citeflow-{name}:{__version__}-python3.11" for name in ("step", "train")}
OOM_POLL_S = 0.5

QUICK = {
    "citeflow.attempts:FIRST_PAUSE_S": 1,
    "citeflow.kubernetes.watcher:POLL_S": 1.0,
    "citeflow.kubernetes.watcher:VISIBILITY_DELAY_S": 3.0,
    "citeflow.kubernetes.watcher:NO_SUCH_IMAGE_S": 3.0,
    "citeflow.kubernetes.placement:ASK_AFTER_S": 1.0,
    "citeflow.kubernetes.placement:HOPELESS_S": 3.0,
}
"""Waits that are shorter here: nothing takes as long as on a real cluster."""


class Kubelet(TrainingOperator):
    """The operators, and one node of two cores: it runs the pods of steps too."""

    def __init__(self, kube, folder, given):
        super().__init__(kube, real=True, backoff=(0.3, 0.3), grace=20.0)
        self.folder = folder
        self.given = given
        """Environment of each pod that is none of a job."""

    def signal(self, pod, number):
        """Send a signal to what a pod's container runs."""
        with self.store.changed:
            if process := self.containers[pod["metadata"]["uid"]].process:
                process.signal_group(number)

    def execute(self, pod, command):
        """Run a command as in a pod: in its /proc are the container's processes alone."""
        process = self.containers[pod["metadata"]["uid"]].process
        with tempfile.TemporaryDirectory() as folder:
            for each in process.members():
                (Path(folder) / str(each.pid)).symlink_to(f"/proc/{each.pid}")
            argv = [
                sys.executable,
                *(word.replace('"/proc"', repr(folder)) for word in command[1:]),
            ]
            ended = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        return ended.stdout + ended.stderr

    def start(self, name):
        container, _ = self._find(name)
        pod = self.kube.get("pods", container.namespace, name)
        image = pod["spec"]["containers"][0]["image"]
        if image in IMAGES or image == "citeflow-step":
            super().start(name)
        else:
            self.hold(name, "ErrImageNeverPull")

    def finish(self, name, exit_code, reason="", message=""):
        container, _ = self._find(name)
        file = self.folder / container.uid
        super().finish(name, exit_code, reason, file.read_text() if file.exists() else message)

    def _step(self):
        with self.store.changed:
            for (plural, namespace, name), pod in list(self.store.objects.items()):
                uid = pod["metadata"]["uid"]
                is_own = plural == "pods" and pod["spec"].get("restartPolicy") == "Never"
                if is_own and uid not in self.containers and pod["status"]["phase"] == "Pending":
                    self.containers[uid] = Container(
                        namespace=namespace, pod=name, uid=uid, job="none", port=0
                    )
                    self.hold(name, "ContainerCreating")
            super()._step()

    def _has_place(self, pod):
        return parse_quantity(asked(pod, "requests").get("cpu", "0")) <= CORES

    def _given(self, pod):
        if pod["spec"]["restartPolicy"] != "Never":
            return {}
        meta = pod["metadata"]
        names = {f"{prefix}_POD_NAME": meta["name"] for prefix in ("KFP", "CITEFLOW")}
        uids = {f"{prefix}_POD_UID": meta["uid"] for prefix in ("KFP", "CITEFLOW")}
        log = {"CITEFLOW_TERMINATION_LOG": str(self.folder / meta["uid"])}
        return {**self.given, **names, **uids, **log}

    def _advance(self, container):
        if container.process and time.monotonic() >= container.wake:
            container.wake = time.monotonic() + OOM_POLL_S
            pod = self.kube.get("pods", container.namespace, container.pod)
            limit = parse_quantity(asked(pod, "limits").get("memory", "1Ti"))
            if used(container.process) > limit:
                container.process.kill()
                self.finish(container.pod, 137, "OOMKilled")
                return
        super()._advance(container)


def asked(pod, what):
    return pod["spec"]["containers"][0].get("resources", {}).get(what, {})


def used(process):
    total = 0
    for each in process.members():
        with contextlib.suppress(Exception):  # it has ended meanwhile
            total += each.memory_full_info().uss
    return total


class Kube(KubeApi):
    """The API server, which makes tokens besides."""

    def __init__(self):
        super().__init__()
        rbac = "rbac.authorization.k8s.io/v1"
        self.store.kinds |= {
            "serviceaccounts": ("v1", "ServiceAccount"),
            "roles": (rbac, "Role"),
            "rolebindings": (rbac, "RoleBinding"),
        }

    def _reply(self, request):
        if request.resource == "serviceaccounts/token":
            self.store.get("serviceaccounts", request.namespace, request.name)
            status = {"token": "made-by-request", "expirationTimestamp": timestamp()}
            return 201, {**request.body, "status": status}, {}
        return super()._reply(request)


class Cluster:
    """`with Cluster(folder) as cluster:` has what `e2e` needs to know in `environment`."""

    def __init__(self, folder, *, faults=None, outage_s=6.0):
        self.folder = folder
        self.outage_s = outage_s
        root = folder / "volume"
        for each in (root, folder / "messages"):
            each.mkdir()
        values = {**QUICK, "citeflow.kubernetes.job_spec:MOUNT": str(root), **(faults or {})}
        self.kube = Kube()
        kubeconfig = self.kube.write_kubeconfig(folder / "kubeconfig")
        # A user without a token, so that only the part that has one needs one.
        content = json.loads(kubeconfig.read_text())
        content["users"][0]["user"] = {}
        kubeconfig.write_text(json.dumps(content))
        tests = Path(__file__).parents[1]
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{SITE}:{tests}",
            "HOME": str(folder),
            "KUBECONFIG": str(kubeconfig),
            "FAKE_VALUES": json.dumps(values),
            "CITEFLOW_E2E_OUTAGE_COMMAND": f"touch {folder}/out; "
            f"while [ -e {folder}/out ]; do sleep 0.2; done",
        }
        self.kubelet = Kubelet(self.kube, folder / "messages", self.environment)
        self.kube.exec = self.kubelet.execute
        self._closing = threading.Event()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            kfp = stack.enter_context(kfp_server.serving())
            self.kube.services = {
                "ml-pipeline:http": lambda *request: forward(kfp, *request),
                artifacts.SERVICE: answer_metadata,
            }
            stack.enter_context(self.kube)
            stack.enter_context(self.kubelet)
            self._install()
            stack.enter_context(Argo(kfp, self.kube, self.kubelet, self.folder))
            thread = threading.Thread(target=self._go_away)
            thread.start()
            stack.callback(thread.join, 10)
            stack.callback(self._closing.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure):
        self._stack.__exit__(*failure)

    def _install(self):
        """Put what an installation has: `citeflow doctor` looks for it."""
        name = "workflow-controller-configmap"
        metadata = {"name": name, "namespace": "kubeflow"}
        self.kube.put({**recorded(f"kfp/{name}"), "metadata": metadata})
        bound = {"phase": "Bound", "accessModes": ["ReadWriteMany"]}
        claim = {"accessModes": ["ReadWriteMany"], "storageClassName": "here"}
        job = {"spec": {"template": {"spec": {"containers": [{"name": "reaper"}]}}}}
        reaper = {"schedule": "* * * * *", "suspend": False, "jobTemplate": job}
        room = {"allocatable": {"cpu": str(CORES), "memory": "16Gi"}}
        for version, kind, name, rest in (
            ("v1", "PersistentVolumeClaim", "citeflow-data", {"spec": claim, "status": bound}),
            (
                "batch/v1",
                "CronJob",
                "citeflow-reaper",
                {"spec": reaper, "status": {"lastSuccessfulTime": timestamp()}},
            ),
            ("v1", "Node", "node-0", {"spec": {}, "status": room}),
            ("scheduling.k8s.io/v1", "PriorityClass", "citeflow-worker", {"value": 1000}),
        ):
            is_of_cluster = kind in ("Node", "PriorityClass")
            metadata = {"name": name} | ({} if is_of_cluster else {"namespace": "kubeflow"})
            self.kube.put({"apiVersion": version, "kind": kind, "metadata": metadata, **rest})

    def _go_away(self):
        """Take the API server away for a while when the outage's command asks for it."""
        file = self.folder / "out"
        while not self._closing.wait(0.1):
            if file.exists():
                self.kube.outage()
                self._closing.wait(self.outage_s)
                self.kube.recover()
                file.unlink()


def forward(kfp, method, path, headers, body):
    """Answer as Kubeflow Pipelines behind the proxy."""
    connection = http.client.HTTPConnection(*kfp.server_address, timeout=30)
    with contextlib.closing(connection):
        kept = {name: value for name, value in headers.items() if name.lower() != "host"}
        connection.request(method, path, body, kept)
        answer = connection.getresponse()
        return answer.status, {"Content-Type": answer.headers["Content-Type"]}, answer.read()


def answer_metadata(method, path, headers, body):
    """Answer as ML Metadata: the figures of artifacts, which their steps have written."""
    _, length = struct.unpack(">BI", body[:5])
    message = b""
    for number, uri in artifacts._fields(body[5 : 5 + length]):
        assert number == artifacts.URIS
        file = Path(uri.decode())
        output = json.loads((file.parent / "executor_output.json").read_text())
        (made,) = output["artifacts"][file.name]["artifacts"]
        artifact = artifacts._field(artifacts.URI, uri)
        for name, value in made["metadata"].items():
            if isinstance(value, float):
                double = bytes([2 << 3 | 1]) + struct.pack("<d", value)
                entry = artifacts._field(1, name.encode()) + artifacts._field(2, double)
                artifact += artifacts._field(artifacts.PROPERTIES, entry)
        message += artifacts._field(artifacts.ARTIFACTS, artifact)
    content = struct.pack(">BI", 0, len(message)) + message
    return 200, {"Content-Type": "application/grpc-web+proto"}, content
