"""Environments of users, on an API server in memory with the controllers of a namespace."""

import dataclasses

import jsonschema
import kubernetes_validate
import pytest
import yaml
from clusters import close, connect
from fakes.controllers import Controllers
from fakes.kube_api import KubeApi

from citeflow.errors import ConfigError, UnavailableError
from citeflow.kubernetes import environment_objects as render
from citeflow.kubernetes import profiles
from citeflow.kubernetes.environment_objects import EnvironmentSettings, Size, Tenant
from citeflow.kubernetes.profiles import Amounts, Environments

GIB = 2**30
SMALL, LARGE = (
    Size(cores=2, memory="4Gi", disk="10Gi"),
    Size(cores=8, memory="16Gi", disk="50Gi"),
)
PLACE = "citeflow-user-alice"
WITHOUT = {"plain": ("Profile", "LocalQueue"), "profiles": ("LocalQueue",)}


@pytest.fixture
def make(monkeypatch):
    """Return environments of a cluster without certain kinds, its API server and controllers."""
    monkeypatch.setattr(profiles, "CONTROLLER_S", 0.2)
    opened = []

    def make(*without, **settings):
        kube = KubeApi(without=without).__enter__()
        client = connect(kube.url)
        opened.append((kube, client))
        settings = EnvironmentSettings(**settings)
        return Environments(client=client, settings=settings), kube, Controllers(kube)

    yield make
    for kube, client in opened:
        close(client)
        kube.__exit__(None, None, None)


@pytest.fixture(params=WITHOUT)
def place(request, make):
    """Both kinds of clusters: with Profiles, and without."""
    return make(*WITHOUT[request.param])


def names(kube):
    return {
        (plural, name) for (plural, namespace, name) in kube.store.objects if namespace == PLACE
    }


def test_ensure_makes_an_environment_that_is_measured(place):
    environments, kube, _ = place
    assert environments.standing("alice").state == "absent"
    environments.ensure("alice", SMALL)
    standing = environments.standing("alice")
    assert standing.state == "ready"
    assert standing.quota == Amounts(cores=2, memory=4 * GIB, disk=10 * GIB)
    assert standing.used.disk == 10 * GIB
    wanted = {
        ("limitranges", "citeflow"),
        ("networkpolicies", "citeflow-deny-ingress"),
        ("networkpolicies", "citeflow-workers"),
        ("persistentvolumeclaims", "citeflow-data"),
        ("rolebindings", "citeflow-platform"),
        ("jobs", "citeflow-volume"),
    }
    assert wanted <= names(kube)


def test_ensure_repeated_changes_nothing_and_resizes(place):
    environments, kube, _ = place
    environments.ensure("alice", SMALL)
    before = {key: each["metadata"]["uid"] for key, each in kube.store.objects.items()}
    environments.ensure("alice", SMALL)
    assert {key: each["metadata"]["uid"] for key, each in kube.store.objects.items()} == before
    environments.ensure("alice", LARGE)
    assert environments.standing("alice").quota == Amounts(cores=8, memory=16 * GIB, disk=50 * GIB)
    assert environments.standing("alice").used.disk == 50 * GIB
    environments.ensure("alice", SMALL)
    assert environments.standing("alice").quota.cores == 2
    assert environments.standing("alice").used.disk == 50 * GIB  # no claim shrinks


@pytest.mark.parametrize(
    "resource",
    [
        "namespaces",
        "rolebindings",
        "resourcequotas",
        "limitranges",
        "networkpolicies",
        "persistentvolumeclaims",
        "jobs",
    ],
)
def test_ensure_repeated_makes_up_for_what_was_refused(make, resource):
    environments, kube, _ = make(*WITHOUT["plain"])
    kube.fail(status=403, verb="create", resource=resource)
    with pytest.raises(ConfigError, match="the cluster refuses"):
        environments.ensure("alice", SMALL)
    environments.ensure("alice", SMALL)
    assert environments.standing("alice").state == "ready"
    assert kube.list(resource)


def test_standing_tells_what_an_environment_waits_for(place):
    environments, _, controllers = place
    controllers.binds = False
    environments.ensure("alice", SMALL)
    standing = environments.standing("alice")
    assert (standing.state, standing.detail) == ("preparing", "its volume is pending")
    controllers.binds = True
    controllers.sync()
    assert environments.standing("alice").state == "ready"


def test_standing_counts_what_pods_ask_for(place):
    environments, kube, controllers = place
    environments.ensure("alice", SMALL)
    resources = {"requests": {"cpu": "1500m", "memory": "3Gi"}}
    for number in range(2):
        metadata = {"name": f"pod-{number}", "namespace": PLACE}
        spec = {"containers": [{"name": "main", "resources": resources}]}
        kube.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": spec,
                "status": {"phase": "Running"},
            }
        )
    for job in kube.list("jobs"):
        controllers.finish(job, 0)
    assert environments.standing("alice").used == Amounts(cores=3, memory=6 * GIB, disk=10 * GIB)


def test_ensure_refuses_the_namespace_of_another(place):
    environments, kube, _ = place
    kube.add_namespace(PLACE)
    with pytest.raises(ConfigError, match="there is another namespace: citeflow-user-alice"):
        environments.ensure("alice", SMALL)
    assert names(kube) == set()


def test_ensure_waits_for_the_end_of_a_namespace_that_is_deleted(place):
    environments, kube, _ = place
    kube.add_namespace(PLACE)
    gone = {"metadata": {"deletionTimestamp": "2026-11-28T10:00:00Z"}}
    kube.patch("namespaces", "", PLACE, gone)
    with pytest.raises(UnavailableError, match="is being deleted: citeflow-user-alice"):
        environments.ensure("alice", SMALL)
    assert environments.standing("alice").detail == "it is being deleted"


def test_ensure_leaves_a_suspended_environment_suspended(place):
    environments, _, _ = place
    environments.ensure("alice", SMALL)
    environments.suspend("alice")
    environments.ensure("alice", LARGE)
    assert environments.standing("alice").state == "suspended"


def test_ensure_ends_where_no_controller_makes_the_namespace(make):
    environments, kube, _ = make("LocalQueue")
    kube._callbacks.clear()
    with pytest.raises(UnavailableError, match="the namespace is not ready"):
        environments.ensure("alice", SMALL)


def test_remove_refuses_while_runs_are_at_work_unless_forced(place):
    environments, kube, _ = place
    environments.ensure("alice", SMALL)
    labels = {"app.kubernetes.io/part-of": "citeflow", "pipeline/runid": "1"}
    metadata = {"name": "step", "namespace": PLACE, "labels": labels}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    spec = {"containers": [{"name": "main"}]}
    kube.put({**pod, "spec": spec, "status": {"phase": "Running"}})
    with pytest.raises(ConfigError, match=r"runs are at work in the environment: Pod/step"):
        environments.remove("alice")
    assert environments.standing("alice").state == "ready"
    assert environments.remove("alice", force=True)
    assert environments.standing("alice").state == "absent"
    assert names(kube) == set()
    assert not environments.remove("alice")


def test_queue_is_made_where_kueue_is_there(make):
    environments, kube, _ = make("Profile", cluster_queue="lab")
    environments.ensure("alice", SMALL)
    queue = kube.get("localqueues", PLACE, "citeflow")
    assert queue["spec"]["clusterQueue"] == "lab"
    environments.suspend("alice")
    assert kube.get("localqueues", PLACE, "citeflow")["spec"]["stopPolicy"] == "HoldAndDrain"
    environments.wake("alice")
    assert kube.get("localqueues", PLACE, "citeflow")["spec"]["stopPolicy"] == "None"


def test_suspend_ends_pods_and_wake_lets_the_same_jobs_go_on(place):
    environments, kube, _ = place
    environments.ensure("alice", SMALL)
    client = environments.client_of("alice")
    spec = {"activeDeadlineSeconds": 60, "template": {"metadata": {"labels": {}}}}
    spec["template"]["spec"] = {"containers": [{"name": "main"}]}
    metadata = {"namespace": PLACE, "labels": dict(render.LABELS)}
    head = {"apiVersion": "batch/v1", "kind": "Job"}
    for name, is_suspended in (("run", False), ("held", True)):
        job = {**head, "metadata": {**metadata, "name": name}}
        kube.put({**job, "spec": {**spec, "suspend": is_suspended}})
    head = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob"}
    kube.put({**head, "metadata": {**metadata, "name": "train"}, "spec": {"runPolicy": {}}})
    environments.suspend("alice")
    assert environments.standing("alice").state == "suspended"
    assert environments.standing("alice").detail.startswith("since 20")
    assert kube.get("jobs", PLACE, "run")["spec"]["suspend"]
    assert kube.get("pytorchjobs", PLACE, "train")["spec"]["runPolicy"] == {"suspend": True}
    assert not [pod for pod in client.pods("") if pod.name.startswith("run")]
    environments.wake("alice")
    assert environments.standing("alice").state == "ready"
    assert not kube.get("jobs", PLACE, "run")["spec"]["suspend"]
    assert kube.get("pytorchjobs", PLACE, "train")["spec"]["runPolicy"] == {"suspend": False}
    assert [pod for pod in client.pods("") if pod.name.startswith("run")]


def test_namespaces_of_long_names_differ():
    environments = Environments(client=dataclasses.make_dataclass("C", ["namespace"])("platform"))
    assert environments.namespace("alice") == PLACE
    long = [environments.namespace("a" * 62 + last) for last in "bc"]
    assert len(set(long)) == 2
    assert all(len(name) == 63 for name in long)


TENANT = Tenant(user="alice", namespace=PLACE, platform="citeflow")


def rendered(settings):
    plain = [
        render.namespace(TENANT),
        render.quota(TENANT, SMALL),
        render.limits(TENANT),
        render.platform_binding(TENANT),
        *render.profile_bindings(TENANT),
        render.claim(TENANT, SMALL, settings),
        render.volume_job(TENANT, settings),
    ]
    policies = [render.policies(TENANT, is_profile=is_profile) for is_profile in (True, False)]
    return [*plain, *policies[0], *policies[1]]


@pytest.mark.parametrize("version", ["1.31", "1.34"])
def test_objects_fit_the_schemas_of_their_kinds(version):
    for thing in rendered(EnvironmentSettings(storage_class="nfs")):
        kubernetes_validate.validate(thing, version, strict=True)


def test_policies_are_those_of_the_manifests(checkout):
    text = (checkout / "manifests" / "base" / "network.yaml").read_text()
    known = {each["metadata"]["name"]: each["spec"] for each in yaml.safe_load_all(text)}
    for policy in render.policies(TENANT, is_profile=True):
        assert policy["spec"] == known[policy["metadata"]["name"]]


def test_volume_job_is_that_of_the_manifests(checkout):
    known = yaml.safe_load((checkout / "manifests" / "base" / "volume.yaml").read_text())
    made = render.volume_job(TENANT, EnvironmentSettings())
    for job in (known, made):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        del container["command"]
    spec, other = (job["spec"]["template"]["spec"] for job in (known, made))
    assert spec == other


def test_profile_and_queue_have_known_fields_only():
    text = {"type": "string"}
    owner = {"kind": {"const": "User"}, "name": text}
    spec = {
        "owner": {"type": "object", "properties": owner, "additionalProperties": False},
        "resourceQuotaSpec": {
            "type": "object",
            "properties": {"hard": {"type": "object", "additionalProperties": text}},
            "additionalProperties": False,
        },
    }
    settings = EnvironmentSettings(profile_owner="{user}@example.org", cluster_queue="lab")
    profile = render.profile(TENANT, SMALL, settings)
    jsonschema.validate(profile["spec"], {"properties": spec, "additionalProperties": False})
    assert profile["spec"]["owner"]["name"] == "alice@example.org"
    assert render.queue(TENANT, settings)["spec"] == {"clusterQueue": "lab"}
