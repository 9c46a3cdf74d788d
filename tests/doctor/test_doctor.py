"""What `citeflow doctor` finds, on a cluster in memory and a stand-in for Kubeflow Pipelines."""

import datetime
import json
import tomllib
from pathlib import Path

import pytest
import yaml
from fakes import kfp_server
from fakes.kfp_server import serving
from fakes.kube_api import KubeApi
from fakes.kube_objects import Kind

from citeflow.cli import main
from citeflow.doctor import machine
from citeflow.kubeflow import api
from citeflow.kubernetes import client as cluster_api
from citeflow.kubernetes.rbac import LAUNCHER, REAPER

NAMESPACE = "kubeflow"
EXTRA_KINDS = [
    Kind(group="", version="v1", plural="resourcequotas", kind="ResourceQuota"),
    Kind(group="", version="v1", plural="limitranges", kind="LimitRange", has_status=False),
]


class Cluster(KubeApi):
    """An API server that reviews the access of others too, unless the asker may not ask."""

    may_ask = True

    def _reply(self, request):
        if request.path.endswith("/subjectaccessreviews"):
            if not self.may_ask:
                return 403, {"message": "subjectaccessreviews is forbidden", "code": 403}, {}
            return (
                201,
                {**request.body, "status": {"allowed": self.allows(request.body["spec"])}},
                {},
            )
        return super()._reply(request)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Neither a cluster nor a server, but what a test names."""
    monkeypatch.setattr(api, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(api, "PATIENCE_S", 0.05)
    monkeypatch.setattr(machine, "DISK_GIB", 0)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    monkeypatch.chdir(tmp_path)
    from kfp import client

    monkeypatch.setattr(
        client.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "home" / "context.json")
    )


@pytest.fixture
def kube(monkeypatch):
    """A cluster on which all is well."""
    with Cluster(kinds=EXTRA_KINDS) as kube:
        put(
            kube,
            "v1",
            "PersistentVolumeClaim",
            "citeflow-data",
            {"accessModes": ["ReadWriteMany"]},
            BOUND,
        )
        put(
            kube,
            "batch/v1",
            "CronJob",
            "citeflow-reaper",
            {"schedule": "* * * * *"},
            well(seconds_ago=40),
        )
        put(
            kube,
            "v1",
            "Node",
            "node-0",
            {},
            {"allocatable": {"cpu": "3920m", "memory": "16344524Ki"}},
        )
        reach(kube, monkeypatch)
        yield kube


@pytest.fixture
def kfp(monkeypatch):
    """A server whose old API tells a version."""
    answer = kfp_server.Answers.answer

    def with_version(self):
        return (
            {"tag_name": "2.17.0"} if self.request.path == "/apis/v1beta1/healthz" else answer(self)
        )

    monkeypatch.setattr(kfp_server.Answers, "answer", with_version)
    with serving() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        yield server


BOUND = {"phase": "Bound", "capacity": {"storage": "100Gi"}, "accessModes": ["ReadWriteMany"]}


def reach(kube, monkeypatch):
    def connect(*, namespace):
        return cluster_api.Api(client=kube.client(retries=False), namespace=namespace)

    monkeypatch.setattr(cluster_api, "connect", connect)


def put(kube, version, kind, name, spec, status=None):
    meta = {"name": name} | ({} if kind == "Node" else {"namespace": NAMESPACE})
    kube.put(
        {
            "apiVersion": version,
            "kind": kind,
            "metadata": meta,
            "spec": spec,
            "status": status or {},
        }
    )


def well(*, seconds_ago):
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds_ago)
    return {"lastSuccessfulTime": then.strftime("%Y-%m-%dT%H:%M:%SZ")}


def doctor(capfd, *arguments):
    """Exit code, findings by what they are about, stderr."""
    code = main(["doctor", "--json", *arguments])
    out, err = capfd.readouterr()
    return code, {found["what"]: found for found in map(json.loads, out.splitlines())}, err


def test_where_all_is_well_nothing_is_missing(kube, kfp, capfd):
    code, found, err = doctor(capfd)
    assert (code, err) == (0, "")
    assert {
        what: each for what, each in found.items() if each["status"] in ("missing", "warning")
    } == {}
    assert found["Kubernetes API"]["value"].startswith("v1.33.1")
    assert found["claim citeflow-data"]["value"] == "Bound 100Gi"
    assert found["nodes"]["value"].startswith("1; without other pods, room for 7 workers")
    assert found["version of Kubeflow Pipelines"]["value"] == "2.17.0"
    assert found["pipeline citation"] | {"hint": ""} == {
        "status": "note",
        "what": "pipeline citation",
        "value": "not uploaded",
        "hint": "",
    }


def test_text_has_a_line_for_each_check_and_a_hint_where_something_is_to_do(kube, kfp, capfd):
    kube.remove("cronjobs", NAMESPACE, "citeflow-reaper")
    assert main(["doctor"]) == 69
    out, err = capfd.readouterr()
    lines = out.splitlines()
    at = next(
        i
        for i, line in enumerate(lines)
        if line.startswith("missing  CronJob citeflow-reaper: not there")
    )
    assert "kubectl apply -k" in lines[at + 1]
    assert "error: missing: CronJob citeflow-reaper" in err


def test_a_pipeline_that_was_uploaded_is_named_by_its_newest_version(kube, kfp, capfd):
    assert main(["submit", "--upload-only", "--pipeline-version", "mine"]) == 0
    capfd.readouterr()
    _, found, _ = doctor(capfd)
    assert (found["pipeline citation"]["status"], found["pipeline citation"]["value"]) == (
        "ok",
        "mine",
    )


def test_an_old_server_is_a_warning(kube, kfp, capfd, monkeypatch):
    monkeypatch.setattr(kfp_server.Answers, "answer", old(kfp_server.Answers.answer))
    _, found, _ = doctor(capfd)
    assert found["version of Kubeflow Pipelines"]["status"] == "warning"


def old(answer):
    return lambda self: {"tag_name": "2.3.0"} if "v1beta1" in self.request.path else answer(self)


def test_a_server_of_pipelines_that_does_not_answer_is_missing(kube, kfp, capfd):
    kfp.fail("GET", "/healthz", 503, times=1000)
    code, found, _ = doctor(capfd)
    assert code == 69
    assert found["Kubeflow Pipelines"]["status"] == "missing"


def test_a_server_of_several_users_without_a_namespace_is_told(kube, capfd, monkeypatch):
    with serving(multi_user=True) as server:
        code, found, _ = doctor(capfd, "--host", server.url)
    assert code == 69
    assert "shared by several users" in found["Kubeflow Pipelines"]["value"]


@pytest.mark.parametrize(
    ("status", "what", "wanted"),
    [
        ({**BOUND, "accessModes": ["ReadWriteOnce"]}, "access modes of citeflow-data", "warning"),
        ({"phase": "Pending"}, "claim citeflow-data", "missing"),
        ({"phase": "Lost"}, "claim citeflow-data", "missing"),
    ],
)
def test_a_claim_that_does_not_fit_is_told(kube, kfp, capfd, status, what, wanted):
    put(
        kube,
        "v1",
        "PersistentVolumeClaim",
        "citeflow-data",
        {"accessModes": ["ReadWriteMany"]},
        status,
    )
    code, found, _ = doctor(capfd)
    assert found[what]["status"] == wanted
    assert found[what]["hint"]
    assert code == (69 if wanted == "missing" else 0)


def test_a_claim_that_is_not_there_is_told(kube, kfp, capfd):
    kube.remove("persistentvolumeclaims", NAMESPACE, "citeflow-data")
    code, found, _ = doctor(capfd)
    assert (code, found["claim citeflow-data"]["status"]) == (69, "missing")


@pytest.mark.parametrize(("seconds", "wanted"), [(500, "ok"), (700, "warning")])
def test_a_reaper_that_was_not_well_lately_is_told(kube, kfp, capfd, seconds, wanted):
    put(
        kube,
        "batch/v1",
        "CronJob",
        "citeflow-reaper",
        {"schedule": "* * * * *"},
        well(seconds_ago=seconds),
    )
    _, found, _ = doctor(capfd)
    assert found["CronJob citeflow-reaper"]["status"] == wanted


@pytest.mark.parametrize(("spec", "wanted"), [({}, "warning"), ({"suspend": True}, "missing")])
def test_a_reaper_that_never_ran_is_told(kube, kfp, capfd, spec, wanted):
    kube.remove("cronjobs", NAMESPACE, "citeflow-reaper")
    put(kube, "batch/v1", "CronJob", "citeflow-reaper", {"schedule": "* * * * *", **spec})
    _, found, _ = doctor(capfd)
    assert found["CronJob citeflow-reaper"]["status"] == wanted


@pytest.mark.parametrize(
    ("gone", "launcher", "what"),
    [
        ("pytorchjobs", "pytorchjob", "pytorchjobs.kubeflow.org"),
        ("trainer.kubeflow.org", "trainjob", "trainjobs.trainer.kubeflow.org"),
        ("workflows", "pytorchjob", "workflows.argoproj.io"),
    ],
)
def test_a_resource_that_the_cluster_does_not_know_is_missing(
    gone, launcher, what, capfd, monkeypatch
):
    with Cluster(without=[gone]) as kube:
        reach(kube, monkeypatch)
        code, found, _ = doctor(capfd, "--launcher", launcher)
    assert (code, found[what]["status"]) == (69, "missing")


def test_one_launcher_does_not_need_the_other_s_resources_and_rights(capfd, monkeypatch):
    with Cluster(without=["trainer.kubeflow.org"]) as kube:
        kube.allows = lambda asked: asked["group"] != "trainer.kubeflow.org"
        reach(kube, monkeypatch)
        _, found, _ = doctor(capfd)
    told = [each for what, each in found.items() if "trainer" in what or "trainjobs" in what]
    assert told == []
    assert found["rights of you: pytorchjobs.kubeflow.org"]["status"] == "ok"


def test_a_runtime_for_trainjobs_is_looked_for(kube, kfp, capfd):
    _, found, _ = doctor(capfd, "--launcher", "trainjob")
    assert found["ClusterTrainingRuntime"]["status"] == "missing"
    put_runtime = {"name": "torch-distributed"}
    kube.put(
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "ClusterTrainingRuntime",
            "metadata": put_runtime,
        }
    )
    _, found, _ = doctor(capfd, "--launcher", "trainjob")
    assert found["ClusterTrainingRuntime"]["status"] == "ok"


def test_every_right_of_the_launcher_is_asked_for_and_what_is_refused_is_named(kube, kfp, capfd):
    kube.allows = lambda asked: asked["verb"] not in ("patch", "delete")
    code, found, _ = doctor(capfd)
    assert code == 69
    assert found["rights of you: pytorchjobs.kubeflow.org"]["value"] == "not allowed: patch, delete"
    asked = [
        seen.body["spec"]["resourceAttributes"] for seen in kube.requests if "reviews" in seen.path
    ]
    assert {
        "namespace": NAMESPACE,
        "group": "",
        "resource": "pods",
        "verb": "get",
        "subresource": "log",
    } in asked
    assert len(asked) == 6


def test_the_rights_of_a_service_account_are_asked_for_on_its_behalf(kube, kfp, capfd):
    seen = []
    kube.allows = lambda spec: seen.append(spec) or "pipeline-runner" not in spec["user"]
    code, found, _ = doctor(capfd, "--service-account", "pipeline-runner")
    assert code == 69
    assert found["rights of pipeline-runner: pods"]["status"] == "missing"
    assert {spec["user"] for spec in seen} == {"system:serviceaccount:kubeflow:pipeline-runner"}
    assert all("system:serviceaccounts:kubeflow" in spec["groups"] for spec in seen)


def test_who_may_not_ask_on_another_s_behalf_is_told_how_to_ask(kube, kfp, capfd):
    kube.may_ask = False
    code, found, _ = doctor(capfd, "--service-account", "pipeline-runner")
    told = found["rights of pipeline-runner: pods/log"]
    assert (code, told["status"]) == (0, "warning")
    who = "-n kubeflow --as=system:serviceaccount:kubeflow:pipeline-runner"
    assert f"kubectl auth can-i get pods --subresource=log {who}" in told["hint"]


def test_what_may_not_be_seen_is_a_warning_and_ends_no_other_check(kube, kfp, capfd):
    refused = kube.fail(1000, status=403, resource="nodes", message="nodes is forbidden")
    kube.fail(1000, status=403, resource="persistentvolumeclaims")
    kube.drop(1000, resource="namespaces")
    code, found, _ = doctor(capfd)
    assert refused.fired
    assert code == 0
    assert "nodes is forbidden" in found["nodes"]["value"]
    assert {found[what]["status"] for what in ("nodes", "claim citeflow-data", "namespace")} == {
        "warning"
    }
    assert found["CronJob citeflow-reaper"]["status"] == "ok"


def test_an_api_that_is_not_there_is_one_finding(kube, kfp, capfd):
    kube.outage()
    code, found, _ = doctor(capfd)
    assert code == 69
    assert found["Kubernetes API"]["status"] == "missing"
    assert "claim citeflow-data" not in found


def test_a_namespace_is_told_with_its_pod_security_sidecars_and_limits(kube, kfp, capfd):
    labels = {"pod-security.kubernetes.io/enforce": "baseline", "istio-injection": "enabled"}
    kube.patch("namespaces", "", NAMESPACE, {"metadata": {"labels": labels}})
    put(kube, "v1", "ResourceQuota", "team", {}, {"hard": {"pods": "20"}, "used": {"pods": "3"}})
    put(
        kube,
        "v1",
        "LimitRange",
        "sizes",
        {"limits": [{"type": "Container", "max": {"memory": "2Gi"}}]},
    )
    _, found, _ = doctor(capfd)
    assert found["pod security enforced"]["value"].startswith("baseline")
    assert found["istio sidecars"]["status"] == "note"
    assert found["ResourceQuota team"]["value"] == "pods 3 of 20"
    assert found["LimitRange sizes"]["value"] == "Container: max memory 2Gi"


def test_nodes_without_room_are_a_warning(kube, kfp, capfd):
    put(kube, "v1", "Node", "node-0", {}, {"allocatable": {"cpu": "2", "memory": "4000000000"}})
    _, found, _ = doctor(capfd)
    assert found["nodes"]["status"] == "warning"
    put(
        kube,
        "v1",
        "Node",
        "node-1",
        {"unschedulable": True},
        {"allocatable": {"cpu": "64", "memory": "512Gi"}},
    )
    _, found, _ = doctor(capfd)
    assert found["nodes"]["status"] == "warning"


def test_without_a_cluster_that_is_a_note_and_nothing_is_asked_of_anybody(capfd):
    code, found, _ = doctor(capfd)
    assert code == 0
    assert found["cluster"]["status"] == "note"
    assert "Kubeflow Pipelines" not in found


def test_a_cluster_that_was_asked_about_and_is_not_there_is_missing(capfd):
    code, found, _ = doctor(capfd, "--service-account", "pipeline-runner")
    assert (code, found["cluster"]["status"]) == (69, "missing")


def test_for_local_runs_it_says_what_they_ignore(kube, capfd):
    code, found, _ = doctor(capfd, "--local")
    assert code == 0
    ignored = {what.removeprefix("a local run ignores ") for what in found if "ignores" in what}
    assert {"claims", "resources", "retries", "caching", "timeouts", "security context"} <= ignored
    assert kube.requests == []


@pytest.mark.parametrize(("options", "wanted"), [(["--local"], "missing"), ([], "warning")])
def test_a_data_root_that_can_not_be_written_to_matters_where_training_is_done(
    capfd, tmp_path, options, wanted
):
    (tmp_path / "file").write_text("")
    _, found, _ = doctor(capfd, "--data-root", str(tmp_path / "file" / "below"), *options)
    assert found["data root"]["status"] == wanted


@pytest.mark.parametrize(("options", "wanted"), [(["--local"], "missing"), ([], "warning")])
def test_packages_for_training_matter_where_training_is_done(capfd, monkeypatch, options, wanted):
    monkeypatch.setitem(machine.EXTRAS, "train", ("torch", "no-such-package"))
    _, found, _ = doctor(capfd, *options)
    told = found["packages [train]"]
    assert (told["status"], told["value"]) == (wanted, "not installed: no-such-package")


def test_the_packages_looked_for_are_those_of_the_extras(checkout):
    extras = tomllib.loads((checkout / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for extra, names in machine.EXTRAS.items():
        assert [text.split(">")[0].split("=")[0] for text in extras[extra]] == list(names)


@pytest.mark.parametrize(
    ("name", "rights"), [("citeflow-launcher", LAUNCHER), ("citeflow-reaper", REAPER)]
)
def test_the_rights_are_those_of_the_role(checkout: Path, name, rights):
    documents = yaml.safe_load_all((checkout / "manifests" / "base" / "rbac.yaml").read_text())
    role = next(
        each for each in documents if (each["kind"], each["metadata"]["name"]) == ("Role", name)
    )
    granted = [(rule["apiGroups"], rule["resources"], set(rule["verbs"])) for rule in role["rules"]]
    assert granted == [([right.group], [right.resource], set(right.verbs)) for right in rights]
