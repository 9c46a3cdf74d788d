"""Arrays that processes have in common: what one writes all read, and nothing is left behind."""

import ctypes
import errno
import mmap
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from citeflow.errors import CiteflowError
from citeflow.utils import large_arrays
from citeflow.utils.large_arrays import (
    count_values,
    is_on_disk,
    large_array,
    read_ahead,
    rows_in_order,
    rows_that_fit,
    shared_array,
    unshare,
)

NAME = f"citeflow-test-{os.getpid()}"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Two folders for shared memory and the disk for temporary files."""
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    monkeypatch.setattr(large_arrays, "SHARED_MEMORY", memory)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    return memory, disk


def full(monkeypatch, *folders):
    """Let some folders have no room."""
    real = os.posix_fallocate

    def allocate(handle, offset, size):
        if Path(os.readlink(f"/proc/self/fd/{handle}")).parent in folders:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", allocate)


def test_shared_array_outlives_its_name(folders):
    shared_array(NAME, (3, 4), create=True)[:] = 1
    first = shared_array(NAME, (3, 4), create=True)
    second = shared_array(NAME, (3, 4), create=False)
    for array in (first, second):
        assert (array.shape, array.dtype) == ((3, 4), np.float32)
    assert not first.any()
    first[1, 2] = 5
    assert second[1, 2] == 5
    for _ in range(2):
        unshare(NAME)
        assert not any(any(folder.iterdir()) for folder in folders)
    second[0, 0] = -7
    assert first[0, 0] == -7
    for create in (True, False):
        assert shared_array(NAME, (0, 4), create=create).shape == (0, 4)


@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # Python 3.12 fears for the other threads' locks
def test_shared_array_is_shared_with_a_child_process():
    mine = shared_array(NAME, (2, 2), create=True)
    child = os.fork()
    if child == 0:
        shared_array(NAME, (2, 2), create=False)[1] = [3, 4]
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert mine.tolist() == [[0, 0], [3, 4]]


def test_shared_array_falls_back_to_the_disk(folders, monkeypatch):
    memory, disk = folders
    full(monkeypatch, memory)
    first = shared_array(NAME, (3, 4), create=True)
    assert list(memory.iterdir()) == []
    assert list(disk.iterdir()) == [disk / NAME]
    shared_array(NAME, (3, 4), create=False)[2] = 8
    assert first[2].tolist() == [8] * 4
    unshare(NAME)
    assert not list(disk.iterdir())


def test_shared_array_reserves_its_pages(folders):
    shared_array(NAME, (1000, 1000), create=True)
    assert (folders[0] / NAME).stat().st_blocks * 512 >= 4_000_000


def test_shared_array_without_room_says_how_much(folders, monkeypatch):
    full(monkeypatch, *folders)
    with pytest.raises(CiteflowError, match="4,000,000 bytes") as caught:
        shared_array(NAME, (1000, 1000), create=True)
    assert "TMPDIR" in caught.value.hint
    assert not any(any(folder.iterdir()) for folder in folders)


def test_arrays_that_would_fill_the_memory_lie_on_the_disk(folders, monkeypatch):
    memory, disk = folders
    size = 3 * 4 * 4
    monkeypatch.setattr(large_arrays, "memory_limit", lambda: 4 * size)
    assert large_array((3, 4)).base is None
    shared_array(NAME, (3, 4), create=True)
    assert list(memory.iterdir()) == [memory / NAME]
    unshare(NAME)
    monkeypatch.setattr(large_arrays, "memory_limit", lambda: 4 * size - 1)
    first = shared_array(NAME, (3, 4), create=True)
    assert list(disk.iterdir()) == [disk / NAME]
    shared_array(NAME, (3, 4), create=False)[1] = 2
    assert first[1].tolist() == [2] * 4
    unshare(NAME)
    own = large_array((3, 4))
    assert own.base is not None
    own[:] = 7
    assert (own == 7).all()
    assert not any(any(folder.iterdir()) for folder in folders)


def test_large_array_without_room_says_how_much(folders, monkeypatch):
    monkeypatch.setattr(large_arrays, "memory_limit", lambda: 0)
    full(monkeypatch, *folders)
    with pytest.raises(CiteflowError, match="4,000,000 bytes") as caught:
        large_array((1000, 1000))
    assert "TMPDIR" in caught.value.hint
    assert not any(any(folder.iterdir()) for folder in folders)


def test_array_above_its_share_never_lies_in_shared_memory(folders, monkeypatch):
    memory, disk = folders
    monkeypatch.setattr(large_arrays, "memory_limit", lambda: 8 * 3 * 4 * 4)
    full(monkeypatch, memory)
    assert large_array((3, 4), share=1 / 8).base is None
    assert large_array((3, 4), share=1 / 16).base is not None
    full(monkeypatch, disk)
    with pytest.raises(CiteflowError, match="no room"):
        large_array((3, 4), share=1 / 16)


@pytest.mark.parametrize("counted", [1, 5, 1000])
def test_values_are_counted_in_parts(monkeypatch, counted):
    monkeypatch.setattr("citeflow.utils.large_arrays.COUNTED", counted)
    value_E = np.random.default_rng(0).integers(0, 7, 100).astype(np.int32)
    assert count_values(value_E, 9).tolist() == np.bincount(value_E, minlength=9).tolist()


def pages_in_memory(array):
    """Return the numbers of an array's pages that the kernel has read."""
    begin = array.ctypes.data - array.ctypes.data % mmap.PAGESIZE
    size = array.ctypes.data + array.nbytes - begin
    found = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    mincore = ctypes.CDLL(None).mincore
    assert mincore(ctypes.c_void_p(begin), ctypes.c_size_t(size), found) == 0
    return set(np.flatnonzero(np.frombuffer(found, np.uint8) & 1).tolist())


@pytest.mark.parametrize("gap", [0, 3 * mmap.PAGESIZE])
@pytest.mark.parametrize("allowed", [1 << 20, 1 << 40])
def test_read_ahead_reads_the_pages_of_the_rows_alone(tmp_path, monkeypatch, allowed, gap):
    monkeypatch.setattr(large_arrays, "_allowed", lambda: allowed)
    monkeypatch.setattr(large_arrays, "GAP", gap)
    values = np.arange(64 << 17, dtype=np.float64).reshape(-1, 16)  # 32 rows on a page
    np.save(tmp_path / "x.npy", values)
    with (tmp_path / "x.npy").open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    before = pages_in_memory(array)
    if len(before) > 1000:
        pytest.skip("the file system keeps what it should drop")
    # The header has 128 bytes, a row as many: the last row of a page is 30.
    rows = np.array([[500_000, 32 * 1000 + 30], [32 * 1000 + 31, 32 * 1004]])
    read_ahead(array, rows, rows + 1)
    read_ahead(array, [7, 64], [7, 32])  # empty ones
    expected = {1000, 1001, 1004, (500_000 * 128 + 128) // 4096}
    expected |= {1002, 1003} if gap else set()
    end = time.monotonic() + 10
    while allowed == 1 << 20 and not expected <= pages_in_memory(array):
        assert time.monotonic() < end
        time.sleep(0.01)
    new = pages_in_memory(array) - before
    assert new == (expected - before if allowed == 1 << 20 else set())
    assert np.array_equal(array[rows], values[rows])


@pytest.mark.parametrize("ahead", [1, 5 * 24, 1 << 26])
@pytest.mark.parametrize("rows", [[], [0], [99], [0, 1, 2, 50, 98, 99], range(100)])
def test_rows_in_order_are_the_rows(tmp_path, monkeypatch, ahead, rows):
    monkeypatch.setattr(large_arrays, "_allowed", lambda: 0)
    monkeypatch.setattr(large_arrays, "AHEAD", ahead)
    values = np.arange(300, dtype=np.float64).reshape(100, 3)
    np.save(tmp_path / "x.npy", values)
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows = np.array(rows, dtype=np.int64)
    assert np.array_equal(rows_in_order(array, rows), values[rows])


def test_rows_that_fit_are_those_of_arrays_on_the_disk(monkeypatch):
    monkeypatch.setattr(large_arrays, "_allowed", lambda: 4000)
    small, large = np.zeros((10, 2)), np.zeros((100, 4))
    assert [is_on_disk(each) for each in (small, large)] == [False, True]
    assert rows_that_fit(small) == sys.maxsize
    assert rows_that_fit(small, large) == 1000 // 32
    assert rows_that_fit(large, large) == 1000 // 64


def test_read_ahead_takes_arrays_of_any_kind(monkeypatch):
    monkeypatch.setattr(large_arrays, "_allowed", lambda: 0)
    read_ahead(np.zeros((0, 3)), [], [])
    read_ahead(np.ones((1 << 20, 3)), [], [])
    read_ahead(
        np.ones((1 << 20, 3)), np.array([5, 7, 5, (1 << 20) - 1]), np.array([9, 8, 6, 1 << 20])
    )
    read_ahead(np.ones(1 << 20), 0, 1 << 20)
