"""How many threads a worker may use, by the limits of its container; which cores are its own; how memory is kept."""

import os
import subprocess
import sys

import pytest

from citeflow.utils import system as cores
from citeflow.utils.system import KEEP_MEMORY, bind, environment, num_cores

BOUND = len(os.sched_getaffinity(0))


def test_without_a_container_the_bound_cores_count(tmp_path):
    assert num_cores(tmp_path) == BOUND


@pytest.mark.parametrize(
    ("content", "cores"), [("max 100000", BOUND), ("100000 100000", 1), ("50000 100000", 1)]
)
def test_the_limit_of_cgroup_v2_counts(tmp_path, content, cores):
    (tmp_path / "cpu.max").write_text(content)
    assert num_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [(-1, BOUND), (100000, 1), (10**9, BOUND)])
def test_the_limit_of_cgroup_v1_counts(tmp_path, quota, cores):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert num_cores(tmp_path) == cores


def test_a_limit_that_can_not_be_read_is_none(tmp_path):
    (tmp_path / "cpu.max").write_text("nonsense")
    assert num_cores(tmp_path) == BOUND


@pytest.mark.parametrize(
    ("num_cores", "workers", "threads"), [(8, 2, "4"), (8, 3, "2"), (2, 4, "1"), (1, 1, "1")]
)
def test_the_workers_share_the_cores(monkeypatch, num_cores, workers, threads):
    monkeypatch.setattr(cores, "num_cores", lambda: num_cores)
    assert environment({"OMP_NUM_THREADS": "99"}, workers)["OMP_NUM_THREADS"] == threads


def test_workers_inherit_what_they_are_not_told_otherwise():
    found = environment({"PATH": "/bin", "HOME": "/home"}, 1)
    assert found.keys() == {"PATH", "HOME", "OMP_NUM_THREADS", "GLIBC_TUNABLES"}
    assert (found["PATH"], found["HOME"]) == ("/bin", "/home")


def test_memory_is_kept_by_tunables_of_glibc_unless_the_user_has_set_some():
    tunables = dict(each.split("=") for each in environment({}, 1)["GLIBC_TUNABLES"].split(":"))
    assert tunables == {name: str(value) for name, value in KEEP_MEMORY.items()}
    theirs = {"GLIBC_TUNABLES": "glibc.malloc.check=3"}
    assert environment(theirs, 1)["GLIBC_TUNABLES"] == "glibc.malloc.check=3"


def test_a_process_starts_without_a_word_under_these_tunables():
    done = subprocess.run(
        [sys.executable, "-c", ""],
        env=environment(os.environ, 1),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture
def bound(monkeypatch):
    """What each worker of a machine with some cores binds itself to, in order."""

    def bind_all(available, workers, limit=None):
        done = []
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(available))
        monkeypatch.setattr(
            os, "sched_setaffinity", lambda process, mine: done.append((process, sorted(mine)))
        )
        monkeypatch.setattr(cores, "num_cores", lambda: limit or len(available))
        for worker in range(workers):
            bind(worker, workers)
        return done

    return bind_all


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
def test_workers_have_cores_of_their_own_as_many_for_each(bound, workers):
    available = [1, 2, 3, 5, 8, 13, 21, 34]
    done = bound(available, workers)
    assert [process for process, _ in done] == [0] * workers
    assert {len(mine) for _, mine in done} == {len(available) // workers}
    all_of_them = [core for _, mine in done for core in mine]
    assert len(set(all_of_them)) == len(all_of_them)
    assert set(all_of_them) <= set(available)


def test_workers_that_outnumber_the_cores_may_use_all_of_them(bound):
    assert bound([0, 1], 3) == []


def test_workers_of_a_container_with_a_limit_of_time_may_use_all_cores(bound):
    """The kernel gives the container so many seconds of any core; workers of others may be on each of them."""
    assert bound(range(8), 2, limit=4) == []
