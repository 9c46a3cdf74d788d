import pytest
from fakes.kube_api import KubeApi
from fakes.recorded import recorded

from citeflow.doctor import kfp_cluster
from citeflow.doctor.kube_client import Cluster
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.reporting.links import CONFIG_MAP, REPORTS, TENSORBOARD


@pytest.fixture
def kube():
    with KubeApi() as kube:
        yield kube


@pytest.fixture
def check(kube):
    def check(of):
        client = KubeClient(api=kube.client(retries=False), namespace="kubeflow")
        found = list(of(Cluster(client=client, launcher=LAUNCHERS["pytorchjob"])))
        client.api.close()
        client.api.rest_client.pool_manager.clear()
        return found

    return check


def config_map(name, data):
    metadata = {"name": name, "namespace": "kubeflow"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_check_workflows_says_what_the_retries_of_a_stock_server_mean(kube, check):
    data = recorded("kfp/workflow-controller-configmap")["data"]
    kube.put(config_map("workflow-controller-configmap", data))
    retries, workflow = check(kfp_cluster.check_workflows)
    assert retries.value.startswith("OnError: Argo repeats lost pods only; crashed steps are repe")
    assert workflow.value.startswith("deleted 3600 s after its end")


def test_check_workflows_takes_argos_defaults_and_a_refusal(kube, check):
    old = {"config": "workflowDefaults: {spec: {templateDefaults: {retryStrategy: {}}}}"}
    kube.put(config_map("workflow-controller-configmap", old))
    (retries,) = check(kfp_cluster.check_workflows)
    assert (retries.status, retries.value.partition(":")[0]) == ("warning", "OnFailure")
    kube.fail(status=403)
    (retries,) = check(kfp_cluster.check_workflows)
    assert (retries.status, "you may not read" in retries.value) == ("note", True)


def test_check_links_shows_the_addresses(kube, check):
    assert check(kfp_cluster.check_links)[0].value == "none: no ConfigMap citeflow-links"
    data = {TENSORBOARD: "https://me:secret@host/tensorboard", REPORTS: "https://host/runs"}
    kube.put(config_map(CONFIG_MAP, data))
    (found,) = check(kfp_cluster.check_links)
    assert found.value == "TensorBoard https://host/tensorboard, Report page https://host/runs"
