"""The objects that make up the environment of a user: a namespace with a quota, and what guards it.

Where the cluster has Kubeflow's Profiles, the namespace and its quota are a Profile's, and runs are
pipelines. Elsewhere they are plain objects, and each run is a Job of its own.
"""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from citeflow.kubernetes.job_spec import CLAIM, IMAGE, MOUNT, USER, Quantity
from citeflow.kubernetes.job_status import KubeObject
from citeflow.kubernetes.objects import Kind
from citeflow.kubernetes.pod_template import NO_SIDECAR
from citeflow.utils.records import Int, Record, Str

PROFILE = Kind(name="Profile", plural="profiles", group="kubeflow.org", has_namespace=False)
NAMESPACE = Kind(name="Namespace", plural="namespaces", has_namespace=False)
QUOTA = Kind(name="ResourceQuota", plural="resourcequotas")
LIMITS = Kind(name="LimitRange", plural="limitranges")
CLAIM_KIND = Kind(name="PersistentVolumeClaim", plural="persistentvolumeclaims")
JOB = Kind(name="Job", plural="jobs", group="batch")
BINDING = Kind(name="RoleBinding", plural="rolebindings", group="rbac.authorization.k8s.io")
POLICY = Kind(name="NetworkPolicy", plural="networkpolicies", group="networking.k8s.io")
QUEUE = Kind(name="LocalQueue", plural="localqueues", group="kueue.x-k8s.io", version="v1beta1")

ENVIRONMENT = "citeflow"
"""Name of a user's quota, limits and queue."""

PROFILE_QUOTA = "kf-resource-quota"
"""Name of the ResourceQuota that Kubeflow's controller makes of a Profile's."""

LABELS = {"app.kubernetes.io/part-of": "citeflow", "app.kubernetes.io/managed-by": "citeflow"}
OWNER = "citeflow.org/user"
"""Annotation with the user whose environment it is."""

ACCOUNT = "citeflow-platform"
"""Service account of the platform, and the role that it has in each environment."""

EDITOR = "default-editor"
"""Service account of the pipelines in the namespace of a Profile."""

LAUNCHER = "citeflow-launcher"
"""Role of the train step, as manifests/base/rbac.yaml has it for one namespace."""

PIPELINES = "kubeflow-pipelines-edit"
"""Kubeflow's own role for those who may run pipelines in a namespace."""

MAX_PODS = 200

_PREFIX = re.compile(r"[a-z][-a-z0-9]{0,30}-")
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
"""Addresses of the cluster itself, of its nodes and of the cloud's metadata."""


class Size(Record):
    """Amounts that an environment may ask for together, and its volume."""

    cores: Int = Field(ge=1)
    memory: Quantity
    disk: Quantity


def _check_prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError("must be a begin of names, of a-z, 0-9 and -, such as citeflow-user-")
    return text


class EnvironmentSettings(Record):
    """The environments of a cluster."""

    prefix: Annotated[Str, AfterValidator(_check_prefix)] = "citeflow-user-"
    """Begin of the names of their namespaces; the rights of the platform end there."""

    sizes: dict[str, Size] = Field(
        default_factory=lambda: {
            "S": Size(cores=4, memory="16Gi", disk="20Gi"),
            "M": Size(cores=8, memory="32Gi", disk="100Gi"),
            "L": Size(cores=32, memory="128Gi", disk="500Gi"),
        }
    )
    """Sizes by name, the smallest first."""

    storage_class: Str = ""
    """Class of the claims (ReadWriteMany); the cluster's default if empty."""

    cluster_queue: Str = ""
    """Kueue's ClusterQueue behind the queue of each environment; empty makes no queue."""

    profile_owner: Str = "{user}"
    """Name by which Kubeflow knows a user, such as {user}@example.org."""

    image: Str = IMAGE.replace("citeflow-train", "citeflow-step")
    """Image of the pods that run a whole pipeline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """A user of the platform, and the namespace that is theirs."""

    user: str
    namespace: str
    platform: str
    """Namespace of the platform."""

    @property
    def metadata(self) -> KubeObject:
        """Labels and annotations of what is the tenant's."""
        return {"labels": dict(LABELS), "annotations": {OWNER: self.user}}


def profile(tenant: Tenant, size: Size, settings: EnvironmentSettings) -> KubeObject:
    """Render the Profile of a user, which brings the namespace, the quota and service accounts."""
    name = settings.profile_owner.format(user=tenant.user)
    spec = {"owner": {"kind": "User", "name": name}, "resourceQuotaSpec": {"hard": hard(size)}}
    return _owned(tenant, PROFILE.object(tenant.namespace, spec=spec))


def namespace(tenant: Tenant) -> KubeObject:
    """Render the namespace of a user, whose pods have to fit `restricted`."""
    made = _owned(tenant, NAMESPACE.object(tenant.namespace))
    for mode in ("enforce", "audit", "warn"):
        made["metadata"]["labels"] |= {
            f"pod-security.kubernetes.io/{mode}": "restricted",
            f"pod-security.kubernetes.io/{mode}-version": "latest",
        }
    return made


def hard(size: Size) -> dict[str, str]:
    """Return the limits of a quota.

    They are on requests, by which pods get their nodes: the steps of a pipeline may use more while
    nobody else does, and the pods of a job never do.
    """
    return {
        "requests.cpu": str(size.cores),
        "requests.memory": size.memory,
        "requests.storage": size.disk,
        "pods": str(MAX_PODS),
    }


def quota(tenant: Tenant, size: Size) -> KubeObject:
    """Render the quota of a namespace without a Profile."""
    return _owned(tenant, QUOTA.object(ENVIRONMENT, spec={"hard": hard(size)}))


def limits(tenant: Tenant) -> KubeObject:
    """Render what a container has that asks for nothing: under a quota it would be refused."""
    limit = {
        "type": "Container",
        "default": {"cpu": "500m", "memory": "512Mi"},
        "defaultRequest": {"cpu": "20m", "memory": "64Mi"},
    }
    return _owned(tenant, LIMITS.object(ENVIRONMENT, spec={"limits": [limit]}))


def platform_binding(tenant: Tenant) -> KubeObject:
    """Render what gives the platform its rights in the namespace; all else needs it."""
    return _binding(tenant, ACCOUNT, ACCOUNT, {"name": ACCOUNT, "namespace": tenant.platform})


def profile_bindings(tenant: Tenant) -> list[KubeObject]:
    """Render the right to launch jobs, of the pipelines, and that to run pipelines, ours."""
    editor = {"name": EDITOR, "namespace": tenant.namespace}
    platform = {"name": ACCOUNT, "namespace": tenant.platform}
    return [
        _binding(tenant, LAUNCHER, LAUNCHER, editor),
        _binding(tenant, "citeflow-pipelines", PIPELINES, platform),
    ]


def claim(tenant: Tenant, size: Size, settings: EnvironmentSettings) -> KubeObject:
    """Render the claim on the volume that all pods of the user share."""
    spec: KubeObject = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": size.disk}},
    }
    if settings.storage_class:
        spec["storageClassName"] = settings.storage_class
    return _owned(tenant, CLAIM_KIND.object(CLAIM, spec=spec))


def volume_job(tenant: Tenant, settings: EnvironmentSettings) -> KubeObject:
    """Render the first pod that mounts the volume, as in manifests/base/volume.yaml.

    Some storage is bound only then, and given to the group of the pods.
    """
    name = "citeflow-volume"
    labels = {**LABELS, "app.kubernetes.io/component": "volume", **NO_SIDECAR}
    amounts = {
        "requests": {"cpu": "10m", "memory": "16Mi"},
        "limits": {"cpu": "100m", "memory": "64Mi"},
    }
    container = {
        "name": "volume",
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["mkdir", "-p", "-v", f"{MOUNT}/logs", f"{MOUNT}/runs", f"{MOUNT}/uploads"],
        "resources": amounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": MOUNT}],
    }
    user = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            **user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}],
    }
    template = {"metadata": {"labels": labels, "annotations": dict(NO_SIDECAR)}, "spec": pod}
    spec = {"activeDeadlineSeconds": 1800, "backoffLimit": 2, "template": template}
    return _owned(tenant, JOB.object(name, spec=spec))


def policies(tenant: Tenant, *, is_profile: bool) -> list[KubeObject]:
    """Render who may reach whom: nobody a pod of the user but the workers of a job each other.

    Steps of a pipeline keep their egress: they talk to Kubeflow Pipelines and to the API server.
    Pods of a namespace without a Profile reach the internet for their data, and nothing nearer.
    """
    part = {"matchLabels": {"app.kubernetes.io/part-of": "citeflow"}}
    everyone = part if is_profile else {}
    labels = {**LABELS, "app.kubernetes.io/component": "train"}
    workers = {"podSelector": {"matchLabels": labels}}
    made = [
        POLICY.object(
            "citeflow-deny-ingress", spec={"podSelector": everyone, "policyTypes": ["Ingress"]}
        ),
        POLICY.object(
            "citeflow-workers",
            spec={
                **workers,
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [workers]}],
                "egress": [{"to": [workers]}, _dns(), _trainer()],
            },
        ),
    ]
    if not is_profile:
        internet = {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(PRIVATE)}}
        ports = [{"protocol": "TCP", "port": port} for port in (80, 443)]
        egress = [{"to": [internet], "ports": ports}, _dns()]
        spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": egress}
        made.append(POLICY.object("citeflow-egress", spec=spec))
    return [_owned(tenant, each) for each in made]


def queue(tenant: Tenant, settings: EnvironmentSettings) -> KubeObject:
    """Render Kueue's queue, in which the jobs of the user wait for their share of the cluster."""
    return _owned(tenant, QUEUE.object(ENVIRONMENT, spec={"clusterQueue": settings.cluster_queue}))


def _owned(tenant: Tenant, thing: KubeObject) -> KubeObject:
    return {**thing, "metadata": {**thing["metadata"], **tenant.metadata}}


def _binding(tenant: Tenant, name: str, role: str, account: dict[str, str]) -> KubeObject:
    made = BINDING.object(
        name,
        roleRef={"apiGroup": BINDING.group, "kind": "ClusterRole", "name": role},
        subjects=[{"kind": "ServiceAccount", **account}],
    )
    return _owned(tenant, made)


def _dns() -> KubeObject:
    """Return leave to reach the cluster's DNS, or its cache on the node, a link-local address."""
    kube_system = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    dns = {
        "namespaceSelector": kube_system,
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {"to": [dns, {"ipBlock": {"cidr": "169.254.0.0/16"}}], "ports": ports}


def _trainer() -> KubeObject:
    """Return leave to reach Kubeflow Trainer's manager, which takes a TrainJob's progress."""
    labels = {
        "app.kubernetes.io/part-of": "kubeflow",
        "app.kubernetes.io/component": "manager",
    }
    manager = {"namespaceSelector": {}, "podSelector": {"matchLabels": labels}}
    return {"to": [manager], "ports": [{"protocol": "TCP", "port": 10443}]}
