"""MLflow on the cluster: who reaches it and whom it reaches, and options that its server has."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from kustomize import render_text
from test_manifests import STEP, of_kind, pods, selects

from citeflow.reporting import mlflow_client

NAME = "citeflow-mlflow"
PUBLISH = {**STEP, "app.kubernetes.io/component": "publish"}


@pytest.fixture(scope="module")
def objects(folder, render):
    return render(folder / "components" / "mlflow")


@pytest.fixture(scope="module")
def container(objects):
    (found,) = pods(objects)[NAME]["spec"]["containers"]
    return found


def env(container):
    return {each["name"]: each for each in container["env"]}


ASK_MLFLOW = """
import json, sys
from mlflow import cli, environment_variables
from mlflow.server.security_utils import is_allowed_host_header
allowed, *hosts = sys.argv[1:]
said = {
    "options": [option for each in cli.server.params for option in each.opts],
    "variables": [*vars(environment_variables), *(each.envvar for each in cli.server.params)],
    "allowed": [host for host in hosts if is_allowed_host_header(allowed.split(","), host)],
}
print(json.dumps(said))
"""


def test_server_takes_options_and_variables_and_answers_by_the_names_of_its_service(
    container, objects
):
    pytest.importorskip("flask", reason="mlflow-skinny is only the client")
    (service,) = of_kind(objects, "Service")
    good = [service, f"{service}.kubeflow", f"{service}.kubeflow.svc.cluster.local"]
    good.append("localhost:5000")
    bad = [f"{service}.example.com", "example.com", f"x{service}"]
    hosts = env(container)["MLFLOW_SERVER_ALLOWED_HOSTS"]["value"]
    allowed = hosts.replace("$(NAMESPACE)", "kubeflow")
    assert env(container)["NAMESPACE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
    # A process of its own: its packages warn when they are imported.
    command = [sys.executable, "-c", ASK_MLFLOW, allowed, *good, *bad]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["allowed"] == good
    assert {each.partition("=")[0] for each in container["args"]} <= {*said["options"]}
    variables = {name for name in env(container) if name.startswith("MLFLOW_")}
    assert variables <= {*said["variables"]}


def test_server_listens_where_its_service_sends(container, objects):
    assert f"--port={container['ports'][0]['containerPort']}" in container["args"]
    (port,) = of_kind(objects, "Service")[NAME]["spec"]["ports"]
    uri = of_kind(objects, "ConfigMap")[NAME]["data"][mlflow_client.URI_VARIABLE]
    assert (uri, port["port"]) == (f"http://{NAME}", 80)


def test_steps_read_the_address_that_the_component_sets(checkout, objects):
    (made,) = of_kind(objects, "ConfigMap")
    _, platform = yaml.safe_load_all((checkout / "pipelines/images/pipeline.yaml").read_text())
    steps = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    maps = [each["configMapName"] for each in steps["exec-publish"]["configMapAsEnv"]]
    assert made in maps


def test_server_has_no_sidecar_as_the_steps_have_none(objects):
    """One would deny their requests wherever a mesh denies what no policy of its own allows."""
    template = of_kind(objects, "Deployment")[NAME]["spec"]["template"]
    for kind in ("labels", "annotations"):
        assert template["metadata"][kind]["sidecar.istio.io/inject"] == "false"


def test_policy_lets_pods_of_citeflow_in_and_two_servers_out(objects):
    spec = of_kind(objects, "NetworkPolicy")[NAME]["spec"]
    (rule,) = spec["ingress"]
    (peer,) = rule["from"]
    assert selects(peer["podSelector"], PUBLISH)
    assert not selects(peer["podSelector"], {"app": "other"})
    assert "namespaceSelector" not in peer
    database, store, dns = spec["egress"]
    assert {port["port"] for port in database["ports"]} == {3306, 5432}
    assert {port["port"] for port in store["ports"]} == {9000, 8333}
    assert {port["port"] for port in dns["ports"]} == {53}
    for rule in (database, store):
        (peer,) = rule["to"]
        assert set(peer) == {"namespaceSelector", "podSelector"}


def test_keys_stay_in_secrets_that_the_guide_makes(checkout, container):
    guide = (checkout / "docs" / "cluster.md").read_text()
    named = {
        (ref["name"], ref["key"])
        for each in container["env"]
        if (ref := each.get("valueFrom", {}).get("secretKeyRef"))
    }
    assert named == {
        ("citeflow-mlflow-server", "url"),
        ("mlpipeline-minio-artifact", "accesskey"),
        ("mlpipeline-minio-artifact", "secretkey"),
    }
    assert "create secret generic citeflow-mlflow-server --from-file=url=" in guide
    assert not any("value" in each for each in container["env"] if "KEY" in each["name"])


def test_guide_adds_the_component_to_an_overlay(checkout, folder, tmp_path):
    guide = (checkout / "docs" / "cluster.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", guide, re.S)]
    (said,) = [each for each in blocks if "../../components/mlflow" in each.get("components", [])]
    found = render_text(
        tmp_path,
        {
            **said,
            "resources": [folder / "overlays" / "kind"],
            "components": [folder / "components" / "mlflow"],
        },
    )
    names = {thing["metadata"]["name"] for thing in found if thing["kind"] == "Deployment"}
    assert NAME in names
    assert {
        thing["metadata"]["namespace"] for thing in found if "namespace" in thing["metadata"]
    } == {said["namespace"]}
