"""A stand-in on loopback for the API server of Kubeflow Pipelines.

What is sent to it is read by kfp-server-api's own models, and must be all that they hold; what it answers they write.
Pipelines are read by kfp. It keeps state, remembers every request, and can be told to fail.
"""

import contextlib
import json
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qsl, unquote, urlsplit

import kfp_server_api
import yaml
from kfp import components
from kfp_server_api import models

API = "/apis/v2beta1"
ROUTES = [
    ("GET", "/healthz", "healthz"),
    ("POST", "/pipelines/upload_version", "upload_version"),
    ("POST", "/pipelines", "create_pipeline"),
    ("GET", "/pipelines/names/([^/]+)", "pipeline_by_name"),
    ("GET", "/pipelines/([^/]+)/versions", "list_versions"),
    ("GET", "/experiments", "list_experiments"),
    ("POST", "/experiments", "create_experiment"),
    ("POST", "/runs", "create_run"),
    ("GET", "/runs", "list_runs"),
    ("GET", "/runs/([^/:]+)", "get_run"),
    ("POST", "/runs/([^/:]+):terminate", "terminate_run"),
    ("GET", "/recurringruns", "list_recurring_runs"),
    ("POST", "/recurringruns", "create_recurring_run"),
]
PAGE = b"<!doctype html><title>Log in to Your Account</title>"
TERMINAL = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnknownError(Exception):
    """A client that does what the real server has no place for: a failure of the test, not an answer."""


@dataclass
class Seen:
    method: str
    path: str
    query: dict
    headers: dict
    body: object = None


@dataclass
class Fault:
    """`how`: a status, or "cut" (not carried out), "lost" (carried out, not answered), "page", "redirect"."""

    method: str
    path: str
    how: object
    times: int
    fired: int = 0


@dataclass
class State:
    multi_user: bool = False
    store: str = "database"
    token: str = ""
    namespaces: tuple = ("alice",)
    states: list = field(default_factory=list)
    """What each run is in, one for each time that it is asked for; the last one stays."""
    asked: dict = field(default_factory=dict)
    pipelines: list = field(default_factory=list)
    versions: list = field(default_factory=list)
    experiments: list = field(default_factory=list)
    runs: list = field(default_factory=list)
    recurring: list = field(default_factory=list)
    uploaded: list = field(default_factory=list)
    seen: list = field(default_factory=list)
    faults: list = field(default_factory=list)
    errors: list = field(default_factory=list)


class KfpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True

    def __init__(self, **settings) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = State(**settings)
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fail(self, method: str, path: str, how: object, times: int = 1) -> Fault:
        fault = Fault(method, path, how, times)
        self.state.faults.append(fault)
        return fault

    def calls(self, method: str, path: str = "") -> list[Seen]:
        return [
            each
            for each in self.state.seen
            if each.method == method and each.path.startswith(API + path)
        ]


class Handler(BaseHTTPRequestHandler):
    server: KfpServer
    protocol_version = "HTTP/1.1"
    wbufsize = (
        1 << 16
    )  # head and body in one packet, or each answer waits for a delayed acknowledgement

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Seen(
            self.command, unquote(parts.path), dict(parse_qsl(parts.query)), dict(self.headers)
        )
        with self.server.lock, contextlib.suppress(ConnectionError):
            self.server.state.seen.append(request)
            fault = self._fault(request)
            if fault is None or fault == "lost":
                answer = self._answer(request, body)
                if fault is None:
                    self._send(*answer)
                else:
                    self.close_connection = True
            elif fault == "cut":
                self.close_connection = True
            elif fault == "page":
                self._send(200, PAGE, "text/html; charset=utf-8")
            elif fault == "redirect":
                self._send(302, b"", "text/html", Location="/dex/auth?state=planted-state")
            else:
                self._send(fault, b"upstream connect error", "text/plain")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _fault(self, request: Seen) -> object:
        for fault in self.server.state.faults:
            if (
                fault.fired < fault.times
                and fault.method == request.method
                and request.path.startswith(API + fault.path)
            ):
                fault.fired += 1
                return fault.how
        return None

    def _answer(self, request: Seen, body: bytes) -> tuple[int, bytes, str]:
        try:
            model = Answers(self.server.state, request, body).answer()
            status, value = 200, written(model)
        except RefusedError as refused:
            status, value = (
                refused.status,
                {"error": str(refused), "code": 3, "message": str(refused), "details": []},
            )
            if "upload" in request.path:
                value = {"error_message": str(refused), "error_details": str(refused)}
        except Exception as error:
            self.server.state.errors.append(error)
            status, value = 500, {"message": repr(error)}
        return status, json.dumps(value).encode(), "application/json"

    def _send(self, status: int, content: bytes, kind: str, **headers: str) -> None:
        self.send_response_only(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


CLIENT = kfp_server_api.ApiClient()


def written(model: object) -> object:
    return CLIENT.sanitize_for_serialization(model)


def read(values: object, kind: str) -> object:
    """Let the API's own model read what was sent; it must hold everything of it."""
    model = CLIENT.deserialize(SimpleNamespace(data=json.dumps(values)), kind)
    if written(model) != values:
        raise UnknownError(f"{kind} does not know all of {values}")
    return model


class Answers:
    """One request."""

    def __init__(self, state: State, request: Seen, body: bytes) -> None:
        self.state, self.request, self.raw = state, request, body

    def answer(self) -> object:
        if (
            self.state.token
            and self.request.headers.get("authorization") != f"Bearer {self.state.token}"
        ):
            raise RefusedError(401, "Request header error: there is no user identity header.")
        for method, pattern, name in ROUTES:
            found = re.fullmatch(API + pattern, self.request.path)
            if found and method == self.request.method:
                return getattr(self, name)(*found.groups())
        raise UnknownError(f"{self.request.method} {self.request.path}")

    def body(self, kind: str) -> object:
        self.request.body = json.loads(self.raw)
        return read(self.request.body, kind)

    def check_namespace(self, namespace: str | None) -> None:
        if self.state.multi_user and namespace not in self.state.namespaces:
            raise RefusedError(
                403, f"User 'bob' is not authorized with reason: namespace {namespace or 'empty'}"
            )
        if not self.state.multi_user and namespace:
            raise UnknownError("a server alone has no namespaces")

    def wanted(self, *keys: str) -> dict:
        """What the filter of a list asks for."""
        text = self.request.query.get("filter")
        predicates = read(json.loads(text), "V2beta1Filter").predicates if text else []
        for each in predicates:
            assert each.operation == "EQUALS"
            if each.key not in keys:
                raise RefusedError(400, f"Unrecognized filter key {each.key}")
        return {each.key: each.string_value for each in predicates}

    def healthz(self) -> object:
        flag = (
            {"multi_user": True} if self.state.multi_user else {}
        )  # false is left out, as protobuf's JSON does
        return models.V2beta1GetHealthzResponse(**flag, pipeline_store=self.state.store)

    def create_pipeline(self) -> object:
        new = self.body("V2beta1Pipeline")
        self.check_namespace(new.namespace)
        if any(each.name == new.name for each in self.state.pipelines):
            raise RefusedError(409, f"The name {new.name} already exist. Please specify a new name")
        new.pipeline_id, new.created_at = fresh(), datetime.now(UTC)
        self.state.pipelines.append(new)
        return new

    def pipeline_by_name(self, name: str) -> object:
        self.check_namespace(self.request.query.get("namespace"))
        for each in self.state.pipelines:
            if each.name == name:
                return each
        raise RefusedError(404, f"Pipeline {name} not found")

    def upload_version(self) -> object:
        query = self.request.query
        assert set(query) <= {"name", "display_name", "description", "pipelineid"}
        if query.get("pipelineid") not in {each.pipeline_id for each in self.state.pipelines}:
            raise RefusedError(400, "Failed to create a pipeline version")
        if self.state.store == "kubernetes" and not re.fullmatch(
            "[a-z0-9]([-.a-z0-9]*[a-z0-9])?", query["name"]
        ):
            raise RefusedError(400, "Invalid pipeline version name")
        if any(
            v.name == query["name"]
            for v in self.state.versions
            if v.pipeline_id == query["pipelineid"]
        ):
            raise RefusedError(409, "Failed to create a pipeline version")
        text = self._file()
        components.load_component_from_text(text)
        spec, *platforms = yaml.safe_load_all(text)
        self.state.uploaded.append(text)
        version = models.V2beta1PipelineVersion(
            pipeline_id=query["pipelineid"],
            pipeline_version_id=fresh(),
            name=query["name"],
            display_name=query.get("display_name") or query["name"],
            description=query.get("description"),
            created_at=datetime.now(UTC),
            pipeline_spec={"pipeline_spec": spec, "platform_spec": platforms[0]}
            if platforms
            else spec,
        )
        self.state.versions.append(version)
        return version

    def _file(self) -> str:
        head = f"Content-Type: {self.request.headers['Content-Type']}\r\n\r\n".encode()
        (part,) = BytesParser(policy=HTTP).parsebytes(head + self.raw).iter_parts()
        assert part.get_param("name", header="content-disposition") == "uploadfile"
        assert part.get_filename().endswith(".yaml")
        return part.get_payload(decode=True).decode()

    def list_versions(self, pipeline_id: str) -> object:
        wanted = self.wanted("name", "display_name")
        mine = [each for each in self.state.versions if each.pipeline_id == pipeline_id]
        return models.V2beta1ListPipelineVersionsResponse(pipeline_versions=fitting(mine, wanted))

    def list_experiments(self) -> object:
        self.check_namespace(self.request.query.get("namespace"))
        found = fitting(self.state.experiments, self.wanted("display_name"))
        return models.V2beta1ListExperimentsResponse(experiments=found)

    def create_experiment(self) -> object:
        new = self.body("V2beta1Experiment")
        self.check_namespace(new.namespace)
        new.experiment_id = fresh()
        self.state.experiments.append(new)
        return new

    def _check_run(self, new: object) -> None:
        if new.experiment_id not in {each.experiment_id for each in self.state.experiments}:
            raise RefusedError(400, "Failed to fetch the experiment")
        reference = new.pipeline_version_reference
        if new.pipeline_spec or not reference:
            raise UnknownError("the run does not come from a version on the server")
        by_id = {(v.pipeline_id, v.pipeline_version_id): v for v in self.state.versions}
        spec = by_id[reference.pipeline_id, reference.pipeline_version_id].pipeline_spec
        known = spec.get("pipeline_spec", spec)["root"]["inputDefinitions"]["parameters"]
        for name in new.runtime_config.parameters:
            if name not in known:
                raise RefusedError(400, f"unknown parameter {name}")

    def create_run(self) -> object:
        new = self.body("V2beta1Run")
        self._check_run(new)
        new.run_id, new.created_at, new.state = fresh(), datetime.now(UTC), "PENDING"
        self.state.runs.append(new)
        return new

    def list_runs(self) -> object:
        query = self.request.query
        if "experiment_id" not in query:
            self.check_namespace(query.get("namespace"))
        found = fitting(self.state.runs, self.wanted("display_name")) or []
        found = [each for each in found if query.get("experiment_id") in (None, each.experiment_id)]
        assert query["sort_by"] == "created_at desc"
        return models.V2beta1ListRunsResponse(runs=found[::-1][: int(query["page_size"])] or None)

    def get_run(self, run_id: str) -> object:
        for run in self.state.runs:
            if run.run_id == run_id:
                if run.state not in TERMINAL and self.state.states:
                    times = self.state.asked[run_id] = self.state.asked.get(run_id, -1) + 1
                    run.state = self.state.states[min(times, len(self.state.states) - 1)]
                if run.state == "FAILED":
                    task = models.V2beta1PipelineTaskDetail(display_name="train", state="FAILED")
                    run.run_details = models.V2beta1RunDetails(task_details=[task])
                return run
        raise RefusedError(404, f"Run {run_id} not found")

    def terminate_run(self, run_id: str) -> object:
        run = self.get_run(run_id)
        if run.state in TERMINAL:
            raise RefusedError(400, f"Failed to terminate a run {run_id}: it has ended")
        run.state, self.state.states = "CANCELING", ["CANCELING", "FAILED"]
        self.state.asked[run_id] = -1
        return {}

    def create_recurring_run(self) -> object:
        new = self.body("V2beta1RecurringRun")
        self._check_run(new)
        assert new.mode == "ENABLE"
        assert len(new.trigger.cron_schedule.cron.split()) == 6
        new.recurring_run_id, new.status = fresh(), "ENABLED"
        self.state.recurring.append(new)
        return new

    def list_recurring_runs(self) -> object:
        return models.V2beta1ListRecurringRunsResponse(recurring_runs=self.state.recurring or None)


def fresh() -> str:
    return str(uuid.uuid4())


def fitting(found: list, wanted: dict) -> list | None:
    return [
        each for each in found if all(getattr(each, key) == value for key, value in wanted.items())
    ] or None


@contextlib.contextmanager
def serving(**settings) -> Iterator[KfpServer]:
    with KfpServer(**settings) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
    assert server.state.errors == []
