"""A real MLflow server on loopback, with SQLite and a folder for artifacts."""

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

from citeflow import stages
from citeflow.reporting import mlflow

STARTS_WITHIN_S = 240
"""It imports for half a minute on a busy machine."""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Where the server listens."""
    try:
        importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("mlflow, of which mlflow-skinny is only the client, is not installed")
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    process = start(folder, port)
    try:
        wait_for(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


def start(folder, port):
    stores = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        *stores,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "HOME": str(folder),
    }
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--workers", "1"],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait_for(url, process):
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    pytest.fail(f"no server within {STARTS_WITHIN_S} s")


def end(process):
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(autouse=True, scope="session")
def no_variables():
    """What the caller's own MLflow is called does not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        yield


@pytest.fixture
def mlflow_at(server, monkeypatch, request):
    """The server, set as a user would, with an experiment of the test's own and a client to look at it."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    client = MlflowClient(server)

    def runs():
        found = client.get_experiment_by_name(request.node.name)
        return list(client.search_runs([found.experiment_id])) if found else []

    without_pytest = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    return SimpleNamespace(uri=server, client=client, runs=runs, environment=without_pytest)


@pytest.fixture(scope="session")
def out(trained, tmp_path_factory):
    """What publishing the small run of all tests leaves, MLflow aside."""
    folder = tmp_path_factory.mktemp("published") / "out"
    return stages.publish(
        trained.report, model=trained.model, log_dir=trained.log_dir, out_dir=folder
    )


@pytest.fixture
def publish(trained, out):
    """Tell MLflow of that run."""

    def call():
        mlflow.publish_run(
            trained.report, model=trained.model, log_dir=trained.log_dir, out_dir=out
        )

    return call
