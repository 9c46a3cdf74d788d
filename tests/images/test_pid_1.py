"""SIGTERM ends the command of a pod as process 1, which Linux spares signals without a handler."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from fakes.kube_api import KubeApi
from manifests.kustomize import render

ALONE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
PAUSE = ["sh", "-c", '"$@" & wait', "pause"]
pytestmark = pytest.mark.fault("F8")


@pytest.fixture
def begin(tmp_path):
    """Start a command alone in a process namespace; returns its process once it is ready."""
    if subprocess.run([*ALONE, "true"], capture_output=True, timeout=10).returncode:
        pytest.skip("`unshare --pid` needs root")
    running = []

    def begin(command, is_ready):
        with (tmp_path / "output").open("w") as output:
            running.append(
                subprocess.Popen([*ALONE, *command], stdout=output, stderr=subprocess.STDOUT)
            )
        eventually(lambda: is_ready((tmp_path / "output").read_text()), running[-1])
        return psutil.Process(running[-1].pid).children()[0]

    yield begin
    for process in running:
        process.kill()
        process.wait()


def eventually(condition, process):
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "it ended early"
        assert time.monotonic() < until
        time.sleep(0.02)


def number_inside(process):
    """Return the number of a process in its own namespace."""
    (line,) = [
        line
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("NSpid")
    ]
    return int(line.split()[-1])


def require_end(process):
    process.terminate()
    psutil.wait_procs([process], timeout=2.0)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def argv_of(folder, kind, name):
    """Return the argv of the only container of a pod of the manifests."""
    (thing,) = [
        each for each in render(folder) if (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    spec = thing["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else thing["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    return [*container["command"], *container.get("args", [])]


def test_reaper_ends_while_it_waits_for_the_api(begin, checkout, tmp_path, monkeypatch):
    python, *arguments = argv_of(checkout / "manifests" / "base", "CronJob", "citeflow-reaper")
    assert python == "python3"
    with KubeApi() as kube:
        monkeypatch.setenv("KUBECONFIG", str(kube.write_kubeconfig(tmp_path / "config")))
        kube.outage()
        process = begin([sys.executable, *arguments], lambda output: " waiting " in output)
        assert number_inside(process) == 1
        require_end(process)


def test_tensorboard_ends(begin, checkout, tmp_path):
    program, *arguments = argv_of(
        checkout / "manifests" / "components" / "web", "Deployment", "citeflow-tensorboard"
    )
    assert program == "tensorboard"
    replaced = {
        "--logdir": f"--logdir={tmp_path}",
        "--port": "--port=0",
        "--bind_all": "--host=127.0.0.1",
    }
    own = [replaced.get(each.partition("=")[0], each) for each in arguments]
    process = begin(
        [sys.executable, "-m", "tensorboard.main", *own], lambda output: "/tensorboard/" in output
    )
    assert number_inside(process) == 1
    require_end(process)


def test_worker_is_never_the_first_and_ends_while_it_waits(begin, checkout):
    job = yaml.safe_load(
        (checkout / "tests" / "kubernetes" / "golden" / "pytorchjob.yaml").read_text()
    )
    spec = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert spec["shareProcessNamespace"] is True
    (container,) = spec["containers"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    python, *words = [*container["command"], *container["args"]]
    replaced = {
        "--rdzv-endpoint": f"--rdzv-endpoint=127.0.0.1:{port}",
        "--local-addr": "--local-addr=127.0.0.1",
    }
    own = [replaced.get(each.partition("=")[0], each) for each in words]
    assert python == "python3"
    assert "--nnodes=2" in own
    pause = begin([*PAUSE, sys.executable, *own], lambda _: answers(port))
    (torchrun,) = pause.children()
    assert (number_inside(pause), number_inside(torchrun)) == (1, 2)
    require_end(torchrun)


def answers(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
