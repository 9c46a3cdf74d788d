"""A stand-in on loopback for the API server of Kubeflow Pipelines 2.17.

The models of kfp-server-api read what is sent to it, and must know all of it; they write what it
answers, in the form of shared/recordings/kfp. It keeps what is created, remembers every request,
and can be made to fail.
"""

import contextlib
import json
import re
import threading
import uuid
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

from fakes.recorded import recorded

API = "/apis/v2beta1"
PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"
"""Where an API server of Kubernetes has it."""
ROUTES = {
    "GET /healthz": "healthz",
    "POST /pipelines/upload_version": "upload_version",
    "POST /pipelines": "create_pipeline",
    "GET /pipelines/names/([^/]+)": "pipeline_by_name",
    "GET /pipelines/([^/]+)/versions": "list_versions",
    "DELETE /pipelines/[^/]+/versions/([^/]+)": "delete_version",
    "DELETE /pipelines/([^/]+)": "delete_pipeline",
    "DELETE /experiments/([^/]+)": "delete_experiment",
    "DELETE /runs/([^/:]+)": "delete_run",
    "GET /experiments": "list_experiments",
    "POST /experiments": "create_experiment",
    "POST /runs": "create_run",
    "GET /runs": "list_runs",
    "GET /runs/([^/:]+)": "get_run",
    "POST /runs/([^/:]+):terminate": "terminate_run",
    "POST /runs/([^/:]+):archive": "archive_run",
    "POST /runs/([^/:]+):unarchive": "unarchive_run",
    "GET /recurringruns": "list_recurring_runs",
    "POST /recurringruns": "create_recurring_run",
}
FILTERS = {
    ("EQUALS", "display_name"),
    ("EQUALS", "storage_state"),
    ("NOT_EQUALS", "storage_state"),
}
PAGE = b"<!doctype html><title>Log in to Your Account</title>"
TERMINAL = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
CLIENT = kfp_server_api.ApiClient()
NEVER = datetime.fromtimestamp(0, UTC)
"""The time at which a run has finished that has not."""


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnknownError(Exception):
    """The client sent what the real server has no place for: a failure of the test, no answer."""


@dataclass
class Seen:
    method: str
    path: str
    query: dict
    headers: dict
    body: object = None


@dataclass
class Fault:
    """`how`: a status, "cut" (not carried out), "lost" (not answered), "page" or "redirect"."""

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
    kube_token: str | None = None
    """Token of the user of the API server that stands before it, if one does."""
    tag: str = "2.17.0"
    failed_tasks: dict = field(default_factory=dict)
    """Types and messages of a failed run's tasks, on a server that has no ML Metadata."""
    namespaces: tuple = ("alice",)
    runs_for_real: bool = False
    """Whether something else executes the runs, and sets their states and tasks."""
    states: list = field(default_factory=list)
    """Of each run, one for each time that it is asked for; the last one stays."""
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
        seen = self.state.seen
        return [each for each in seen if is_for(each, method, path)]


def is_for(request: Seen, method: str, path: str) -> bool:
    return request.method == method and request.path.startswith(API + path)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one packet per answer: two would wait for a delayed acknowledgement

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.state.kube_token is not None:
            if refusal := self._refused_by_kubernetes(url.path):
                self._send(*refusal)
                return
            path = url.path.removeprefix(PROXY).replace("//", "/")
            url = url._replace(path=path)
        headers = dict(self.headers)
        request = Seen(self.command, unquote(url.path), dict(parse_qsl(url.query)), headers)
        with self.server.lock, contextlib.suppress(ConnectionError):
            self.server.state.seen.append(request)
            fault = self._fault(request)
            if fault in (None, "lost"):
                answer = self._answer(request, body)
            if fault in ("cut", "lost"):
                self.close_connection = True
            elif fault == "page":
                self._send(200, PAGE, "text/html; charset=utf-8")
            elif fault == "redirect":
                self._send(302, b"", "text/html", Location="/dex/auth?state=planted-state")
            elif fault:
                self._send(fault, b"upstream connect error", "text/plain")
            else:
                self._send(*answer)

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _refused_by_kubernetes(self, path: str) -> tuple[int, bytes, str] | None:
        token = self.server.state.kube_token
        if token and self.headers.get("authorization") != f"Bearer {token}":
            status = {"kind": "Status", "status": "Failure", "message": "Unauthorized", "code": 401}
            return 401, json.dumps(status).encode(), "application/json"
        if not path.startswith(f"{PROXY}/"):
            return 404, b"404 page not found\n", "text/plain; charset=utf-8"
        return None

    def _fault(self, request: Seen) -> object:
        for fault in self.server.state.faults:
            if fault.fired < fault.times and is_for(request, fault.method, fault.path):
                fault.fired += 1
                return fault.how
        return None

    def _answer(self, request: Seen, body: bytes) -> tuple[int, bytes, str]:
        status = 200
        try:
            values = to_json(Answers(self.server.state, request, body).answer())
        except RefusedError as refused:
            status = refused.status
            message = str(refused)
            values = {"code": 5 if status == 404 else 3, "message": message, "details": []}
            if "upload" in request.path:
                values = {"error_message": message, "error_details": message}
        except Exception as error:
            self.server.state.errors.append(error)
            status = 500
            values = {"message": repr(error)}
        return status, json.dumps(values).encode(), "application/json"

    def _send(self, status: int, content: bytes, kind: str, **headers: str) -> None:
        self.send_response_only(status)
        headers |= {"Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def to_json(model: object) -> object:
    return CLIENT.sanitize_for_serialization(model)


def to_model(values: object, kind: str) -> object:
    return CLIENT.deserialize(SimpleNamespace(data=json.dumps(values)), kind)


def read(values: object, kind: str) -> object:
    """Let the API's own model read what was sent; it must hold everything of it."""
    model = to_model(values, kind)
    if to_json(model) != values:
        raise UnknownError(f"{kind} does not know all of {values}")
    return model


class Answers:
    """The answer to one request."""

    def __init__(self, state: State, request: Seen, body: bytes) -> None:
        self.state = state
        self.request = request
        self.raw = body

    def answer(self) -> object:
        token = self.state.token
        if token and self.request.headers.get("authorization") != f"Bearer {token}":
            raise RefusedError(401, "Request header error: there is no user identity header.")
        asked = f"{self.request.method} {self.request.path.removeprefix(API)}"
        for pattern, name in ROUTES.items():
            if found := re.fullmatch(pattern, asked):
                return getattr(self, name)(*found.groups())
        raise UnknownError(asked)

    def body(self, kind: str) -> object:
        self.request.body = json.loads(self.raw)
        return read(self.request.body, kind)

    def check_namespace(self, namespace: str | None) -> None:
        if self.state.multi_user and namespace not in self.state.namespaces:
            who = namespace or "empty"
            raise RefusedError(403, f"User 'bob' is not authorized with reason: namespace {who}")
        if not self.state.multi_user and namespace:
            raise UnknownError("a server alone has no namespaces")

    def filtered(self, objects: list) -> list | None:
        """Keep what the filter of a list asks for; protobuf leaves out a list that is empty."""
        text = self.request.query.get("filter")
        for each in read(json.loads(text), "V2beta1Filter").predicates if text else []:
            assert (each.operation, each.key) in FILTERS
            wanted = each.operation == "EQUALS"
            objects = [
                known
                for known in objects
                if (getattr(known, each.key) == each.string_value) == wanted
            ]
        return objects or None

    def healthz(self) -> object:
        given = {"multi_user": self.state.multi_user, "pipeline_store": self.state.store}
        return {**recorded("kfp/healthz"), "tag_name": self.state.tag, **given}

    def create_pipeline(self) -> object:
        new = self.body("V2beta1Pipeline")
        self.check_namespace(new.namespace)
        if any(each.name == new.name for each in self.state.pipelines):
            raise RefusedError(409, f"The name {new.name} already exist. Please specify a new name")
        new.pipeline_id = fresh()
        new.created_at = datetime.now(UTC)
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
        if query["pipelineid"] not in {each.pipeline_id for each in self.state.pipelines}:
            raise RefusedError(400, "Failed to create a pipeline version")
        if self.state.store == "kubernetes" and not re.fullmatch("[-.a-z0-9]+", query["name"]):
            raise RefusedError(400, "Invalid pipeline version name")
        if query["name"] in {each.name for each in self.state.versions}:
            raise RefusedError(409, "Failed to create a pipeline version")
        text = self._file()
        components.load_component_from_text(text)
        spec, platform = yaml.safe_load_all(text)
        self.state.uploaded.append(text)
        version = models.V2beta1PipelineVersion(
            pipeline_id=query["pipelineid"],
            pipeline_version_id=fresh(),
            name=query["name"],
            display_name=query.get("display_name") or query["name"],
            description=query.get("description"),
            created_at=datetime.now(UTC),
            pipeline_spec={"pipeline_spec": spec, "platform_spec": platform},
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
        """The newest first, in pages."""
        query = self.request.query
        assert query.get("sort_by") in (None, "created_at desc")
        mine = [each for each in self.state.versions if each.pipeline_id == pipeline_id][::-1]
        start = int(query.get("page_token") or 0)
        end = start + int(query.get("page_size") or 20)
        return models.V2beta1ListPipelineVersionsResponse(
            pipeline_versions=mine[start:end] or None,
            next_page_token=str(end) if end < len(mine) else None,
        )

    def list_experiments(self) -> object:
        self.check_namespace(self.request.query.get("namespace"))
        found = self.filtered(self.state.experiments)
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
        by_id = {each.pipeline_version_id: each for each in self.state.versions}
        spec = by_id[reference.pipeline_version_id].pipeline_spec["pipeline_spec"]
        for name in new.runtime_config.parameters:
            if name not in spec["root"]["inputDefinitions"]["parameters"]:
                raise RefusedError(400, f"unknown parameter {name}")

    def create_run(self) -> object:
        new = self.body("V2beta1Run")
        self._check_run(new)
        new.run_id = fresh()
        new.created_at = datetime.now(UTC)
        new.finished_at = NEVER
        new.state = "PENDING"
        new.storage_state = "AVAILABLE"
        self.state.runs.append(new)
        return new

    def list_runs(self) -> object:
        query = self.request.query
        assert query["sort_by"] == "created_at desc"
        if "experiment_id" not in query:
            self.check_namespace(query.get("namespace"))
        found = self.filtered(self.state.runs) or []
        found = [each for each in found if query.get("experiment_id") in (None, each.experiment_id)]
        return models.V2beta1ListRunsResponse(runs=found[::-1][: int(query["page_size"])] or None)

    def get_run(self, run_id: str) -> object:
        for run in self.state.runs:
            if run.run_id == run_id:
                self._advance(run)
                return self._with_tasks(run) if self.state.failed_tasks else run
        raise RefusedError(404, f"Run {run_id} not found")

    def _with_tasks(self, run: object) -> object:
        values = to_json(run)
        values.pop("run_details", None)
        if run.state == "FAILED" and self.request.query.get("view") == "FULL":
            values["tasks"] = [
                {
                    "name": name,
                    "type": kind,
                    "state": "FAILED",
                    "status_metadata": {"message": text},
                }
                for name, (kind, text) in self.state.failed_tasks.items()
            ]
        return values

    def _advance(self, run: object) -> None:
        states = self.state.states
        if run.state not in TERMINAL and states:
            times = self.state.asked[run.run_id] = self.state.asked.get(run.run_id, -1) + 1
            run.state = states[min(times, len(states) - 1)]
        if run.state in TERMINAL and run.finished_at == NEVER:
            run.finished_at = datetime.now(UTC)
        if run.state == "FAILED" and not self.state.runs_for_real:
            run.run_details = to_model(recorded("kfp/run-failed"), "V2beta1Run").run_details

    def terminate_run(self, run_id: str) -> object:
        run = self.get_run(run_id)
        if run.state in TERMINAL:
            raise RefusedError(400, f"Failed to terminate a run {run_id}: it has ended")
        run.state = "CANCELING"
        if self.state.runs_for_real:
            return {}
        self.state.states = ["CANCELING", "FAILED"]
        self.state.asked[run_id] = -1
        return {}

    def archive_run(self, run_id: str) -> object:
        self.get_run(run_id).storage_state = "ARCHIVED"
        return {}

    def unarchive_run(self, run_id: str) -> object:
        self.get_run(run_id).storage_state = "AVAILABLE"
        return {}

    def delete_run(self, run_id: str) -> object:
        return self._delete("runs", "run_id", run_id)

    def delete_experiment(self, experiment_id: str) -> object:
        return self._delete("experiments", "experiment_id", experiment_id)

    def delete_version(self, version_id: str) -> object:
        return self._delete("versions", "pipeline_version_id", version_id)

    def delete_pipeline(self, pipeline_id: str) -> object:
        if any(each.pipeline_id == pipeline_id for each in self.state.versions):
            raise RefusedError(400, "the pipeline still has versions")
        return self._delete("pipelines", "pipeline_id", pipeline_id)

    def _delete(self, kind: str, key: str, value: str) -> object:
        known = getattr(self.state, kind)
        left = [each for each in known if getattr(each, key) != value]
        if len(left) == len(known):
            raise RefusedError(404, f"{value} not found")
        known[:] = left
        return {}

    def create_recurring_run(self) -> object:
        new = self.body("V2beta1RecurringRun")
        self._check_run(new)
        assert new.mode == "ENABLE"
        assert len(new.trigger.cron_schedule.cron.split()) == 6
        new.recurring_run_id = fresh()
        new.status = "ENABLED"
        self.state.recurring.append(new)
        return new

    def list_recurring_runs(self) -> object:
        return models.V2beta1ListRecurringRunsResponse(recurring_runs=self.state.recurring or None)


def speed_up(monkeypatch, home) -> None:
    """Make the client's pauses short, and keep it from what this machine's user has set up."""
    from kfp.client import Client

    from citeflow.kubeflow import calls, client
    from citeflow.utils.retry import Backoff

    quick = Backoff(first_pause_s=0.01, longest_pause_s=0.02, patience_s=0.3)
    monkeypatch.setattr(calls, "BACKOFF", quick)
    monkeypatch.setattr(client, "POLL", quick)
    monkeypatch.setattr(client, "OUTAGE_S", 5.0)
    monkeypatch.setattr(client, "LOOKUP_PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(home / "context.json"))
    for name in ("ENDPOINT", "UI_ENDPOINT", "SA_TOKEN_PATH"):
        monkeypatch.delenv(f"KF_PIPELINES_{name}", raising=False)


def fresh() -> str:
    return str(uuid.uuid4())


@contextlib.contextmanager
def serving(**settings):
    with KfpServer(**settings) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
    assert server.state.errors == []
