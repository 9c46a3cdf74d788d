import pytest
from fakes.kfp_server import serving, speed_up


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    speed_up(monkeypatch, tmp_path / "home")


@pytest.fixture
def kfp():
    with serving() as server:
        yield server
