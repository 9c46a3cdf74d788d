"""A real MLflow server on loopback, with SQLite and a folder for artifacts."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

STARTS_WITHIN_S = 240
"""The server imports for half a minute on a busy machine."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for(url, process):
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until:
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"no server within {STARTS_WITHIN_S} s")


@pytest.fixture(scope="module")
def no_variables():
    """The caller's own MLflow does not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The URL of a server."""
    try:
        importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("mlflow, of which mlflow-skinny is only the client, is not installed")
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--port", str(port)]
    command += ["--artifacts-destination", str(folder / "files"), "--workers", "1"]
    variables = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "HOME": str(folder)}
    variables["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    options = {"env": variables, "cwd": folder, "start_new_session": True}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)
