"""The rules of citeflow's Roles, which manifests/base/rbac.yaml grants and `doctor` checks.

A test compares them with the manifests and with the calls that the launchers, the reaper and the
platform (manifests/components/platform) make.
The launcher reads nodes too where it may, which no Role of a namespace can allow.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from citeflow.kubernetes.launchers import LAUNCHERS, Launcher

if TYPE_CHECKING:
    from kubernetes import client as k8s


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyRule:
    """One rule of a Role, as rbac.authorization.k8s.io/v1 has it."""

    group: str
    """API group; empty for the core API."""

    resource: str
    """Plural name, with a subresource behind a slash."""

    verbs: tuple[str, ...]

    names: tuple[str, ...] = ()
    """Names of the only objects that it is about; empty for all."""

    @property
    def name(self) -> str:
        """The resource as kubectl names it."""
        plural, slash, subresource = self.resource.partition("/")
        return (f"{plural}.{self.group}" if self.group else plural) + slash + subresource

    def attributes(self, namespace: str, verb: str) -> "k8s.V1ResourceAttributes":
        """Ask for one of the verbs, as an access review does."""
        from kubernetes import client as k8s

        resource, _, subresource = self.resource.partition("/")
        return k8s.V1ResourceAttributes(
            namespace=namespace,
            group=self.group,
            resource=resource,
            subresource=subresource or None,
            verb=verb,
        )


def launcher_rules(launchers: Iterable[Launcher]) -> list[PolicyRule]:
    """Return the rules that a train step needs to launch jobs through these launchers."""
    return [
        *(_job_rule(launcher, "get", "create", "patch", "delete") for launcher in launchers),
        PolicyRule(group="", resource="pods", verbs=("list",)),
        PolicyRule(group="", resource="pods/log", verbs=("get",)),
        PolicyRule(group="", resource="events", verbs=("list",)),
    ]


def _job_rule(launcher: Launcher, *verbs: str) -> PolicyRule:
    return PolicyRule(group=launcher.group, resource=launcher.plural, verbs=verbs)


LAUNCHER_ROLE = launcher_rules(LAUNCHERS.values())
"""The Role citeflow-launcher, of the service account that the steps of a pipeline run as."""

REAPER_ROLE = [
    *(_job_rule(launcher, "list", "delete") for launcher in LAUNCHERS.values()),
    PolicyRule(group="argoproj.io", resource="workflows", verbs=("list",)),
    PolicyRule(group="", resource="pods", verbs=("get",)),
]
"""The Role citeflow-reaper."""

PLATFORM_OF_CLUSTER = [
    PolicyRule(group="", resource="namespaces", verbs=("get", "create", "patch", "delete")),
    PolicyRule(
        group="kubeflow.org", resource="profiles", verbs=("get", "create", "patch", "delete")
    ),
    PolicyRule(
        group="rbac.authorization.k8s.io", resource="rolebindings", verbs=("create", "patch")
    ),
    PolicyRule(
        group="rbac.authorization.k8s.io",
        resource="clusterroles",
        verbs=("bind",),
        names=("citeflow-platform", "citeflow-launcher", "kubeflow-pipelines-edit"),
    ),
]
"""The ClusterRole citeflow-platform-tenants: to make namespaces, and to take its role in them."""

PLATFORM_ROLE = [
    PolicyRule(group="", resource="resourcequotas", verbs=("get", "create", "patch")),
    PolicyRule(group="", resource="limitranges", verbs=("create", "patch")),
    PolicyRule(group="", resource="persistentvolumeclaims", verbs=("get", "create", "patch")),
    PolicyRule(group="", resource="pods", verbs=("list",)),
    PolicyRule(group="", resource="pods/log", verbs=("get",)),
    PolicyRule(group="networking.k8s.io", resource="networkpolicies", verbs=("create", "patch")),
    PolicyRule(group="kueue.x-k8s.io", resource="localqueues", verbs=("create", "patch")),
    PolicyRule(
        group="coordination.k8s.io", resource="leases", verbs=("get", "create", "patch", "delete")
    ),
    PolicyRule(group="batch", resource="jobs", verbs=("get", "list", "create", "patch", "delete")),
    *(_job_rule(launcher, "list", "patch", "delete") for launcher in LAUNCHERS.values()),
]
"""The ClusterRole citeflow-platform, which the platform has in the namespaces of its users only."""
