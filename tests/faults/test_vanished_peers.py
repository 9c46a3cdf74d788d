"""Two nodes, a torchrun on each: one of them vanishes from the network, or comes late."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from citeflow import config
from citeflow.training import launch
from faults import disturbed_worker
from faults.disturbed_training import PATIENCE_S, Fault, Training

TIMEOUT_S, MARGIN_S = 5, 10
LATE_S = 10
PORT = 29533


class Nodes:
    """As many torchruns as addresses, the first of which is where they meet; one that ends is started again."""

    def __init__(self, run, addresses, prefixes, interface):
        self.run, self.addresses, self.prefixes, self.interface = (
            run,
            addresses,
            prefixes,
            interface,
        )
        self.running, self.ended = {}, 0
        settings = config.load(overrides=run.overrides)
        launch.begin_job(run.run_dir, launch.job_of(run.graph, run.log_dir, settings))

    def start(self, node):
        """Start a node's torchrun, as its pod does."""
        address = self.addresses[node]
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes=2",
            "--nproc-per-node=1",
        ]
        command += [
            "--max-restarts=10",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={self.addresses[0]}:{PORT}",
        ]
        command += [
            "--rdzv-id=r",
            f"--rdzv-conf=join_timeout=120,read_timeout=120,is_host={node == 0}",
            f"--local-addr={address}",
        ]
        command += ["-m", disturbed_worker.__name__, str(self.run.run_dir / "job.json")]
        environment = {
            **os.environ,
            **launch.OWN_STORE,
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": self.interface,
        }
        self.running[node] = subprocess.Popen(
            [*self.prefixes[node], *command], env=environment, start_new_session=True
        )

    def train(self):
        """Wait for the model, starting again what ends before."""
        end = time.monotonic() + PATIENCE_S
        while not (self.run.run_dir / "model").exists():
            assert time.monotonic() < end, "no model"
            assert not (self.run.run_dir / "error.json").exists()
            for node in [
                node for node, process in self.running.items() if process.poll() is not None
            ]:
                self.ended += 1
                self.start(node)
            time.sleep(0.2)
        assert [process.wait(PATIENCE_S) for process in self.running.values()] == [0, 0]

    def close(self):
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(MARGIN_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def nodes(run, addresses=("127.0.0.1", "127.0.0.1"), prefixes=((), ()), interface="lo"):
    both = Nodes(run, addresses, prefixes, interface)
    try:
        yield both
    finally:
        both.close()


@pytest.mark.fault("F4", nightly=True)
def test_a_node_of_rank_0_that_comes_late_is_waited_for(run, undisturbed, figure):
    with run.disturbed(), nodes(run) as both:
        both.start(1)
        time.sleep(LATE_S)
        assert run.events("began") == []
        both.start(0)
        both.train()
    assert run.starts == [0]
    assert run.mixed_attempts() == []
    run.require_as(undisturbed)
    figure(mixed_attempts=0, node_late_s=float(LATE_S))


@pytest.mark.fault("F4", nightly=True)
def test_where_the_node_dies_at_which_all_meet_they_meet_again(run, undisturbed, figure):
    """Its torchrun and its worker are gone at once, and come again; the other finds no more of it than that."""
    with run.disturbed(Fault(what="pause", step=25, rank=None, seconds=2)), nodes(run) as both:
        for node in (0, 1):
            both.start(node)
        run.wait_for("fired", number=2)
        torchrun = psutil.Process(both.running[0].pid)
        began = time.monotonic()
        for process in [torchrun, *torchrun.children()]:
            process.kill()
        both.train()
    assert both.ended >= 1
    assert run.mixed_attempts() == []
    run.require_as(undisturbed)
    again = [told["at"] for told in run.events("began") if told["number"] > 1]
    figure(mixed_attempts=0, train_again_after_s=round(min(again) - began, 1))


class Link:
    """Two network namespaces, and a link between them that can be taken away."""

    def __init__(self):
        self.names = [f"citeflow-{os.getpid()}-{node}" for node in (0, 1)]
        self.addresses = ["10.77.0.1", "10.77.0.2"]
        self.prefixes = [("ip", "netns", "exec", name) for name in self.names]

    def __enter__(self):
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        self.bring()
        return self

    def __exit__(self, *_):
        for name in self.names:
            ip("netns", "delete", name)

    def bring(self):
        """Make the link, and give both ends their addresses."""
        first, second = self.names
        ip(
            "-n",
            first,
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            second,
        )
        for name, address in zip(self.names, self.addresses, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def take_away(self):
        """Let neither end hear of the other any more; nobody is told."""
        ip("-n", self.names[0], "link", "delete", "eth0")


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=MARGIN_S)


def has_namespaces():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    with contextlib.suppress(subprocess.SubprocessError), Link():
        return True
    return False


@pytest.mark.fault("F2", nightly=True)
def test_a_worker_that_vanishes_from_the_network_is_lost_after_the_timeout(
    prepared, tmp_path, undisturbed, figure
):
    if not has_namespaces():
        pytest.skip("this machine lets nobody make network namespaces")
    run = Training(prepared, tmp_path / "run", f"recovery.step_timeout_s={TIMEOUT_S}")
    pause = Fault(what="pause", step=25, rank=None, seconds=1)
    with (
        run.disturbed(pause),
        Link() as link,
        nodes(run, link.addresses, link.prefixes, "eth0") as both,
    ):
        for node in (0, 1):
            both.start(node)
        run.wait_for("fired", number=2)
        link.take_away()
        resumed = max(told["at"] for told in run.events("fired")) + pause.seconds
        left = run.wait_for("left", number=2)
        link.bring()
        both.train()
    seconds = [told["at"] - resumed for told in left]
    assert [told["code"] for told in left] == [1, 1]
    assert min(seconds) > TIMEOUT_S - 1
    assert max(seconds) < TIMEOUT_S + MARGIN_S
    assert run.starts[:2] == [0, 20]
    assert run.mixed_attempts() == []
    run.require_as(undisturbed)
    figure(exit_minus_timeout_s=round(max(seconds) - TIMEOUT_S, 1))
