"""Objects of a cluster as plain values: applied, read, listed, deleted.

`KubeClient` has methods for what a training needs. Here is the rest, the same for every kind.
"""

from dataclasses import dataclass

from citeflow.errors import ConfigError
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.job_status import KubeObject


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of object of the Kubernetes API."""

    name: str
    plural: str
    group: str = ""
    """API group; empty for the core API."""

    version: str = "v1"
    has_namespace: bool = True

    @property
    def api_version(self) -> str:
        """The field `apiVersion` of an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """Path of the API that has this kind."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str, name: str = "") -> str:
        """Return the path of an object, or of all objects without a name."""
        place = f"/namespaces/{namespace}" if self.has_namespace else ""
        return f"{self.root}{place}/{self.plural}" + (f"/{name}" if name else "")

    def object(self, name: str, **rest: object) -> KubeObject:
        """Return an object of this kind; `rest` is what follows its metadata."""
        return {
            "apiVersion": self.api_version,
            "kind": self.name,
            "metadata": {"name": name},
            **rest,
        }


def apply(client: KubeClient, kind: Kind, wanted: KubeObject) -> KubeObject:
    """Create an object in the client's namespace, or change what differs in the one that is there.

    Fields that other programs have set stay.

    Raises:
        ConfigError: the cluster refuses, or has no such kind.
    """
    return create(client, kind, wanted) or patch(client, kind, wanted["metadata"]["name"], wanted)


def create(client: KubeClient, kind: Kind, wanted: KubeObject) -> KubeObject | None:
    """Create an object; return None if there is one of its name already.

    Raises:
        ConfigError: the cluster refuses, or has no such kind or namespace.
    """
    path = kind.path(client.namespace)
    return client.request("POST", path, body=wanted, absent=(409,)) or None


def patch(client: KubeClient, kind: Kind, name: str, change: KubeObject) -> KubeObject:
    """Merge a change into an object.

    Raises:
        ConfigError: there is no such object, it has changed since the resourceVersion that the
            change names, or the cluster refuses.
    """
    path = kind.path(client.namespace, name)
    changed = client.request("PATCH", path, body=change, absent=(404, 409))
    if not changed:
        raise ConfigError(f"{kind.name} is gone, or was changed by another", name)
    return changed


def get(client: KubeClient, kind: Kind, name: str) -> KubeObject | None:
    """Return an object, or None if there is none."""
    return client.request("GET", kind.path(client.namespace, name), absent=(404,)) or None


def list_all(client: KubeClient, kind: Kind, selector: str = "") -> list[KubeObject]:
    """List the objects of a kind with certain labels; none where the cluster has no such kind."""
    query = {"labelSelector": selector} if selector else {}
    path = kind.path(client.namespace)
    found: list[KubeObject] = client.request("GET", path, query=query, absent=(404,)).get(
        "items", []
    )
    return found


def delete(client: KubeClient, kind: Kind, name: str) -> bool:
    """Delete an object and, after it, what it owns; return False if there is none."""
    options = {"propagationPolicy": "Background"}
    path = kind.path(client.namespace, name)
    return bool(client.request("DELETE", path, body=options, absent=(404,)))


def is_served(client: KubeClient, kind: Kind) -> bool:
    """Tell whether the cluster has a kind."""
    found = client.request("GET", kind.root, absent=(404,)).get("resources", [])
    return any(resource["name"] == kind.plural for resource in found)
