"""With no terminal, no network and no home, the command asks nothing, and ends soon."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

LONGEST_S = 10
PAPERS = "id,year\n" + "".join(f"p{row},{1990 + row}\n" for row in range(40))
CITATIONS = "citing,cited\n" + "".join(
    f"p{row},p{row - step}\n" for row in range(40) for step in (1, 2, 5) if row >= step
)


@pytest.fixture(scope="module")
def cut_off():
    """What a command begins with that runs without any network, not even loopback's."""
    for command in (["unshare", "--net"], ["unshare", "--net", "--map-root-user"]):
        if (
            shutil.which("unshare")
            and not subprocess.run([*command, "true"], capture_output=True).returncode
        ):
            return command
    pytest.skip("this machine lets nobody take the network away: unshare --net is not permitted")


@pytest.fixture
def alone(cut_off, tmp_path, figure):
    """Run `citeflow` in a session of its own, with hardly an environment and nothing to read from."""

    def run(*argv, code=0):
        environment = {
            name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")
        }
        began_s = time.monotonic()
        done = subprocess.run(
            [*cut_off, sys.executable, "-m", "citeflow", *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=60,
            start_new_session=True,
        )
        took_s = time.monotonic() - began_s
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        figure(commands=1, slowest_s=round(took_s, 1))
        assert took_s < LONGEST_S
        return done

    return run


@pytest.mark.fault("F26")
def test_there_is_no_network_no_terminal_and_no_home(cut_off, figure):
    code = (
        "import os, socket\n"
        "assert not os.isatty(0) and 'HOME' not in os.environ\n"
        "try: socket.create_connection(('127.0.0.1', 9), 1)\n"
        "except OSError as error: print(error.errno)"
    )
    done = subprocess.run(
        [*cut_off, sys.executable, "-c", code],
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert done.stdout.strip() == b"101", done.stderr
    figure(commands=0)


@pytest.mark.fault("F26")
def test_a_download_that_cannot_reach_its_server_says_so(alone, tmp_path):
    done = alone("download", "ogbl-citation2", "--data-root", str(tmp_path / "root"), code=69)
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: cannot download: http://snap.stanford.edu/ogb/")
    assert hint.startswith("hint: ")
    assert done.stdout == ""


@pytest.mark.fault("F26")
def test_the_doctor_ends_with_what_is_wrong(alone):
    done = alone("doctor")
    assert done.stdout
    assert "?" not in done.stdout


@pytest.mark.fault("F26")
def test_a_folder_is_taken_in_and_prepared(alone, tmp_path):
    folder, root = tmp_path / "papers", ["--data-root", "root"]
    folder.mkdir()
    (folder / "papers.csv").write_text(PAPERS)
    (folder / "citations.csv").write_text(CITATIONS)
    raw = json.loads(alone("download", str(folder), *root).stdout)
    graph = json.loads(alone("preprocess", raw["path"], *root).stdout)
    assert graph["num_papers"] == 40
