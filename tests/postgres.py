"""A PostgreSQL server of the tests, on loopback and in a folder of its own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

NOBODY = 65534
WAIT_S = 600


def programs():
    """Return the folder of PostgreSQL's programs, which Debian keeps out of PATH, or None."""
    folders = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin")),
        Path(shutil.which("initdb") or "/").parent,
    ]
    needed = ("initdb", "postgres", "pg_isready")
    return next((each for each in folders if all((each / name).exists() for name in needed)), None)


@contextlib.contextmanager
def serving():
    """Serve an empty database, and yield its URL; the test is skipped where that cannot be."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed")
    user = []
    if os.geteuid() == 0:  # initdb refuses root
        if shutil.which("setpriv") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no setpriv")
        user = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    # Not tmp_path: its parents are closed to other users.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="postgres-") as own:
        if user:
            os.chown(own, NOBODY, NOBODY)
        data = Path(own, "data")
        begin = [folder / "initdb", "-D", data, "-U", "u", "--auth", "trust", "--no-sync"]
        subprocess.run([*user, *begin], check=True, timeout=WAIT_S, **quiet)
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        process = subprocess.Popen([*user, folder / "postgres", "-D", data, *options], **quiet)
        try:
            ready = [folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            deadline = time.monotonic() + WAIT_S
            while subprocess.run(ready, timeout=60).returncode:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield f"postgresql+psycopg://u@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # which does not wait for clients
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
