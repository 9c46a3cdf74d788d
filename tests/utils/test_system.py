"""The machine of a worker, against folders that look like a control group."""

import math
import os
import subprocess
import sys

import psutil
import pytest

from citeflow.utils import system
from citeflow.utils.system import (
    MALLOC_TUNABLES,
    TORCHRUN_VARIABLES,
    bind_to_cores,
    cores_of_machine,
    ignored_variables,
    memory_limit,
    num_cores,
    oom_kills,
    worker_environment,
)

AVAILABLE = len(os.sched_getaffinity(0))
MIB = 2**20
EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 7\noom_group_kill 0\n"


@pytest.fixture
def cgroup(tmp_path):
    """Makes a folder with files as the kernel writes them."""

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / name.replace("__", "/").replace("_", ".", 1)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("max 100000", AVAILABLE),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("nonsense", AVAILABLE),
        (None, AVAILABLE),
    ],
)
def test_num_cores_reads_control_groups(tmp_path, content, cores):
    if content:
        (tmp_path / "cpu.max").write_text(content)
    assert num_cores(tmp_path) == cores
    (tmp_path / "cpu.max").unlink(missing_ok=True)
    quota = str(content).partition(" ")[0].replace("max", "-1")
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert num_cores(tmp_path) == cores


@pytest.mark.parametrize(("content", "is_whole"), [(None, True), ("max", True), ("50000", False)])
def test_cores_of_machine_are_unknown_to_a_container_with_less(tmp_path, content, is_whole):
    if content:
        (tmp_path / "cpu.max").write_text(f"{content} 100000")
    assert math.isnan(cores_of_machine(tmp_path)) != is_whole
    if is_whole:
        assert cores_of_machine(tmp_path) == os.cpu_count()


@pytest.mark.fault("F14")
def test_memory_limit_is_that_of_container_or_machine(cgroup, tmp_path):
    machine = psutil.virtual_memory().total
    assert memory_limit(cgroup()) == machine
    for no_limit in ("max\n", f"{2**60}\n", "nonsense"):
        assert memory_limit(cgroup(memory_max=no_limit)) == machine
    assert memory_limit(cgroup(memory_max="536870912\n")) == 512 * MIB
    (tmp_path / "memory.max").unlink()
    assert memory_limit(cgroup(memory__memory_limit_in_bytes="1073741824\n")) == 1024 * MIB


@pytest.mark.fault("F14")
@pytest.mark.parametrize(
    ("texts", "kills"),
    [
        ({}, 5),
        ({"memory__memory_oom_control": "oom_kill_disable 0\n"}, 0),
        ({"memory__memory_oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"}, 2),
        ({"memory__memory_oom_control": "oom_kill 2\n", "memory_events": "nonsense\n"}, 2),
        ({"memory_events": EVENTS}, 7),
    ],
)
def test_oom_kills_are_those_of_container_or_machine(cgroup, tmp_path, texts, kills):
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 1\noom_kill 5\n")
    assert oom_kills(cgroup(**texts), vmstat) == kills
    assert oom_kills(tmp_path / "none", tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(8, 2, "4"), (8, 3, "2"), (2, 4, "1"), (1, 1, "1")]
)
def test_worker_environment_shares_the_cores(monkeypatch, cores, workers, threads):
    monkeypatch.setattr(system, "num_cores", lambda: cores)
    environment = worker_environment({"OMP_NUM_THREADS": "99", "HOME": "/home"}, workers)
    assert environment["OMP_NUM_THREADS"] == threads
    names = {"HOME", "OMP_NUM_THREADS", "GLIBC_TUNABLES", "PYTHONSAFEPATH", *TORCHRUN_VARIABLES}
    assert environment.keys() == names | {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"}
    assert (environment["HOME"], environment["PYTHONSAFEPATH"]) == ("/home", "1")
    tunables = dict(each.split("=") for each in environment["GLIBC_TUNABLES"].split(":"))
    assert tunables == {name: str(value) for name, value in MALLOC_TUNABLES.items()}
    theirs = {"GLIBC_TUNABLES": "glibc.malloc.check=3"}
    assert worker_environment(theirs, 1)["GLIBC_TUNABLES"] == "glibc.malloc.check=3"


def test_worker_environment_keeps_what_the_user_has_set_but_the_store():
    theirs = {"TORCH_CPP_LOG_LEVEL": "INFO", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "0"}
    found = worker_environment(theirs, 1)
    assert found["TORCH_CPP_LOG_LEVEL"] == "INFO"
    assert found["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"


def test_worker_environment_leaves_out_what_an_image_says_of_a_cluster():
    theirs = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "PET_NNODES", "PET_NO_PYTHON"]
    theirs += ["TORCHELASTIC_RUN_ID", "GLOO_SOCKET_IFNAME"]
    inherited = {**dict.fromkeys(theirs, "eth99"), "CUDA_VISIBLE_DEVICES": "0", "PETS": "2"}
    environment = worker_environment(inherited, 2)
    assert not environment.keys() & set(theirs[:-1])
    addresses = psutil.net_if_addrs()[environment["GLOO_SOCKET_IFNAME"]]
    assert "127.0.0.1" in [each.address for each in addresses]
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["PETS"]) == ("0", "2")
    assert ignored_variables(inherited) == sorted(theirs)


@pytest.fixture
def bound(monkeypatch):
    """Cores that each worker of a machine pins itself to, in order."""

    def bind_all(available, workers, limit=None):
        pinned = []
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(available))
        monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: pinned.append(cores))
        monkeypatch.setattr(system, "num_cores", lambda: limit or len(available))
        for worker in range(workers):
            bind_to_cores(worker, workers)
        return pinned

    return bind_all


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
def test_bind_to_cores_gives_each_worker_its_own(bound, workers):
    available = [1, 2, 3, 5, 8, 13, 21, 34]
    pinned = bound(available, workers)
    assert [len(cores) for cores in pinned] == [len(available) // workers] * workers
    together = [core for cores in pinned for core in cores]
    assert len(set(together)) == len(together)
    assert set(together) <= set(available)


def test_bind_to_cores_pins_nobody_where_cores_are_too_few_or_limited(bound):
    assert bound([0, 1], 3) == []
    assert bound(range(8), 2, limit=4) == []


def test_warnings_of_the_environment_end_no_step():
    modules = "citeflow.training.worker, citeflow.evaluation.evaluator, citeflow.reporting.publish"
    code = f"import {modules}, citeflow.tasks.citation_training"
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=True)
