"""An API server of Kubernetes in memory, on loopback, that remembers requests and can fail.

It answers what citeflow asks, as real servers did (recorded/).
"""

import base64
import contextlib
import copy
import hashlib
import json
import re
import socket
import threading
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

KINDS = {
    "pods": ("v1", "Pod"),
    "configmaps": ("v1", "ConfigMap"),
    "services": ("v1", "Service"),
    "namespaces": ("v1", "Namespace"),
    "nodes": ("v1", "Node"),
    "persistentvolumeclaims": ("v1", "PersistentVolumeClaim"),
    "resourcequotas": ("v1", "ResourceQuota"),
    "limitranges": ("v1", "LimitRange"),
    "events": ("v1", "Event"),
    "cronjobs": ("batch/v1", "CronJob"),
    "jobs": ("batch/v1", "Job"),
    "deployments": ("apps/v1", "Deployment"),
    "leases": ("coordination.k8s.io/v1", "Lease"),
    "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy"),
    "rolebindings": ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    "profiles": ("kubeflow.org/v1", "Profile"),
    "localqueues": ("kueue.x-k8s.io/v1beta1", "LocalQueue"),
    "priorityclasses": ("scheduling.k8s.io/v1", "PriorityClass"),
    "pytorchjobs": ("kubeflow.org/v1", "PyTorchJob"),
    "trainjobs": ("trainer.kubeflow.org/v1alpha1", "TrainJob"),
    "rayjobs": ("ray.io/v1", "RayJob"),
    "clustertrainingruntimes": ("trainer.kubeflow.org/v1alpha1", "ClusterTrainingRuntime"),
    "workflows": ("argoproj.io/v1alpha1", "Workflow"),
    "tensorboards": ("tensorboard.kubeflow.org/v1alpha1", "Tensorboard"),
}
CLUSTER_SCOPED = {
    "namespaces",
    "nodes",
    "clustertrainingruntimes",
    "priorityclasses",
    "profiles",
}
REASONS = {400: "BadRequest", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid"}
VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)
SERVICE = re.compile(r"/api/v1/namespaces/kubeflow/services/([^/]+)/proxy(/.*)")
EXEC = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/exec\?(.*)")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request, as RBAC sees it where it is about a resource."""

    number: int
    path: str
    query: dict
    body: object
    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""


class ApiError(Exception):
    """An answer that is not a success."""

    def __init__(self, status, message, headers=None):
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        # A server that is too busy answers in plain text.
        self.body = message if status == 429 else status_object(status, message)


class DroppedError(Exception):
    """The connection ends here, without another byte."""


@dataclass(kw_only=True)
class Fault:
    """Trouble for the next requests of a kind."""

    error: object
    times: float
    handled: bool
    """Whether the request takes effect before it fails."""
    selected: dict
    fired: int = 0

    def strikes(self, request):
        fits = all(getattr(request, key) == value for key, value in self.selected.items())
        if not fits or self.fired >= self.times:
            return False
        self.fired += 1
        return True


def status_object(code, message):
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**head, "message": message, "reason": REASONS.get(code, ""), "code": code}


def timestamp(when=None):
    return (when or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(old, patch):
    """JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merge(new.get(key), value)
    return new


def matches(selector, labels):
    """Evaluate a label selector of the forms `a=b` and `a in (b,c)`."""
    for term in filter(None, re.split(r",(?![^(]*\))", selector)):
        key, values = re.fullmatch(r"([^\s=]+)(?:=| in )\(?([^)]*)\)?", term).groups()
        if labels.get(key) not in values.split(","):
            return False
    return True


@dataclass(kw_only=True)
class Store:
    """The objects of a cluster, guarded by `changed`."""

    kinds: dict
    objects: dict = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    version: int = 1000

    def find(self, plural, namespace, name):
        if plural not in self.kinds:
            raise ApiError(404, "404 page not found")
        key = (plural, "" if plural in CLUSTER_SCOPED else namespace, name)
        if key not in self.objects:
            group = self.kinds[plural][0].rpartition("/")[0]
            resource = f"{plural}.{group}" if group else plural
            raise ApiError(404, f'{resource} "{name}" not found')
        return key

    def get(self, plural, namespace, name):
        with self.changed:
            return copy.deepcopy(self.objects[self.find(plural, namespace, name)])

    def list(self, plural, namespace="", selector=""):
        if plural not in self.kinds:
            raise ApiError(404, "404 page not found")
        with self.changed:
            return [
                copy.deepcopy(obj)
                for (kind, space, _), obj in sorted(self.objects.items())
                if kind == plural
                and namespace in ("", space)
                and matches(selector, obj["metadata"].get("labels") or {})
            ]

    def create(self, plural, namespace, obj, *, status=False):
        if plural not in self.kinds:
            raise ApiError(404, "404 page not found")
        new = copy.deepcopy(obj)
        meta = new["metadata"]
        self.check(new)
        with self.changed:
            if plural not in CLUSTER_SCOPED:
                self.find("namespaces", "", namespace)
                meta["namespace"] = namespace
            key = (plural, meta.get("namespace", ""), meta["name"])
            if key in self.objects:
                raise ApiError(409, f'{plural} "{meta["name"]}" already exists')
            meta |= {"uid": str(uuid.uuid4()), "generation": 1}
            meta.setdefault("creationTimestamp", timestamp())
            if not status:
                new["status"] = {"phase": "Pending"} if plural == "pods" else {}
            self.write(key, new)
            self.collect_garbage()
            return copy.deepcopy(new)

    def patch(self, plural, namespace, name, patch):
        with self.changed:
            key = self.find(plural, namespace, name)
            old = self.objects[key]
            version = patch.get("metadata", {}).get("resourceVersion")
            if version not in (None, old["metadata"]["resourceVersion"]):
                raise ApiError(409, "the object has been modified; apply to the latest version")
            new = merge(old, copy.deepcopy(patch))
            self.check(new)
            if new != old:
                self.write(key, new)
                self.collect_garbage()
            return copy.deepcopy(new)

    def delete(self, plural, namespace, name, preconditions=None):
        with self.changed:
            key = self.find(plural, namespace, name)
            old = self.objects[key]
            for what, value in (preconditions or {}).items():
                if old["metadata"][what] != value:
                    raise ApiError(409, f"the {what} in the precondition does not match")
            del self.objects[key]
            self.changed.notify_all()
            self.collect_garbage()
            return old

    def write(self, key, obj):
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = obj
        self.changed.notify_all()

    def collect_garbage(self):
        """Delete what no owner is left of."""
        uids = {obj["metadata"]["uid"] for obj in self.objects.values()}
        for key, obj in list(self.objects.items()):
            owners = obj["metadata"].get("ownerReferences") or []
            is_orphan = owners and not any(owner["uid"] in uids for owner in owners)
            if is_orphan and key in self.objects:
                if key[0] == "pods":
                    self.delete_pod(key)
                else:
                    self.delete(*key)

    def delete_pod(self, key):
        """Delete at once; a kubelet replaces this by a graceful deletion."""
        self.delete(*key)

    def check(self, obj):
        meta = obj["metadata"]
        for value in (meta.get("labels") or {}).values():
            if not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
                raise ApiError(422, f"metadata.labels: Invalid value: {value!r}")
        for owner in meta.get("ownerReferences") or []:
            if not all(owner.get(key) for key in ("apiVersion", "kind", "name", "uid")):
                raise ApiError(422, "metadata.ownerReferences: must not be empty")


class KubeApi:
    """`with KubeApi() as kube:` serves at `kube.url`; `without` takes kinds away."""

    def __init__(self, *, namespaces=("default", "kubeflow"), without=()):
        self.store = Store(
            kinds={
                plural: kind
                for plural, kind in KINDS.items()
                if not {plural, kind[0].rpartition("/")[0], kind[1]} & set(without)
            }
        )
        self.changed = self.store.changed
        self.requests = []
        self.refused = []
        """When connections were refused, by time.monotonic."""
        self.allows = lambda spec: True
        """The answer to an access review with this spec."""
        self.lines = defaultdict(list)
        """Log lines with their times, by uid of the pod and number of the container's start."""
        self.services = {}
        """What answers behind the proxy to a service, by name and port: a function of method, path,
        headers and body that returns status, headers and body."""
        self.exec = None
        """What runs a command in a pod: a function of the pod and the command that returns text."""
        self.errors = []
        self._faults = []
        self._callbacks = []
        self._cuts = 0
        self._abrupt = True
        self._out = self._closing = False
        self._server = Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        for name in namespaces:
            self.add_namespace(name)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        with self.changed:
            self._closing = True
            self.changed.notify_all()
        self._server.shutdown()
        self._thread.join(10)
        self._server.end_connections()
        self._server.server_close()
        if self.errors:
            raise self.errors[0]

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def client(self, **settings):
        from kubernetes import client

        configuration = client.Configuration(host=self.url)
        for name, value in settings.items():
            setattr(configuration, name, value)
        return client.ApiClient(configuration)

    def write_kubeconfig(self, path, namespace="kubeflow"):
        context = {"cluster": "fake", "user": "fake", "namespace": namespace}
        content = {
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": "fake-token"}}],
            "contexts": [{"name": "fake", "context": context}],
        }
        path.write_text(json.dumps(content))
        return path

    # The state, past HTTP

    def add_namespace(self, name):
        with contextlib.suppress(ApiError):
            metadata = {"name": name, "labels": {"kubernetes.io/metadata.name": name}}
            head = {"apiVersion": "v1", "kind": "Namespace"}
            self.store.create("namespaces", "", {**head, "metadata": metadata})

    def put(self, obj):
        """Create or replace an object, with its status."""
        kind = (obj["apiVersion"], obj["kind"])
        plural = next(plural for plural, known in self.store.kinds.items() if known == kind)
        namespace = obj["metadata"].get("namespace", "default")
        name = obj["metadata"]["name"]
        if plural not in CLUSTER_SCOPED:
            self.add_namespace(namespace)
        with contextlib.suppress(ApiError):
            return self.store.patch(plural, namespace, name, {**obj, "metadata": {}})
        return self.store.create(plural, namespace, obj, status=True)

    def get(self, plural, namespace, name):
        with contextlib.suppress(ApiError):
            return self.store.get(plural, namespace, name)

    def list(self, plural, namespace=""):
        return self.store.list(plural, namespace)

    def patch(self, plural, namespace, name, patch):
        return self.store.patch(plural, namespace, name, patch)

    def remove(self, plural, namespace, name):
        return self.store.delete(plural, namespace, name)

    def write_log(self, namespace, pod, text, *, at=None):
        found = self.store.get("pods", namespace, pod)
        start = container_status(found).get("restartCount", 0)
        with self.changed:
            lines = self.lines[found["metadata"]["uid"], start]
            tick = timedelta(microseconds=1)  # a kubelet's nanoseconds tell all lines apart
            for line in text.splitlines() or [""]:
                earliest = lines[-1][0] + tick if lines else datetime.min.replace(tzinfo=UTC)
                lines.append((at or max(datetime.now(UTC), earliest), line))
            self.changed.notify_all()

    # What it was asked

    def verbs_used(self):
        """(group, resource, verb) of every request about a resource."""
        return {(seen.group, seen.resource, seen.verb) for seen in self.requests if seen.resource}

    def on_request(self, callback):
        """Call with (number, request, "before") and, once it took effect, "after"."""
        self._callbacks.append(callback)

    # What goes wrong

    def fail(self, times=1, *, status=500, message="as the test says", headers=None,
             handled=False, **selected):  # fmt: skip
        """Answer so many requests with an error."""
        error = ApiError(status, message, headers)
        fault = Fault(error=error, times=times, handled=handled, selected=selected)
        self._faults.append(fault)
        return fault

    def drop(self, times=1, *, handled=False, **selected):
        """Close so many connections instead of an answer."""
        fault = Fault(error=DroppedError(), times=times, handled=handled, selected=selected)
        self._faults.append(fault)
        return fault

    def outage(self):
        """Close every connection from now on."""
        self._out = True
        self.cut_streams()
        self._server.end_connections()

    def recover(self):
        self._out = False

    def cut_streams(self, *, abruptly=True):
        """End all followed logs, in the middle or like a server whose time is over."""
        with self.changed:
            self._abrupt = abruptly
            self._cuts += 1
            self.changed.notify_all()

    # For the server

    def is_refused(self):
        if self._out:
            self.refused.append(time.monotonic())
        return self._out or self._closing

    def answer(self, method, target, body):
        """Return status, body (a generator streams) and headers."""
        if self._out:
            raise DroppedError
        with self.changed:
            request = parse(len(self.requests) + 1, method, target, body)
            self.requests.append(request)
            fault = next((fault for fault in self._faults if fault.strikes(request)), None)
        for callback in self._callbacks:
            callback(request.number, request, "before")
        try:
            if fault and not fault.handled:
                raise fault.error
            reply = self._reply(request)
            if fault:
                raise fault.error
        except ApiError as error:
            reply = (error.status, error.body, error.headers)
        for callback in self._callbacks:
            callback(request.number, request, "after")
        return reply

    def _reply(self, request):
        if request.path.rstrip("/") == "/version":
            info = dict.fromkeys(
                ["buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "platform"], ""
            )
            return 200, {**info, "major": "1", "minor": "36", "gitVersion": "v1.36.4"}, {}
        if request.resource.endswith("subjectaccessreviews"):
            allowed = self.allows(request.body["spec"])
            return 201, {**request.body, "status": {"allowed": allowed}}, {}
        if not request.resource:
            return 200, self._resources(request.path.removeprefix("/apis/").strip("/")), {}
        if request.resource == "pods/log":
            return 200, self._log(request), {}
        place = (request.resource, request.namespace)
        if request.verb == "list":
            items = self.store.list(*place, request.query.get("labelSelector", ""))
            field, _, value = request.query.get("fieldSelector", "").partition("=")
            items = [item for item in items if not field or dig(item, field) == value]
            version, kind = self.store.kinds[request.resource]
            return 200, {"kind": f"{kind}List", "apiVersion": version, "items": items}, {}
        if request.verb == "create":
            return 201, self.store.create(*place, request.body), {}
        if request.verb == "get":
            return 200, self.store.get(*place, request.name), {}
        if request.verb == "patch":
            return 200, self.store.patch(*place, request.name, request.body), {}
        preconditions = (request.body or {}).get("preconditions")
        old = self.store.delete(*place, request.name, preconditions)
        return 200, {**status_object(200, ""), "status": "Success", "details": old["metadata"]}, {}

    def _resources(self, api_version):
        found = [
            {"name": plural, "kind": kind, "namespaced": plural not in CLUSTER_SCOPED,
             "singularName": kind.lower(), "verbs": ["get"]}
            for plural, (version, kind) in self.store.kinds.items()
            if version == api_version
        ]  # fmt: skip
        if not found:
            raise ApiError(404, "404 page not found")
        return {"kind": "APIResourceList", "groupVersion": api_version, "resources": found}

    def _log(self, request):
        query = request.query
        pod = self.store.get("pods", request.namespace, request.name)
        names = [container["name"] for container in pod["spec"]["containers"]]
        if query.get("container", names[0]) not in names:
            raise ApiError(400, f"container {query['container']} is not valid for pod")
        status = container_status(pod)
        if "waiting" in status.get("state", {}) and "terminated" not in status.get("lastState", {}):
            raise ApiError(400, f"container is waiting to start: {status['state']}")
        place = (pod["metadata"]["uid"], status.get("restartCount", 0))
        since = datetime.fromtimestamp(0, UTC)
        if "sinceTime" in query:  # the kubelet gets it in whole seconds
            since = datetime.fromisoformat(query["sinceTime"]).replace(microsecond=0)
        if "sinceSeconds" in query:
            since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
        if query.get("follow", "").lower() == "true":
            return self._follow(place, since, self._cuts)
        is_timed = query.get("timestamps", "").lower() == "true"
        lines = [line for line in self.lines[place] if line[0] >= since]
        return "".join(shown(line) if is_timed else f"{line[1]}\n" for line in lines)

    def _follow(self, place, since, born):
        sent = 0
        while True:
            with self.changed:
                self.changed.wait_for(
                    lambda n=sent: len(self.lines[place]) > n or self._ended(place, born), 60
                )
                lines = self.lines[place][sent:]
                is_over = not lines and self._ended(place, born)
            if self._closing or (self._cuts > born and self._abrupt):
                raise DroppedError
            if is_over:
                return
            sent += len(lines)
            yield "".join(shown(line) for line in lines if line[0] >= since)

    def _ended(self, place, born):
        """Whether a followed log has an end: the connection's, or the container's."""
        uid, start = place
        pods = [obj for obj in self.store.objects.values() if obj["metadata"]["uid"] == uid]
        if self._closing or self._cuts > born or not pods:
            return True
        status = container_status(pods[0])
        is_running = "running" in status.get("state", {"running": {}})
        is_finished = pods[0]["status"].get("phase") in FINISHED
        return is_finished or not is_running or status.get("restartCount", 0) > start


def shown(line):
    at, text = line
    return f"{at.strftime('%Y-%m-%dT%H:%M:%S.%f')}000Z {text}\n"


def dig(obj, path):
    for key in path.split("."):
        obj = obj[key]
    return obj


def container_status(pod):
    return ((pod.get("status") or {}).get("containerStatuses") or [{}])[0]


def parse(number, method, target, body):
    """Say which resource a request is about, and the verb that a Role must grant for it."""
    url = urlsplit(target)
    common = {"number": number, "path": url.path, "query": dict(parse_qsl(url.query))}
    found = PATH.fullmatch(url.path)
    verb = VERBS.get(method, method)
    if not found:
        return Request(verb=verb, body=body, **common)
    if verb == "get" and not found["name"]:
        verb = "list"
    return Request(
        verb=verb,
        body=body,
        group=found["group"] or "",
        resource=found["plural"] + (f"/{found['sub']}" if found["sub"] else ""),
        namespace=found["namespace"] or "",
        name=found["name"] or "",
        **common,
    )


class Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, kube):
        super().__init__(("127.0.0.1", 0), Handler)
        self.kube = kube
        self.connections = set()

    def verify_request(self, request, client_address):
        return not self.kube.is_refused()

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        pass  # kept by the handler

    def end_connections(self):
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits for a delayed acknowledgement

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, DroppedError):
            self.close_connection = True
        except Exception as error:
            self.close_connection = True
            self.server.kube.errors.append(error)

    def log_message(self, *_):
        pass

    def _do(self):
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.kube.is_refused():
            raise DroppedError
        if found := SERVICE.fullmatch(self.path):
            return self._proxy(found, text)
        if found := EXEC.fullmatch(self.path):
            return self._exec(*found.groups())
        content_type = self.headers.get("Content-Type", "")
        body = json.loads(text) if text else None
        if self.command == "PATCH":
            assert content_type.startswith("application/merge-patch+json"), content_type
        status, content, headers = self.server.kube.answer(self.command, self.path, body)
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if isinstance(content, (dict, str)):
            is_text = isinstance(content, str)
            data = content.encode() if is_text else json.dumps(content).encode()
            self.send_header("Content-Type", "text/plain" if is_text else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in content:
            data = part.encode()
            if data:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _proxy(self, found, body):
        service, path = found.groups()
        answer = self.server.kube.services[service]
        status, headers, content = answer(self.command, path, dict(self.headers), body)
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _exec(self, namespace, name, query):
        """Run a command in a pod, and send what it prints as the one frame of a web socket."""
        pod = self.server.kube.store.get("pods", namespace, name)
        command = [value for key, value in parse_qsl(query) if key == "command"]
        output = b"\x01" + self.server.kube.exec(pod, command).encode()
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response_only(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        digest = hashlib.sha1(key.encode(), usedforsecurity=False).digest()
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        self.wfile.write(b"\x82\x7e" + len(output).to_bytes(2) + output + b"\x88\x00")
        self.close_connection = True

    do_GET = do_POST = do_PATCH = do_DELETE = _do
