"""Row F26: with no terminal, no network and no home, a command asks nothing and ends soon."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

LONGEST_S = 10
"""Twice what docs/faults.md promises, as other tests may run besides."""
PAPERS = "id,year\n" + "".join(f"p{row},{1990 + row}\n" for row in range(40))
CITATIONS = "citing,cited\n" + "".join(
    f"p{row},p{row - step}\n" for row in range(40) for step in (1, 2, 5) if row >= step
)
PROBE = """
import os, socket
assert not os.isatty(0) and 'HOME' not in os.environ
try: socket.create_connection(('127.0.0.1', 9), 1)
except OSError as error: print(error.errno)
"""

pytestmark = pytest.mark.fault("F26")


@pytest.fixture(scope="module")
def cut_off():
    """The start of a command that runs without any network, not even loopback's."""
    for command in (["unshare", "--net"], ["unshare", "--net", "--map-root-user"]):
        if shutil.which("unshare") and not subprocess.run([*command, "true"]).returncode:
            return command
    pytest.skip("unshare --net is not permitted here")


@pytest.fixture
def alone(cut_off, tmp_path):
    """Run Python in a session of its own, with hardly an environment and nothing to read from."""

    def run(*argv, code=0):
        kept = ("PATH", "PYTHONPATH")
        began_s = time.monotonic()
        done = subprocess.run(
            [*cut_off, sys.executable, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={name: value for name, value in os.environ.items() if name in kept},
            cwd=tmp_path,
            timeout=60,
            start_new_session=True,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert time.monotonic() - began_s < LONGEST_S
        return done

    assert run("-c", PROBE).stdout.strip() == "101"
    return lambda *argv, code=0: run("-m", "citeflow", *argv, code=code)


def test_download_that_cannot_reach_its_server_says_so(alone, tmp_path):
    done = alone("download", "ogbl-citation2", "--data-root", str(tmp_path / "root"), code=69)
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: cannot download: http://snap.stanford.edu/ogb/")
    assert hint.startswith("hint: ")
    assert done.stdout == ""


def test_doctor_ends_with_what_is_wrong(alone):
    done = alone("doctor")
    assert done.stdout
    assert "?" not in done.stdout


def test_folder_is_downloaded_and_prepared(alone, tmp_path):
    folder, root = tmp_path / "papers", ["--data-root", "root"]
    folder.mkdir()
    (folder / "papers.csv").write_text(PAPERS)
    (folder / "citations.csv").write_text(CITATIONS)
    raw = json.loads(alone("download", str(folder), *root).stdout)
    graph = json.loads(alone("preprocess", raw["path"], *root).stdout)
    assert graph["num_papers"] == 40
