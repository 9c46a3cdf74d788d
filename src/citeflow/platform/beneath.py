"""Files of a user, opened so that no link of theirs leads elsewhere.

Code of one's own writes into the folders of its run, on a cluster anywhere on the user's volume,
and at any moment. Who looks at a path first and opens it then may open something else.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from citeflow.errors import CorruptError

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def leads_beneath(root: Path, path: Path) -> bool:
    """Tell whether a path stays below a folder at the moment, once all links are followed."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # such as a long name, a ring of links, a NUL
        return False


def check_plain(root: Path, folder: Path) -> None:
    """Check that a folder lies below another, and holds nothing but folders and plain files.

    It is for what a run has left: nothing writes there any more.

    Raises:
        CorruptError: it leads elsewhere, or a link or a pipe is in it.
    """
    if not leads_beneath(root, folder):
        raise CorruptError("a folder of the run leads elsewhere", folder.name)
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            mode = os.lstat(os.path.join(parent, name)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise CorruptError("no plain file", ascii(name))


def open_beneath(root: Path, path: Path) -> BinaryIO:
    """Open a plain file below a folder, following no link on the way from one to the other.

    Args:
        root: a folder that nobody but the platform can move.
        path: below it.

    Raises:
        FileNotFoundError: there is no such file, or a link, a pipe or a folder is in its place.
        ValueError: the path is not below the folder, or holds a NUL.
    """
    *folders, name = path.relative_to(root).parts
    if ".." in (*folders, name):
        raise ValueError(str(path))
    at = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        handle = os.open(name, _FILE, dir_fd=at)
    except OSError as error:
        raise FileNotFoundError(errno.ENOENT, "no plain file", str(path)) from error
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(errno.ENOENT, "no plain file", str(path))
    return os.fdopen(handle, "rb")
