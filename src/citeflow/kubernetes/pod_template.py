"""The pods of a job, the same for every kind of it: command, resources, volumes, restrictions.

Every pod runs one torchrun. torchrun takes all that it must know from its arguments, which precede
the PET_* variables that the operators set: so each kind of job, under any version of an operator,
forms the process group in the same way. The pods meet at the store of pod 0 (c10d rendezvous), and
when a worker dies all of them start their workers again, from the checkpoint.
"""

import math

from kubernetes import client as k8s

from citeflow.kubernetes.identity import JobIdentity
from citeflow.kubernetes.job_spec import USER, JobSpec, quantity
from citeflow.kubernetes.job_status import KubeObject
from citeflow.utils.system import (
    MALLOC_TUNABLES_VARIABLE,
    METRICS_PORT_VARIABLE,
    SAFE_PATH,
    TORCHRUN_VARIABLES,
    malloc_tunables,
)

RENDEZVOUS_PORT = 23456
"""The training operator's own port, which its services and network policies know."""

METRICS_PORT = 9464
"""Port that Prometheus scrapes, as in manifests/components/monitoring."""

JOIN_TIMEOUT_S = 900
"""Longest wait for the other pods: above the kubelet's longest pause between restarts, 300 s."""

KEEP_ALIVE_S = 5
"""Time between two signs of life of a pod's torchrun. Each is a write to a state that all of them
share, so that signs in quick succession get into each other's way where there are many pods."""

LOST_SIGNS = 2
"""Signs of life that a torchrun may miss before its place is free for a new pod, which waits until
then. Nodes whose clocks differ by more than the product lose each other."""

TERMINATION_GRACE_S = 60
"""Time between SIGTERM and SIGKILL; torchrun gives its workers 30 s of it to save."""

NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
"""A sidecar would cut the workers' connections, and never end. Older istio reads the annotation."""


def pod_labels(identity: JobIdentity) -> dict[str, str]:
    """Return the labels of a pod: those of its job, and the one that keeps sidecars away."""
    return {**identity.labels, **NO_SIDECAR}


def pod_spec(spec: JobSpec) -> k8s.V1PodSpec:
    """Return a pod without its container."""
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
        priority_class_name=spec.priority_class or None,
        automount_service_account_token=False,
        enable_service_links=False,
        # Or torchrun would be PID 1, which no signal ends unless it has a handler.
        share_process_namespace=True,
        termination_grace_period_seconds=TERMINATION_GRACE_S,
        security_context=pod_security_context(),
    )


def torchrun(spec: JobSpec, identity: JobIdentity, host: str) -> list[str]:
    """Return the command of a pod; `host` is the name of pod 0, where all of them meet."""
    return [
        "python3",
        "-m",
        "citeflow.training.torchrun",
        f"--nnodes={spec.workers}",
        f"--nproc-per-node={spec.processes}",
        f"--max-restarts={spec.restarts}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={host}:{RENDEZVOUS_PORT}",
        f"--rdzv-id={identity.name}",
        f"--rdzv-conf={_rendezvous()}",
        "--local-addr=$(POD_IP)",
        "-m",
        "citeflow.training.worker",
        identity.job_file,
    ]


def _rendezvous() -> str:
    conf = {
        "join_timeout": JOIN_TIMEOUT_S,
        "read_timeout": JOIN_TIMEOUT_S,
        "keep_alive_interval": KEEP_ALIVE_S,
        "keep_alive_max_attempt": LOST_SIGNS,
    }
    return ",".join(f"{name}={value}" for name, value in conf.items())


def environment(spec: JobSpec) -> list[KubeObject]:
    """Return the environment variables of a worker."""
    threads = max(1, math.floor(quantity(spec.cpu)) // spec.processes)
    values = {
        "HOME": "/tmp",
        "MPLCONFIGDIR": "/tmp/matplotlib",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",
        "PYTHONUNBUFFERED": "1",
        **SAFE_PATH,
        "OMP_NUM_THREADS": str(threads),
        **TORCHRUN_VARIABLES,
        MALLOC_TUNABLES_VARIABLE: malloc_tunables(),
        METRICS_PORT_VARIABLE: str(METRICS_PORT),
    }
    # $(POD_IP) in an argument is expanded only from variables that precede it.
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return [address, *({"name": name, "value": value} for name, value in values.items())]


def ports() -> list[k8s.V1ContainerPort]:
    """Return the named ports of a worker."""
    named = {"pytorchjob-port": RENDEZVOUS_PORT, "metrics": METRICS_PORT}
    return [k8s.V1ContainerPort(name=name, container_port=port) for name, port in named.items()]


def resources(spec: JobSpec) -> KubeObject:
    """Return the resources of a container: requests that are limits too."""
    return {"requests": spec.requests, "limits": spec.requests}


def volume_mounts(spec: JobSpec) -> list[KubeObject]:
    """Return the volume mounts of a container."""
    claims = [
        {"name": f"claim-{index}", "mountPath": path}
        for index, path in enumerate(spec.volumes.values())
    ]
    return [
        *claims,
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]


def pod_security_context() -> k8s.V1PodSecurityContext:
    """Return the context of a pod that is not root and whose volumes belong to its group."""
    return k8s.V1PodSecurityContext(
        run_as_non_root=True,
        run_as_user=USER,
        run_as_group=USER,
        fs_group=USER,
        fs_group_change_policy="OnRootMismatch",
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    )


def container_security_context() -> k8s.V1SecurityContext:
    """Return the context of a container without privileges that writes only to its volumes."""
    return k8s.V1SecurityContext(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
    )
