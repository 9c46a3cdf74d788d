import pytest
from fakes.kfp_server import serving, speed_up


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Start every command in an empty folder, without settings of this machine's user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CITEFLOW_DATA_ROOT", raising=False)


@pytest.fixture
def kfp(monkeypatch, tmp_path):
    """A server of Kubeflow Pipelines, which the environment names."""
    speed_up(monkeypatch, tmp_path / "home")
    with serving() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        yield server
