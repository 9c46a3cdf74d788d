"""What the in-memory API server knows about Kubernetes objects: kinds, names, selectors, merging, errors."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
FIELDS = {"metadata.name", "metadata.namespace"}
POD_FIELDS = FIELDS | {"spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP"}


@dataclass(frozen=True, kw_only=True)
class Kind:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    has_status: bool = True
    """Status is a subresource of its own, which a plain write leaves as it is."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As error messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def is_custom(self) -> bool:
        return "." in self.group and not self.group.endswith(".k8s.io")


def _kinds(group: str, version: str, names: str, **traits: bool) -> list[Kind]:
    pairs = [name.split(":") for name in names.split()]
    return [
        Kind(group=group, version=version, plural=plural, kind=kind, **traits)
        for plural, kind in pairs
    ]


KINDS = [
    *_kinds(
        "",
        "v1",
        "pods:Pod services:Service persistentvolumeclaims:PersistentVolumeClaim events:Event",
    ),
    *_kinds(
        "",
        "v1",
        "serviceaccounts:ServiceAccount configmaps:ConfigMap secrets:Secret",
        has_status=False,
    ),
    *_kinds(
        "",
        "v1",
        "namespaces:Namespace nodes:Node persistentvolumes:PersistentVolume",
        namespaced=False,
    ),
    *_kinds("apps", "v1", "deployments:Deployment"),
    *_kinds("batch", "v1", "jobs:Job cronjobs:CronJob"),
    *_kinds("networking.k8s.io", "v1", "networkpolicies:NetworkPolicy", has_status=False),
    *_kinds(
        "rbac.authorization.k8s.io", "v1", "roles:Role rolebindings:RoleBinding", has_status=False
    ),
    *_kinds(
        "storage.k8s.io", "v1", "storageclasses:StorageClass", namespaced=False, has_status=False
    ),
    *_kinds("kubeflow.org", "v1", "pytorchjobs:PyTorchJob"),
    *_kinds(
        "trainer.kubeflow.org", "v1alpha1", "trainjobs:TrainJob trainingruntimes:TrainingRuntime"
    ),
    *_kinds(
        "trainer.kubeflow.org",
        "v1alpha1",
        "clustertrainingruntimes:ClusterTrainingRuntime",
        namespaced=False,
    ),
    *_kinds("tensorboard.kubeflow.org", "v1alpha1", "tensorboards:Tensorboard"),
    *_kinds(
        "argoproj.io", "v1alpha1", "workflows:Workflow cronworkflows:CronWorkflow", has_status=False
    ),
]


class ApiError(Exception):
    """An answer that is not a success."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "",
        headers: dict[str, str] | None = None,
        plain: bool = False,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.headers, self.plain = code, message, headers or {}, plain
        self.reason = reason or REASONS.get(code, "")

    @property
    def body(self) -> dict | str:
        return (
            f"{self.message}\n" if self.plain else status_of(self.code, self.message, self.reason)
        )


def status_of(code: int, message: str, reason: str) -> dict:
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**head, "message": message, "reason": reason, "details": {}, "code": code}


def unknown_path() -> ApiError:
    """What a server says of a path or a kind that it does not have; client-go puts its own words in place of these."""
    return ApiError(404, "404 page not found", plain=True)


def is_set(query: dict[str, str], name: str) -> bool:
    """Whether a query says yes, as Kubernetes reads it: the Python client writes True, others true or 1."""
    return name in query and query[name].lower() not in ("false", "0")


def timestamp(when: datetime | None = None) -> str:
    """Whole seconds, as Kubernetes writes them."""
    return (when or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def check(kind: Kind, obj: object, namespace: str) -> None:
    """Refuse what a real server refuses of any kind."""
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata", {}), dict):
        raise ApiError(400, "the body is not an object with metadata")
    if (obj.get("apiVersion"), obj.get("kind")) != (kind.api_version, kind.kind):
        told = f"{obj.get('kind')!r} in version {obj.get('apiVersion')!r}"
        raise ApiError(400, f"{told} cannot be handled as a {kind.kind} of {kind.api_version}")
    if kind.namespaced and obj.get("metadata", {}).get("namespace", namespace) != namespace:
        raise ApiError(
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        )
    _check_metadata(kind, obj.get("metadata", {}))


def _check_metadata(kind: Kind, meta: dict) -> None:
    name = meta.get("name") or f"{meta.get('generateName') or ''}xxxxx"
    if not meta.get("name") and not meta.get("generateName"):
        raise ApiError(
            422,
            f"{kind.kind} is invalid: metadata.name: Required value: name or generateName is required",
        )
    pattern = DNS_LABEL if kind.plural == "services" else DNS_SUBDOMAIN
    if not isinstance(name, str) or not pattern.fullmatch(name) or len(name) > 253:
        raise ApiError(422, f'{kind.kind} "{name}" is invalid: metadata.name: Invalid value')
    for field in ("labels", "annotations"):
        _check_labels(kind, name, field, meta.get(field) or {})
    for owner in meta.get("ownerReferences") or []:
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                what = f"metadata.ownerReferences.{field}: Invalid value: must not be empty"
                raise ApiError(422, f'{kind.kind} "{name}" is invalid: {what}')


def _check_labels(kind: Kind, name: str, field: str, labels: dict) -> None:
    for key, value in labels.items():
        if not isinstance(value, str):
            raise ApiError(
                400, f"{kind.kind} {name}: metadata.{field}: cannot unmarshal {key} into a string"
            )
        is_bad_value = field == "labels" and (len(value) > 63 or not LABEL_VALUE.fullmatch(value))
        if is_bad_value or not LABEL_KEY.fullmatch(key):
            raise ApiError(
                422,
                f'{kind.kind} "{name}" is invalid: metadata.{field}: Invalid value: {key}={value}',
            )


def merged(old: object, patch: object) -> object:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value)
    return new


def matcher(kind: Kind, query: dict[str, str]) -> Callable[[dict], bool]:
    """The test that a list's or a watch's selectors put to an object."""
    labels = [_label_term(term) for term in _terms(query.get("labelSelector", ""))]
    fields = [_field_term(kind, term) for term in _terms(query.get("fieldSelector", ""))]
    return lambda obj: (
        all(fits(obj["metadata"].get("labels") or {}) for fits in labels)
        and all(fits(obj) for fits in fields)
    )


def _terms(selector: str) -> list[str]:
    return [term.strip() for term in re.split(r",(?![^(]*\))", selector) if term.strip()]


def _label_term(term: str) -> Callable[[dict], bool]:
    if found := re.fullmatch(r"(\S+)\s+(in|notin)\s+\((.*)\)", term):
        key, how, text = found.groups()
        values = {value.strip() for value in text.split(",")}
        return lambda labels: (labels.get(key) in values) == (how == "in")
    if found := re.fullmatch(r"([^\s!=]+)\s*(==|=|!=)\s*(\S*)", term):
        key, how, value = found.groups()
        return lambda labels: (labels.get(key) == value) == (how != "!=")
    if found := re.fullmatch(r"(!?)(\S+)", term):
        negated, key = found.groups()
        return lambda labels: (key in labels) == (not negated)
    raise ApiError(400, f"unable to parse requirement: {term}")


def _field_term(kind: Kind, term: str) -> Callable[[dict], bool]:
    found = re.fullmatch(r"([\w.]+)(==|=|!=)(\S*)", term)
    if not found or found[1] not in (POD_FIELDS if kind.plural == "pods" else FIELDS):
        raise ApiError(400, f"field label not supported: {term}")
    path, how, value = found.groups()
    return lambda obj: (_at(obj, path) == value) == (how != "!=")


def _at(obj: dict, path: str) -> str:
    for part in path.split("."):
        obj = obj.get(part) or {}
    return obj or ""
