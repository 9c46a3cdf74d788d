"""Arrays with a row for each paper: in memory, or on the disk where they would fill it.

Those on the disk are maps of temporary files without a name. What the kernel writes of them, and
reads again, it decides by the memory that is free; so they take the memory of nothing else.
"""

import contextlib
import ctypes
import functools
import itertools
import math
import mmap
import os
import secrets
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from citeflow.errors import CiteflowError
from citeflow.utils.system import memory_limit

SHARED_MEMORY = Path("/dev/shm")

LARGEST_SHARE = 0.25
"""Share of the memory that this process may use, above which an array lies on the disk. While all
papers are embedded there are two such arrays, and half of the memory is for all else."""

GAP = 1 << 14
"""Bytes between two ranges that are read along with them. Disks that were measured take as long to
look for a page as to read 14 to 45 KB in order."""

AHEAD = 1 << 26
"""Bytes of an array that the kernel is asked for while those before them are copied."""

COUNTED = 1 << 22
"""Values that are counted at once, at least."""


def fits_in_memory(size: int, allowed: int) -> bool:
    """Return True if an array of so many bytes is kept in memory, of the bytes that are allowed."""
    return size <= LARGEST_SHARE * allowed


def large_array(
    shape: tuple[int, ...], dtype: DTypeLike = np.float32, *, share: float = LARGEST_SHARE
) -> np.ndarray:
    """Create an array of this process.

    Args:
        shape: of the array.
        dtype: of its values.
        share: of the memory that this process may use, which the array fills at most in memory.

    Raises:
        CiteflowError: it belongs on the disk, and there is no room for it.
    """
    if _size(shape, dtype) <= share * memory_limit():
        return np.empty(shape, dtype)
    name = f"citeflow-{secrets.token_hex(6)}"
    array = _open(_paths(name)[1:], shape, dtype, create=True)
    unshare(name)
    return array


def read_ahead(array: np.ndarray, begin_S: ArrayLike, end_S: ArrayLike) -> None:
    """Have the kernel read some ranges of an array that lies on the disk, all of them at a time.

    Else a process that takes rows in no order waits for each of them, and the kernel reads 128 KB
    around it. Ranges that hardly lie apart are read as one. An array that memory has room for stays
    as it is.

    Args:
        array: of any shape.
        begin_S: first row of each range.
        end_S: row behind its last.
    """
    if not is_on_disk(array):
        return
    begin_S, end_S = (np.asarray(each, dtype=np.int64).ravel() for each in (begin_S, end_S))
    is_empty_S = begin_S >= end_S
    address, size = array.ctypes.data, array.strides[0]
    begin_S = (address + begin_S[~is_empty_S] * size) // mmap.PAGESIZE * mmap.PAGESIZE
    order_S = np.argsort(begin_S)
    begin_S = begin_S[order_S]
    end_S = np.maximum.accumulate((address + end_S[~is_empty_S] * size)[order_S])
    is_first_S = np.append(True, begin_S[1:] > end_S[:-1] + GAP)[: len(begin_S)]
    is_last_S = np.append(is_first_S[1:], True)[: len(begin_S)]
    madvise = ctypes.CDLL(None).madvise
    for begin, end in zip(begin_S[is_first_S].tolist(), end_S[is_last_S].tolist(), strict=True):
        madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_WILLNEED)


def is_on_disk(array: np.ndarray) -> bool:
    """Return True if memory has no room for an array, whose rows are then read from the disk."""
    return not fits_in_memory(array.nbytes, _allowed())


def rows_that_fit(*arrays: np.ndarray) -> int:
    """Return how many rows memory has room for of those of some arrays that lie on the disk."""
    size = sum(array.strides[0] for array in arrays if is_on_disk(array))
    return int(LARGEST_SHARE * _allowed()) // size if size else sys.maxsize


def rows_in_order(array: np.ndarray, row_U: np.ndarray) -> np.ndarray:
    """Return some rows of an array that lies on the disk, which is read once from front to back.

    Args:
        array: of any shape.
        row_U: ascending.
    """
    rows = np.empty((len(row_U), *array.shape[1:]), array.dtype)
    step = max(1, AHEAD // array.strides[0])
    bounds = np.searchsorted(row_U, np.arange(0, len(array) + step, step)).tolist()
    parts = [slice(*bound) for bound in itertools.pairwise(bounds)]
    for part, following in zip(parts, [*parts[1:], slice(0)], strict=True):
        read_ahead(array, row_U[following], row_U[following] + 1)
        np.take(array, row_U[part], axis=0, out=rows[part])
    return rows


@functools.cache
def _allowed() -> int:
    """Return what `memory_limit` returns, which takes half a millisecond each time."""
    return memory_limit()


def count_values(value_E: np.ndarray, num_values: int) -> np.ndarray:
    """Count how often each number below `num_values` occurs, int64.

    It is numpy's bincount, but of parts: of all at once it makes a copy in int64, which for the
    citations of a large graph is twice as large as they are.
    """
    count_N = np.zeros(num_values, dtype=np.int64)
    size = max(COUNTED, num_values)
    for first in range(0, len(value_E), size):
        count_N += np.bincount(value_E[first : first + size], minlength=num_values)
    return count_N


def shared_array(
    name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32, *, create: bool
) -> np.ndarray:
    """Create or open an array of the processes of this machine.

    It lies in shared memory or, where that is full or the array would fill it, in a temporary file.

    Raises:
        CiteflowError: neither has room for it.
    """
    paths = _paths(name)
    if not create:
        paths = [path for path in paths if path.exists()]
    elif not fits_in_memory(_size(shape, dtype), memory_limit()):
        paths = paths[1:]
    return _open(paths, shape, dtype, create=create)


def unshare(name: str) -> None:
    """Remove the name of a shared array; it lives until the last process unmaps it."""
    for path in _paths(name):
        path.unlink(missing_ok=True)


def _open(
    paths: list[Path], shape: tuple[int, ...], dtype: DTypeLike, *, create: bool
) -> np.ndarray:
    """Map the first of these files that has room.

    Raises:
        CiteflowError: none has.
    """
    size = _size(shape, dtype)
    for path in paths:
        try:
            return _map(path, size, create).view(dtype).reshape(shape)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
    raise CiteflowError(
        "no room for an array of all papers", f"{size:,} bytes", hint="set TMPDIR to a larger disk"
    )


def _size(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _paths(name: str) -> list[Path]:
    return [SHARED_MEMORY / name, Path(tempfile.gettempdir()) / name]


def _map(path: Path, size: int, create: bool) -> np.ndarray:
    with path.open("x+b" if create else "r+b") as file:
        if create:
            # Without it, a lack of room is a SIGBUS at the first write to a page and no error here.
            os.posix_fallocate(file.fileno(), 0, max(1, size))
        return np.frombuffer(mmap.mmap(file.fileno(), max(1, size)), dtype=np.uint8, count=size)
