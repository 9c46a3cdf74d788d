"""The summary of all ranks."""

import json
import math

import pytest
from usage_samples import usage

from citeflow.training.resource_series import summarize


def rank_samples(cores, rss, shared=0.0, count=11, start=100.0):
    """One sample a second of a rank that keeps so many cores busy."""
    held = rss if isinstance(rss, list) else [rss] * count
    return [
        usage(start + at, cpu_s=cores * at, rss_bytes=float(held[at]), shared_bytes=shared)
        for at in range(count)
    ]


def test_summarize_puts_all_ranks_on_the_clock_of_the_first():
    content, peak = summarize([rank_samples(1.0, 5e6), rank_samples(0.5, 7e6, start=5000.0)], 2)
    assert peak == 12e6
    assert content.seconds[-1] == 10
    assert [rank.rank for rank in content.ranks] == [0, 1]
    for rank, cores, held in zip(content.ranks, (1.0, 0.5), (5e6, 7e6), strict=True):
        assert rank.cpu_cores == pytest.approx([cores] * len(content.seconds))
        assert rank.memory_bytes == [held] * len(content.seconds)


def test_summarize_counts_shared_memory_once_per_machine():
    ranks = [rank_samples(1.0, 10e6, shared=4e6, count=400) for _ in range(4)]
    content, peak = summarize(ranks, 4)
    assert peak == 4 * 6e6 + 4e6
    assert len(content.seconds) == len(content.ranks[0].cpu_cores) == 199
    assert summarize(ranks, 2)[1] == 4 * 6e6 + 2 * 4e6


def test_summarize_takes_the_highest_sum_of_one_moment():
    early, late = [1e6] * 11, [1e6] * 11
    early[2] = late[8] = 9e6
    content, peak = summarize([rank_samples(1.0, early), rank_samples(1.0, late)], 2)
    assert peak == 10e6
    assert max(content.ranks[0].memory_bytes) == 9e6


@pytest.mark.parametrize("lost", [[], rank_samples(1.0, 1e6, count=1)])
def test_summarize_leaves_out_a_rank_without_samples(lost):
    content, peak = summarize([rank_samples(1.0, 5e6), lost], 2)
    assert set(content.ranks[1].cpu_cores) == {None}
    assert None not in content.ranks[0].cpu_cores
    assert math.isnan(peak)
    json.dumps(content.model_dump(), allow_nan=False)
    content, peak = summarize([lost, rank_samples(1.0, 5e6)], 2)
    assert [set(rank.memory_bytes) for rank in content.ranks] == [{None}, {None}]
    assert math.isnan(peak)


def test_summarize_knows_a_rank_until_its_sampling_broke_off():
    content, peak = summarize([rank_samples(1.0, 5e6), rank_samples(1.0, 5e6, count=5)], 2)
    cores = content.ranks[1].cpu_cores
    assert (cores[:3], cores[-1], peak) == ([1.0] * 3, None, 10e6)
