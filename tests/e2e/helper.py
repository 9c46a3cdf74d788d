"""A pod that reads, or cleans, the shared volume: it runs Python, and its log is the answer."""

import contextlib
import json
from dataclasses import dataclass, field

from kubernetes import client as k8s

from citeflow.kubernetes.client import TIMEOUT_S, KubeClient
from citeflow.kubernetes.job_spec import CLAIM, MOUNT
from citeflow.kubernetes.job_status import summarize
from citeflow.kubernetes.pod_template import (
    NO_SIDECAR,
    container_security_context,
    pod_security_context,
)
from e2e.waiting import require, until

LABEL = "citeflow.org/e2e"
"""Label of all pods that are made here; its value is the tag of the trial."""

LIMITS = {"_request_timeout": TIMEOUT_S}

FACTS = """
import hashlib, json, pathlib, sys
root, name = pathlib.Path(sys.argv[1]), sys.argv[2]
run, logs = root / "runs" / name, root / "logs" / name
def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
report = run / "published" / "report.json"
print(json.dumps({
    "model": digest(run / "model" / "model.safetensors"),
    "report": json.loads(report.read_text()) if report.is_file() else None,
    "page": (run / "published" / "report.html").is_file(),
    "events": {p.name: p.stat().st_size for p in sorted(logs.rglob("*tfevents*"))},
}))
"""
"""Prints what a run left on the volume."""

CLEAN = """
import json, pathlib, shutil, sys
root, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
def content(path):
    return json.loads(path.read_text()) if path.is_file() else {}
graphs = {content(root / "runs" / name / "job.json").get("data") for name in names} - {None}
graphs = {p for p in map(pathlib.Path, graphs) if p.parent == root / "prepared"}
inputs = {content(p / "manifest.json").get("inputs", {}).get("RawDataset") for p in graphs}
raw = [
    p.parent
    for p in (root / "raw").glob("*/manifest.json")
    if content(p).get("sha256") in inputs - {None}
]
gone = [*graphs, *raw, *(root / part / name for part in ("runs", "logs") for name in names)]
for folder in gone:
    shutil.rmtree(folder, ignore_errors=True)
print(json.dumps([str(folder) for folder in gone if folder.exists()]))
"""
"""Removes what runs left, with their data, and prints what could not be removed."""


@dataclass(kw_only=True)
class Helper:
    """Creates such pods, one at a time."""

    client: KubeClient
    image: str
    tag: str
    timeout_s: float = 300.0
    poll_s: float | None = None
    created: list[str] = field(default_factory=list)

    @property
    def core(self):
        return k8s.CoreV1Api(self.client.api)

    def ask(self, code, *arguments):
        """Return what a script prints, which is JSON."""
        name = f"citeflow-e2e-{self.tag}-{len(self.created)}"
        self.created.append(name)
        pod = self._pod(name, code, arguments)
        self.core.create_namespaced_pod(self.client.namespace, pod, **LIMITS)
        try:
            ended = until(
                f"pod {name}",
                lambda: self._ended(name),
                timeout_s=self.timeout_s,
                state=lambda: summarize(self.client.pods(f"{LABEL}={self.tag}")),
                poll_s=self.poll_s,
            )
            text = self.log(name)
            require(ended.phase == "Succeeded", f"pod {name} failed:\n{text}")
            return json.loads(text)
        finally:
            self.delete(name)

    def log(self, pod, container="main"):
        """Return all that a container wrote."""
        response = self.core.read_namespaced_pod_log(
            pod, self.client.namespace, container=container, _preload_content=False, **LIMITS
        )
        return response.data.decode(errors="replace")

    def delete(self, pod):
        """Delete a pod, if it is there."""
        with contextlib.suppress(k8s.ApiException):
            self.core.delete_namespaced_pod(pod, self.client.namespace, **LIMITS)

    def _ended(self, name):
        pod = self.client.pod(name)
        stuck = pod.waiting if pod and pod.is_unrecoverable else ""
        require(not stuck, f"pod {name} does not start: {stuck}; is {self.image} on the node?")
        return pod if pod and pod.has_ended else None

    def _pod(self, name, code, arguments):
        container = k8s.V1Container(
            name="main",
            image=self.image,
            image_pull_policy="IfNotPresent",
            command=["python3", "-c", code, *arguments],
            resources={
                "requests": {"cpu": "100m", "memory": "128Mi"},
                "limits": {"cpu": "500m", "memory": "512Mi"},
            },
            security_context=container_security_context(),
            volume_mounts=[{"name": "data", "mountPath": MOUNT}],
        )
        spec = k8s.V1PodSpec(
            containers=[container],
            restart_policy="Never",
            active_deadline_seconds=int(self.timeout_s) + 60,
            automount_service_account_token=False,
            enable_service_links=False,
            termination_grace_period_seconds=1,
            volumes=[k8s.V1Volume(name="data", persistent_volume_claim={"claimName": CLAIM})],
            security_context=pod_security_context(),
        )
        labels = {LABEL: self.tag, "app.kubernetes.io/name": "citeflow-e2e", **NO_SIDECAR}
        metadata = k8s.V1ObjectMeta(name=name, labels=labels, annotations=NO_SIDECAR)
        return k8s.V1Pod(metadata=metadata, spec=spec)
