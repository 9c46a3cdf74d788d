"""Row F8: SIGTERM ends the command of a pod as process 1, which Linux spares the signals without a
handler.

A pod's command replaces an image's init, so it is tested without one; workers have the pause
container's.
"""

import shutil
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

LIMIT_S = 2.0
ALONE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
PAUSE = ["sh", "-c", '"$@" & wait', "pause"]
DEAF = [sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(60)"]

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
    psutil.wait_procs([process], timeout=LIMIT_S)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def argv_of(folder, kind, name):
    """Return the argv of the only container of a pod of the manifests."""
    (thing,) = [
        each for each in render(folder) if (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    spec = thing["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else thing["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    return [*container["command"], *container.get("args", [])]


def test_a_first_process_without_a_handler_would_stay(begin):
    process = begin(DEAF, lambda output: "ready" in output)
    assert number_inside(process) == 1
    process.terminate()
    assert psutil.wait_procs([process], timeout=0.3)[1] == [process]


def test_the_reaper_ends_while_it_waits_for_the_api(begin, checkout, tmp_path, monkeypatch):
    python, *arguments = argv_of(checkout / "manifests" / "base", "CronJob", "citeflow-reaper")
    assert python == "python3"
    with KubeApi() as kube:
        monkeypatch.setenv("KUBECONFIG", str(kube.write_kubeconfig(tmp_path / "config")))
        kube.outage()
        process = begin([sys.executable, *arguments], lambda output: "waits for the API" in output)
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


def test_an_init_passes_the_signal_on(begin, tmp_path):
    if shutil.which("tini") is None:
        pytest.skip("tini, the init of the images, is not installed")
    process = begin(["tini", "--", *DEAF], lambda output: "ready" in output)
    assert number_inside(process) == 1
    require_end(process)


def test_a_worker_is_never_the_first_and_ends_while_it_waits_for_the_others(begin, checkout):
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
