"""RayJob of KubeRay (v1.6 and v1.7): a Ray cluster that is made for one training, and goes with it.

The head runs citeflow's driver, which starts a torchrun on each worker (training/ray_driver.py); a
third kind of pod, the submitter, hands the driver to the head and follows its log. KubeRay makes
`ray start` of the rest: of containers without a command, which it also gives the token that all of
Ray's servers ask for.
"""

import dataclasses
import shlex
from typing import TYPE_CHECKING

from citeflow.kubernetes.identity import JobIdentity
from citeflow.kubernetes.job_spec import JobSpec, seconds
from citeflow.kubernetes.job_status import JobEnd, JobStatus, KubeObject, PodStatus
from citeflow.kubernetes.launchers.base import Launcher, Prerequisite, priority_class
from citeflow.utils.system import MALLOC_TUNABLES_VARIABLE, SAFE_PATH

if TYPE_CHECKING:
    from kubernetes import client as k8s

RAY_VERSION = "2.60.0"
"""Ray in the image, as docker/ray/requirements.txt pins it; KubeRay writes its commands for it."""

DRIVER = "citeflow.training.ray_driver"
STOP = "citeflow.training.ray_stop"

TRAIN_IMAGE = "citeflow-train:"
RAY_IMAGE = "citeflow-ray:"
"""The image with Ray, beside that of the other jobs and with the same tag."""

OBJECT_STORE_BYTES = 75 * 2**20
"""The least that Ray takes; lines of text are all that goes through it."""

DASHBOARD_PORT = 8265
"""Where the head takes jobs, from the submitter and from KubeRay."""

AGENT_PORT = 52365
"""Where each node answers whether it is well."""

AGENT_PORTS = {
    "dashboard-agent-grpc-port": "8266",
    "dashboard-agent-listen-port": str(AGENT_PORT),
    "metrics-export-port": "8080",
    "runtime-env-agent-port": "8267",
}
"""Ports that Ray would choose itself: it ends where a process has not said its own within 15 s."""

HEAD = {"cpu": "500m", "memory": "2Gi"}
SUBMITTER = {"cpu": "250m", "memory": "512Mi"}

NODE_TYPE = "ray.io/node-type"
"""KubeRay's label with `head` or `worker`."""

SUBMISSIONS = 2
"""How often the submitter is made again: it finds the job that one before it has submitted."""

FOR_TORCHRUN = (MALLOC_TUNABLES_VARIABLE, *SAFE_PATH)
"""Environment variables that the processes of Ray itself must not have."""

FAILED = ("Failed", "ValidationFailed")
SUSPENDED = ("Suspended", "Suspending")


class RayJob(Launcher):
    """A head, workers with a torchrun each, and a submitter."""

    name = "ray"
    kind = "RayJob"
    group = "ray.io"
    version = "v1"
    plural = "rayjobs"
    install_hint = "install KubeRay v1.6.2 or newer, or use --launcher pytorchjob"
    pod_label = "ray.io/originated-from-cr-name"
    container = "submitter"
    works_here = True
    memory_overhead = 512 * 2**20

    def job_spec(self, spec: JobSpec, identity: JobIdentity) -> KubeObject:
        """Return the spec as plain values: KubeRay has models for Go only."""
        from citeflow.kubernetes import pod_template as pods

        common = {"object-store-memory": str(OBJECT_STORE_BYTES), **AGENT_PORTS}
        gpus = {"num-gpus": str(spec.gpus)} if spec.gpus else {}
        head = self._container(spec, "head", HEAD)
        worker = self._container(spec, "worker", spec.requests)
        worker.ports = pods.ports()
        worker.lifecycle = {"preStop": {"exec": {"command": ["python3", "-P", "-m", STOP]}}}
        for node, path, port in (
            (head, "/api/gcs_healthz", DASHBOARD_PORT),
            (worker, "/api/local_raylet_healthz", AGENT_PORT),
        ):
            # KubeRay's own probes need wget, which the image lacks.
            answer = {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 5}
            node.readiness_probe = {**answer, "periodSeconds": 5, "failureThreshold": 12}
            node.liveness_probe = {**answer, "initialDelaySeconds": 60, "failureThreshold": 30}
        submitter = self._container(spec, self.container, SUBMITTER)
        return {
            "submissionMode": "K8sJobMode",
            "entrypoint": shlex.join(driver_command(spec, identity)),
            "backoffLimit": spec.restarts,
            "activeDeadlineSeconds": seconds(spec.deadline_hours),
            "shutdownAfterJobFinishes": True,
            "submitterConfig": {"backoffLimit": SUBMISSIONS},
            "submitterPodTemplate": self._template(spec, identity, submitter),
            "rayClusterSpec": {
                "rayVersion": RAY_VERSION,
                "authOptions": {"mode": "token"},
                "headGroupSpec": {
                    "rayStartParams": {
                        **common,
                        "num-cpus": "0",  # so that no worker is placed on it
                        "no-monitor": "true",  # of an autoscaler
                        "dashboard-host": "0.0.0.0",
                    },
                    "template": self._template(spec, identity, head),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": spec.workers,
                        "minReplicas": spec.workers,
                        "maxReplicas": spec.workers,
                        # One CPU, whatever the pod has: the driver asks for one on each of them.
                        "rayStartParams": {**common, "num-cpus": "1", **gpus},
                        "template": self._template(spec, identity, worker),
                    }
                ],
            },
        }

    def _container(self, spec: JobSpec, name: str, amounts: dict[str, str]) -> "k8s.V1Container":
        """Return a container without a command, which KubeRay writes."""
        from kubernetes import client as k8s

        from citeflow.kubernetes import pod_template as pods

        return k8s.V1Container(
            name=name,
            image=spec.image.replace(TRAIN_IMAGE, RAY_IMAGE),
            image_pull_policy=spec.image_pull_policy,
            env=environment(spec),
            resources={"requests": amounts, "limits": amounts},
            volume_mounts=pods.volume_mounts(spec),
            security_context=pods.container_security_context(),
            termination_message_policy="FallbackToLogsOnError",
        )

    def _template(
        self, spec: JobSpec, identity: JobIdentity, container: "k8s.V1Container"
    ) -> "k8s.V1PodTemplateSpec":
        from kubernetes import client as k8s

        from citeflow.kubernetes import pod_template as pods

        labels = {**pods.pod_labels(identity), self.pod_label: identity.name}
        metadata = k8s.V1ObjectMeta(labels=labels, annotations=dict(pods.NO_SIDECAR))
        pod = pods.pod_spec(spec)
        pod.containers = [container]
        if container.name == self.container:
            pod.restart_policy = "Never"  # as a Job's pod must say; the Job makes another
        return k8s.V1PodTemplateSpec(metadata=metadata, spec=pod)

    def status(self, job: KubeObject) -> JobStatus:
        """Read a RayJob, whose state is a word in place of conditions."""
        deadline_s = job["spec"].get("activeDeadlineSeconds")
        common = JobStatus.read(job, deadline_s=deadline_s, success="")
        status = job.get("status") or {}
        state = status.get("jobDeploymentStatus", "")
        end = None
        if state == "Complete" or state in FAILED:
            # A job that was stopped is complete too.
            succeeded = status.get("jobStatus") == "SUCCEEDED" and state == "Complete"
            words = [status.get("reason") or status.get("jobStatus") or state]
            words += status.get("message", "").strip().splitlines()[:1]
            end = JobEnd(succeeded=succeeded, reason=": ".join(words))
        return dataclasses.replace(
            common,
            end=end,
            is_suspended=state in SUSPENDED,
            pods_owner=status.get("rayClusterName", ""),
        )

    def replica(self, pod: PodStatus) -> str:
        """Name a pod within its job, without the random parts that KubeRay gives it."""
        node_type = pod.labels.get(NODE_TYPE)
        if node_type == "worker":
            return f"worker-{pod.name.rpartition('-')[2]}"
        return node_type or self.container

    def has_log(self, pod: PodStatus) -> bool:
        """Tell whether a pod's log is of interest: the submitter's has the lines of all workers."""
        return NODE_TYPE not in pod.labels

    def takes_place(self, pod: PodStatus) -> bool:
        """Tell whether a pod is one of `num_pods`; the submitter comes when all of them are there.

        Where a worker is lost, the submitter must not be taken for it.
        """
        return NODE_TYPE in pod.labels

    def num_pods(self, spec: JobSpec) -> int:
        """Count the workers and the head."""
        return spec.workers + 1

    def prerequisites(self, spec: JobSpec) -> tuple[Prerequisite, ...]:
        """List the PriorityClass."""
        return priority_class(spec)

    def pod_creator(self, job: JobStatus) -> str:
        """Name the RayCluster that makes the pods."""
        return job.pods_owner or job.name


def driver_command(spec: JobSpec, identity: JobIdentity) -> list[str]:
    """Return what the head runs."""
    return [
        "python3",
        "-P",
        "-m",
        DRIVER,
        f"--workers={spec.workers}",
        f"--processes={spec.processes}",
        f"--restarts={spec.restarts}",
        *([f"--gpus={spec.gpus}"] if spec.gpus else []),
        identity.job_file,
    ]


def environment(spec: JobSpec) -> list[KubeObject]:
    """Return the environment of a container; what torchrun alone needs, the driver gives it."""
    from citeflow.kubernetes import pod_template as pods
    from citeflow.training.ray_launch import RAY_SETTINGS

    kept = [each for each in pods.environment(spec) if each["name"] not in FOR_TORCHRUN]
    return [*kept, *({"name": name, "value": value} for name, value in RAY_SETTINGS.items())]
