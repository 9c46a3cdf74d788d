"""Row F19: a shared disk that shows files late, or no longer knows those that were there."""

import errno
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from citeflow import files
from citeflow.errors import CiteflowError
from citeflow.paths import RunPaths
from citeflow.training import checkpoint, distributed, worker
from citeflow.training.distributed import Group
from citeflow.training.launch import WorkerJob
from faults.small_saves import INPUTS, read, save

LOOKS = ("stat", "listdir", "scandir", "open", "mkdir", "replace", "link")
"""Calls by which a process sees or changes a run."""


class Exchange:
    """Hands values between two ranks that are threads of this process."""

    def __init__(self):
        self._barrier = threading.Barrier(2, timeout=30)
        self._given = {}

    def __call__(self, rank, value):
        """Return the values of both ranks, in their order."""
        self._given[rank] = value
        self._barrier.wait()
        given = [self._given[each] for each in sorted(self._given)]
        self._barrier.wait()
        return given


@pytest.fixture
def ranks(monkeypatch):
    """Run a function as two ranks; rank 1 sees an empty disk, and its looks at it are counted."""
    exchange, looks, mine = Exchange(), [], threading.local()

    def broadcast(objects, src):
        objects[:] = exchange(mine.rank, list(objects))[src]

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

    monkeypatch.setattr(distributed.dist, "broadcast_object_list", broadcast)
    for name in LOOKS:
        monkeypatch.setattr(os, name, seen(getattr(os, name)))
    monkeypatch.setattr(io, "open", seen(io.open))
    return both, looks


def start(run):
    """Return what a rank starts from, or the error that it ends with."""
    job = WorkerJob(data=Path(), data_root=run.data_root, run=run.name, launch="one", config={})

    def begin(each):
        try:
            return worker.resume_point(each, job, INPUTS)
        except CiteflowError as error:
            return str(error)

    return begin


@pytest.mark.fault("F19")
@pytest.mark.parametrize("saves", [0, 1, 2])
def test_rank_that_sees_an_empty_disk_starts_with_the_state_of_rank_0(tmp_path, ranks, saves):
    both, looks = ranks
    run = RunPaths(tmp_path, "r")
    for step in range(saves):
        save(run.checkpoints, 10 + step)
    first, second = both(start(run))
    assert first == second
    assert first.state == read(run.checkpoints)
    assert (first.state.step > 0) == (saves > 0)
    assert looks == []


@pytest.mark.fault("F19")
def test_rank_that_sees_an_empty_disk_ends_with_the_error_of_rank_0(tmp_path, ranks):
    both, looks = ranks
    run = RunPaths(tmp_path, "r")
    save(run.checkpoints, 4)
    (run.checkpoints / "step-00000004" / "progress.json").unlink()
    first, second = both(start(run))
    assert first == second
    assert "every checkpoint is damaged" in first
    assert looks == []


@pytest.mark.fault("F19")
def test_look_at_the_disk_is_noticed(tmp_path, ranks):
    both, looks = ranks
    save(tmp_path / "checkpoints", 4)
    assert both(lambda each: read(tmp_path / "checkpoints").step) == [4, 0]
    assert looks


READS = {
    "JSON": lambda folder: files.read_json(folder / "step-00000004" / "manifest.json")["facts"],
    "digests": lambda folder: files.verify(folder / "step-00000004", "Checkpoint").facts,
    "names": lambda folder: sorted(files.names_in(folder))[-1],
    "a checkpoint": lambda folder: read(folder).step,
}


class Stale:
    """Lets opening and listing fail with ESTALE so many times, after some calls that succeed."""

    def __init__(self, monkeypatch, times, *, spare=0):
        self._left = times
        self._spare = spare
        self.fired = 0
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
def test_stale_file_is_read_by_the_next_try_or_an_error(two, monkeypatch, what):
    expected, survived = READS[what](two), 0
    for spare in range(20):
        with monkeypatch.context() as patch:
            stale = Stale(patch, 1, spare=spare)
            assert READS[what](two) == expected
        if not stale.fired:
            break
        survived += 1
    assert 1 <= survived < 20
    stale = Stale(monkeypatch, 10**9)
    with pytest.raises(OSError, match="Stale file handle"):
        READS[what](two)
    assert 2 <= stale.fired <= 4


@pytest.mark.fault("F19")
def test_stale_checkpoints_are_no_fresh_start(two, monkeypatch, capsys):
    stale = Stale(monkeypatch, 10**9, spare=1)
    with pytest.raises(OSError, match="Stale file handle"):
        read(two)
    assert capsys.readouterr().err.count("Stale file handle") == 2
    assert stale.fired >= 4


@pytest.mark.fault("F19")
def test_stale_checkpoint_falls_back_to_the_one_before(two, monkeypatch, capsys):
    real, fired = checkpoint.files.verify, []

    def verify(folder, kind):
        if folder.name == "step-00000004":
            fired.append(folder)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(folder))
        return real(folder, kind)

    monkeypatch.setattr(checkpoint.files, "verify", verify)
    assert read(two).step == 2
    assert len(fired) == 2
    assert "a checkpoint is damaged what=Stale file handle" in capsys.readouterr().err
