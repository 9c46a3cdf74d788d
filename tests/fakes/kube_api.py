"""An in-memory Kubernetes API server on loopback, which remembers every request and can be told to fail."""

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import kube_routes as routes
from .kube_faults import Fault, Faults
from .kube_http import Dropped, Request, Server, Stream, parse
from .kube_logs import IsOver, Logs, place_of
from .kube_objects import KINDS, ApiError, Kind, is_set
from .kube_store import Store

Callback = Callable[[int, Request, str], None]
ACCESS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class KubeApi(Faults):
    """`with KubeApi() as api:` serves at `api.url`; `without` takes kinds away, `kinds` adds some."""

    def __init__(
        self,
        *,
        namespaces: Iterable[str] = ("default", "kubeflow"),
        without: Iterable[str] = (),
        kinds: Iterable[Kind] = (),
    ) -> None:
        super().__init__()
        gone = set(without)
        known = [
            kind for kind in (*KINDS, *kinds) if not gone & {kind.plural, kind.group, kind.kind}
        ]
        self.store = Store(known, namespaces)
        self.changed = self.store.changed
        self.validators = self.store.validators
        self.logs = Logs(self.changed)
        self.requests: list[Request] = []
        self.refused: list[float] = []
        """When connections were refused, seconds of `time.monotonic`."""
        self.allows: Callable[[dict], bool] = lambda attributes: True
        """The answer to a SelfSubjectAccessReview with these resourceAttributes."""
        self.errors: list[Exception] = []
        """What went wrong in the server itself, which the end of the `with` raises."""
        self._callbacks: list[Callback] = []
        self._cuts = 0
        self._is_abrupt = True
        self._is_out = self._is_closing = False
        self._server = Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    def __enter__(self) -> "KubeApi":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self._is_closing = True
            self.changed.notify_all()
        self._server.shutdown()
        self._thread.join(10)
        self._server.end_connections()
        self._server.server_close()
        if self.errors:
            raise self.errors[0]

    # Reaching it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def client(self, **settings: Any) -> Any:
        """A `kubernetes.client.ApiClient` of its own; `settings` are attributes of its Configuration."""
        from kubernetes import client

        configuration = client.Configuration(host=self.url)
        for name, value in settings.items():
            setattr(configuration, name, value)
        return client.ApiClient(configuration)

    def write_kubeconfig(self, path: Path, namespace: str = "kubeflow") -> Path:
        context = {"cluster": "fake", "user": "fake", "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": "fake-token"}}],
            "contexts": [{"name": "fake", "context": context}],
        }
        path.write_text(json.dumps(content))
        return path

    # What tests do to the state, past HTTP

    def put(self, obj: dict) -> dict:
        """Create or replace an object with its status; its namespace is made if need be."""
        kind = self._kind(obj["kind"], obj["apiVersion"])
        meta = obj["metadata"]
        namespace = meta.get("namespace", "default") if kind.namespaced else ""
        with self.changed:
            if kind.namespaced:
                self.store.add_namespace(namespace)
            if (kind, namespace, meta.get("name")) in self.store.objects:
                return self.store.update(kind, namespace, meta["name"], obj, part="all")
            return self.store.create(kind, namespace, obj, status=True)

    def get(self, plural: str, namespace: str, name: str) -> dict | None:
        kind = self._kind(plural)
        with contextlib.suppress(ApiError):
            return self.store.get(kind, namespace, name)

    def list(self, plural: str, namespace: str = "") -> list[dict]:
        return self.store.list(self._kind(plural), namespace)

    def patch(self, plural: str, namespace: str, name: str, patch: dict) -> dict:
        """Merge into an object and its status alike."""
        return self.store.patch(self._kind(plural), namespace, name, patch, part="all")

    def remove(self, plural: str, namespace: str, name: str) -> None:
        """Delete at once, without a pod's grace; what it owned goes too."""
        self.store.delete(self._kind(plural), namespace, name, grace=0)

    def write_log(self, namespace: str, pod: str, text: str, container: str = "") -> None:
        with self.changed:
            self.logs.write(self.store.get(self._kind("pods"), namespace, pod), text, container)

    # What it was asked

    def verbs_used(self) -> set[tuple[str, str, str]]:
        """(group, resource, verb) of every request about a resource."""
        return {
            (seen.group, seen.resource, seen.verb) for seen in list(self.requests) if seen.resource
        }

    def on_request(self, callback: Callback) -> None:
        """Call back with (number, request, "before") and, when it took effect but is not answered, "after"."""
        self._callbacks.append(callback)

    # What goes wrong

    def outage(self) -> None:
        """From now on every connection is closed at once."""
        self._is_out = True
        self.cut_streams()
        self._server.end_connections()

    def recover(self) -> None:
        self._is_out = False

    def cut_streams(self, *, abruptly: bool = True) -> None:
        """End all open watches and followed logs, in the middle or as a server does whose time is over."""
        with self.changed:
            self._is_abrupt = abruptly
            self._cuts += 1
            self.changed.notify_all()

    def expire(self) -> None:
        """Send all open watches a 410 ERROR event, and refuse versions from before."""
        self.store.expire()

    # For the server

    def is_refused(self) -> bool:
        if self._is_out:
            self.refused.append(time.monotonic())
        return self._is_out or self._is_closing

    def answer(
        self, method: str, target: str, content_type: str, body: bytes
    ) -> Stream | tuple[int, Any, dict]:
        """Raises: Dropped."""
        if self._is_out:
            raise Dropped
        try:
            content = json.loads(body) if body else None
        except ValueError:
            content = body
        with self.changed:
            request = parse(len(self.requests) + 1, method, target, content_type, content)
            self.requests.append(request)
            fault = self.fault_for(request)
        self._tell(request, "before")
        reply = self._handle(request, fault)
        self._tell(request, "after")
        if isinstance(reply, Dropped):
            raise reply
        return reply

    def _handle(
        self, request: Request, fault: Fault | None
    ) -> Stream | tuple[int, Any, dict] | Dropped:
        try:
            if fault and not fault.handled:
                raise fault.error()
            reply = self._reply(request)
            if fault:
                raise fault.error()
            return reply
        except ApiError as error:
            return error.code, error.body, error.headers
        except Dropped as dropped:
            return dropped

    def _reply(self, request: Request) -> Stream | tuple[int, Any, dict]:
        if request.path == ACCESS and request.verb == "create":
            allowed = self.allows(request.body["spec"].get("resourceAttributes", {}))
            return 201, {**request.body, "status": {"allowed": allowed}}, {}
        if request.verb == "watch":
            kind, _ = routes.kind_of(self.store, request)
            return routes.watch(self.store, kind, request, self._pauser(request))
        if request.resource == "pods/log" and request.verb == "get":
            return self._log(request)
        return *routes.answer(self.store, request), {}

    def _log(self, request: Request) -> Stream | tuple[int, Any, dict]:
        pods, query = self._kind("pods"), request.query
        with self.changed:
            place = place_of(self.store.get(pods, request.namespace, request.name), query)
            if place is None:
                return 200, "", {}
            lines = self.logs.read(place, query)
        if is_set(query, "follow"):
            is_over = IsOver(place, self._pod, self._cut_checker())
            return Stream(content_type="text/plain", parts=self.logs.follow(place, query, is_over))
        return 200, "".join(line.shown(is_set(query, "timestamps")) for line in lines), {}

    def _pod(self, uid: str) -> dict | None:
        return next(
            (obj for obj in self.store.objects.values() if obj["metadata"]["uid"] == uid), None
        )

    def _cut_checker(self) -> Callable[[], bool]:
        """Whether the streams that are open now are to end. Raises: Dropped, if in the middle."""
        born = self._cuts

        def is_cut() -> bool:
            if self._is_closing or (self._cuts > born and self._is_abrupt):
                raise Dropped
            return self._cuts > born

        return is_cut

    def _pauser(self, request: Request) -> Callable[[Callable[[], bool]], bool]:
        is_cut = self._cut_checker()
        end = time.monotonic() + float(request.query.get("timeoutSeconds") or math.inf)

        def pause(is_ready: Callable[[], bool]) -> bool:
            left = min(60.0, max(0.0, end - time.monotonic()))
            self.changed.wait_for(lambda: is_ready() or is_cut(), timeout=left)
            return not is_cut() and time.monotonic() < end

        return pause

    def _tell(self, request: Request, phase: str) -> None:
        for callback in self._callbacks:
            callback(request.number, request, phase)

    def _kind(self, plural: str, api_version: str | None = None) -> Kind:
        if api_version is None:
            return self.store.kind_of(plural)
        group, _, version = api_version.rpartition("/")
        return next(
            k for k in self.store.kinds if (k.group, k.version, k.kind) == (group, version, plural)
        )
