"""The training operator and the kubelet of an in-memory cluster."""

import contextlib
import threading
from datetime import UTC, datetime, timedelta

from . import pytorchjobs, trainjobs
from .kube_api import KubeApi
from .kube_objects import ApiError, timestamp
from .kubelet import Kubelet, Script

RECONCILERS = {"PyTorchJob": pytorchjobs.reconcile, "TrainJob": trainjobs.reconcile}


class TrainingOperator:
    """`with TrainingOperator(api):` works by itself; without the `with`, each `step` is one round of work.

    Pods wait for `start` and `finish`, do what `script(pod)` says (a str is logged, a float waits so many seconds, an
    int ends the container with this exit code, a function is called), or are `real` and run their command. In a real
    pod's command and environment, the keys of `replace` become its values, and `environment` is what its image sets."""

    def __init__(
        self,
        api: KubeApi,
        *,
        real: bool = False,
        script: Script | None = None,
        restart_delay: float = 0.05,
        grace: float = 5.0,
        replace: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        cwd: str | None = None,
        cleans_all_at_limit: bool = False,
        interval: float = 0.02,
    ) -> None:
        self.api, self.store = api, api.store
        self.kubelet = Kubelet(
            api,
            real=real,
            script=script,
            restart_delay=restart_delay,
            grace=grace,
            replace=replace or {},
            environment=environment or {},
            cwd=cwd,
        )
        self.start, self.finish, self.evict = (
            self.kubelet.start,
            self.kubelet.finish,
            self.kubelet.evict,
        )
        self.hold, self.keep_unscheduled = self.kubelet.hold, self.kubelet.keep_unscheduled
        self.stuck = self.kubelet.stuck
        self.cleans_all_at_limit = cleans_all_at_limit
        """Whether a job that reached its backoffLimit or deadline loses all its pods, as up to v1.9.3."""
        self.interval = interval
        self._ahead = timedelta()
        self._is_closing = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work)
        api.validators.setdefault("PyTorchJob", pytorchjobs.validate)

    def __enter__(self) -> "TrainingOperator":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and every process. Raises: what went wrong in the thread."""
        with self.store.changed:
            self._is_closing = True
            self.store.changed.notify_all()
        if self._thread.ident:
            self._thread.join(10)
        self.kubelet.close()
        if self._error:
            raise self._error

    def step(self) -> None:
        """One round: look after the pods, then after the jobs."""
        with self.store.changed:
            self.kubelet.step()
            for kind in [kind for kind in self.store.kinds if kind.kind in RECONCILERS]:
                for job in self.store.list(kind, ""):
                    RECONCILERS[kind.kind](self, job)

    def settle(self) -> None:
        """Step until nothing changes any more."""
        version = None
        while version != self.store.version:
            version = self.store.version
            self.step()

    def advance(self, seconds: float) -> None:
        """Let the operator's clock, which deadlines and TTLs go by, jump ahead."""
        self._ahead += timedelta(seconds=seconds)

    def write(self, pod: str, text: str) -> None:
        """Add lines to the log of a pod."""
        container = next(
            found for found in reversed(self.kubelet.containers.values()) if found.pod == pod
        )
        self.api.write_log(container.namespace, pod, text)

    # For the reconcilers

    def timestamp(self) -> str:
        return timestamp(datetime.now(UTC) + self._ahead)

    def seconds_since(self, start: str) -> float:
        return pytorchjobs.seconds_between(start, datetime.now(UTC) + self._ahead)

    def pods_of(self, job: dict) -> list[dict]:
        uid = job["metadata"]["uid"]
        pods = self.store.list(self.store.kind_of("pods"), job["metadata"]["namespace"])
        return [
            pod
            for pod in pods
            if uid in [owner["uid"] for owner in pod["metadata"].get("ownerReferences") or []]
        ]

    def create_pod(self, job: dict, name: str, labels: dict, template: dict) -> None:
        """A pod and a service of the same name; a pod of an earlier job may be in the way for a while."""
        space, given = job["metadata"]["namespace"], template.get("metadata") or {}
        owner = {
            "apiVersion": job["apiVersion"],
            "kind": job["kind"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        owner |= {"name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
        meta = {
            "name": name,
            "ownerReferences": [owner],
            "annotations": given.get("annotations") or {},
        }
        meta["labels"] = {**(given.get("labels") or {}), **labels}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
        with contextlib.suppress(ApiError):
            self.kubelet.accept(self.store.create(self.store.kind_of("pods"), space, pod), job)
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "ownerReferences": [owner]},
        }
        with contextlib.suppress(ApiError):
            service["spec"] = {"clusterIP": "None", "selector": labels}
            self.store.create(self.store.kind_of("services"), space, service)

    def delete_pod(self, pod: dict) -> None:
        place = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        for plural in ("pods", "services"):
            with contextlib.suppress(ApiError):
                self.store.delete(self.store.kind_of(plural), *place)

    def delete_job(self, job: dict) -> None:
        kind = self.store.kind_of(job["kind"])
        self.store.delete(kind, job["metadata"]["namespace"], job["metadata"]["name"])

    def write_status(self, job: dict, status: dict) -> None:
        place = (
            self.store.kind_of(job["kind"]),
            job["metadata"]["namespace"],
            job["metadata"]["name"],
        )
        if place in self.store.objects and status != job.get("status"):
            self.store.update(*place, {**job, "status": status}, part="status")

    def _work(self) -> None:
        try:
            while not self._is_closing:
                self.step()
                with self.store.changed:
                    if not self._is_closing:
                        self.store.changed.wait(self.interval)
        except Exception as error:
            self._error = error
