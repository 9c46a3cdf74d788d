"""The platform on a cluster: its rights, its confinement, and what its container is told."""

import pytest
import yaml
from kustomize import pod_template

from citeflow.cli.platform import platform
from citeflow.kubernetes.environment_objects import ACCOUNT, EnvironmentSettings
from citeflow.kubernetes.rbac import LAUNCHER_ROLE, PLATFORM_OF_CLUSTER, PLATFORM_ROLE
from citeflow.platform.backends.kubernetes import ClusterSettings
from citeflow.serving.listening import GRACE_S
from citeflow.utils import records


@pytest.fixture(scope="module")
def objects(folder, render):
    things = render(folder / "overlays" / "platform")
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}


@pytest.fixture
def container(objects):
    (only,) = pod_template(objects["Deployment", "citeflow-platform"])["spec"]["containers"]
    return only


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("citeflow-platform-tenants", PLATFORM_OF_CLUSTER),
        ("citeflow-platform", PLATFORM_ROLE),
        ("citeflow-launcher", LAUNCHER_ROLE),
    ],
)
def test_roles_of_the_manifests_are_those_of_the_code(objects, name, rules):
    assert objects["ClusterRole", name]["rules"] == [
        {
            "apiGroups": [rule.group],
            "resources": [rule.resource],
            "verbs": list(rule.verbs),
            **({"resourceNames": list(rule.names)} if rule.names else {}),
        }
        for rule in rules
    ]


def test_account_has_one_role_of_the_cluster(objects):
    bindings = [thing for (kind, _), thing in objects.items() if kind == "ClusterRoleBinding"]
    (binding,) = bindings
    assert binding["roleRef"]["name"] == "citeflow-platform-tenants"
    account = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "citeflow-platform"}
    assert binding["subjects"] == [account]
    spec = pod_template(objects["Deployment", "citeflow-platform"])["spec"]
    assert spec["serviceAccountName"] == ACCOUNT
    assert not any(kind == "RoleBinding" for kind, _ in objects)


def test_admission_confines_the_account_to_namespaces_of_users(objects):
    policy = objects["ValidatingAdmissionPolicy", "citeflow-platform"]["spec"]
    (rule,) = policy["validations"]
    prefix = EnvironmentSettings().prefix
    assert f".startsWith('{prefix}')" in rule["expression"]
    assert policy["failurePolicy"] == "Fail"
    guarded = {
        (group, resource)
        for each in policy["matchConstraints"]["resourceRules"]
        for group in each["apiGroups"]
        for resource in each["resources"]
    }
    changed = {
        (rule.group, rule.resource)
        for rule in PLATFORM_OF_CLUSTER
        if {"create", "patch", "delete"} & set(rule.verbs)
    }
    assert guarded == changed
    binding = objects["ValidatingAdmissionPolicyBinding", "citeflow-platform"]["spec"]
    assert binding == {"policyName": "citeflow-platform", "validationActions": ["Deny"]}
    (condition,) = policy["matchConditions"]
    assert f":{ACCOUNT}$" in condition["expression"]


def test_container_is_told_what_its_command_accepts(objects, container):
    assert container["command"] == ["tini", "--", "python3", "-m", "citeflow", platform.name]
    told = platform.make_context(platform.name, list(container["args"])).params
    where = told["where"]
    assert (where.host, where.port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    assert {"name": "http", "port": 80, "targetPort": "http"} in objects[
        "Service", "citeflow-platform"
    ]["spec"]["ports"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["own"] == str(told["data"])
    assert str(told["cluster"].parent) == mounts["settings"]
    (config,) = [thing for (kind, _), thing in objects.items() if kind == "ConfigMap"]
    values = records.parse_yaml(config["data"][told["cluster"].name], "cluster")
    settings = records.load(ClusterSettings, values)
    assert settings.volumes == mounts["users"]
    assert ("StorageClass", settings.storage_class) in objects
    assert "url" in config["data"]


def test_container_has_time_to_end(objects):
    spec = pod_template(objects["Deployment", "citeflow-platform"])["spec"]
    assert spec["terminationGracePeriodSeconds"] >= GRACE_S + 5


def test_claims_of_users_are_folders_of_the_share(objects):
    storage = objects["StorageClass", "citeflow-users"]
    assert storage["parameters"]["subDir"] == "${pvc.metadata.namespace}"
    share = objects["PersistentVolume", "citeflow-users"]["spec"]["csi"]["volumeAttributes"]
    assert share.items() <= storage["parameters"].items()
    assert storage["reclaimPolicy"] == "Retain"


def test_guide_shows_the_settings_that_there_are(checkout):
    guide = (checkout / "docs" / "platform-cluster.md").read_text()
    (block,) = [each for each in guide.split("```") if each.startswith("yaml\n# cluster.yaml")]
    shown = yaml.safe_load(block.removeprefix("yaml\n"))
    assert set(shown) == set(ClusterSettings.model_fields)
    assert records.load(ClusterSettings, shown)
