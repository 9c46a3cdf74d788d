"""A TrainSpec as a PyTorchJob (training operator v1) or a TrainJob (Kubeflow Trainer v2), as plain dicts, purely.

torchrun gets all that it must know by its arguments, which go before the PET_* variables that the operators set: so both
kinds of job, and any version of an operator, form the group in the same way. Every pod runs one torchrun; they meet at
the store of pod 0 (c10d rendezvous), and when a worker dies all of them start their workers again from the checkpoint.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from kubeflow import training as kubeflow
from kubernetes import client as k8s

from citeflow.cluster.spec import TrainSpec, quantity
from citeflow.cores import KEEP_MEMORY
from citeflow.errors import ConfigError
from citeflow.files import sha256_of_json

Json = dict[str, Any]

PORT = 23456
"""Where the workers meet: the training operator's own port, which its services and network policies know."""

JOIN_S = 900
"""How long a worker waits for the others: longer than the kubelet's longest pause between restarts, 300 s."""

GRACE_S = 60
"""Time between SIGTERM and SIGKILL; torchrun gives its workers 30 s of it to save."""

USER = 1000
"""User and group of every pod, so that each can read and write what the others left on the volume."""

RUN_ID, SPEC_SHA256 = "pipeline/runid", "citeflow.org/spec-sha256"
"""The label with the id of the run, as Kubeflow Pipelines has it; the annotation that says what was asked for."""

PYTORCH_JOB, TRAIN_JOB = "PyTorchJob", "TrainJob"
LONGEST_NAME = 63 - len("-worker-9999")


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The pod of the pipeline step that started a job; when it is deleted, the job goes with it."""

    name: str
    uid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Which job of which run."""

    namespace: str
    run_id: str
    run_name: str
    job_file: str
    """What to train, as the pods find it on the volume."""

    owner: Owner | None = None

    @property
    def name(self) -> str:
        """Name of the job: the same for every attempt of a step, another one for every other step."""
        tail = sha256_of_json([self.run_id, self.run_name, "train"])[:10]
        stem = f"citeflow-{self.run_name}"[: LONGEST_NAME - len(tail) - 1].strip("-")
        return f"{stem}-{tail}"


def render(kind: str, spec: TrainSpec, place: Placement) -> Json:
    """The object that is sent: a PyTorchJob or a TrainJob, with the digest of all that was asked for.

    Raises:
        ConfigError: the namespace or the run id can not be used.
    """
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", place.namespace):
        raise ConfigError("namespace", place.namespace, hint="a-z, 0-9 and -")
    if not re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", place.run_id):
        raise ConfigError("run id", place.run_id, hint="at most 63 of letters, digits, -, _ and .")
    job = _plain({PYTORCH_JOB: _pytorch_job, TRAIN_JOB: _train_job}[kind](spec, place))
    job["metadata"]["annotations"][SPEC_SHA256] = sha256_of_json(job)
    if place.owner:
        job["metadata"]["ownerReferences"] = [owner_reference(place.owner)]
    return job


def owner_reference(owner: Owner) -> Json:
    """A job that refers to a pod in this way is deleted with it."""
    return {"apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid}


def _pytorch_job(spec: TrainSpec, place: Placement) -> object:
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


def _train_job(spec: TrainSpec, place: Placement) -> Json:
    """As far as a TrainJob can say it: it has no time to live, and its pods' token and pull policy are the runtime's."""
    command = _command(spec, place, f"{place.name}-node-0-0.{place.name}")
    pod = _pod(spec)
    patch = {
        "containers": [{"name": "node", "securityContext": _confined(), "volumeMounts": _mounts(spec)}],
        "volumes": pod.volumes,
        "securityContext": pod.security_context,
        "nodeSelector": pod.node_selector,
        "tolerations": pod.tolerations,
        "imagePullSecrets": pod.image_pull_secrets,
        "terminationGracePeriodSeconds": GRACE_S,
    }
    template = {"metadata": {"labels": _pod_labels(place), "annotations": _NO_SIDECAR}, "spec": patch}
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
                "resourcesPerNode": _resources(spec),
                "env": _environment(spec),
            },
            "runtimePatches": [
                {
                    "manager": "citeflow.org/launcher",
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [node]}}},
                }
            ],
        },
    }


_NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
"""A sidecar would cut the workers' own connections, and never end; older versions of istio read the annotation."""


def _metadata(spec: TrainSpec, place: Placement) -> k8s.V1ObjectMeta:
    queue = {"kueue.x-k8s.io/queue-name": spec.queue} if spec.queue else {}
    annotations = {"citeflow.org/run": place.run_name}
    return k8s.V1ObjectMeta(
        name=place.name, namespace=place.namespace, labels={**_labels(place), **queue}, annotations=annotations
    )


def _labels(place: Placement) -> dict[str, str]:
    parts = {"part-of": "citeflow", "component": "train", "managed-by": "citeflow"}
    return {**{f"app.kubernetes.io/{name}": value for name, value in parts.items()}, RUN_ID: place.run_id}


def _pod_labels(place: Placement) -> dict[str, str]:
    return {**_labels(place), **_NO_SIDECAR}


def _template(spec: TrainSpec, place: Placement, host: str) -> k8s.V1PodTemplateSpec:
    command, pod = _command(spec, place, host), _pod(spec)
    container = k8s.V1Container(
        name="pytorch",
        image=spec.image,
        image_pull_policy=spec.image_pull_policy,
        command=command[:1],
        args=command[1:],
        env=_environment(spec),
        ports=[k8s.V1ContainerPort(name="pytorchjob-port", container_port=PORT)],
        resources=_resources(spec),
        volume_mounts=_mounts(spec),
        security_context=_confined(),
        termination_message_policy="FallbackToLogsOnError",
    )
    pod.containers = [container]
    metadata = k8s.V1ObjectMeta(labels=_pod_labels(place), annotations=_NO_SIDECAR)
    return k8s.V1PodTemplateSpec(metadata=metadata, spec=pod)


def _pod(spec: TrainSpec) -> k8s.V1PodSpec:
    """All of a pod but its container. Its processes share one namespace, so that none of them is PID 1."""
    claims = [
        k8s.V1Volume(name=f"claim-{index}", persistent_volume_claim={"claimName": claim})
        for index, claim in enumerate(spec.volumes)
    ]
    memory = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=spec.shared_memory)
    return k8s.V1PodSpec(
        containers=[],
        volumes=[
            *claims,
            k8s.V1Volume(name="shared-memory", empty_dir=memory),
            k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="8Gi")),
        ],
        node_selector=dict(spec.node_selector) or None,
        tolerations=[dict(toleration) for toleration in spec.tolerations] or None,
        image_pull_secrets=[{"name": name} for name in spec.image_pull_secrets] or None,
        automount_service_account_token=False,
        enable_service_links=False,
        share_process_namespace=True,
        termination_grace_period_seconds=GRACE_S,
        security_context=k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER,
            run_as_group=USER,
            fs_group=USER,
            fs_group_change_policy="OnRootMismatch",
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
    )


def _command(spec: TrainSpec, place: Placement, host: str) -> list[str]:
    return [
        "python3",
        "-m",
        "torch.distributed.run",
        f"--nnodes={spec.workers}",
        f"--nproc-per-node={spec.processes}",
        f"--max-restarts={spec.restarts}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={host}:{PORT}",
        f"--rdzv-id={place.name}",
        f"--rdzv-conf=join_timeout={JOIN_S},read_timeout={JOIN_S}",
        "--local-addr=$(POD_IP)",
        "-m",
        "citeflow.training.worker",
        place.job_file,
    ]


def _environment(spec: TrainSpec) -> list[Json]:
    threads = max(1, math.floor(quantity(spec.cpu)) // spec.processes)
    tunables = ":".join(f"{name}={value}" for name, value in KEEP_MEMORY.items())
    values = {
        "HOME": "/tmp",
        "MPLCONFIGDIR": "/tmp/matplotlib",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        "GLIBC_TUNABLES": tunables,
    }
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return [address, *({"name": name, "value": value} for name, value in values.items())]


def _resources(spec: TrainSpec) -> Json:
    amounts = {"cpu": spec.cpu, "memory": spec.memory}
    if spec.gpus:
        amounts[spec.gpu_resource] = str(spec.gpus)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _mounts(spec: TrainSpec) -> list[Json]:
    claims = [{"name": f"claim-{index}", "mountPath": path} for index, path in enumerate(spec.volumes.values())]
    return [*claims, {"name": "shared-memory", "mountPath": "/dev/shm"}, {"name": "tmp", "mountPath": "/tmp"}]


def _confined() -> k8s.V1SecurityContext:
    return k8s.V1SecurityContext(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
    )


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
