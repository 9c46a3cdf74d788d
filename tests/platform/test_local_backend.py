"""Runs as processes: none lost and none twice, whatever is killed."""

import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from citeflow.local_runs import RunStatus
from citeflow.platform.backends import detached
from citeflow.platform.backends.base import Submitted, paths_of
from citeflow.platform.backends.local import LocalBackend

PROGRAM = """
import json, os, signal, sys, time
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
folder = os.path.join(arguments["--data-root"], "runs", arguments["--run-name"])
def write(state, error=""):
    values = {"dataset": "x", "state": state, "created": "2026-01-01T00:00:00Z", "error": error}
    if state != "RUNNING":
        values["finished"] = "2126-01-01T00:00:00Z"
    with open(folder + "/run.json.new", "w") as file:
        json.dump(values, file)
    os.rename(folder + "/run.json.new", folder + "/run.json")
def stop(*_):
    write("STOPPED", "stopped by a signal")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
write("RUNNING")
with open(folder + "/starts", "a") as file:
    file.write("start\\n")
print("12:00:00 train[rank 0] starting", file=sys.stderr, flush=True)
what = arguments["--dataset"]
if what == "bad":
    os.remove(folder + "/run.json")
    sys.exit("error: not a date: 3.13\\nhint: ISO")
while what == "long" or (what == "gate" and not os.path.exists(folder + "/go")):
    time.sleep(0.01)
write("SUCCEEDED")
"""

SERVER = """
import sys, time
from pathlib import Path
from citeflow.platform.backends.local import LocalBackend
from citeflow.platform.services import Services
from citeflow.platform.store import Store
root, program = Path(sys.argv[1]), sys.argv[2]
backend = LocalBackend(root, program=(sys.executable, program))
services = Services.of(Store(sys.argv[3]), backend, "http://127.0.0.1:1")
print("ready", flush=True)
while True:
    services.queue.tick()
    time.sleep(0.02)
"""
WAIT_S = 600


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def make_backend(tmp_path, program):
    """Return a function that makes a backend over one folder, as each start of a server does."""
    made = []

    def make():
        made.append(LocalBackend(tmp_path / "data", program=(sys.executable, str(program))))
        return made[-1]

    yield make
    end = time.monotonic() + WAIT_S
    while children := [each for backend in made for each in backend._children.values()]:
        assert time.monotonic() < end, children
        for child in children:
            child.kill()
        for backend in made:
            backend.state(run())  # it forgets its children that have ended
        time.sleep(0.02)


@pytest.fixture
def backend(make_backend):
    return make_backend()


def run(dataset="gate", *, name="first", attempt=1):
    return Submitted(
        id=name, user="ann", name=name, task="citation", dataset=dataset, settings="{}\n",
        workers=1, cores=1, memory=0, attempt=attempt,
    )  # fmt: skip


def wait_for(backend, submitted, *phases):
    end = time.monotonic() + WAIT_S
    while (state := backend.state(submitted)).phase not in phases:
        assert time.monotonic() < end, state
        time.sleep(0.02)
    return state


def starts(backend, submitted):
    return (paths_of(backend, submitted).folder / "starts").read_text().count("start")


def let_go(backend, submitted):
    (paths_of(backend, submitted).folder / "go").touch()


def test_attempt_is_started_once_by_several_servers(make_backend):
    backend, *others = (make_backend() for _ in range(4))
    assert backend.state(run()).phase == "absent"
    for each in (backend, *others, backend):
        each.start(run())
    wait_for(backend, run(), "running")
    for each in (*others, backend):
        each.start(run())
    let_go(backend, run())
    state = wait_for(backend, run(), "succeeded")
    assert state.ended is not None
    others[0].start(run())
    assert starts(backend, run()) == 1
    assert backend.lines(run(), 0) == ["12:00:00 train[rank 0] starting"]
    assert backend.lines(run(), 1) == []


def test_cancelled_attempt_is_stopped_and_another_goes_on(backend):
    backend.start(run("long"))
    wait_for(backend, run("long"), "running")
    end = time.monotonic() + WAIT_S
    while not backend.lines(run("long"), 0):  # its handler of the signal is there
        assert time.monotonic() < end
    backend.cancel(run("long"))
    backend.cancel(run("long"))
    state = wait_for(backend, run("long"), "stopped")
    assert state.detail == "stopped by a signal"
    again = run("short", attempt=2)
    assert backend.state(again).phase == "absent"
    backend.start(again)
    wait_for(backend, again, "succeeded")
    assert starts(backend, again) == 2
    assert len(backend.lines(again, 0)) == 2


def test_killed_process_is_stopped_and_a_refused_one_has_failed(backend):
    backend.start(run("long"))
    wait_for(backend, run("long"), "running")
    end = time.monotonic() + WAIT_S
    while not backend.lines(run("long"), 0):
        assert time.monotonic() < end
    attempt = detached.read_attempt(backend.process_folder(run()))
    os.kill(attempt.pid, signal.SIGKILL)
    assert wait_for(backend, run("long"), "stopped").detail == "its process was killed"
    backend.start(run("bad", name="second"))
    state = wait_for(backend, run("bad", name="second"), "failed")
    assert state.detail == "not a date: 3.13"


def test_runs_get_cores_of_their_own(backend):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    for name in ("first", "second"):
        backend.start(run("long", name=name))
        wait_for(backend, run("long", name=name), "running")
    cores = [
        detached.read_attempt(backend.process_folder(run(name=name))).cores
        for name in ("first", "second")
    ]
    assert len(set(cores)) == 2 or cores == [(), ()]


def test_status_is_that_of_local_runs():
    """The program above writes what `citeflow run` does."""
    assert set(RunStatus.model_fields) == {"dataset", "state", "created", "finished", "error"}


def test_killed_server_loses_no_run_and_starts_none_twice(tmp_path, program, open_store):
    from citeflow.platform.accounts import Account
    from citeflow.platform.schema import Submission
    from citeflow.platform.services import Services

    root = tmp_path / "data"
    backend = LocalBackend(root, program=(sys.executable, str(program)))
    store = open_store(root)
    services = Services.of(store, backend, "http://127.0.0.1:1")
    users = ["ann", "bob", "eve"]
    accounts = {}
    for user in users:
        services.accounts.add(user, size="L")
        accounts[user] = Account(name=user, role="user", size="L")
    runs = [
        services.runs.submit(
            accounts[user], Submission(dataset="synthetic", name=f"r{number}"), f"{user}{number}"
        )
        for number in range(4)
        for user in users
    ]
    choice = random.Random(0)
    command = [sys.executable, "-c", SERVER, str(root), str(program), store.url]

    def ended():
        listed = [services.runs.get(accounts[run.owner], run.id) for run in runs]
        return sum(each.state == "succeeded" for each in listed)

    deadline = time.monotonic() + WAIT_S
    while ended() < len(runs):
        assert time.monotonic() < deadline, ended()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            try:
                server.stdout.readline()
                before = ended()
                while ended() < min(len(runs), before + choice.randint(1, 4)):
                    assert time.monotonic() < deadline, ended()
                    time.sleep(0.01)
            finally:
                server.kill()
    for each in runs:
        folder = backend.folder(each.owner) / "runs" / each.name
        assert (folder / "starts").read_text() == "start\n"
    services.queue.tick()
    store.close()
    # A run has ended when its record says so; its process may take a moment more.
    left = [process for process in psutil.process_iter() if str(program) in _command(process)]
    assert not psutil.wait_procs(left, timeout=WAIT_S)[1]


def _command(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
