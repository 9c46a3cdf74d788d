"""Studies that train nothing, and a database."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from citeflow.config import Config
from citeflow.experiments import search_space, study
from citeflow.experiments.study import STORAGE_VARIABLE, Definition
from citeflow.paths import RunPaths

SPACE = "{train.lr: {low: 0.001, high: 0.1, log: true}, model.hidden_channels: [64, 128, 256]}"


@pytest.fixture(autouse=True)
def _no_database(monkeypatch):
    monkeypatch.delenv(STORAGE_VARIABLE, raising=False)


@pytest.fixture
def define():
    """Makes the definition of a study."""

    def define(base=Config(), space=SPACE, workers=1, graph="a"):  # noqa: B008
        space = search_space.from_yaml(space, base)
        return Definition(base=base, space=space, workers=workers, graph_sha256=graph)

    return define


@pytest.fixture
def run(tmp_path):
    """Paths of the search `s`."""
    return RunPaths(tmp_path, "s")


@pytest.fixture
def states(run):
    """Reads the states of the first trials."""
    return lambda trials: [each.state.name.lower() for each in study.read_trials(run, trials)]


def postgres_programs():
    """Folder of PostgreSQL's programs, which Debian keeps out of PATH; None where it is missing."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)


@pytest.fixture
def postgres(monkeypatch):
    """A PostgreSQL server of this test, on loopback."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    user = []
    if os.geteuid() == 0:  # initdb refuses root
        if shutil.which("setpriv") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no setpriv")
        user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    # Not tmp_path: its parents are closed to other users.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="postgres-") as folder:
        if user:
            os.chown(folder, 65534, 65534)
        data = Path(folder, "data")
        begin = [programs / "initdb", "-D", data, "-U", "u", "--auth", "trust", "--no-sync"]
        subprocess.run([*user, *begin], check=True, timeout=120, **quiet)
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        serve = [*user, programs / "postgres", "-D", data, *options]
        with subprocess.Popen(serve, **quiet) as process:
            try:
                ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
                while subprocess.run(ready, timeout=5).returncode:
                    assert process.poll() is None
                    time.sleep(0.1)
                url = f"postgresql+psycopg://u@127.0.0.1:{port}/postgres"
                monkeypatch.setenv(STORAGE_VARIABLE, url)
                yield
            finally:
                process.send_signal(signal.SIGINT)
