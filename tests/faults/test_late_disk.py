"""Row F19: a shared disk that shows files late, or no longer knows those that were there."""

import errno
import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from citeflow import files
from citeflow.errors import CiteflowError
from citeflow.training import checkpoint, distributed, worker
from citeflow.training.distributed import Group
from faults.small_saves import INPUTS, Barrier, read, save

ROUNDS = 20
LOOKS = ("stat", "listdir", "scandir", "open", "mkdir", "replace", "link")
"""Calls by which something of a run could be seen or changed."""


@pytest.fixture
def ranks(monkeypatch):
    """Two ranks that are threads; of any but the first, every look at a disk is counted, and shows nothing."""
    barrier, looks, mine = Barrier(), [], threading.local()

    def sum_(self, *values):
        return [sum(column) for column in zip(*barrier.exchange(self.rank, values), strict=True)]

    def broadcast(buffer, src):
        buffer.copy_(barrier.exchange(mine.rank, buffer.clone())[src])

    def seen(real):
        def look(*args, **kwargs):
            if getattr(mine, "rank", 0):
                looks.append(args)
                raise FileNotFoundError(errno.ENOENT, "not shown yet")
            return real(*args, **kwargs)

        return look

    def both(function):
        def act(rank):
            mine.rank = rank
            return function(Group(rank, 2, torch.device("cpu")))

        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(act, (0, 1)))

    monkeypatch.setattr(Group, "sum", sum_)
    monkeypatch.setattr(distributed.dist, "broadcast", broadcast)
    for name in LOOKS:
        monkeypatch.setattr(os, name, seen(getattr(os, name)))
    monkeypatch.setattr(io, "open", seen(io.open))
    return both, looks


def start(run_dir):
    """What a rank begins with, or the error that it ends with."""

    def begin(each):
        try:
            return worker._start(each, run_dir, INPUTS, launch="one")
        except CiteflowError as error:
            return str(error)

    return begin


@pytest.mark.fault("F19")
def test_ranks_that_see_nothing_of_the_disk_begin_with_what_the_first_one_sees(
    tmp_path, ranks, figure
):
    both, looks = ranks
    began = time.monotonic()
    for turn in range(ROUNDS):
        run_dir = tmp_path / str(turn)
        for step in range(turn % 3):
            save(run_dir / "checkpoints", 10 * turn + step)
        first, second = both(start(run_dir))
        assert first == second
        assert first.state == read(run_dir / "checkpoints")
        assert (first.state.step > 0) == (turn % 3 > 0)
        assert first.attempt.number == 1
    assert looks == []
    figure(rounds=ROUNDS, hangs=0, looks_of_other_ranks=0, seconds_for_all=time.monotonic() - began)


@pytest.mark.fault("F19")
def test_ranks_that_see_nothing_end_with_the_error_of_the_first_one(tmp_path, ranks, figure):
    both, looks = ranks
    save(tmp_path / "checkpoints", 4)
    (tmp_path / "checkpoints" / "step-00000004" / "progress.json").unlink()
    first, second = both(start(tmp_path))
    assert first == second
    assert "every checkpoint is damaged" in first
    assert looks == []
    figure(rounds=1, hangs=0)


@pytest.mark.fault("F19")
def test_a_rank_that_looked_would_be_noticed(tmp_path, ranks, figure):
    both, looks = ranks
    save(tmp_path / "checkpoints", 4)
    assert both(lambda each: read(tmp_path / "checkpoints").step) == [4, 0]
    assert looks
    figure(rounds=1, hangs=0)


READS = {
    "JSON": lambda folder: files.read_json(folder / "step-00000004" / "manifest.json")["facts"],
    "digests": lambda folder: files.verify(folder / "step-00000004", "Checkpoint").facts,
    "names": lambda folder: sorted(files.names_in(folder))[-1],
    "a checkpoint": lambda folder: read(folder).step,
}


class Stale:
    """Lets opening and listing fail as when an NFS server forgot its files, from a call on, so many times."""

    def __init__(self, monkeypatch, times, *, spare=0):
        self._left, self._spare, self.fired = times, spare, 0
        for module, name in ((io, "open"), (os, "listdir"), (os, "open")):
            monkeypatch.setattr(module, name, self._failing(getattr(module, name)))

    def _failing(self, real):
        def call(*args, **kwargs):
            if self._spare:
                self._spare -= 1
            elif self._left:
                self._left -= 1
                self.fired += 1
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(args[0]))
            return real(*args, **kwargs)

        return call


@pytest.fixture
def two(tmp_path):
    for step in (2, 4):
        save(tmp_path / "checkpoints", step)
    return tmp_path / "checkpoints"


@pytest.mark.fault("F19")
@pytest.mark.parametrize("what", READS)
def test_a_file_that_is_stale_once_is_read_by_the_next_try(two, monkeypatch, figure, what):
    expected, survived = READS[what](two), 0
    for spare in range(20):
        with monkeypatch.context() as patch:
            stale = Stale(patch, 1, spare=spare)
            assert READS[what](two) == expected
        if not stale.fired:
            break
        survived += 1
    assert 1 <= survived < 20
    figure(stale_once=survived, read_nevertheless=survived)


@pytest.mark.fault("F19")
@pytest.mark.parametrize("what", READS)
def test_a_file_that_stays_stale_is_an_error_after_few_tries(two, monkeypatch, figure, what):
    stale, began = Stale(monkeypatch, 10**9), time.monotonic()
    with pytest.raises(OSError, match="Stale file handle"):
        READS[what](two)
    assert 2 <= stale.fired <= 4
    figure(
        stale_always=1,
        hangs=0,
        tries_max=float(stale.fired),
        seconds_to_error=time.monotonic() - began,
    )


@pytest.mark.fault("F19")
def test_checkpoints_that_stay_stale_below_a_folder_that_is_none_are_an_error_and_no_fresh_start(
    two, monkeypatch, figure, capsys
):
    stale, began = Stale(monkeypatch, 10**9, spare=1), time.monotonic()
    with pytest.raises(OSError, match="Stale file handle"):
        read(two)
    assert capsys.readouterr().err.count("Stale file handle") == 2
    assert stale.fired >= 4
    figure(stale_always=1, hangs=0, seconds_to_error=time.monotonic() - began)


@pytest.mark.fault("F19")
def test_one_checkpoint_that_stays_stale_is_told_and_the_one_before_is_used(
    two, monkeypatch, figure, capsys
):
    real, fired = checkpoint.files.verify, []

    def verify(place, kind):
        if place.name == "step-00000004":
            fired.append(place)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(place))
        return real(place, kind)

    monkeypatch.setattr(checkpoint.files, "verify", verify)
    assert read(two).step == 2
    assert len(fired) == 2
    assert "a checkpoint is damaged what=Stale file handle" in capsys.readouterr().err
    figure(stale_always=1, hangs=0)
