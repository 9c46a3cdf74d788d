"""Files and directories that appear at once: made under a temporary name, brought to the disk, then renamed."""

import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ABANDONED_S = 24 * 3600
"""A temporary directory that nobody has touched for so long was left by a process that was killed."""

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # what `tempfile` makes of a prefix
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux' <fcntl.h> and <linux/fs.h>


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


def create_json(path: Path, value: object) -> bool:
    """Write a JSON file if there is none of this name yet; of several processes that try, one does.

    Returns:
        Whether this call made it.
    """
    with scratch_directory(path.parent) as work:
        write_json(work / path.name, value)
        try:
            _link(work / path.name, path)
        except FileExistsError:
            return False
    _sync_directory(path.parent)
    return True


def delete(folder: Path, pattern: str, *, keep: str = "") -> None:
    """Remove the files of a folder whose names fit, but for the one to keep; no folder is no error."""
    for file in folder.glob(pattern):
        if file.name != keep:
            file.unlink(missing_ok=True)


def delete_directory(path: Path) -> None:
    """Remove a directory so that a part of it is never seen under its name."""
    with scratch_directory(path.parent) as old, contextlib.suppress(FileNotFoundError):
        os.replace(path, old / path.name)


def delete_unfinished(folder: Path, name: str = "", *, older_s: float = 0.0) -> None:
    """Remove what a process that was killed has left half made: of one name, or of all in a folder.

    Args:
        folder: where it lies; need not exist.
        name: what it was to be called.
        older_s: seconds that it must have been left alone.
    """
    for path in folder.glob(".*"):
        match = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(OSError):
            if match and name in ("", match[1]) and time.time() - path.stat().st_mtime >= older_s:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def move_file(source: Path, target: Path) -> None:
    """Give a finished file its name, in one step; both names lie on the same file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sync_file(source)
    os.replace(source, target)
    _sync_directory(target.parent)


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
    delete_unfinished(path.parent, path.name, older_s=ABANDONED_S)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield work
        os.chmod(work, 0o755)
        for file in sorted(work.rglob("*")):
            (_sync_directory if file.is_dir() else _sync_file)(file)
        _sync_directory(work)
        _swap_directory(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _sync_directory(path.parent)


def _link(file: Path, path: Path) -> None:
    """Give a file a second name that is new; a copy has to do where the file system has no links, as SMB."""
    try:
        os.link(file, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        with os.fdopen(handle, "wb") as copy:
            copy.write(file.read_bytes())
            copy.flush()
            os.fsync(copy.fileno())


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
