"""The state of the in-memory API server: objects, their versions and events, garbage collection."""

import copy
import random
import string
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .kube_objects import ApiError, Kind, check, merged, timestamp, unknown_path

Key = tuple[Kind, str, str]


@dataclass(frozen=True, kw_only=True)
class Event:
    version: int
    type: str
    kind: Kind
    obj: dict


class Store:
    """Everything under one lock, `changed`, which is notified of every change."""

    def __init__(self, kinds: Iterable[Kind], namespaces: Iterable[str]) -> None:
        self.changed = threading.Condition()
        self.kinds = list(kinds)
        self.objects: dict[Key, dict] = {}
        self.version = 1000
        self.oldest = 0
        """Watches and continued lists from before this version are told 410."""
        self.events: list[Event] = []
        self.validators: dict[str, Callable[[dict], object]] = {}
        self.lingers: Callable[[dict], bool] = lambda pod: False
        """Whether a deleted pod stays, with a deletionTimestamp, until its kubelet has stopped it."""
        for name in namespaces:
            self.add_namespace(name)

    def kind_of(self, plural: str, group: str | None = None, version: str | None = None) -> Kind:
        for kind in self.kinds:
            is_named = (
                plural in (kind.plural, kind.kind) if group is None else plural == kind.plural
            )
            if is_named and group in (None, kind.group) and version in (None, kind.version):
                return kind
        raise unknown_path()

    def add_namespace(self, name: str) -> None:
        kind = self.kind_of("namespaces", "", "v1")
        meta = {"name": name, "labels": {"kubernetes.io/metadata.name": name}}
        obj = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": meta,
            "status": {"phase": "Active"},
        }
        with self.changed:
            if (kind, "", name) not in self.objects:
                self.create(kind, "", obj, status=True)

    def get(self, kind: Kind, namespace: str, name: str) -> dict:
        with self.changed:
            found = self.objects.get((kind, namespace, name))
            if found is None:
                raise ApiError(404, f'{kind.resource} "{name}" not found')
            return copy.deepcopy(found)

    def list(
        self, kind: Kind, namespace: str, fits: Callable[[dict], bool] = lambda obj: True
    ) -> list[dict]:
        """In the order of their names; of all namespaces if none is named."""
        with self.changed:
            keys = sorted((key for key in self.objects if key[0] == kind), key=lambda key: key[1:])
            found = [self.objects[key] for key in keys if namespace in ("", key[1])]
            return [copy.deepcopy(obj) for obj in found if fits(obj)]

    def create(
        self, kind: Kind, namespace: str, obj: dict, *, dry_run: bool = False, status: bool = False
    ) -> dict:
        check(kind, obj, namespace)
        new = copy.deepcopy(obj)
        meta = new["metadata"]
        with self.changed:
            self._need_namespace(kind, namespace)
            if not meta.get("name"):
                meta["name"] = meta["generateName"] + "".join(
                    random.choices(string.ascii_lowercase, k=5)
                )
            key = (kind, namespace, meta["name"])
            self._validate(kind, new)
            if key in self.objects:
                raise ApiError(
                    409, f'{kind.resource} "{meta["name"]}" already exists', reason="AlreadyExists"
                )
            meta.update(uid=str(uuid.uuid4()), creationTimestamp=timestamp(), generation=1)
            if kind.namespaced:
                meta["namespace"] = namespace
            if kind.has_status:
                at_first = {"phase": "Pending"} if kind.plural == "pods" else {}
                new["status"] = new.get("status", at_first) if status else at_first
            if not dry_run:
                self._write("ADDED", key, new)
                self.collect()
            return copy.deepcopy(new)

    def update(self, kind: Kind, namespace: str, name: str, obj: dict, *, part: str = "") -> dict:
        """Put `obj` in the place of the stored one; `part` is the subresource "status", "all" for both, or neither."""
        check(kind, obj, namespace)
        with self.changed:
            old = self.get(kind, namespace, name)
            self._check_identity(kind, old, obj)
            new = (
                {**old, "status": obj.get("status", {})} if part == "status" else copy.deepcopy(obj)
            )
            if not part and kind.has_status:
                new["status"] = old.get("status", {})
            for field in (
                "uid",
                "creationTimestamp",
                "generation",
                "deletionTimestamp",
                "namespace",
            ):
                if field in old["metadata"]:
                    new["metadata"][field] = old["metadata"][field]
            if new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
            self._validate(kind, new)
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            if new != old:
                self._write("MODIFIED", (kind, namespace, name), new)
                self.collect()
            return copy.deepcopy(new)

    def patch(self, kind: Kind, namespace: str, name: str, patch: dict, *, part: str = "") -> dict:
        with self.changed:
            old = self.get(kind, namespace, name)
            return self.update(kind, namespace, name, merged(old, patch), part=part)

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        grace: int | None = None,
        preconditions: dict | None = None,
        orphan: bool = False,
    ) -> dict:
        with self.changed:
            old = self.get(kind, namespace, name)
            for field, value in (preconditions or {}).items():
                if old["metadata"].get(field) != value:
                    told = f"the {field} in the precondition ({value}) does not match ({old['metadata'].get(field)})"
                    raise ApiError(
                        409, f'Operation cannot be fulfilled on {kind.resource} "{name}": {told}'
                    )
            key = (kind, namespace, name)
            if kind.plural == "pods" and grace != 0 and self.lingers(old):
                return self._mark_deleted(key, old)
            if orphan:
                self._release_dependents(old["metadata"]["uid"])
            self._drop(key)
            if kind.plural == "namespaces":
                for other in [other for other in self.objects if other[1] == name]:
                    self._drop(other)
            self.collect()
            return old

    def collect(self) -> None:
        """Delete every object none of whose owners exists, as the garbage collector does."""
        with self.changed:
            live = {(obj["metadata"]["uid"], key[1]) for key, obj in self.objects.items()}
            gone = [key for key, obj in self.objects.items() if _is_orphan(obj, key[1], live)]
            for key in gone:
                if key in self.objects:
                    self.delete(*key)

    def expire(self) -> None:
        """Forget the history, as a compaction does."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.changed.notify_all()

    def _write(self, type_: str, key: Key, obj: dict) -> None:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = obj
        self.events.append(
            Event(version=self.version, type=type_, kind=key[0], obj=copy.deepcopy(obj))
        )
        self.changed.notify_all()

    def _drop(self, key: Key) -> None:
        obj = self.objects[key]
        self._write("DELETED", key, obj)
        del self.objects[key]

    def _mark_deleted(self, key: Key, obj: dict) -> dict:
        if "deletionTimestamp" not in obj["metadata"]:
            obj["metadata"]["deletionTimestamp"] = timestamp()
            obj["metadata"]["deletionGracePeriodSeconds"] = obj["spec"].get(
                "terminationGracePeriodSeconds", 30
            )
            self._write("MODIFIED", key, obj)
        return copy.deepcopy(obj)

    def _release_dependents(self, uid: str) -> None:
        for key, obj in list(self.objects.items()):
            owners = obj["metadata"].get("ownerReferences") or []
            if any(owner["uid"] == uid for owner in owners):
                obj["metadata"]["ownerReferences"] = [
                    owner for owner in owners if owner["uid"] != uid
                ]
                self._write("MODIFIED", key, obj)

    def _need_namespace(self, kind: Kind, namespace: str) -> None:
        if kind.namespaced:
            self.get(self.kind_of("namespaces", "", "v1"), "", namespace)

    def _validate(self, kind: Kind, obj: dict) -> None:
        try:
            self.validators.get(kind.kind, lambda _: None)(copy.deepcopy(obj))
        except Exception as error:
            told = f'{kind.kind}.{kind.group} "{obj["metadata"]["name"]}" is invalid: {error}'
            raise ApiError(422, told) from error

    def _check_identity(self, kind: Kind, old: dict, new: dict) -> None:
        meta, name = new["metadata"], old["metadata"]["name"]
        if meta.get("name") != name:
            raise ApiError(400, "the name of the object does not match the name on the URL")
        if (
            meta.get("resourceVersion", old["metadata"]["resourceVersion"])
            != old["metadata"]["resourceVersion"]
        ):
            told = "the object has been modified; please apply your changes to the latest version and try again"
            raise ApiError(
                409, f'Operation cannot be fulfilled on {kind.resource} "{name}": {told}'
            )
        if meta.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            told = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {old['metadata']['uid']}"
            raise ApiError(
                409, f'Operation cannot be fulfilled on {kind.resource} "{name}": {told}'
            )


def _is_orphan(obj: dict, namespace: str, live: set[tuple[str, str]]) -> bool:
    owners = obj["metadata"].get("ownerReferences") or []
    is_owned = any((owner["uid"], place) in live for owner in owners for place in (namespace, ""))
    return bool(owners) and not is_owned and "deletionTimestamp" not in obj["metadata"]
