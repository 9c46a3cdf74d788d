"""Rows F2 and F4: two nodes, a torchrun on each; one vanishes from the network, dies, or comes
late."""

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
from citeflow.training.preemption import LOST_PEER
from citeflow.utils.system import TORCHRUN_VARIABLES
from faults import disturbed_worker
from faults.disturbed_training import PATIENCE_S, Fault, Training

TIMEOUT_S = 5
MARGIN_S = 10
LATE_S = 10
PORT = 29533


class Nodes:
    """A torchrun for each address, the first of which is the rendezvous; one that ends is
    restarted."""

    def __init__(self, run, addresses, prefixes, interface):
        self.run = run
        self.addresses = addresses
        self.prefixes = prefixes
        self.interface = interface
        self.running = {}
        self.ended = 0
        settings = config.load(overrides=run.overrides)
        launch.write_job(launch.make_job(run.graph, run.run, settings))

    def start(self, node):
        """Start a node's torchrun, as its pod does."""
        command = [
            *(sys.executable, "-m", "citeflow.training.torchrun"),
            *("--nnodes=2", "--nproc-per-node=1"),
            *("--max-restarts=10", "--rdzv-backend=c10d", "--rdzv-id=r"),
            f"--rdzv-endpoint={self.addresses[0]}:{PORT}",
            f"--rdzv-conf=join_timeout=120,read_timeout=120,is_host={node == 0}",
            f"--local-addr={self.addresses[node]}",
            *("-m", disturbed_worker.__name__, str(self.run.run_dir / "job.json")),
        ]
        own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.interface}
        self.running[node] = subprocess.Popen(
            [*self.prefixes[node], *command],
            env={**os.environ, **TORCHRUN_VARIABLES, **own},
            start_new_session=True,
        )

    def train(self):
        """Wait for the model, and restart what ends before."""
        end = time.monotonic() + PATIENCE_S
        while not (self.run.run_dir / "model").exists():
            assert time.monotonic() < end, "no model"
            assert not (self.run.run_dir / "error.json").exists()
            for node, process in list(self.running.items()):
                if process.poll() is not None:
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
def test_node_of_rank_0_comes_late_and_dies_later(run, undisturbed):
    """Its torchrun and its worker are gone at once, and come again."""
    with run.disturbed(Fault(what="pause", step=25, rank=None, seconds=2)), nodes(run) as both:
        both.start(1)
        time.sleep(LATE_S)
        assert run.events("began") == []
        both.start(0)
        run.wait_for("fired", number=2)
        torchrun = psutil.Process(both.running[0].pid)
        for process in [torchrun, *torchrun.children(recursive=True)]:
            process.kill()
        both.train()
    assert both.ended >= 1
    assert run.starts[0] == 0
    assert run.mixed_attempts() == []
    run.require_as(undisturbed)


class Link:
    """Two network namespaces, and a link between them that can be removed."""

    def __init__(self):
        self.names = [f"citeflow-{os.getpid()}-{node}" for node in (0, 1)]
        self.addresses = ["10.77.0.1", "10.77.0.2"]
        self.prefixes = [("ip", "netns", "exec", name) for name in self.names]

    def __enter__(self):
        for name in self.names:
            ip(f"netns add {name}")
            ip(f"-n {name} link set lo up")
        self.connect()
        return self

    def __exit__(self, *_):
        for name in self.names:
            ip(f"netns delete {name}")

    def connect(self):
        first, second = self.names
        ip(f"-n {first} link add eth0 type veth peer name eth0 netns {second}")
        for name, address in zip(self.names, self.addresses, strict=True):
            ip(f"-n {name} address add {address}/24 dev eth0")
            ip(f"-n {name} link set eth0 up")

    def disconnect(self):
        """Remove the link; neither end gets a word of it."""
        ip(f"-n {self.names[0]} link delete eth0")


def ip(arguments):
    command = ["ip", *arguments.split()]
    subprocess.run(command, check=True, capture_output=True, timeout=MARGIN_S)


def has_namespaces():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    with contextlib.suppress(subprocess.SubprocessError), Link():
        return True
    return False


@pytest.mark.fault("F2", nightly=True)
def test_worker_that_vanishes_from_the_network_is_lost_after_the_timeout(
    prepared, tmp_path, undisturbed
):
    if not has_namespaces():
        pytest.skip("network namespaces are not permitted here")
    run = Training(prepared, tmp_path, f"recovery.step_timeout_s={TIMEOUT_S}")
    pause = Fault(what="pause", step=25, rank=None, seconds=1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.disturbed(pause))
        link = stack.enter_context(Link())
        both = stack.enter_context(nodes(run, link.addresses, link.prefixes, "eth0"))
        for node in (0, 1):
            both.start(node)
        run.wait_for("fired", number=2)
        link.disconnect()
        resumed = max(event["at"] for event in run.events("fired")) + pause.seconds
        left = run.wait_for("left", number=2)
        link.connect()
        both.train()
    seconds = [event["at"] - resumed for event in left]
    assert [event["code"] for event in left] == [LOST_PEER, LOST_PEER]
    assert min(seconds) > TIMEOUT_S - 1
    assert max(seconds) < TIMEOUT_S + MARGIN_S
    assert run.starts[:2] == [0, 25]
    assert run.mixed_attempts() == []
    run.require_as(undisturbed)
