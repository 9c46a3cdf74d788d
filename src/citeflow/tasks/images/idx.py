"""IDX, the file format of MNIST: a magic number, the length of each dimension, then the bytes.

LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998. Either file may be
compressed by gzip.

Legend: N images, H height, W width.
"""

import contextlib
import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np

from citeflow import files
from citeflow.errors import DataError

UINT8 = 0x08
"""Type of the elements, the third byte of the magic number."""

MAX_BYTES = 16 << 30
MAX_ROW_BYTES = 64 << 20
"""Of one image: it is read at once, and a small compressed file may claim any size."""
BLOCK_BYTES = 4 << 20
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class IdxFile:
    """An IDX file whose header fits its length as far as that is known without unpacking it."""

    path: Path
    shape: tuple[int, ...]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the elements in pieces of consecutive rows.

        Raises:
            DataError: the file is shorter or longer than its header says, or damaged.
        """
        row_shape = self.shape[1:]
        row_bytes = math.prod(row_shape)
        step = max(1, BLOCK_BYTES // row_bytes)
        with _opened(self.path) as file:
            file.read(_header_bytes(len(self.shape)))
            for first in range(0, self.shape[0], step):
                rows = min(step, self.shape[0] - first)
                content = file.read(rows * row_bytes)
                if len(content) < rows * row_bytes:
                    have = first + len(content) // row_bytes
                    value = f"{self.path}: {have:,} of {self.shape[0]:,} rows"
                    raise DataError("IDX file is cut", value)
                yield np.frombuffer(content, np.uint8).reshape(rows, *row_shape)
            if file.read(1):
                raise DataError("IDX file is longer than its header says", self.path)

    def read(self) -> np.ndarray:
        """Read all elements."""
        return np.concatenate([np.empty((0, *self.shape[1:]), np.uint8), *self.blocks()])


def open_idx(path: Path, *, num_dims: int) -> IdxFile:
    """Read and check the header of a file.

    Args:
        path: plain, or compressed by gzip.
        num_dims: 3 for images [N, H, W], 1 for labels [N].

    Raises:
        DataError: it is no IDX file of bytes with so many dimensions, or claims too much.
    """
    with _opened(path) as file:
        head = file.read(_header_bytes(num_dims))
    if len(head) < 4 or head[:2] != b"\0\0":
        raise DataError("not an IDX file", path, hint="it begins with 0, 0, a type and a number")
    _, _, kind, dims = head[:4]
    if kind != UINT8:
        raise DataError("IDX file of another type than bytes", f"{path}: 0x{kind:02x}")
    if dims != num_dims:
        hint = "images have 3 dimensions, labels 1"
        raise DataError("IDX file with another number of dimensions", f"{path}: {dims}", hint=hint)
    if len(head) < _header_bytes(num_dims):
        raise DataError("IDX file is cut", f"{path}: in its header")
    shape = struct.unpack(f">{num_dims}I", head[4:])
    if 0 in shape:
        raise DataError("IDX file without content", f"{path}: {_times(shape)}")
    if math.prod(shape) > MAX_BYTES or math.prod(shape[1:]) > MAX_ROW_BYTES:
        raise DataError("IDX file claims too much", f"{path}: {_times(shape)} bytes")
    if not _is_gzip(path) and path.stat().st_size != len(head) + math.prod(shape):
        value = f"{path}: {_times(shape)} bytes are claimed, {path.stat().st_size - len(head):,}"
        raise DataError("IDX file has another length than its header says", f"{value} are there")
    return IdxFile(path, shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write bytes of any dimensions, inside of a `new_directory`."""
    header = bytes([0, 0, UINT8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    files.save_chunks(path, [header, np.ascontiguousarray(array, np.uint8).tobytes()])


def _header_bytes(num_dims: int) -> int:
    return 4 + 4 * num_dims


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{length:,}" for length in shape)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == GZIP


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[gzip.GzipFile | BufferedReader]:
    try:
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError("gzip file is damaged", f"{path}: {error}") from None
