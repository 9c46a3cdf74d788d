"""A TrainSpec as a PyTorchJob (training operator v1) or a TrainJob (Kubeflow Trainer v2), as plain dicts, purely.

torchrun gets all that it must know by its arguments, which go before the PET_* variables that the operators set: so
both kinds of job, and any version of an operator, form the group in the same way. Every pod runs one torchrun; they
meet at the store of pod 0 (c10d rendezvous), and when a worker dies all start their workers again from the checkpoint.
"""

import math
import re
from typing import Any

from kubeflow import training as kubeflow
from kubernetes import client as k8s

from citeflow.errors import ConfigError
from citeflow.files import sha256_of_json
from citeflow.kubernetes.identity import JobIdentity, Owner, labels
from citeflow.kubernetes.job_spec import LAUNCHERS, JobSpec
from citeflow.kubernetes.pods import (
    GRACE_S,
    NO_SIDECAR,
    PORT,
    command_of,
    confined,
    environment,
    mounts,
    pod_labels,
    pod_spec,
    ports,
    resources,
)

Json = dict[str, Any]

SPEC_SHA256 = "citeflow.org/spec-sha256"
"""The annotation that says what was asked for."""

PYTORCH_JOB, TRAIN_JOB = LAUNCHERS["pytorchjob"], LAUNCHERS["trainjob"]


def render(kind: str, spec: JobSpec, place: JobIdentity) -> Json:
    """The object that is sent: a PyTorchJob or a TrainJob, with the digest of all that was asked for.

    Raises:
        ConfigError: the namespace or the run id can not be used.
    """
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", place.namespace):
        raise ConfigError("namespace", place.namespace, hint="a-z, 0-9 and -")
    if not re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", place.run_id):
        raise ConfigError("run id", place.run_id, hint="at most 63 of letters, digits, -, _ and .")
    job: Json = _plain({PYTORCH_JOB: _pytorch_job, TRAIN_JOB: _train_job}[kind](spec, place))
    job["metadata"]["annotations"][SPEC_SHA256] = sha256_of_json(job)
    if place.owner:
        job["metadata"]["ownerReferences"] = [owner_reference(place.owner)]
    return job


def owner_reference(owner: Owner) -> Json:
    """A job that refers to a pod in this way is deleted with it."""
    return {"apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid}


def _pytorch_job(spec: JobSpec, place: JobIdentity) -> object:
    host = f"{place.name}-worker-0"
    pods = kubeflow.KubeflowOrgV1ReplicaSpec(
        replicas=spec.workers, restart_policy="OnFailure", template=_template(spec, place, host)
    )
    elastic = kubeflow.KubeflowOrgV1ElasticPolicy(
        min_replicas=spec.workers,
        max_replicas=spec.workers,
        rdzv_backend="c10d",
        rdzv_host=host,
        rdzv_port=PORT,
        rdzv_id=place.name,
        max_restarts=spec.restarts,
    )
    policy = kubeflow.KubeflowOrgV1RunPolicy(
        clean_pod_policy="Running",
        backoff_limit=spec.restarts,
        active_deadline_seconds=_seconds(spec.deadline_hours),
        ttl_seconds_after_finished=_seconds(spec.keep_hours),
    )
    return kubeflow.KubeflowOrgV1PyTorchJob(
        api_version="kubeflow.org/v1",
        kind=PYTORCH_JOB,
        metadata=_metadata(spec, place),
        spec=kubeflow.KubeflowOrgV1PyTorchJobSpec(
            run_policy=policy,
            elastic_policy=elastic,
            nproc_per_node=str(spec.processes),
            pytorch_replica_specs={"Worker": pods},
        ),
    )


def _train_job(spec: JobSpec, place: JobIdentity) -> Json:
    """As far as a TrainJob can say it: it has no time to live; its pods' token and pull policy are the runtime's."""
    command = command_of(spec, place, f"{place.name}-node-0-0.{place.name}")
    pod = pod_spec(spec)
    patch = {
        "containers": [
            {"name": "node", "securityContext": confined(), "volumeMounts": mounts(spec)}
        ],
        "volumes": pod.volumes,
        "securityContext": pod.security_context,
        "nodeSelector": pod.node_selector,
        "tolerations": pod.tolerations,
        "imagePullSecrets": pod.image_pull_secrets,
        "terminationGracePeriodSeconds": GRACE_S,
    }
    template = {"metadata": {"labels": pod_labels(place), "annotations": NO_SIDECAR}, "spec": patch}
    node = {"name": "node", "template": {"spec": {"template": template}}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": TRAIN_JOB,
        "metadata": _metadata(spec, place),
        "spec": {
            "runtimeRef": {"name": spec.runtime},
            "activeDeadlineSeconds": _seconds(spec.deadline_hours),
            "trainer": {
                "image": spec.image,
                "command": command[:1],
                "args": command[1:],
                "numNodes": spec.workers,
                "numProcPerNode": spec.processes,
                "resourcesPerNode": resources(spec),
                "env": environment(spec),
            },
            "runtimePatches": [
                {
                    "manager": "citeflow.org/launcher",
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [node]}}},
                }
            ],
        },
    }


def _metadata(spec: JobSpec, place: JobIdentity) -> k8s.V1ObjectMeta:
    queue = {"kueue.x-k8s.io/queue-name": spec.queue} if spec.queue else {}
    annotations = {
        "citeflow.org/run": place.run_name,
        "citeflow.org/task-sha256": place.task_sha256,
    }
    return k8s.V1ObjectMeta(
        name=place.name,
        namespace=place.namespace,
        labels={**labels(place), **queue},
        annotations=annotations,
    )


def _template(spec: JobSpec, place: JobIdentity, host: str) -> k8s.V1PodTemplateSpec:
    command, pod = command_of(spec, place, host), pod_spec(spec)
    container = k8s.V1Container(
        name="pytorch",
        image=spec.image,
        image_pull_policy=spec.image_pull_policy,
        command=command[:1],
        args=command[1:],
        env=environment(spec),
        ports=ports(),
        resources=resources(spec),
        volume_mounts=mounts(spec),
        security_context=confined(),
        termination_message_policy="FallbackToLogsOnError",
    )
    pod.containers = [container]
    metadata = k8s.V1ObjectMeta(labels=pod_labels(place), annotations=NO_SIDECAR)
    return k8s.V1PodTemplateSpec(metadata=metadata, spec=pod)


def _seconds(hours: float) -> int:
    return math.ceil(3600 * hours)


def _plain(value: object) -> Any:
    """Dicts and lists, as JSON has them, without what was left out."""
    with k8s.ApiClient(k8s.Configuration()) as api:
        return _without_none(api.sanitize_for_serialization(value))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(entry) for name, entry in value.items() if entry is not None}
    return [_without_none(entry) for entry in value] if isinstance(value, list) else value
