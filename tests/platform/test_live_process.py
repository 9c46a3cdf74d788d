"""The page of a run as a process of its own: what it outlives, what it leaves, what it costs."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import requests
import yaml

from citeflow import local_runs
from citeflow.paths import RunPaths
from citeflow.platform.live import view
from citeflow.platform.live.shown import of_records
from citeflow.platform.live.view import View

WAIT_S = 300
ADDRESS = re.compile(r"page url=(http://127\.0\.0\.1:(\d+))/\?token=(\S+)")
TINY = {
    "synthetic": {"num_papers": 600},
    "train": {"epochs": 1, "num_validations": 1, "nodes_per_batch": 300},
    "model": {"hidden_channels": 8},
}


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    for name in view.DISPLAYS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ended(tmp_path):
    """A run that has ended."""
    run = RunPaths(tmp_path, "ended")
    with local_runs.recorded(run, "synthetic"):
        pass
    return run


def entered(text):
    """Return a session of who has opened the printed address, and that of the server."""
    match = ADDRESS.search(text)
    session = requests.Session()
    answer = session.get(match[0].partition("url=")[2], timeout=WAIT_S)
    assert answer.status_code == 200
    return session, match[1]


def viewer_of(text):
    """Return the process that listens at the printed address."""
    port = int(ADDRESS.search(text)[2])
    processes = psutil.process_iter(["cmdline"])
    found = [each for each in processes if view.VIEWER in (each.info["cmdline"] or [])]
    (viewer,) = (
        each
        for each in found
        if any(entry.laddr.port == port for entry in each.net_connections("tcp") if entry.laddr)
    )
    return viewer


def is_refused(text):
    """Tell whether nobody listens at the printed address any more."""
    port = int(ADDRESS.search(text)[2])
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_S).close()
        return False
    return True


def wait_until(is_true):
    end = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def read_events(session, url, *, until=None):
    """Return the events of a run to the end, or to the first of a kind."""
    found = []
    with session.get(url, stream=True, timeout=WAIT_S) as answer:
        kind = ""
        for line in answer.iter_lines(decode_unicode=True):
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                found.append((kind, json.loads(value)))
                if kind == until:
                    break
    return found


def test_run_is_shown_while_it_runs_and_to_its_end(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    command = [sys.executable, "-P", "-m", "citeflow", "run", "--config", "tiny.yaml", "--open"]
    command += ["--run-name", "tiny", "--workers", "1", "--data-root", "data"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            first = process.stderr.readline()
            session, url = entered(first)
            viewer = viewer_of(first)
            assert viewer.nice() > os.getpriority(os.PRIO_PROCESS, process.pid)
            assert viewer not in psutil.Process(process.pid).children(recursive=True)
            found = read_events(session, f"{url}/api/v1/runs/tiny/events")
            out, err = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert json.loads(out)["test"]["mrr"] > 0
    states = [data for kind, data in found if kind == "run"]
    assert (states[0]["state"], states[-1]["state"]) == ("running", "succeeded")
    assert states[-1]["has_report"]
    assert {"preprocess", "train"} <= {
        each["progress"]["stage"] for each in states[:-1] if each["progress"]
    }
    assert any("loss" in data["values"] for kind, data in found if kind == "metrics")
    assert any(data["memory"] > 1e6 for kind, data in found if kind == "resources")
    lines = [data["line"] for kind, data in found if kind == "log"]
    assert lines[0].partition(" ")[2].startswith("run starts name=tiny")
    assert any("train[rank 0]" in line for line in lines)
    assert not any("token" in line for line in lines)
    assert not viewer.is_running() or viewer.status() == psutil.STATUS_ZOMBIE
    assert is_refused(first)


def test_command_that_is_killed_leaves_no_page(ended):
    code = (
        "import time; from pathlib import Path; from citeflow.paths import RunPaths; "
        "from citeflow.platform.live.shown import of_records; "
        "from citeflow.platform.live.view import View; "
        f"View(of_records(RunPaths(Path({str(ended.data_root)!r}), 'ended'))).start(); "
        "time.sleep(1000)"
    )
    command = [sys.executable, "-P", "-c", code]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        first = process.stderr.readline()
        entered(first)
        viewer = viewer_of(first)
        process.kill()
    psutil.wait_procs([viewer], timeout=WAIT_S)
    assert not viewer.is_running()
    assert is_refused(first)


def test_two_pages_have_ports_and_keys_of_their_own(ended, capfd):
    with View(of_records(ended), grace_s=0) as one, View(of_records(ended), grace_s=0) as other:
        one.start()
        other.start()
        texts = capfd.readouterr().err.splitlines()
        (first, first_url), (second, second_url) = map(entered, texts)
        assert first_url != second_url
        first.cookies.update(second.cookies)
        for url in (first_url, second_url):
            answer = first.get(f"{url}/api/v1/runs/ended", timeout=WAIT_S)
            assert answer.json()["state"] == "succeeded"
        del first.cookies[f"citeflow_live_{second_url.rpartition(':')[2]}"]
        assert first.get(f"{second_url}/api/v1/runs/ended", timeout=WAIT_S).status_code == 401
    assert all(map(is_refused, texts))


def test_page_that_hangs_is_killed(ended, capfd, monkeypatch):
    monkeypatch.setattr(view, "END_S", 0.2)
    page = View(of_records(ended), grace_s=0)
    page.start()
    text = capfd.readouterr().err
    entered(text)
    viewer = viewer_of(text)
    viewer.suspend()
    page.close()
    psutil.wait_procs([viewer], timeout=WAIT_S)
    assert is_refused(text)


@pytest.mark.parametrize("failure", ["module", "socket"])
def test_page_that_cannot_be_served_is_no_error(ended, capfd, monkeypatch, failure):
    if failure == "module":
        monkeypatch.setattr(view, "VIEWER", "citeflow.no_such_module")
    else:
        monkeypatch.setattr(view, "HOST", "203.0.113.1")
    with View(of_records(ended)) as page:
        page.start()
    assert capfd.readouterr().err


def test_browser_is_started_with_a_key_that_is_good_for_once(ended, tmp_path, capfd, monkeypatch):
    program = tmp_path / "browser"
    program.write_text(
        f'#!/bin/sh\necho noise\necho "$1" > {tmp_path}/new\nmv {tmp_path}/new {tmp_path}/seen\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(program))
    with View(of_records(ended), grace_s=0) as page:
        page.start()
        wait_until((tmp_path / "seen").exists)
        text = capfd.readouterr().err
        opened = (tmp_path / "seen").read_text().strip()
        assert opened.startswith(f"{ADDRESS.search(text)[1]}/?token=")
        assert ADDRESS.search(text)[3] not in opened
        assert requests.get(opened, timeout=WAIT_S).status_code == 200
        assert requests.get(opened, timeout=WAIT_S).status_code == 403
        entered(text)
    assert "noise" not in text


def test_runs_show_open_serves_until_ctrl_c(ended, tmp_path):
    command = [sys.executable, "-P", "-m", "citeflow", "runs", "show", "ended", "--local"]
    command += ["--open", "--data-root", str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            first = process.stderr.readline()
            session, url = entered(first)
            found = read_events(session, f"{url}/api/v1/runs/ended/events")
            assert found[0][1]["state"] == "succeeded"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["state"] == "SUCCEEDED"
    assert is_refused(first)
