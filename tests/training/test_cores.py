"""How many threads a worker may use, by the limits of its container."""

import os

import pytest

from citeflow.training.launch import num_cores

BOUND = len(os.sched_getaffinity(0))


def test_without_a_container_the_bound_cores_count(tmp_path):
    assert num_cores(tmp_path) == BOUND


@pytest.mark.parametrize(("content", "cores"), [("max 100000", BOUND), ("100000 100000", 1), ("50000 100000", 1)])
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
