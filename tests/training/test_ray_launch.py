"""How the driver is started, which needs no Ray."""

import importlib.util

import pytest

from citeflow import config
from citeflow.errors import ConfigError, MissingPackageError
from citeflow.paths import RunPaths
from citeflow.training import launch, ray_launch
from citeflow.training.sandbox import TRUST_VARIABLE


@pytest.fixture
def started(monkeypatch):
    """The options with which the launcher was called, in place of a training."""
    calls = []
    monkeypatch.setattr(launch, "train_locally", lambda *_, **options: calls.append(options))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return calls


def train(tmp_path, *overrides):
    settings = config.load(overrides=list(overrides))
    ray_launch.train_on_ray(tmp_path, RunPaths(tmp_path, "run"), config=settings, workers=3)


def test_train_on_ray_refuses_code_that_nobody_trusts(started, tmp_path, monkeypatch):
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="code of one's own has no sandbox on Ray"):
        train(tmp_path, "model.code=encoder.py")
    assert not started
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    train(tmp_path, "model.code=encoder.py")
    assert len(started) == 1


@pytest.mark.parametrize("address", ["", "local"])
def test_train_on_ray_starts_a_ray_with_a_token_of_its_own(started, tmp_path, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    train(tmp_path)
    train(tmp_path)
    first, second = started
    words = first["command"]
    assert words[1:4] == ["-P", "-m", "citeflow.training.ray_driver"]
    options = ray_launch.driver_parser().parse_args([*words[4:], "job.json"])
    assert (options.workers, options.processes, options.gpus) == (3, 1, None)
    assert options.worker == launch.WORKER
    assert len(str(options.here)) < 20  # Ray's sockets lie below, and have at most 107 characters
    assert not options.here.exists()
    tokens = {each["variables"]["RAY_AUTH_TOKEN"] for each in (first, second)}
    assert len(tokens) == 2
    assert not any(token in " ".join(words) for token in tokens)  # which everybody can list
    assert first["variables"]["RAY_AUTH_MODE"] == "token"


def test_train_on_ray_joins_the_cluster_at_the_address(started, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    train(tmp_path)
    (options,) = started
    assert "--address=10.0.0.5:6379" in options["command"]
    assert options["variables"] == {}


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_train_on_ray_refuses_an_address_for_clients(started, tmp_path, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match="not an address of a Ray cluster from within"):
        train(tmp_path)
    assert started == []


def test_train_on_ray_names_the_missing_package(started, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="package is not installed: ray"):
        train(tmp_path)
