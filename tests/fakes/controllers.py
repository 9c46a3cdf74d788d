"""What controllers of Kubernetes and Kubeflow do in the namespace of a user, for the API in memory.

They act after each request that changes something, so that a test need not wait.
"""

import contextlib
import threading

from kubernetes.utils import parse_quantity

from .kube_api import ApiError, container_status, timestamp

RUNNING = {"phase": "Running", "podIP": "127.0.0.1"}
PENDING = {"phase": "Pending"}
COUNTED = {"requests.cpu": "cpu", "requests.memory": "memory"}


class Controllers:
    """Profiles, namespaces, quotas, claims and Jobs; pods of Jobs are started and ended by tests.

    `kube.store.kinds` says which kinds there are. `binds` may be made False: no storage, no volume.
    """

    def __init__(self, kube):
        self.kube = kube
        self.binds = True
        self.starts = True
        """Whether pods of Jobs start by themselves; else a kubelet starts and ends them."""
        self._lock = threading.RLock()
        kube.on_request(self._on_request)

    def _on_request(self, number, request, when):
        if when == "after" and request.verb in ("create", "patch", "delete"):
            self.sync()

    def sync(self):
        with self._lock:
            self._make_namespaces()
            self._empty_namespaces()
            for claim in self.kube.list("persistentvolumeclaims"):
                phase = "Bound" if self.binds else "Pending"
                self._set(claim, "persistentvolumeclaims", {"status": {"phase": phase}})
            for job in self.kube.list("jobs"):
                self._look_after(job)
            for quota in self.kube.list("resourcequotas"):
                self._count(quota)

    def _make_namespaces(self):
        if "profiles" not in self.kube.store.kinds:
            return
        for profile in self.kube.list("profiles"):
            name = profile["metadata"]["name"]
            if self.kube.get("namespaces", "", name) is None:
                owner = {"apiVersion": "kubeflow.org/v1", "kind": "Profile", "name": name}
                owner["uid"] = profile["metadata"]["uid"]
                annotations = {"owner": profile["spec"]["owner"]["name"]}
                metadata = {"name": name, "ownerReferences": [owner], "annotations": annotations}
                self.kube.put({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
            metadata = {"name": "kf-resource-quota", "namespace": name}
            quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata}
            self.kube.put({**quota, "spec": profile["spec"]["resourceQuotaSpec"]})

    def _empty_namespaces(self):
        known = {each["metadata"]["name"] for each in self.kube.list("namespaces")}
        with self.kube.changed:
            left = [key for key in self.kube.store.objects if key[1] and key[1] not in known]
        for key in left:
            with contextlib.suppress(ApiError):
                self.kube.remove(*key)

    def _count(self, quota):
        namespace = quota["metadata"]["namespace"]
        used = dict.fromkeys(quota["spec"]["hard"], 0)
        for pod in self.kube.list("pods", namespace):
            if pod["status"]["phase"] in ("Succeeded", "Failed"):
                continue
            used["pods"] += 1
            for container in pod["spec"]["containers"]:
                asked = container.get("resources", {}).get("requests", {})
                for key, name in COUNTED.items():
                    used[key] += parse_quantity(asked.get(name, 0))
        for claim in self.kube.list("persistentvolumeclaims", namespace):
            asked = claim["spec"]["resources"]["requests"]["storage"]
            used["requests.storage"] += parse_quantity(asked)
        status = {"hard": quota["spec"]["hard"], "used": {k: str(v) for k, v in used.items()}}
        self._set(quota, "resourcequotas", {"status": status})

    def _look_after(self, job):
        """Make the pod of a Job, or end it where its time is over or it is suspended."""
        if ended(job):
            return
        name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        pods = self._pods(job)
        alive = [pod for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]
        if job["spec"].get("suspend"):
            for pod in alive:
                self._delete(pod)
            if not is_true(job, "Suspended"):
                self._set(job, "jobs", {"status": {"startTime": None}})
                self._condition(job, "Suspended")
        elif job["spec"]["activeDeadlineSeconds"] <= 1:
            for pod in alive:
                if self.starts:
                    self.end_pod(pod, 143)
                else:
                    self._delete(pod)
            if self.starts or not alive:
                self._condition(job, "Failed", "DeadlineExceeded")
        elif end := outcome(job, pods):
            if end[0] == "Complete":
                self._set(job, "jobs", {"status": {"completionTime": timestamp()}})
            self._condition(job, *end)
        elif not alive:
            template = job["spec"]["template"]
            labels = {**template["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name}
            owner["uid"] = job["metadata"]["uid"]
            metadata = {"name": f"{name}-{len(pods)}", "labels": labels, "ownerReferences": [owner]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
            made = self.kube.store.create("pods", namespace, {**pod, "spec": template["spec"]})
            self._set(job, "jobs", {"status": {"startTime": timestamp()}})
            if self.starts:
                self.start_pod(made)
                if template["spec"]["containers"][0].get("command", [""])[0] == "mkdir":
                    self.finish(job, 0)  # at once

    def _delete(self, pod):
        """Delete a pod as a controller does: its container gets time to end."""
        meta = pod["metadata"]
        with contextlib.suppress(ApiError):
            self.kube.store.delete_pod(("pods", meta["namespace"], meta["name"]))

    def start_pod(self, pod):
        self._pod(pod, RUNNING, {"running": {"startedAt": timestamp()}})

    def end_pod(self, pod, exit_code, message=""):
        end = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed"}
        end |= {"finishedAt": timestamp(), "message": message}
        phase = {"phase": "Failed" if exit_code else "Succeeded"}
        self._pod(pod, phase, {"terminated": end})

    def finish(self, job, exit_code, message=""):
        """Let the pod of a Job end, and the Job as its policy says for a code that is final."""
        with self._lock:
            for pod in self._pods(job):
                self.end_pod(pod, exit_code, message)
            if exit_code:
                self._condition(job, "Failed", "PodFailurePolicy")
            else:
                self._set(job, "jobs", {"status": {"completionTime": timestamp()}})
                self._condition(job, "Complete")
        self.sync()

    def _pods(self, job):
        uid = job["metadata"]["uid"]
        found = self.kube.list("pods", job["metadata"]["namespace"])
        return [
            pod
            for pod in found
            if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences", []))
        ]

    def _pod(self, pod, status, state):
        name = pod["spec"]["containers"][0]["name"]
        container = {"name": name, "image": "i", "imageID": "", "ready": "running" in state}
        container |= {"restartCount": 0, "state": state, "lastState": {}}
        assert container_status({"status": {"containerStatuses": [container]}}) == container
        change = {"spec": {"nodeName": "node-0"}}
        self._set(pod, "pods", {**change, "status": {**status, "containerStatuses": [container]}})

    def _condition(self, job, kind, reason=""):
        new = {"type": kind, "status": "True", "reason": reason, "message": f"Job has {reason}"}
        new["lastTransitionTime"] = timestamp()
        self._set(job, "jobs", {"status": {"conditions": [new]}})

    def _set(self, thing, plural, change):
        meta = thing["metadata"]
        self.kube.patch(plural, meta.get("namespace", ""), meta["name"], change)


def outcome(job, pods):
    """Return the condition that ends a Job, and its reason; None while it goes on."""
    failures = 0
    rules = job["spec"].get("podFailurePolicy", {}).get("rules", ())
    retried = [rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule]
    for pod in pods:
        if pod["status"]["phase"] == "Succeeded":
            return "Complete", ""
        if pod["status"]["phase"] == "Failed":
            code = container_status(pod)["state"]["terminated"]["exitCode"]
            if any(code not in codes for codes in retried):
                return "Failed", "PodFailurePolicy"
            failures += 1
    if failures > job["spec"].get("backoffLimit", 6):
        return "Failed", "BackoffLimitExceeded"
    return None


def ended(job):
    return is_true(job, "Complete") or is_true(job, "Failed")


def is_true(job, kind):
    conditions = job.get("status", {}).get("conditions") or []
    return any((each["type"], each["status"]) == (kind, "True") for each in conditions)
