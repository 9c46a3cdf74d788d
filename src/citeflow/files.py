"""The only module that writes files: into a temporary name, to the disk, then renamed.

A reader sees a whole file or none, and a whole directory or none. A noun (RawDataset, PreparedGraph, TrainedModel,
EvalReport) is a directory whose `manifest.json` was written last and names every other file by its sha256.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import DTypeLike

from citeflow.errors import CorruptError, NotFoundError, UnavailableError

MANIFEST = "manifest.json"
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux' <fcntl.h> and <linux/fs.h>
Json = dict[str, Any]


def sha256_of_file(path: Path) -> str:
    """Digest of the bytes of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: object) -> str:
    """Digest of a value that JSON can hold, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step; its folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step, in UTF-8."""
    write_bytes(path, text.encode())


def write_in_place(path: Path, text: str) -> None:
    """Write into a file that must stay the same file, such as the one that Kubernetes takes a pod's last words from."""
    path.write_text(text)


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n")


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
    except ValueError:
        raise CorruptError("not a JSON file", path, hint="delete it and run the step again") from None


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy; meant for use inside `new_directory`, which makes it appear at once."""
    np.save(path, array, allow_pickle=False)


def save_blocks(path: Path, blocks: Iterable[np.ndarray], shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Write an array as .npy as its rows come, block by block, so that it need not fit into memory."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype=dtype).data)


def save_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write named tensors as safetensors; meant for use inside `new_directory`."""
    from safetensors.torch import save_file  # torch is not needed where no tensors are

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def save_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Write named columns, arrays of one length, as Parquet; meant for use inside `new_directory`."""
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path)


def open_stream(path: Path) -> BinaryIO:
    """Begin a new file that others read while it grows: each write reaches the system at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb", buffering=0)


def delete(folder: Path, pattern: str, *, keep: str = "") -> None:
    """Remove the files of a folder whose names fit, but for the one to keep; no folder is no error."""
    for file in folder.glob(pattern):
        if file.name != keep:
            file.unlink(missing_ok=True)


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


def move_file(source: Path, target: Path) -> None:
    """Give a finished file its name, in one step; both names lie on the same file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sync_file(source)
    os.replace(source, target)
    _sync_directory(target.parent)


@contextlib.contextmanager
def exclusive(path: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock file for the length of the block; the lock goes away with the process that holds it.

    Raises:
        UnavailableError: another process holds it, and still does after `wait_s`.
    """
    deadline_s = time.monotonic() + wait_s
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        while not _lock(file):
            if time.monotonic() >= deadline_s:
                raise UnavailableError("another process is at work on this", path, hint="wait until it has ended")
            time.sleep(0.1)
        yield


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """Give a directory that goes away at the end of the block, on the same file system as `parent`."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".scratch.") as name:
        yield Path(name)


def copy_directory(source: Path, target: Path) -> None:
    """Copy a whole directory so that the target appears at once."""
    with new_directory(target) as work:
        shutil.copytree(source, work, dirs_exist_ok=True)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Give a temporary directory beside `path` that takes its name when the block ends well, and goes away if not.

    Where `path` exists already it is replaced. Two processes that make the same directory both succeed; the first one's
    result is replaced by the second's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield work
        os.chmod(work, 0o755)
        for file in sorted(work.rglob("*")):
            if file.is_file():
                _sync_file(file)
        _sync_directory(work)
        _swap_directory(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _sync_directory(path.parent)


def write_manifest(directory: Path, kind: str, *, inputs: Json, facts: Json) -> str:
    """Describe the files of a directory that is being made; returns the digest that names its content.

    Args:
        directory: where the files lie; every file below it is listed with its size and sha256.
        kind: the noun, such as "PreparedGraph".
        inputs: what it was made from, by digest.
        facts: anything a later stage wants to know without opening the files.
    """
    files = {
        str(file.relative_to(directory)): {"bytes": file.stat().st_size, "sha256": sha256_of_file(file)}
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    digest = sha256_of_json({"kind": kind, "inputs": inputs, "files": files})
    manifest = {"kind": kind, "sha256": digest, "inputs": inputs, "facts": facts, "files": files}
    write_json(directory / MANIFEST, manifest)
    return digest


def read_manifest(directory: Path, kind: str) -> Json:
    """Read the manifest of a noun and check that its files are there in their full size.

    Raises:
        NotFoundError: the directory or its manifest is missing.
        CorruptError: it is another noun, or a file is missing or has another size.
    """
    if not (directory / MANIFEST).is_file():
        raise NotFoundError(f"no {kind} here", directory, hint="run the step that makes it")
    manifest: Json = read_json(directory / MANIFEST)
    if manifest.get("kind") != kind:
        raise CorruptError(f"a {manifest.get('kind')} where a {kind} belongs", directory)
    for name, entry in manifest["files"].items():
        file = directory / name
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise CorruptError("file is missing or was cut", file, hint="delete the folder and run the step again")
    return manifest


def verify(directory: Path, kind: str) -> Json:
    """As `read_manifest`, and compare every file's digest too."""
    manifest = read_manifest(directory, kind)
    for name, entry in manifest["files"].items():
        if sha256_of_file(directory / name) != entry["sha256"]:
            hint = "delete the folder and run the step again"
            raise CorruptError("file does not match its sha256", directory / name, hint=hint)
    return manifest


def _swap_directory(work: Path, path: Path) -> None:
    """Give a directory its name; what has the name already goes to `work`, or away."""
    while True:
        try:
            os.replace(work, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return
        if path.is_dir() and _exchange(work, path):
            return
        with scratch_directory(path.parent) as old, contextlib.suppress(FileNotFoundError):
            os.replace(path, old / path.name)


def _exchange(work: Path, path: Path) -> bool:
    """Swap two names, so that not even a kill leaves neither; False where the file system can not, as NFS."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    done: int = renameat2(AT_FDCWD, os.fsencode(work), AT_FDCWD, os.fsencode(path), RENAME_EXCHANGE)
    return done == 0


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
