"""The process group: GPUs only where every rank has one, and collectives of two real ranks."""

import itertools
from datetime import timedelta

import numpy as np
import pytest
import torch

from citeflow.training import distributed
from citeflow.training.distributed import Group, is_lost_peer

CPU = torch.device("cpu")


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_init_group_uses_the_cpu_where_gpus_are_too_few(monkeypatch, num_gpus):
    calls = []
    for name, value in {"RANK": 1, "WORLD_SIZE": 4, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    dist = distributed.dist
    monkeypatch.setattr(dist, "init_process_group", lambda *args, **how: calls.append((args, how)))
    monkeypatch.setattr(dist, "new_group", lambda timeout: calls.append(timeout))
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("left"))
    with distributed.init_group(step_timeout_s=7) as group:
        assert group == Group(1, 4, CPU, local_world_size=2)
    default = (
        ("gloo",),
        {"timeout": timedelta(seconds=300), "store": None, "rank": 1, "world_size": 4},
    )
    assert calls == [default, timedelta(seconds=7), "left"]


@pytest.mark.parametrize("num_rows", [0, 1, 2, 7, 60, 2_927_963])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_rows_are_shared_evenly_and_in_order(world_size, num_rows):
    shares = [Group(rank, world_size, CPU).rows(num_rows) for rank in range(world_size)]
    assert (shares[0].start, shares[-1].stop) == (0, num_rows)
    assert all(before.stop == after.start for before, after in itertools.pairwise(shares))
    assert np.ptp([len(share) for share in shares]) <= 1


def test_empty_of_a_single_rank_is_its_own():
    array = Group(0, 2, CPU, local_world_size=1).empty(5, 3)
    assert (array.shape, array.dtype) == ((5, 3), torch.float32)


def test_is_local_main_is_the_first_rank_of_a_machine():
    groups = [Group(rank, 4, CPU, local_world_size=2) for rank in range(4)]
    assert [group.is_local_main for group in groups] == [True, False, True, False]
    assert [group.is_main for group in groups] == [True, False, False, False]


def test_is_lost_peer_knows_errors_of_gloo_and_nccl():
    assert is_lost_peer(RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer"))
    assert is_lost_peer(torch.distributed.DistBackendError("NCCL error"))
    assert not is_lost_peer(RuntimeError("a bug"))


COLLECTIVES = {
    "all_reduce": [3.0, 1.0],
    "all_reduce_in_step": [5.0],
    "broadcast_in_step": 0.1,
    "broadcast_object": {"rank": 0},
    "broadcast_error": "error: wrong: 0\nhint: mend it",
    "broadcast_os_error": "error: No space left on device: x",
    "all_gather_object": [[0], [1]],
    "shared_rows": [21.0, 30.0],
    "gathered_rows": [0.0, 0.0, 1.0, 1.0, 1.0],
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_collective_gives_both_ranks_the_same(two_ranks, name):
    assert [rank[name] for rank in two_ranks.collectives] == [COLLECTIVES[name]] * 2
