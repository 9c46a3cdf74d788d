"""A pod that reads, or cleans, the shared volume: it runs Python, and its log is the answer."""

import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

from citeflow.kubernetes.pods import NO_SIDECAR, confined, unprivileged
from kubernetes import client as k8s

from citeflow.kubernetes.client import TIMEOUT_S, Api
from citeflow.kubernetes.job_spec import CLAIM, MOUNT
from citeflow.kubernetes.job_status import has_ended, is_hopeless, waits_for
from e2e.waiting import require, until

LABEL = "citeflow.org/e2e"
"""The label of all that is made here by hand; its value is the tag of the trial."""

LIMITED = {"_request_timeout": TIMEOUT_S}

FACTS = """
import hashlib, json, pathlib, sys
root, name = pathlib.Path(sys.argv[1]), sys.argv[2]
run, logs = root / "runs" / name, root / "logs" / name
def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
def content(path):
    return json.loads(path.read_text()) if path.is_file() else None
print(json.dumps({
    "model": digest(run / "model" / "model.safetensors"),
    "job": content(run / "job.json"),
    "report": content(run / "published" / "report.json"),
    "page": (run / "published" / "report.html").is_file(),
    "events": {p.name: p.stat().st_size for p in sorted(logs.rglob("*tfevents*"))},
}))
"""
"""What a run left on the volume."""

CLEAN = """
import json, pathlib, shutil, sys
root, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
def content(path):
    return json.loads(path.read_text()) if path.is_file() else {}
graphs = {content(root / "runs" / name / "job.json").get("graph") for name in names} - {None}
graphs = {p for p in map(pathlib.Path, graphs) if p.parent == root / "prepared"}
made_from = {content(p / "manifest.json").get("inputs", {}).get("RawDataset") for p in graphs} - {None}
raw = {p.parent for p in (root / "raw").glob("*/manifest.json") if content(p).get("sha256") in made_from}
gone = [*graphs, *raw, *(root / part / name for part in ("runs", "logs") for name in names)]
for place in gone:
    shutil.rmtree(place, ignore_errors=True)
print(json.dumps([str(place) for place in gone if place.exists()]))
"""
"""Removes what runs left, with the data that they alone had, and names what could not be removed.
"""


@dataclass(kw_only=True)
class Helper:
    """Makes such pods, one at a time."""

    api: Api
    image: str
    tag: str
    timeout_s: float = 300.0
    poll_s: float | None = None
    made: list[str] = field(default_factory=list)

    def ask(self, code: str, *arguments: str) -> Any:
        """What a script prints, which is JSON."""
        core, name = k8s.CoreV1Api(self.api.client), f"citeflow-e2e-{self.tag}-{len(self.made)}"
        self.made.append(name)
        core.create_namespaced_pod(self.api.namespace, self._pod(name, code, arguments), **LIMITED)
        try:
            pod = until(
                f"pod {name}",
                lambda: self._ended(name),
                timeout_s=self.timeout_s,
                state=lambda: self._state(name),
                poll_s=self.poll_s,
            )
            text = self.log(name)
            require(pod.status.phase == "Succeeded", f"pod {name} failed:\n{text}")
            return json.loads(text)
        finally:
            self.delete(name)

    def log(self, pod: str, container: str = "main") -> str:
        """All that a container wrote."""
        response = k8s.CoreV1Api(self.api.client).read_namespaced_pod_log(
            pod, self.api.namespace, container=container, _preload_content=False, **LIMITED
        )
        return response.data.decode(errors="replace")

    def delete(self, pod: str) -> None:
        """Delete a pod, if it is there."""
        with contextlib.suppress(k8s.ApiException):
            k8s.CoreV1Api(self.api.client).delete_namespaced_pod(pod, self.api.namespace, **LIMITED)

    def _ended(self, name: str) -> k8s.V1Pod | None:
        pod = self._find(name)
        if pod and is_hopeless(pod):
            raise AssertionError(
                f"pod {name} does not start: {waits_for(pod)}; is {self.image} on the node?"
            )
        return pod if pod and has_ended(pod) else None

    def _find(self, name: str) -> k8s.V1Pod | None:
        return next(
            (pod for pod in self.api.pods(f"{LABEL}={self.tag}") if pod.metadata.name == name), None
        )

    def _state(self, name: str) -> str:
        pod = self._find(name)
        return f"{pod.status.phase} {waits_for(pod)}".strip() if pod else "none"

    def _pod(self, name: str, code: str, arguments: tuple[str, ...]) -> k8s.V1Pod:
        sizes = {"cpu": "100m", "memory": "128Mi"}
        container = k8s.V1Container(
            name="main",
            image=self.image,
            image_pull_policy="IfNotPresent",
            command=["python3", "-c", code, *arguments],
            resources={"requests": sizes, "limits": {"cpu": "500m", "memory": "512Mi"}},
            security_context=confined(),
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
            security_context=unprivileged(),
        )
        labels = {LABEL: self.tag, "app.kubernetes.io/name": "citeflow-e2e", **NO_SIDECAR}
        meta = k8s.V1ObjectMeta(
            name=name, namespace=self.api.namespace, labels=labels, annotations=NO_SIDECAR
        )
        return k8s.V1Pod(api_version="v1", kind="Pod", metadata=meta, spec=spec)
