"""What each request to the in-memory API server does to its state."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

from .kube_http import Request, Stream, error_event
from .kube_objects import ApiError, Kind, check, matcher, unknown_path
from .kube_store import Store

VERSION = {
    "major": "1",
    "minor": "33",
    "gitVersion": "v1.33.1",
    "gitCommit": "0" * 40,
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "go1.24.2",
    "compiler": "gc",
    "platform": "linux/amd64",
}
HEALTH = ("/readyz", "/livez", "/healthz")
SHOWN_WHEN_DELETED = ("pods", "services", "persistentvolumeclaims", "serviceaccounts")
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

Answer = tuple[int, Any]


def answer(store: Store, request: Request) -> Answer:
    """The status and the body for everything but streams, logs and questions about access.

    Raises: ApiError."""
    if not request.resource:
        return 200, discovery(store, request.path)
    kind, part = kind_of(store, request)
    verb = request.verb
    if verb == "list":
        return 200, listed(store, kind, request)
    if verb == "deletecollection":
        for obj in store.list(kind, request.namespace, matcher(kind, request.query)):
            store.delete(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        return 200, _success(kind, "", "")
    if verb == "create" and request.path.endswith(f"/{kind.plural}"):
        dry_run = request.query.get("dryRun") == "All"
        return 201, store.create(kind, request.namespace, _object(request), dry_run=dry_run)
    if verb not in ("get", "update", "patch", "delete"):
        raise ApiError(405, "the server does not allow this method on the requested resource")
    return 200, _one(store, kind, part, request)


def kind_of(store: Store, request: Request) -> tuple[Kind, str]:
    plural, _, part = request.resource.partition("/")
    kind = store.kind_of(plural, request.group, request.version)
    if part not in ("", "log") and not (part == "status" and kind.has_status):
        raise unknown_path()
    is_everywhere = not request.namespace and request.verb in ("list", "watch")
    if kind.namespaced != bool(request.namespace) and not is_everywhere:
        raise unknown_path()
    return kind, part


def _one(store: Store, kind: Kind, part: str, request: Request) -> dict:
    place = (kind, request.namespace, request.name)
    if request.verb == "get":
        return store.get(*place)
    if request.verb == "delete":
        return _deleted(store, kind, request)
    if request.verb == "patch":
        allowed = (MERGE,) if kind.is_custom else (MERGE, STRATEGIC)
        if request.content_type.split(";")[0] not in allowed:
            told = f"the body of the request was in an unknown format - accepted media types include: {allowed}"
            raise ApiError(415, told)
        return store.patch(*place, _object(request), part=part)
    obj = _object(request)
    check(kind, obj, request.namespace)
    if kind.is_custom and not obj["metadata"].get("resourceVersion"):
        raise ApiError(
            422, "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
        )
    return store.update(*place, obj, part=part)


def _deleted(store: Store, kind: Kind, request: Request) -> dict:
    options = request.body if isinstance(request.body, dict) else {}
    asked = {**options, **request.query}
    policy = asked.get("propagationPolicy", "Background")
    if policy not in ("Background", "Foreground", "Orphan"):
        raise ApiError(
            422, f"DeleteOptions is invalid: propagationPolicy: Unsupported value: {policy!r}"
        )
    grace = asked.get("gracePeriodSeconds")
    old = store.delete(
        kind,
        request.namespace,
        request.name,
        grace=None if grace is None else int(grace),
        preconditions=options.get("preconditions"),
        orphan=policy == "Orphan",
    )
    return (
        old
        if kind.plural in SHOWN_WHEN_DELETED
        else _success(kind, request.name, old["metadata"]["uid"])
    )


def _success(kind: Kind, name: str, uid: str) -> dict:
    details = {"name": name, "group": kind.group, "kind": kind.plural, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }


def _object(request: Request) -> dict:
    if not isinstance(request.body, dict):
        raise ApiError(400, "the object provided is unrecognized (must be of type JSON object)")
    return request.body


def listed(store: Store, kind: Kind, request: Request) -> dict:
    query, skip, version = request.query, 0, store.version
    if "continue" in query:
        version, skip = json.loads(base64.b64decode(query["continue"]))
        if version < store.oldest:
            raise ApiError(
                410,
                "The provided continue parameter is too old to display a consistent list result.",
            )
    with store.changed:
        found = store.list(kind, request.namespace, matcher(kind, query))
        version = version if "continue" in query else store.version
    meta: dict[str, Any] = {"resourceVersion": str(version)}
    limit = int(query.get("limit") or 0)
    page = found[skip : skip + limit] if limit else found[skip:]
    left = len(found) - skip - len(page)
    if left:
        meta["continue"] = base64.b64encode(
            json.dumps([version, skip + len(page)]).encode()
        ).decode()
        meta["remainingItemCount"] = left
    return {
        "kind": f"{kind.kind}List",
        "apiVersion": kind.api_version,
        "metadata": meta,
        "items": page,
    }


def watch(
    store: Store, kind: Kind, request: Request, pause: Callable[[Callable[[], bool]], bool]
) -> Stream:
    """The stream of a watch; `pause` waits for a condition, and says False when the watch's time is over."""
    fits = matcher(kind, request.query)
    asked = request.query.get("resourceVersion", "")
    with store.changed:
        first = [] if asked not in ("", "0") else store.list(kind, request.namespace, fits)
        start = store.version if asked in ("", "0") else int(asked)

    def parts() -> Iterator[str]:
        yield from (_event("ADDED", obj) for obj in first)
        seen = start
        while True:
            with store.changed:
                goes_on = pause(lambda after=seen: store.version > after)
                is_expired = seen < store.oldest
                events = [
                    event for event in store.events if event.version > seen and event.kind == kind
                ]
                seen = store.version
            if is_expired:
                yield error_event(
                    ApiError(410, f"too old resource version: {asked or start} ({store.oldest})")
                )
                return
            for event in events:
                if request.namespace in ("", event.obj["metadata"].get("namespace")) and fits(
                    event.obj
                ):
                    yield _event(event.type, event.obj)
            if not goes_on:
                return

    return Stream(content_type="application/json", parts=parts())


def _event(type_: str, obj: dict) -> str:
    return json.dumps({"type": type_, "object": obj}) + "\n"


def discovery(store: Store, path: str) -> Any:
    groups: dict[str, list[str]] = {}
    for kind in store.kinds:
        versions = groups.setdefault(kind.group, [])
        versions += [kind.version] * (kind.version not in versions)
    path = path.rstrip("/")
    parts = path.strip("/").split("/")
    if path == "/version":
        return VERSION
    if path in HEALTH:
        return "ok"
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        named = [_group(name, versions) for name, versions in groups.items() if name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}
    if parts[0] == "apis" and len(parts) == 2 and parts[1] in groups:
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(parts[1], groups[parts[1]])}
    group, version = (
        ("", "v1") if path == "/api/v1" else (parts[1:3] if len(parts) == 3 else ("", ""))
    )
    if version not in groups.get(group, []):
        raise unknown_path()
    return _resources(store, group, version)


def _group(name: str, versions: list[str]) -> dict:
    told = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": told, "preferredVersion": told[0]}


def _resources(store: Store, group: str, version: str) -> dict:
    verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    kinds = [kind for kind in store.kinds if (kind.group, kind.version) == (group, version)]
    found = [
        {
            "name": k.plural,
            "singularName": k.kind.lower(),
            "kind": k.kind,
            "namespaced": k.namespaced,
            "verbs": verbs,
        }
        for k in kinds
    ]
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": found}
