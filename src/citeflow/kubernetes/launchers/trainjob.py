"""TrainJob of Kubeflow Trainer (v2).

A TrainJob has no time to live. What it has no field for is its runtime's: backoffLimit, token, pull
policy, priority, named ports, shared process namespace (manifests/trainer).
"""

import re

from citeflow.kubernetes.identity import JobIdentity
from citeflow.kubernetes.job_spec import JobSpec, seconds
from citeflow.kubernetes.job_status import JobStatus, KubeObject, PodStatus
from citeflow.kubernetes.launchers.base import Launcher, Prerequisite


class TrainJob(Launcher):
    """Nodes of a ClusterTrainingRuntime, patched to what citeflow's pods need."""

    name = "trainjob"
    kind = "TrainJob"
    group = "trainer.kubeflow.org"
    version = "v1alpha1"
    plural = "trainjobs"
    install_hint = "install Kubeflow Trainer v2.2 or newer, or use --launcher pytorchjob"
    pod_label = "jobset.sigs.k8s.io/jobset-name"
    container = "node"

    def job_spec(self, spec: JobSpec, identity: JobIdentity) -> KubeObject:
        """Return the spec as plain values: there is no SDK with models of it yet."""
        from citeflow.kubernetes import pod_template as pods

        command = pods.torchrun(spec, identity, f"{identity.name}-node-0-0.{identity.name}")
        pod = pods.pod_spec(spec)
        container = {
            "name": self.container,
            "securityContext": pods.container_security_context(),
            "volumeMounts": pods.volume_mounts(spec),
        }
        template = {
            "metadata": {
                "labels": pods.pod_labels(identity),
                "annotations": dict(pods.NO_SIDECAR),
            },
            "spec": {
                "containers": [container],
                "volumes": pod.volumes,
                "securityContext": pod.security_context,
                "nodeSelector": pod.node_selector,
                "tolerations": pod.tolerations,
                "imagePullSecrets": pod.image_pull_secrets,
                "terminationGracePeriodSeconds": pods.TERMINATION_GRACE_S,
            },
        }
        node = {"name": "node", "template": {"spec": {"template": template}}}
        patch = {
            "manager": "citeflow.org/launcher",
            "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [node]}}},
        }
        return {
            "runtimeRef": {"name": spec.runtime},
            "activeDeadlineSeconds": seconds(spec.deadline_hours),
            "trainer": {
                "image": spec.image,
                "command": command[:1],
                "args": command[1:],
                "numNodes": spec.workers,
                "numProcPerNode": spec.processes,
                "resourcesPerNode": pods.resources(spec),
                "env": pods.environment(spec),
            },
            "runtimePatches": [patch],
        }

    def status(self, job: KubeObject) -> JobStatus:
        """Read a TrainJob."""
        deadline_s = job["spec"].get("activeDeadlineSeconds")
        return JobStatus.read(job, deadline_s=deadline_s, success="Complete")

    def replica(self, pod: PodStatus) -> str:
        """Name a pod within its job, without the random end that its Job gives it."""
        return re.sub(r"^(node-\d+-\d+)-\w+$", r"\1", super().replica(pod))

    def pod_creator(self, job: JobStatus) -> str:
        """Name the Job that makes the pods."""
        return f"{job.name}-node-0"

    def prerequisites(self, spec: JobSpec) -> tuple[Prerequisite, ...]:
        """List the ClusterTrainingRuntime."""
        return (
            Prerequisite(
                group=self.group,
                version=self.version,
                kind="ClusterTrainingRuntime",
                plural="clustertrainingruntimes",
                name=spec.runtime,
                hint="kubectl apply -k manifests/trainer, or name another: {runtime: ...} as `job`",
            ),
        )
