import copy
import json
import shutil
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kustomize import render

VERSIONS = ("1.31", "1.34")
TENSORBOARD = "tensorboard.kubeflow.org/v1alpha1"
MONITORING = "monitoring.coreos.com/v1"
OTHERS = (TENSORBOARD, MONITORING)


def strict(required=(), **properties):
    """The schema of an object that has these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT, TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w|y))+$"}
LABELS = {"type": "object", "additionalProperties": TEXT}
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
"""The fields of prometheus-operator's PodMonitor that a project of this size may use.

Source: https://prometheus-operator.dev/docs/api-reference/api/
"""


def named(objects):
    return {
        (thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"]): thing
        for thing in objects
    }


@pytest.mark.fault("F34")
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schema_of_its_kind(everything, version):
    objects = [
        thing
        for rendered in everything.values()
        for thing in rendered
        if thing["apiVersion"] not in OTHERS
    ]
    assert len(objects) > 60
    for thing in objects:
        kubernetes_validate.validate(thing, version, strict=True)


def test_an_unknown_field_would_be_found(everything):
    found = next(
        thing
        for rendered in everything.values()
        for thing in rendered
        if thing["kind"] == "CronJob"
    )
    thing = copy.deepcopy(found)
    thing["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0][
        "imagePullPolicies"
    ] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(thing, VERSIONS[-1], strict=True)


def test_the_tensorboard_fits_the_schema_of_kubeflow(checkout, everything):
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


def test_the_pod_monitor_fits_the_fields_of_the_prometheus_operator(everything):
    monitors = [
        thing
        for rendered in everything.values()
        for thing in rendered
        if thing["apiVersion"] == MONITORING
    ]
    assert len(monitors) == 2
    for monitor in monitors:
        jsonschema.validate(monitor, POD_MONITOR)
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            interval, timeout = (
                int(endpoint[key].removesuffix("s")) for key in ("interval", "scrapeTimeout")
            )
            assert timeout <= interval


def test_an_unknown_field_of_the_pod_monitor_would_be_found(everything):
    found = next(
        thing
        for rendered in everything.values()
        for thing in rendered
        if thing["kind"] == "PodMonitor"
    )
    thing = copy.deepcopy(found)
    thing["spec"]["podMetricsEndpoints"][0]["ports"] = "metrics"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(thing, POD_MONITOR)


@pytest.mark.parametrize("program", ["kustomize build", "kubectl kustomize"])
def test_kustomize_itself_renders_the_same_and_warns_of_nothing(folder, program):
    if shutil.which(program.split()[0]) is None:
        pytest.skip(f"{program.split()[0]} is not installed")
    for path in folder.rglob("kustomization.yaml"):
        if yaml.safe_load(path.read_text())["kind"] == "Component":
            continue
        done = subprocess.run(
            [*program.split(), path.parent], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert named(yaml.safe_load_all(done.stdout)) == named(render(path.parent)), path


def test_a_component_can_be_added_to_an_overlay(folder, tmp_path):
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "someone",
                "resources": [f"{folder}/overlays/kubeflow"],
                "components": [f"{folder}/components/object-store"],
            }
        )
    )
    (config,) = [thing for thing in render(tmp_path) if thing["metadata"]["name"] == "kfp-launcher"]
    assert config["metadata"]["namespace"] == "someone"
    store = yaml.safe_load(config["data"]["providers"])["s3"]["default"]
    assert store["credentials"]["fromEnv"] is False
    assert set(store["credentials"]["secretRef"]) == {"secretName", "accessKeyKey", "secretKeyKey"}
