"""Contents of files: digests, JSON, arrays, tensors, tables, and bytes as they come."""

import errno
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import DTypeLike

from citeflow.errors import CorruptError, NotFoundError

Json = dict[str, Any]
P = ParamSpec("P")
R = TypeVar("R")


def again_if_stale(read: Callable[P, R]) -> Callable[P, R]:
    """Let a reader try once more where an NFS server that was restarted no longer knows the file: one look finds it."""

    @functools.wraps(read)
    def reader(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return read(*args, **kwargs)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        return read(*args, **kwargs)

    return reader


@again_if_stale
def names_in(folder: Path) -> list[str]:
    """Names in a folder; none where there is no folder.

    Raises:
        OSError: it can not be read, which `glob` would not tell from an empty one.
    """
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


@again_if_stale
def sha256_of_file(path: Path) -> str:
    """Digest of the bytes of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: object) -> str:
    """Digest of a value that JSON can hold, the same whatever the order of its keys."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


@again_if_stale
def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        NotFoundError: there is no such file.
        CorruptError: it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise NotFoundError("no such file", path) from None
    except (ValueError, RecursionError):
        raise CorruptError(
            "not a JSON file", path, hint="delete it and run the step again"
        ) from None


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy; meant for use inside `new_directory`, which makes it appear at once."""
    np.save(path, array, allow_pickle=False)


def save_blocks(
    path: Path, blocks: Iterable[np.ndarray], shape: tuple[int, ...], dtype: DTypeLike
) -> None:
    """Write an array as .npy as its rows come, block by block, so that it need not fit into memory."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype=dtype).data)


def save_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write named tensors as safetensors; meant for use inside `new_directory`."""
    from safetensors.torch import save  # torch is not needed where no tensors are

    path.write_bytes(
        save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    )


def save_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Write named columns, arrays of one length, as Parquet; meant for use inside `new_directory`."""
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path)


def open_stream(path: Path) -> BinaryIO:
    """Begin a new file that others read while it grows: each write reaches the system at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb", buffering=0)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file into a directory that is being made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def save_chunks(path: Path, chunks: Iterable[bytes], *, append: bool = False) -> None:
    """Write bytes as they come; what came before a failure stays, so that it can be continued."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab" if append else "wb") as file:
        for chunk in chunks:
            file.write(chunk)
