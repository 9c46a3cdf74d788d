"""Contents of files: digests, JSON, arrays, tensors, tables and streams of bytes."""

import errno
import functools
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ParamSpec, TypeVar

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import DTypeLike

from citeflow.errors import CorruptError, NotFoundError

if TYPE_CHECKING:
    from torch import Tensor

Json = dict[str, Any]
P = ParamSpec("P")
R = TypeVar("R")


def again_if_stale(read: Callable[P, R]) -> Callable[P, R]:
    """Decorate a reader so that it tries once more on ESTALE.

    After a restart an NFS server no longer knows the handles of open files and folders; opening the
    file again by name finds it.
    """

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
    """List the names in a folder; none where there is no folder.

    Raises:
        OSError: it cannot be read, which `glob` would report as empty.
    """
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


@again_if_stale
def sha256_of_file(path: Path) -> str:
    """Return the digest of the bytes of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: object) -> str:
    """Return the digest of a JSON value, which does not depend on the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@again_if_stale
def read_json(path: Path) -> object:
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
        hint = "delete it and run the stage again"
        raise CorruptError("not a JSON file", path, hint=hint) from None


def open_plain(path: Path) -> BinaryIO:
    """Open a file that anybody may have put there; of a link, a folder or a pipe nothing is read.

    Raises:
        OSError: there is no such file, or it is no plain file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(handle, "rb")


def read_plain_json(path: Path, most: int = 1 << 16) -> object:
    """Read a small JSON file by `open_plain`.

    Raises:
        NotFoundError: there is no such file.
        CorruptError: it is no plain file, too large, or not JSON.
    """
    try:
        with open_plain(path) as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise NotFoundError("no such file", path) from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EINVAL):
            raise
        raise CorruptError("not a plain file", path) from None
    try:
        return json.loads(content if len(content) <= most else b"")
    except (ValueError, RecursionError):
        raise CorruptError("not a JSON file", path) from None


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy, inside of a `new_directory`, which makes it appear at once."""
    np.save(path, array, allow_pickle=False)


def save_blocks(
    path: Path, blocks: Iterable[np.ndarray], shape: tuple[int, ...], dtype: DTypeLike
) -> None:
    """Write an array as .npy block by block, so that it need not fit into memory."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype=dtype).data)


def save_tensors(path: Path, tensors: "Mapping[str, Tensor]") -> None:
    """Write named tensors as safetensors, inside of a `new_directory`."""
    from safetensors.torch import save  # torch is not installed where pipelines are compiled

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # On a full disk `save_file` raises an error of its own, not the OSError that is handled above.
    path.write_bytes(save(plain))


def save_table(path: Path, columns: Mapping[str, object]) -> None:
    """Write named columns, arrays of one length, as Parquet, inside of a `new_directory`."""
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path)


def save_ipc(path: Path, columns: Mapping[str, object]) -> None:
    """Write named columns as one batch of an Arrow file, which can be mapped into memory."""
    table = pyarrow.table(dict(columns))
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as file:
        file.write_table(table.combine_chunks())


class TableStream:
    """A Parquet file that grows batch by batch, inside of a `new_directory`.

    The schema is that of the first batch. Nothing is written where no batch comes.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; it is made with the first batch."""
        self.num_rows = 0
        self.schema: pyarrow.Schema | None = None
        self._path = path
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def __enter__(self) -> "TableStream":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, batch: pyarrow.RecordBatch) -> None:
        """Append a batch; one without rows counts for its schema only."""
        if self._writer is None:
            self.schema = batch.schema
            self._writer = pyarrow.parquet.ParquetWriter(
                self._path,
                batch.schema,
                use_dictionary=False,  # ids and texts hardly repeat
            )
        if batch.num_rows:
            self._writer.write_batch(batch)
            self.num_rows += batch.num_rows


def open_stream(path: Path) -> BinaryIO:
    """Open a new file that others read while it grows: each write reaches the system at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb", buffering=0)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, inside of a `new_directory`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def save_chunks(path: Path, chunks: Iterable[bytes], *, append: bool = False) -> None:
    """Write chunks as they come; those before a failure stay, so that a download can resume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab" if append else "wb") as file:
        for chunk in chunks:
            file.write(chunk)
