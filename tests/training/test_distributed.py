"""Joining the ranks, on GPUs only where every rank has one; the rows that each computes, and where they are kept."""

import errno
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
import torch

from citeflow.errors import CiteflowError, ConfigError, UnavailableError
from citeflow.training import distributed
from citeflow.training.distributed import Group

CPU = torch.device("cpu")


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_ranks_that_outnumber_the_gpus_meet_on_the_cpu(monkeypatch, num_gpus):
    began = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(
        distributed.dist,
        "init_process_group",
        lambda backend, timeout: began.append((backend, timeout)),
    )
    monkeypatch.setattr(distributed.dist, "new_group", lambda timeout: began.append(timeout))
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: began.append("left"))
    with distributed.joined(step_timeout_s=7) as joined:
        assert joined == Group(1, 4, CPU, local_world_size=2)
    assert began == [("gloo", timedelta(seconds=300)), timedelta(seconds=7), "left"]


@pytest.mark.parametrize("num_rows", [0, 1, 2, 7, 60, 2_927_963])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_the_ranks_share_all_rows_evenly_and_in_order(world_size, num_rows):
    shares = [Group(rank, world_size, CPU).rows(num_rows) for rank in range(world_size)]
    assert (shares[0].start, shares[-1].stop) == (0, num_rows)
    assert all(before.stop == after.start for before, after in itertools.pairwise(shares))
    assert np.ptp([len(share) for share in shares]) <= 1


def test_a_rank_that_is_alone_on_its_machine_shares_nothing(monkeypatch):
    monkeypatch.setattr(distributed, "shared_array", None)
    array = Group(0, 2, CPU, local_world_size=1).empty(5, 3)
    assert (array.shape, array.dtype) == ((5, 3), torch.float32)


class InThreads:
    """Ranks that are threads of this process; a sum is where they wait for each other."""

    def __init__(self, monkeypatch, world_size, local_world_size):
        barrier, given = threading.Barrier(world_size, timeout=30), [()] * world_size

        def total(mine, *values):
            given[mine.rank] = values
            barrier.wait()
            sums = [sum(column) for column in zip(*given, strict=True)]
            barrier.wait()
            return sums

        monkeypatch.setattr(Group, "sum", total)
        self.groups = [Group(rank, world_size, CPU, local_world_size) for rank in range(world_size)]

    def call(self, function):
        """What each rank makes of itself."""
        with ThreadPoolExecutor(len(self.groups)) as threads:
            return list(threads.map(function, self.groups))


def test_ranks_of_a_machine_have_one_array_between_them_and_its_name_is_gone(monkeypatch):
    names = []
    monkeypatch.setattr(distributed, "shared_array", spied(names, distributed.shared_array))
    first, second = InThreads(monkeypatch, 2, 2).call(lambda mine: mine.empty(5, 3))
    first[4, 2] = 7
    assert second[4, 2] == 7
    assert len(names) == 2
    assert len(set(names)) == 1
    with pytest.raises(UnavailableError):
        distributed.shared_array(names[0], (5, 3), create=False)


def spied(names, real):
    def shared_array(name, shape, *, create):
        names.append(name)
        return real(name, shape, create=create)

    return shared_array


def test_arrays_that_are_alive_together_are_not_the_same(monkeypatch):
    ranks = InThreads(monkeypatch, 2, 2)
    (one, same), (other, _) = (ranks.call(lambda mine: mine.empty(5, 3)) for _ in range(2))
    one[:], other[:] = 1, 2
    assert same.eq(1).all()


@pytest.mark.parametrize("local_world_size", [1, 2])
def test_rows_go_from_each_rank_to_those_of_other_machines_only(monkeypatch, local_world_size):
    sent = []
    monkeypatch.setattr(
        distributed.dist, "broadcast", lambda rows, src: sent.append((src, rows.flatten().tolist()))
    )
    monkeypatch.setattr(Group, "sum", lambda *_: None)
    Group(0, 2, CPU, local_world_size).all_gather_rows(torch.arange(5.0)[:, None])
    assert sent == ([(0, [0, 1]), (1, [2, 3, 4])] if local_world_size == 1 else [])


@pytest.mark.parametrize(
    "error", [ConfigError("wrong", "lr"), OSError(errno.ENOSPC, "No space left on device", "x")]
)
def test_what_rank_0_can_not_do_is_an_error_of_all_ranks(monkeypatch, error):
    sent = []

    def broadcast(self, content):
        sent.extend([content] if self.is_first else [])
        return sent[-1]

    monkeypatch.setattr(Group, "_bytes_from_first", broadcast)

    def fail():
        raise error

    for rank in (0, 1):
        with pytest.raises(CiteflowError, match=r"wrong: lr|No space left on device: x"):
            Group(rank, 2, CPU).ask_first(fail)


def test_what_rank_0_makes_all_ranks_get(request):
    joined = request.getfixturevalue("group")  # the name stands for the module here
    assert joined.ask_first(lambda: b"found \0 here") == b"found \0 here"
    assert joined.ask_first(lambda: b"") == b""
