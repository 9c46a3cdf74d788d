import datetime

import pytest
from fakes.kube_api import KubeApi, timestamp

from citeflow.doctor import cluster
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.launchers import LAUNCHERS

NAMESPACE = "kubeflow"
BOUND = {"phase": "Bound", "capacity": {"storage": "100Gi"}, "accessModes": ["ReadWriteMany"]}


class Cluster:
    """A cluster on which all is well, until a test changes it."""

    def __init__(self, kube):
        self.kube = kube

    def put(self, version, kind, name, spec, status=None):
        obj = {"apiVersion": version, "kind": kind, "spec": spec, "status": status or {}}
        scope = {} if kind == "Node" else {"namespace": NAMESPACE}
        self.kube.put({**obj, "metadata": {"name": name, **scope}})

    def put_runtime(self, name, ttl_s=None, **job):
        """Put a ClusterTrainingRuntime."""
        jobs = [{"name": "node", "template": {"spec": job}}]
        ttl = {} if ttl_s is None else {"ttlSecondsAfterFinished": ttl_s}
        head = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "ClusterTrainingRuntime"}
        spec = {"template": {"spec": {"replicatedJobs": jobs, **ttl}}}
        self.kube.put({**head, "metadata": {"name": name}, "spec": spec})

    def put_trainer(self, version):
        """Put the controller of Kubeflow Trainer."""
        image = f"ghcr.io/kubeflow/trainer/trainer-controller-manager:{version}"
        self.put_controller("trainer", image)

    def put_controller(self, name, image):
        pod = {"spec": {"containers": [{"name": "manager", "image": image}]}}
        labels = {"app.kubernetes.io/name": name}
        metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
        spec = {"selector": {}, "template": pod}
        head = {"apiVersion": "apps/v1", "kind": "Deployment"}
        self.kube.put({**head, "metadata": metadata, "spec": spec})

    def put_claim(self, status):
        spec = {"accessModes": ["ReadWriteMany"]}
        self.put("v1", "PersistentVolumeClaim", "citeflow-data", spec, status)

    def put_reaper(self, *, seconds_ago=None, suspend=False):
        status = {}
        if seconds_ago is not None:
            then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds_ago)
            status = {"lastSuccessfulTime": timestamp(then)}
        template = {"spec": {"template": {"spec": {"containers": [{"name": "reaper"}]}}}}
        spec = {"schedule": "* * * * *", "suspend": suspend, "jobTemplate": template}
        self.put("batch/v1", "CronJob", "citeflow-reaper", spec, status)

    def put_node(self, name, cpu, memory, **spec):
        self.put("v1", "Node", name, spec, {"allocatable": {"cpu": cpu, "memory": memory}})

    def check(self, launcher="", service_account=""):
        """Return the findings by their subject."""
        api = self.kube.client(retries=False)
        client = KubeClient(api=api, namespace=NAMESPACE)
        options = {"launcher": LAUNCHERS.get(launcher), "service_account": service_account}
        findings = list(cluster.check(client, **options))
        api.close()
        api.rest_client.pool_manager.clear()
        return {finding.what: finding for finding in findings}


@pytest.fixture
def healthy():
    with KubeApi() as kube:
        cluster = Cluster(kube)
        cluster.put_claim(BOUND)
        cluster.put_reaper(seconds_ago=40)
        cluster.put_node("node-0", "3920m", "16344524Ki")
        head = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1000}
        kube.put({**head, "metadata": {"name": "citeflow-worker"}})
        yield cluster


def troubles(found):
    return {what for what, each in found.items() if each.status in ("missing", "warning")}


def test_check_finds_nothing_where_all_is_well(healthy):
    found = healthy.check()
    assert troubles(found) == set()
    assert found["Kubernetes API"].value == "v1.36.4, namespace kubeflow"
    assert found["claim citeflow-data"].value == "Bound 100Gi"
    assert found["nodes"].value.startswith("1; without other pods, room for 7 workers")
    assert found["tensorboards.tensorboard.kubeflow.org"].status == "ok"


@pytest.mark.parametrize(
    ("claim", "what", "expected"),
    [
        ({**BOUND, "accessModes": ["ReadWriteOnce"]}, "access modes of citeflow-data", "warning"),
        ({"phase": "Pending"}, "claim citeflow-data", "missing"),
        (None, "claim citeflow-data", "missing"),
    ],
)
def test_check_claim(healthy, claim, what, expected):
    healthy.kube.remove("persistentvolumeclaims", NAMESPACE, "citeflow-data")
    if claim:
        healthy.put_claim(claim)
    found = healthy.check()
    assert found[what].status == expected
    assert found[what].hint


def test_check_reaper(healthy):
    cases = [
        ({"seconds_ago": 500}, "ok"),
        ({"seconds_ago": 700}, "warning"),
        ({}, "warning"),
        ({"suspend": True}, "missing"),
        (None, "missing"),
    ]
    for reaper, expected in cases:
        healthy.kube.remove("cronjobs", NAMESPACE, "citeflow-reaper")
        if reaper is not None:
            healthy.put_reaper(**reaper)
        assert healthy.check()["CronJob citeflow-reaper"].status == expected, reaper


@pytest.mark.parametrize(
    ("gone", "launcher", "what"),
    [
        ("pytorchjobs", "pytorchjob", "pytorchjobs.kubeflow.org"),
        ("trainer.kubeflow.org", "trainjob", "trainjobs.trainer.kubeflow.org"),
        ("workflows", "pytorchjob", "workflows.argoproj.io"),
    ],
)
def test_check_custom_resources_the_launcher_needs(gone, launcher, what):
    with KubeApi(without=[gone]) as kube:
        found = Cluster(kube).check(launcher)
    assert found[what].status == "missing"
    assert found[what].hint


def test_check_looks_at_the_kind_of_job_that_is_there(healthy):
    del healthy.kube.store.kinds["pytorchjobs"]
    healthy.put_runtime("citeflow", backoffLimit=100_000)
    found = healthy.check()
    assert troubles(found) == set()
    assert found["trainjobs.trainer.kubeflow.org"].status == "ok"
    del healthy.kube.store.kinds["trainjobs"]
    assert healthy.check()["rayjobs.ray.io"].status == "ok"
    del healthy.kube.store.kinds["rayjobs"]
    assert healthy.check()["pytorchjobs.kubeflow.org"].status == "missing"


@pytest.mark.parametrize(
    ("image", "status"),
    [("quay.io/kuberay/operator:v1.7.0", "ok"), ("kuberay/operator:v1.6.2", "ok"),
     ("kuberay/operator:v1.4.1", "missing"), ("kuberay/operator:nightly", None)],
)  # fmt: skip
def test_check_knows_versions_of_kuberay_without_tokens(healthy, image, status):
    healthy.put_controller("kuberay-operator", image)
    found = healthy.check("ray").get("KubeRay")
    assert (found.status if found else None) == status
    assert "KubeRay" not in healthy.check("pytorchjob")


def test_check_looks_for_what_jobs_refer_to(healthy):
    assert healthy.check("trainjob")["ClusterTrainingRuntime"].status == "missing"
    healthy.put_runtime("citeflow", backoffLimit=100_000)
    assert troubles(healthy.check("trainjob")) == set()
    healthy.kube.remove("priorityclasses", "", "citeflow-worker")
    assert healthy.check()["PriorityClass"].status == "missing"


def test_check_names_runtimes_that_end_jobs_early_or_never(healthy):
    short, mortal = "runtimes with the default backoffLimit", "runtimes with a time to live"
    healthy.put_runtime("citeflow", backoffLimit=100_000)
    healthy.put_runtime("torch-distributed", ttl_s=60)
    found = healthy.check("trainjob")
    assert (found[short].status, found[mortal].status) == ("note", "warning")
    assert "torch-distributed; Trainer unknown" in found[mortal].value
    for version, expected in (("v2.3.0", "warning"), ("v2.3.1", "ok")):
        healthy.put_trainer(version)
        assert healthy.check("trainjob")[mortal].status == expected
    healthy.kube.remove("clustertrainingruntimes", "", "citeflow")
    healthy.put_runtime("citeflow")
    found = healthy.check("trainjob")[short]
    assert (found.status, found.value) == ("warning", "citeflow, torch-distributed")
    assert not any("runtime" in what for what in healthy.check())


def test_check_rights_names_refused_verbs(healthy):
    asked = []
    users = set()

    def allows(spec):
        asked.append(spec["resourceAttributes"])
        users.add(spec.get("user"))
        return spec["resourceAttributes"]["verb"] not in ("patch", "delete")

    healthy.kube.allows = allows
    found = healthy.check(service_account="pipeline-runner")
    assert found["rights of pipeline-runner: pytorchjobs.kubeflow.org"].status == "missing"
    assert users == {"system:serviceaccount:kubeflow:pipeline-runner"}
    asked.clear()
    found = healthy.check()
    assert not any("trainjob" in what for what in found)
    rights = found["rights of you: pytorchjobs.kubeflow.org"]
    assert (rights.status, rights.value) == ("missing", "not allowed: patch, delete")
    assert found["rights of the steps"].status == "note"
    logs = {"namespace": NAMESPACE, "group": "", "resource": "pods", "verb": "get"}
    assert {**logs, "subresource": "log"} in asked
    assert len(asked) == 7


def test_check_goes_past_what_is_refused(healthy):
    healthy.kube.fail(9, status=403, resource="nodes", message="nodes is forbidden")
    healthy.kube.fail(9, status=500, resource="persistentvolumeclaims")
    healthy.kube.drop(9, resource="namespaces")
    healthy.put("v1", "LimitRange", "sizes", {"limits": [{"type": None}]})  # no such object
    found = healthy.check()
    assert "nodes is forbidden" in found["nodes"].value
    assert troubles(found) == {"nodes", "claim citeflow-data", "namespace", "quotas"}
    assert found["CronJob citeflow-reaper"].status == "ok"
    healthy.kube.fail(9, status=403, resource="subjectaccessreviews", message="forbidden")
    rights = healthy.check(service_account="pipeline-runner")["rights of pipeline-runner: pods/log"]
    assert rights.status == "warning"
    who = "-n kubeflow --as=system:serviceaccount:kubeflow:pipeline-runner"
    assert f"kubectl auth can-i get pods --subresource=log {who}" in rights.hint
    healthy.kube.outage()
    found = healthy.check()
    assert [(what, each.status) for what, each in found.items()] == [("Kubernetes API", "missing")]


def test_check_namespace_and_quotas(healthy):
    labels = {"pod-security.kubernetes.io/enforce": "baseline", "istio-injection": "enabled"}
    healthy.kube.patch("namespaces", "", NAMESPACE, {"metadata": {"labels": labels}})
    used = {"hard": {"pods": "20"}, "used": {"pods": "3"}}
    healthy.put("v1", "ResourceQuota", "team", {}, used)
    limits = {"limits": [{"type": "Container", "max": {"memory": "2Gi"}}]}
    healthy.put("v1", "LimitRange", "sizes", limits)
    found = healthy.check()
    assert found["pod security enforced"].value.startswith("baseline")
    assert found["istio sidecars"].status == "note"
    assert found["ResourceQuota team"].value == "pods 3 of 20"
    assert found["LimitRange sizes"].value == "Container: max memory 2Gi"
    assert "a limit of 8Gi memory" in found["LimitRange sizes"].hint


def test_check_nodes_counts_schedulable_room(healthy):
    healthy.put_node("node-0", "2", "4000000000")
    assert healthy.check()["nodes"].status == "warning"
    healthy.put_node("node-1", "64", "512Gi", unschedulable=True)
    found = healthy.check()["nodes"]
    assert (found.status, found.value[:17]) == ("warning", "1, and 1 cordoned")
    assert "kubectl uncordon" in found.hint
