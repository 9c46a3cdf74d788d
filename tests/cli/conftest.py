import pytest
from fakes.kfp_server import serving, speed_up
from fakes.kube_api import KubeApi

from citeflow.kubernetes import logs, watcher

POD = ("CITEFLOW_POD_NAME", "CITEFLOW_POD_UID", "KFP_POD_NAME", "KFP_POD_UID")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Start every command in an empty folder, without settings of this machine's user."""
    monkeypatch.chdir(tmp_path)
    for name in ("CITEFLOW_DATA_ROOT", "KF_PIPELINES_ENDPOINT", *POD):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kfp(monkeypatch, tmp_path, no_cluster):
    """A server of Kubeflow Pipelines, which the environment names."""
    speed_up(monkeypatch, tmp_path / "home")
    with serving() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        yield server


@pytest.fixture
def no_cluster(monkeypatch):
    """Name a kubeconfig that does not exist; the client reads $KUBECONFIG at import only."""
    from kubernetes.config import kube_config

    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", "/nowhere")


@pytest.fixture
def kube(monkeypatch, tmp_path, no_cluster):
    """A cluster that the kubeconfig names."""
    from kubernetes.config import kube_config

    monkeypatch.setattr(watcher, "POLL_S", 0.02)
    monkeypatch.setattr(watcher, "VISIBILITY_DELAY_S", 0.1)
    monkeypatch.setattr(logs, "REOPEN_S", 0.02)
    with KubeApi() as kube:
        path = kube.write_kubeconfig(tmp_path / "kubeconfig", "team")
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        kube.add_namespace("team")
        yield kube
