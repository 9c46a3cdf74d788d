import pytest
from fakes.kfp_server import serving, speed_up


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    speed_up(monkeypatch, tmp_path / "home")


@pytest.fixture
def kfp():
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def recordings(checkout):
    """Answers of a real server of Kubeflow Pipelines."""
    folder = checkout.parent / "shared" / "recordings" / "kfp"
    if not folder.is_dir():
        pytest.skip(f"no recordings of a real server in {folder}")
    return folder
