"""Files and directories that appear at once: written to a temporary name, synced, then renamed."""

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
"""Age at which an untouched temporary directory counts as left by a process that was killed."""

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # what `tempfile` makes of a prefix
AT_FDCWD = -100  # of Linux' <fcntl.h>
RENAME_EXCHANGE = 2  # of <linux/fs.h>


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically; its folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp allows nobody else to read it
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically, in UTF-8."""
    write_bytes(path, text.encode())


def write_in_place(path: Path, text: str) -> None:
    """Overwrite a file that must keep its inode, such as the termination log of a pod."""
    path.write_text(text)


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n")


def create_json(path: Path, value: object) -> bool:
    """Write a JSON file unless it exists; of several processes that try, one succeeds.

    Returns:
        True if this call wrote it.
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
    """Remove the files in a folder that match a pattern, except one; the folder may be missing."""
    for file in folder.glob(pattern):
        if file.name != keep:
            file.unlink(missing_ok=True)


def delete_directory(path: Path) -> None:
    """Remove a directory; it is renamed first, so that nobody sees a part of it under its name."""
    with scratch_directory(path.parent) as old, contextlib.suppress(FileNotFoundError):
        os.replace(path, old / path.name)


def delete_unfinished(folder: Path, name: str = "", *, older_s: float = 0.0) -> None:
    """Remove temporary files and directories that a killed process has left.

    Args:
        folder: where they are; need not exist.
        name: final name of those to remove; all by default.
        older_s: least seconds since they were changed.
    """
    for path in folder.glob(".*"):
        match = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(OSError):
            if match and name in ("", match[1]) and time.time() - path.stat().st_mtime >= older_s:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def move_file(source: Path, target: Path) -> None:
    """Rename a finished file atomically; both names are on the same file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sync_file(source)
    os.replace(source, target)
    _sync_directory(target.parent)


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """Yield a directory that is removed after the block, on the same file system as `parent`."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".scratch.") as name:
        yield Path(name)


def make_directory(path: Path) -> None:
    """Make a directory, unless it is there."""
    path.mkdir(parents=True, exist_ok=True)


def copy_directory(source: Path, target: Path) -> None:
    """Copy a directory so that the target appears at once."""
    with new_directory(target) as work:
        shutil.copytree(source, work, dirs_exist_ok=True)


def link_directory(target: Path, link: Path) -> None:
    """Let a symbolic link name a directory, in place of the one that it named before.

    It is relative, as a volume may be mounted elsewhere by those who follow the link.
    """
    with scratch_directory(link.parent) as work:
        (work / link.name).symlink_to(os.path.relpath(target, link.parent))
        os.replace(work / link.name, link)
    _sync_directory(link.parent)


def link_files(source: Path, target: Path) -> None:
    """Give the files of a directory a second name in another one, which is there."""
    for file in source.iterdir():
        _link(file, target / file.name)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a directory that is renamed to `path` after the block, or removed on an error.

    An existing `path` is replaced. Of two processes that make the same directory both succeed; the
    result of the first is replaced by that of the second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    delete_unfinished(path.parent, path.name, older_s=ABANDONED_S)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield work
        os.chmod(work, 0o755)  # mkdtemp allows nobody else to enter it
        for file in sorted(work.rglob("*")):
            (_sync_directory if file.is_dir() else _sync_file)(file)
        _sync_directory(work)
        _swap_directory(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _sync_directory(path.parent)


def _link(file: Path, path: Path) -> None:
    """Give a file a second name that does not exist yet; on SMB, which has no links, by a copy."""
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
    """Rename `work` to `path`; a directory that has the name already goes to `work` or away."""
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
    """Swap two names in one system call; False where the file system cannot, such as NFS.

    Two renames instead would leave a moment without either, and a kill at that moment for good.
    """
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
