"""The pods of a job: what they run, get, and may not do. The same for every kind of job."""

import math
from typing import Any

from kubernetes import client as k8s

from citeflow.kubernetes.identity import JobIdentity, labels
from citeflow.kubernetes.job_spec import USER, JobSpec, quantity
from citeflow.utils.system import MALLOC_TUNABLES, METRICS_PORT_VARIABLE, SAFE_PATH

Json = dict[str, Any]

PORT = 23456
"""Where the workers meet: the training operator's own port, which its services and network policies know."""

METRICS_PORT = 9464
"""Where Prometheus reads a worker, as manifests/components/monitoring has it."""

JOIN_S = 900
"""How long a worker waits for the others: longer than the kubelet's longest pause between restarts, 300 s."""

GRACE_S = 60
"""Time between SIGTERM and SIGKILL; torchrun gives its workers 30 s of it to save."""

NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
"""A sidecar would cut the workers' own connections, and never end; older versions of istio read the annotation."""


def pod_labels(place: JobIdentity) -> dict[str, str]:
    """What a pod is found by, and kept free of sidecars."""
    return {**labels(place), **NO_SIDECAR}


def pod_spec(spec: JobSpec) -> k8s.V1PodSpec:
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
        security_context=unprivileged(),
    )


def command_of(spec: JobSpec, place: JobIdentity, host: str) -> list[str]:
    """torchrun in a pod; `host` is the name of pod 0, where all of them meet."""
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


def environment(spec: JobSpec) -> list[Json]:
    """Variables of a worker.

    torch 2.13's agents share a store by default; one that joins later then waits for an address that the others, who
    know it, never write again. Without sharing every round of the rendezvous makes a store of its own.
    """
    threads = max(1, math.floor(quantity(spec.cpu)) // spec.processes)
    tunables = ":".join(f"{name}={value}" for name, value in MALLOC_TUNABLES.items())
    values = {
        "HOME": "/tmp",
        "MPLCONFIGDIR": "/tmp/matplotlib",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",
        "PYTHONUNBUFFERED": "1",
        **SAFE_PATH,
        "OMP_NUM_THREADS": str(threads),
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "GLIBC_TUNABLES": tunables,
        METRICS_PORT_VARIABLE: str(METRICS_PORT),
    }
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return [address, *({"name": name, "value": value} for name, value in values.items())]


def ports() -> list[k8s.V1ContainerPort]:
    """Ports of a worker that others know by name."""
    named = {"pytorchjob-port": PORT, "metrics": METRICS_PORT}
    return [k8s.V1ContainerPort(name=name, container_port=port) for name, port in named.items()]


def resources(spec: JobSpec) -> Json:
    """What a pod asks for, which is also all that it may use."""
    amounts = {"cpu": spec.cpu, "memory": spec.memory}
    if spec.gpus:
        amounts[spec.gpu_resource] = str(spec.gpus)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def mounts(spec: JobSpec) -> list[Json]:
    """Where the pod's volumes are seen."""
    claims = [
        {"name": f"claim-{index}", "mountPath": path}
        for index, path in enumerate(spec.volumes.values())
    ]
    return [
        *claims,
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]


def unprivileged() -> k8s.V1PodSecurityContext:
    """A pod that is not root, and whose volumes belong to its group where Kubernetes can see to it."""
    return k8s.V1PodSecurityContext(
        run_as_non_root=True,
        run_as_user=USER,
        run_as_group=USER,
        fs_group=USER,
        fs_group_change_policy="OnRootMismatch",
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    )


def confined() -> k8s.V1SecurityContext:
    """A container that can become nobody else, and writes only to its volumes."""
    return k8s.V1SecurityContext(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
    )
