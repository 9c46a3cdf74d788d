"""What citeflow may do in its namespace: the rules of the Roles in manifests/base/rbac.yaml, which `doctor` asks for.

A test compares this with the Roles, and with the calls that the launcher and the reaper make.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Right:
    """One rule of a Role."""

    group: str
    """API group; empty for Kubernetes' core."""

    resource: str
    """Plural name, a subresource behind a slash."""

    verbs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The resource as kubectl names it."""
        plural, slash, part = self.resource.partition("/")
        return (f"{plural}.{self.group}" if self.group else plural) + slash + part

    def attributes(self, verb: str, namespace: str) -> dict[str, Any]:
        """What an access review asks about one of the verbs."""
        plural, _, part = self.resource.partition("/")
        asked = {"namespace": namespace, "group": self.group, "resource": plural, "verb": verb}
        return {**asked, "subresource": part} if part else asked


LAUNCHER = (
    Right(group="kubeflow.org", resource="pytorchjobs", verbs=("get", "create", "patch", "delete")),
    Right(
        group="trainer.kubeflow.org",
        resource="trainjobs",
        verbs=("get", "create", "patch", "delete"),
    ),
    Right(group="", resource="pods", verbs=("list",)),
    Right(group="", resource="pods/log", verbs=("get",)),
)
"""The Role citeflow-launcher, of the account that the steps of a pipeline run as."""

REAPER = (
    Right(group="kubeflow.org", resource="pytorchjobs", verbs=("list", "delete")),
    Right(group="trainer.kubeflow.org", resource="trainjobs", verbs=("list", "delete")),
    Right(group="argoproj.io", resource="workflows", verbs=("list",)),
    Right(group="", resource="pods", verbs=("get",)),
)
"""The Role citeflow-reaper."""
