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


def named(objects):
    return {(thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"]): thing for thing in objects}


@pytest.mark.fault("F34")
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schema_of_its_kind(everything, figure, version):
    objects = [thing for rendered in everything.values() for thing in rendered if thing["apiVersion"] != TENSORBOARD]
    assert len(objects) > 60
    for thing in objects:
        kubernetes_validate.validate(thing, version, strict=True)
        figure(objects_checked=1)


def test_an_unknown_field_would_be_found(everything):
    found = next(thing for rendered in everything.values() for thing in rendered if thing["kind"] == "CronJob")
    thing = copy.deepcopy(found)
    thing["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["imagePullPolicies"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(thing, VERSIONS[-1], strict=True)


def test_the_tensorboard_fits_the_schema_of_kubeflow(checkout, everything):
    path = checkout.parent / "shared" / "schemas" / "tensorboard.v1alpha1.json"
    if not path.is_file():
        pytest.skip("the schema of Tensorboard is not here")
    schema = json.loads(path.read_text())["openAPIV3Schema"]
    schema["additionalProperties"] = schema["properties"]["spec"]["additionalProperties"] = False
    boards = [thing for rendered in everything.values() for thing in rendered if thing["apiVersion"] == TENSORBOARD]
    assert boards
    for board in boards:
        jsonschema.validate(board, schema)


@pytest.mark.parametrize("program", ["kustomize build", "kubectl kustomize"])
def test_kustomize_itself_renders_the_same_and_warns_of_nothing(folder, program):
    if shutil.which(program.split()[0]) is None:
        pytest.skip(f"{program.split()[0]} is not installed")
    for path in folder.rglob("kustomization.yaml"):
        if yaml.safe_load(path.read_text())["kind"] == "Component":
            continue
        done = subprocess.run([*program.split(), path.parent], capture_output=True, text=True, timeout=60)
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
