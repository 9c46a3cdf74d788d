"""Samples of several ranks on one axis."""

import json
import math
import threading

import numpy as np
import pytest

from citeflow.training.resource_series import gather
from citeflow.utils.usage import Usage


def samples(cores, rss, shared=0.0, count=11, begin=100.0):
    """One a second, of a rank that keeps so many cores busy."""
    return [
        Usage(
            **{
                **dict.fromkeys(Usage.__slots__, 0.0),
                "at": begin + at,
                "cpu_s": cores * at,
                "rss_bytes": float(rss[at] if isinstance(rss, list) else rss),
                "shared_bytes": shared,
            }
        )
        for at in range(count)
    ]


def gathered(*of_ranks, local_world_size=None):
    """What each rank gets; they add up at a barrier, as the real ones do."""
    size, offered, results = len(of_ranks), {}, {}
    barrier = threading.Barrier(size, timeout=20)

    def run(rank):
        def add_up(*values):
            offered[rank] = np.array(values)
            barrier.wait()
            total = sum(offered[each] for each in range(size)).tolist()
            barrier.wait()
            return total

        where = {"rank": rank, "world_size": size, "local_world_size": local_world_size or size}
        results[rank] = gather(of_ranks[rank], add_up=add_up, **where)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return [results[rank] for rank in range(size)]


def test_every_rank_gets_the_same_with_cores_and_memory_of_each():
    first, second = gathered(samples(1.0, 5e6), samples(0.5, 7e6, begin=5000.0))
    assert first == second
    content, peak = first
    assert peak == 12e6
    assert content["seconds"][-1] == 10
    assert [rank["rank"] for rank in content["ranks"]] == [0, 1]
    for rank, cores, held in zip(content["ranks"], (1.0, 0.5), (5e6, 7e6), strict=True):
        assert rank["cpu_cores"] == pytest.approx([cores] * len(content["seconds"]))
        assert rank["memory_bytes"] == [held] * len(content["seconds"])


def test_memory_that_the_ranks_of_a_machine_share_counts_once_for_each_machine():
    of_ranks = [samples(1.0, 10e6, shared=4e6) for _ in range(4)]
    (_, together), (_, apart) = gathered(*of_ranks)[0], gathered(*of_ranks, local_world_size=2)[0]
    assert together == 4 * 6e6 + 4e6
    assert apart == 4 * 6e6 + 2 * 4e6


def test_the_peak_is_the_highest_sum_and_not_the_sum_of_the_highest():
    early, late = [1e6] * 11, [1e6] * 11
    early[2], late[8] = 9e6, 9e6
    content, peak = gathered(samples(1.0, early), samples(1.0, late))[0]
    assert peak == 10e6
    assert max(content["ranks"][0]["memory_bytes"]) == 9e6


@pytest.mark.parametrize("lost", [[], samples(1.0, 1e6, count=1)])
def test_a_rank_without_samples_is_empty_and_hides_no_other(lost):
    content, peak = gathered(samples(1.0, 5e6), lost)[0]
    assert set(content["ranks"][1]["cpu_cores"]) == {None}
    assert None not in content["ranks"][0]["cpu_cores"]
    assert math.isnan(peak)
    json.dumps(content, allow_nan=False)


def test_a_rank_whose_sampling_broke_off_is_known_until_then():
    content, peak = gathered(samples(1.0, 5e6), samples(1.0, 5e6, count=5))[0]
    cores = content["ranks"][1]["cpu_cores"]
    assert cores[:3] == [1.0] * 3
    assert cores[-1] is None
    assert peak == 10e6


def test_where_the_first_rank_has_no_samples_nothing_is_made_up():
    content, peak = gathered([], samples(1.0, 5e6))[0]
    assert [set(rank["memory_bytes"]) for rank in content["ranks"]] == [{None}, {None}]
    assert math.isnan(peak)


def test_many_samples_make_few_moments():
    content, _ = gathered(samples(1.0, 5e6, count=400))[0]
    assert len(content["seconds"]) == len(content["ranks"][0]["cpu_cores"]) == 199
