import json

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kustomize import job_of_runtime, render_text
from schemas import LABELS, TEXT, TEXTS, VERSIONS, strict

from citeflow.kubernetes.job_spec import MAX_WORKERS, JobSpec
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.kubernetes.pod_template import METRICS_PORT

TRAINJOB = LAUNCHERS["trainjob"]
TENSORBOARD = "tensorboard.kubeflow.org/v1alpha1"
MONITORING = "monitoring.coreos.com/v1"
TRAINER = "trainer.kubeflow.org/v1alpha1"
KSERVE = "serving.kserve.io/v1beta1"
GATEWAY = "gateway.networking.k8s.io/v1"
OTHERS = (TENSORBOARD, MONITORING, TRAINER, KSERVE, GATEWAY)


DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w|y))+$"}
LABEL_NAME = {"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}
RELABELING = strict(
    ["action"],
    action={"enum": ["replace", "keep", "drop", "labelmap", "labeldrop", "labelkeep"]},
    sourceLabels={"type": "array", "items": LABEL_NAME},
    targetLabel=TEXT,
    regex=TEXT,
    replacement=TEXT,
    separator=TEXT,
)
POD_MONITOR = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": MONITORING},
    kind={"const": "PodMonitor"},
    metadata=strict(["name"], name=TEXT, namespace=TEXT, labels=LABELS),
    spec=strict(
        ["selector", "podMetricsEndpoints"],
        selector=strict(["matchLabels"], matchLabels=LABELS),
        namespaceSelector=strict(any={"type": "boolean"}, matchNames=TEXTS),
        podTargetLabels=TEXTS,
        jobLabel=TEXT,
        podMetricsEndpoints={
            "type": "array",
            "minItems": 1,
            "items": strict(
                port=TEXT,
                portNumber={"type": "integer", "minimum": 1, "maximum": 65535},
                path=TEXT,
                scheme={"enum": ["http", "https"]},
                interval=DURATION,
                scrapeTimeout=DURATION,
                honorLabels={"type": "boolean"},
                relabelings={"type": "array", "items": RELABELING},
                metricRelabelings={"type": "array", "items": RELABELING},
            ),
        },
    ),
)
PROMETHEUS_RULE = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": MONITORING},
    kind={"const": "PrometheusRule"},
    metadata=strict(["name"], name=TEXT, namespace=TEXT, labels=LABELS),
    spec=strict(
        ["groups"],
        groups={
            "type": "array",
            "items": strict(
                ["name", "rules"],
                name=TEXT,
                rules={
                    "type": "array",
                    "items": strict(
                        ["alert", "expr"],
                        **{"alert": TEXT, "expr": TEXT, "for": DURATION},
                        labels=LABELS,
                        annotations=LABELS,
                    ),
                },
            ),
        },
    ),
)
OPERATOR = {"PodMonitor": POD_MONITOR, "PrometheusRule": PROMETHEUS_RULE}
"""The fields of prometheus-operator's kinds that a project of this size may use.

Source: https://prometheus-operator.dev/docs/api-reference/api/
"""


@pytest.mark.fault("F34")
@pytest.mark.parametrize("version", VERSIONS)
def test_objects_fit_the_schemas_of_their_kinds(everything, version):
    objects = {
        json.dumps({**thing, "metadata": {**thing["metadata"], "namespace": ""}})
        for rendered in everything.values()
        for thing in rendered
        if thing["apiVersion"] not in OTHERS
    }
    assert len(objects) > 30
    for text in objects:
        kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.fault("F34")
@pytest.mark.parametrize("version", VERSIONS)
def test_runtime_makes_jobs_with_what_trainjobs_can_not_say(folder, render, version):
    (runtime,) = render(folder / "trainer")
    job = job_of_runtime(runtime)
    kubernetes_validate.validate(job, version, strict=True)
    assert runtime["metadata"]["name"] == JobSpec().runtime
    assert job["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert job["spec"]["backoffLimit"] >= MAX_WORKERS * JobSpec().restarts
    pod = job["spec"]["template"]["spec"]
    assert pod["shareProcessNamespace"] is True
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["name"] == TRAINJOB.container
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert container["ports"] == [{"name": "metrics", "containerPort": METRICS_PORT}]
    classes = {each["metadata"]["name"]: each for each in render(folder / "base")}
    for name in (pod["priorityClassName"], JobSpec().priority_class):
        assert classes[name]["preemptionPolicy"] == "Never"


def test_tensorboard_fits_the_schema_of_kubeflow(checkout, everything):
    path = checkout.parent / "shared" / "schemas" / "tensorboard.v1alpha1.json"
    if not path.is_file():
        pytest.skip("the schema of Tensorboard is not here")
    schema = json.loads(path.read_text())["openAPIV3Schema"]
    schema["additionalProperties"] = schema["properties"]["spec"]["additionalProperties"] = False
    boards = [
        thing
        for rendered in everything.values()
        for thing in rendered
        if thing["apiVersion"] == TENSORBOARD
    ]
    assert boards
    for board in boards:
        jsonschema.validate(board, schema)


def test_monitoring_fits_the_prometheus_operator(everything):
    things = [
        thing
        for rendered in everything.values()
        for thing in rendered
        if thing["apiVersion"] == MONITORING
    ]
    assert {thing["kind"] for thing in things} == set(OPERATOR)
    for thing in things:
        jsonschema.validate(thing, OPERATOR[thing["kind"]])
        for endpoint in thing["spec"].get("podMetricsEndpoints", []):
            interval, timeout = (
                int(endpoint[key].removesuffix("s")) for key in ("interval", "scrapeTimeout")
            )
            assert timeout <= interval


def test_components_can_be_added_to_an_overlay(folder, tmp_path):
    said = {
        "namespace": "someone",
        "resources": [folder / "overlays" / "kubeflow"],
        "components": [folder / "components" / "object-store"],
    }
    objects = render_text(tmp_path, said)
    (config,) = [thing for thing in objects if thing["metadata"]["name"] == "kfp-launcher"]
    assert config["metadata"]["namespace"] == "someone"
    store = yaml.safe_load(config["data"]["providers"])["s3"]["default"]
    assert store["credentials"]["fromEnv"] is False
    assert set(store["credentials"]["secretRef"]) == {"secretName", "accessKeyKey", "secretKeyKey"}
