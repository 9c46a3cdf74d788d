"""Row F47: hostile code of a user of the platform. It reaches nothing but the folder of its run.

One run goes all the way: an upload over the API, the queue, `citeflow run` as a process of its own,
and bubblewrap. What the code has tried, and with which end, it writes into the folder of its run.
"""

import json
import os
import socket
import time

import psutil
import pytest
from fakes.platform_backend import FakeBackend
from starlette.testclient import TestClient

from citeflow.errors import CorruptError
from citeflow.platform.app import create_app
from citeflow.platform.backends.base import paths_of
from citeflow.platform.backends.local import LocalBackend
from citeflow.platform.queue import submitted
from citeflow.platform.records import Records
from citeflow.platform.services import Services
from citeflow.platform.store import Store
from citeflow.training import sandbox

API = "/api/v1"
URL = "http://127.0.0.1:8080"
PASSWORD = "correct horse battery"
SECRET = "hunter2-b7e1"
CODE = b"def build(settings):\n    return None\n"
WAIT_S = 900
PROBLEM = sandbox.find_problem()

HOSTILE = """
import json, os, pathlib, socket, sys, time

run = pathlib.Path(sys.argv[-1]).parent
data = pathlib.Path({data!r})


def attempt(do):
    try:
        return f"got {{do()!r}}"
    except BaseException as error:
        return type(error).__name__


def read(path):
    return attempt(lambda: open(path, "rb").read())


def build(settings):
    ann = data / "users" / "ann"
    found = {{
        "database": read(data / "platform.db"),
        "folder of the platform": attempt(lambda: sorted(os.listdir(data))),
        "others": attempt(lambda: sorted(os.listdir(data / "users"))),
        "file of another": read(data / "users" / "bob" / "key"),
        "own root": attempt(lambda: sorted(os.listdir(ann))),
        "own upload": attempt(lambda: os.listdir(ann / "uploads")),
        "process": attempt(lambda: os.listdir(ann / "processes")),
        "environment of the server": read("/proc/{pid}/environ"),
        "memory of the server": read("/proc/{pid}/mem"),
        "processes": attempt(lambda: len([p for p in os.listdir("/proc") if p.isdigit()]) < 20),
        "own environment": {secret!r} in str(dict(os.environ)),
        "kill": attempt(lambda: os.kill({pid}, 9)),
        "port": attempt(lambda: socket.create_connection(("127.0.0.1", {port}), 3)),
        "internet": attempt(lambda: socket.create_connection(("192.0.2.1", 80), 3)),
        "code itself": attempt(lambda: os.unlink(ann / "own" / (pathlib.Path(__file__).name))),
        "links": attempt(lambda: os.symlink(data / "platform.db", run / "published")),
        "links of logs": attempt(
            lambda: os.symlink(data / "users" / "bob", ann / "logs" / run.name / "rank-7")
        ),
        "pipe": attempt(
            lambda: os.mkfifo(
                ann / "logs" / run.name / "events.out.tfevents.0000000001.citeflow.train"
            )
        ),
    }}
    (run / "process.json").write_text(
        json.dumps({{"attempt": 1, "pid": {pid}, "started": time.time(), "cores": []}})
    )
    (run / "found.json").write_text(json.dumps(found))
    for _ in range(100):
        if not os.fork():
            time.sleep(600)
    time.sleep(600)
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A platform of this machine with two users, and a server that counts its guests."""
    monkeypatch.setenv("CITEFLOW_PLATFORM_SECRET", SECRET)
    monkeypatch.setenv("ANOTHER_SECRET", SECRET)
    monkeypatch.setenv(sandbox.TRUST_VARIABLE, "1")  # of whoever started the server
    data = tmp_path / "data"
    services = Services.of(Store.of_folder(data), LocalBackend(data), URL)
    services.accounts.open(services.accounts.first_link(), "root", PASSWORD)
    sessions = {
        name: services.accounts.open(services.accounts.add(name, size="L"), "", PASSWORD)
        for name in ("ann", "bob")
    }
    for name in sessions:
        services.backend.ensure_environment(name, services.backend.sizes()["L"])
    (services.backend.folder("bob") / "key").write_text(SECRET)
    client = TestClient(create_app(services, static=tmp_path), base_url=URL)
    client.headers["Origin"] = URL
    client.cookies.set("citeflow_session", sessions["ann"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield services, client, server
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    services.feeds.close()
    services.trying.close()
    services.store.close()


@pytest.mark.skipif(bool(PROBLEM), reason=f"no sandbox here: {PROBLEM}")
@pytest.mark.fault("F47", nightly=True)
def test_hostile_code_of_a_user_reaches_nothing_of_the_platform(world):
    services, client, server = world
    data, pid = services.backend.folder("ann").parents[1], os.getpid()
    port = server.getsockname()[1]
    source = HOSTILE.format(data=str(data), pid=pid, port=port, secret=SECRET)
    made = client.post(f"{API}/uploads?name=evil.py&kind=model", content=source.encode())
    assert made.status_code == 201, made.text
    settings = {
        "model.code": f"upload:{made.json()['id']}",
        "synthetic.num_papers": 300,
        "train.epochs": 0.1,
    }
    body = {"dataset": "synthetic", "name": "evil", "settings": settings}
    run = client.post(f"{API}/runs", json=body).json()
    ended = until_ended(services, client, run["id"])
    assert ended["state"] == "failed", ended
    assert any(text in ended["detail"] for text in ("over its limit", "no plain file")), ended
    folder = paths_of(services.backend, submitted(services.runs.row(account_of("ann"), run["id"])))
    found = json.loads((folder.folder / "found.json").read_text())
    assert found["folder of the platform"] == "got ['users']"
    assert found["others"] == "got ['ann']"
    assert set(json.loads(found["own root"][4:].replace("'", '"'))) <= {
        "logs",
        "own",
        "prepared",
        "runs",
    }
    assert found["processes"] == "got True"
    assert found["own environment"] is False
    got = {name for name, said in found.items() if str(said).startswith("got")}
    links = {"links", "links of logs", "pipe"}  # which are swept when the training ends
    assert got == {"folder of the platform", "others", "own root", "processes", *links}, found
    assert not [path for path in data.rglob("*") if path.is_symlink() or path.is_fifo()]
    log = client.get(f"{API}/runs/{run['id']}/logs")
    assert SECRET not in log.text
    assert client.get(f"{API}/runs/{run['id']}/files/report.html").status_code == 404
    left = [each for each in psutil.process_iter(["cmdline"]) if is_of(each, folder.folder)]
    assert left == []


def until_ended(services, client, run_id):
    end = time.monotonic() + WAIT_S
    while True:
        services.queue.tick()
        found = client.get(f"{API}/runs/{run_id}").json()
        if found["state"] in ("failed", "succeeded", "stopped"):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.5)


def account_of(name):
    from citeflow.platform.accounts import Account

    return Account(name=name, role="user", size="L")


def is_of(process, folder):
    return process.pid != os.getpid() and str(folder) in " ".join(process.info["cmdline"] or ())


def test_trust_of_the_server_is_not_passed_on(tmp_path, monkeypatch):
    from citeflow.platform.backends import local

    monkeypatch.setenv(sandbox.TRUST_VARIABLE, "1")
    monkeypatch.setenv("CITEFLOW_PLATFORM_DATABASE", "postgresql://secret")
    passed = local._environment()
    assert sandbox.TRUST_VARIABLE not in passed
    assert "CITEFLOW_PLATFORM_DATABASE" not in passed


def test_code_is_refused_where_the_sandbox_would_show_the_platform(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "find_problem", lambda: "")
    assert LocalBackend(tmp_path).code_problem() == ""
    monkeypatch.setattr(sandbox, "SYSTEM", (str(tmp_path.parent),))
    assert "which code could read" in LocalBackend(tmp_path / "data").code_problem()


def test_code_is_refused_without_bubblewrap(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert LocalBackend(tmp_path).code_problem() == "bubblewrap is not installed"


def test_links_and_pipes_among_the_logs_of_a_run_are_not_read(trained, tmp_path):
    import shutil

    from citeflow.paths import RunPaths

    run = RunPaths(tmp_path, "run")
    shutil.copytree(trained.run.logs, tmp_path / "elsewhere")
    run.logs.mkdir(parents=True)
    os.mkfifo(run.logs / "events.out.tfevents.0000000001.citeflow.train")
    for path in (tmp_path / "elsewhere").glob("events.out.*"):
        (run.logs / path.name).symlink_to(path)
    (run.logs / "rank-0").symlink_to(tmp_path / "elsewhere")
    records = Records(run, lambda after: [])
    records.update()  # which would wait for the pipe for ever
    assert (records.metrics, records.resources) == ([], [])
    shutil.rmtree(run.logs)
    shutil.copytree(trained.run.logs, run.logs)
    (run.logs / "events.out.tfevents.0000000001.citeflow.train").write_bytes(
        b"\x04" + bytes(11) + b"\xff" * 8 + b"\xff" * 100
    )
    records.update()
    assert records.metrics


@pytest.mark.parametrize("what", ["link", "pipe"])
def test_report_of_a_run_that_is_none_is_not_read(platform, succeed, what):
    client = platform.client("ann")
    run = platform.submit("ann")
    report = platform.backend.folder("ann") / "runs" / run["name"] / "report"

    def end(run_id):
        path = report / "manifest.json"
        path.rename(platform.backend.folder("bob") / "manifest.json")
        if what == "link":
            path.symlink_to(platform.backend.folder("bob") / "manifest.json")
        else:
            os.mkfifo(path)
        FakeBackend.end(platform.backend, run_id)

    platform.backend.end = end
    succeed(platform, run)
    found = client.get(f"{API}/runs/{run['id']}").json()
    assert (found["state"], found["score"]) == ("succeeded", None)
    assert client.get(f"{API}/models").json() == {"models": []}
    assert client.get(f"{API}/runs/compare?ids={run['id']}").json()["rows"] == []


def test_folders_of_a_user_that_lead_to_another_are_left_alone(platform):
    """On a cluster, code of a user may write anywhere on the user's own volume."""
    client = platform.client("ann")
    made = client.post(f"{API}/uploads?name=m.py&kind=model", content=CODE).json()
    ann, bob = platform.backend.folder("ann"), platform.backend.folder("bob")
    for name in ("own", "serving", "uploads"):
        (bob / name / "synthetic").mkdir(parents=True)
    for name in ("own", "serving"):
        (ann / name).symlink_to(bob / name)
    body = {"dataset": "synthetic", "settings": {"model.code": f"upload:{made['id']}"}}
    answer = client.post(f"{API}/runs", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "the folder of models leads elsewhere: own",
    )
    with pytest.raises(CorruptError, match="the folder of the service leads elsewhere"):
        platform.services.models._service("ann", "synthetic")
    (ann / "uploads").rename(ann / "before")
    (ann / "uploads").symlink_to(bob / "uploads")
    answer = client.post(f"{API}/uploads?name=m.py&kind=model", content=CODE)
    assert answer.json()["detail"].startswith("the folder of uploads leads elsewhere")
    left = sorted(path.relative_to(bob).as_posix() for path in bob.rglob("*"))
    names = ("own", "serving", "uploads")
    assert left == [each for name in names for each in (name, f"{name}/synthetic")]
