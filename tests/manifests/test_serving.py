"""The server on a cluster: plain, under KServe, as a canary, behind a gateway, and under load."""

import http.server
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kustomize import pod_template, render_text
from schemas import LABELS, TEXT, VERSIONS, strict

from citeflow.cli.serve import serve
from citeflow.kubernetes.job_spec import MOUNT
from citeflow.serving.deploying import CURRENT, service_folder
from citeflow.serving.listening import GRACE_S
from citeflow.serving.metrics import ServerMetrics

EXTENSION = {
    "annotations": LABELS,
    "deploymentStrategy": {"type": "object"},
    "labels": LABELS,
    "maxReplicas": {"type": "integer"},
    "minReplicas": {"type": "integer"},
    "scaleMetric": {"enum": ["cpu", "memory", "concurrency", "rps"]},
    "scaleTarget": {"type": "integer"},
    "timeout": {"type": "integer"},
}
"""Fields of a predictor besides those of a pod.

Source: https://kserve.github.io/website/docs/reference/crd-api (ComponentExtensionSpec)
"""

PARENT = strict(["name"], name=TEXT, namespace=TEXT, sectionName=TEXT)
BACKEND = strict(
    ["name", "port"],
    name=TEXT,
    port={"type": "integer"},
    weight={"type": "integer", "minimum": 0, "maximum": 1_000_000},
)
HTTP_ROUTE = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "gateway.networking.k8s.io/v1"},
    kind={"const": "HTTPRoute"},
    metadata=strict(["name"], name=TEXT, namespace=TEXT, labels=LABELS),
    spec=strict(
        ["parentRefs", "rules"],
        parentRefs={"type": "array", "items": PARENT},
        hostnames={"type": "array", "items": TEXT},
        rules={
            "type": "array",
            "items": strict(["backendRefs"], backendRefs={"type": "array", "items": BACKEND}),
        },
    ),
)
"""The fields of a route that a project of this size may use.

Source: https://gateway-api.sigs.k8s.io/reference/spec/#httproute
"""


def objects_of(things):
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}


@pytest.fixture(scope="module")
def plain(folder, render):
    return objects_of(render(folder / "components" / "serving"))


@pytest.fixture(scope="module")
def kserve(folder, render):
    return objects_of(render(folder / "components" / "serving-kserve"))


@pytest.fixture(scope="module")
def canary(folder, render):
    return objects_of(render(folder / "canary"))


@pytest.fixture
def predictor(kserve):
    return kserve["InferenceService", "citeflow"]["spec"]["predictor"]


@pytest.mark.parametrize("version", VERSIONS)
def test_inference_service_is_a_pod_and_known_fields(kserve, predictor, version):
    service = kserve["InferenceService", "citeflow"]
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    extension = {key: predictor[key] for key in EXTENSION.keys() & predictor.keys()}
    jsonschema.validate(extension, strict(**EXTENSION))
    pod = {key: value for key, value in predictor.items() if key not in EXTENSION}
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "citeflow"}}
    kubernetes_validate.validate({**head, "spec": pod}, version, strict=True)


def test_inference_service_runs_what_the_deployment_runs(plain, kserve, predictor):
    template = pod_template(plain["Deployment", "citeflow-serve"])
    (container,) = template["spec"]["containers"]
    same = {**template["spec"], "containers": [{**container, "name": "kserve-container"}]}
    assert {key: predictor[key] for key in same} == same
    assert predictor["labels"] == template["metadata"]["labels"]
    scaler = plain["HorizontalPodAutoscaler", "citeflow-serve"]["spec"]
    (metric,) = scaler["metrics"]
    assert (scaler["minReplicas"], scaler["maxReplicas"], metric["resource"]["name"]) == (
        predictor["minReplicas"],
        predictor["maxReplicas"],
        predictor["scaleMetric"],
    )
    for kind in ("NetworkPolicy", "PodDisruptionBudget"):
        assert plain[kind, "citeflow-serve"] == kserve[kind, "citeflow-serve"]


def test_server_has_time_to_end_and_is_not_process_1(plain):
    spec = pod_template(plain["Deployment", "citeflow-serve"])["spec"]
    (container,) = spec["containers"]
    (_, pause) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert int(pause) + GRACE_S + 5 <= spec["terminationGracePeriodSeconds"]
    assert container["command"][:2] == ["tini", "--"]


def test_server_is_told_what_its_command_accepts_and_where_runs_deploy_to(plain):
    (container,) = pod_template(plain["Deployment", "citeflow-serve"])["spec"]["containers"]
    assert container["command"][2:] == ["python3", "-m", "citeflow", serve.name]
    told = serve.make_context(serve.name, list(container["args"])).params
    assert told["source"] == str(service_folder(Path(MOUNT), "citeflow") / CURRENT)
    assert (told["where"].host, told["watch"]) == ("0.0.0.0", True)
    assert [port["containerPort"] for port in container["ports"]] == [told["where"].port]


def test_canary_is_another_server_that_gets_a_tenth(folder, render, plain, canary):
    (stable,) = render(folder / "gateway")
    route = canary["HTTPRoute", "citeflow-serve"]
    for each in (stable, route):
        jsonschema.validate(each, HTTP_ROUTE)
    first, second = route["spec"]["rules"][0]["backendRefs"]
    assert stable["spec"]["rules"][0]["backendRefs"][0]["name"] == first["name"]
    assert second["weight"] / (first["weight"] + second["weight"]) == 0.1
    assert ("Service", first["name"]) in plain
    service = canary["Service", second["name"]]
    other = pod_template(canary["Deployment", "citeflow-serve-canary"])
    own = pod_template(plain["Deployment", "citeflow-serve"])
    assert service["spec"]["selector"].items() <= other["metadata"]["labels"].items()
    for things, pod in ((plain, other), (canary, own)):
        for (kind, _), thing in things.items():
            if kind in ("Deployment", "Service", "PodDisruptionBudget"):
                selector = thing["spec"]["selector"]
                selector = selector.get("matchLabels", selector)
                assert not selector.items() <= pod["metadata"]["labels"].items()
    args = [pod["spec"]["containers"][0]["args"] for pod in (own, other)]
    assert args[0][0] != args[1][0]
    assert args[0][1:] == args[1][1:]


class Server(http.server.BaseHTTPRequestHandler):
    """Finds paper 1 and names 2/b, which it answers for once."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {"papers": [{"id": 1}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses.pop(self.path, 200)
        if "2%2Fb" in self.path:
            self.server.statuses[self.path] = self.server.later
        self.answer(status, {"predictions": [{"id": 1}, {"id": "2/b"}]})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "ends_with"), [(429, 0), (500, 1)])
def test_load_counts_answers_refusals_and_faults(folder, server, status, ends_with):
    server.statuses, server.later = {}, status
    address = f"http://127.0.0.1:{server.server_port}/"
    options = ["--seconds=0.5", "--connections=2", "--search=x"]
    done = subprocess.run(
        [sys.executable, folder / "load-test" / "load.py", address, *options],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == ends_with
    report = json.loads(done.stdout)
    assert report["answers"] == report["outcomes"]["200"] > 0
    assert (report["refused"] > 0, report["failed"] > 0) == (status == 429, status == 500)
    assert 0 < report["p50_ms"] <= report["p99_ms"]


def test_prometheus_reads_the_port_of_every_server(folder, render, plain, kserve):
    monitor = objects_of(render(folder / "components" / "monitoring"))[
        "PodMonitor", "citeflow-serve"
    ]
    for thing in (plain["Deployment", "citeflow-serve"], kserve["InferenceService", "citeflow"]):
        pod = pod_template(thing)
        selector = monitor["spec"]["selector"]["matchLabels"]
        assert selector.items() <= pod["metadata"]["labels"].items()
        (port,) = pod["spec"]["containers"][0]["ports"]
        assert [each["port"] for each in monitor["spec"]["podMetricsEndpoints"]] == [port["name"]]


def test_alerts_ask_for_exported_metrics_and_their_labels(folder, render):
    objects = objects_of(render(folder / "components" / "monitoring"))
    (group,) = objects["PrometheusRule", "citeflow-serve"]["spec"]["groups"]
    metrics = ServerMetrics()
    metrics.loads.labels("failed").inc()
    metrics.requests.labels("/v1/about", "429").inc()
    metrics.seconds.labels("/v1/about").observe(1)
    page = metrics.page().decode()
    for rule in group["rules"]:
        asked = re.findall(r"(citeflow_serving_\w+)(?:{(\w+)=~?\"([^\"]*)\"})?", rule["expr"])
        assert asked
        for name, label, value in asked:
            (series,) = [line for line in page.splitlines() if line.startswith(f"{name}{{")][-1:]
            found = dict(re.findall(r"(\w+)=\"([^\"]*)\"", series))
            assert not label or re.fullmatch(value, found[label]), rule["alert"]


def test_guide_names_existing_folders_and_objects(checkout, everything):
    guide = (checkout / "docs" / "serving-cluster.md").read_text()
    folders = set(re.findall(r"manifests/[-\w/.]*\w", guide))
    assert [folder for folder in folders if not (checkout / folder).exists()] == []
    names = {thing["metadata"]["name"] for objects in everything.values() for thing in objects}
    assert set(re.findall(r"(?<![-\w/.])citeflow-[a-z]+(?![-\w.])", guide)) <= names


def test_guide_example_adds_the_server_to_an_overlay(checkout, folder, tmp_path):
    guide = (checkout / "docs" / "serving-cluster.md").read_text()
    (said,) = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", guide, re.S)]
    own = {
        key: [folder.parent / path[3:] for path in said[key]] for key in ("resources", "components")
    }
    things = objects_of(render_text(tmp_path, {**said, **own}))
    assert things["Deployment", "citeflow-serve"]["metadata"]["namespace"] == "kubeflow"
