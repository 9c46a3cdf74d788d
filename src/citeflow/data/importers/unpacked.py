"""Open a source wherever it is: a path, an archive, or a URL, unpacked into a temporary folder."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from citeflow import files
from citeflow.data import archive, download
from citeflow.data.importers.source import is_archive
from citeflow.errors import NotFoundError, named_as
from citeflow.utils.logging import redact_url


@contextlib.contextmanager
def unpacked(source: str, scratch: Path) -> Iterator[Path]:
    """Yield the path of a file or a folder that is no archive.

    Args:
        source: a path, or a URL of http, https or file.
        scratch: where a temporary folder is made, if one is needed.

    Raises:
        NotFoundError: there is nothing.
        UnavailableError: the server does not deliver.
        DataError: the archive is damaged or hostile.
    """
    with contextlib.ExitStack() as stack:
        path = Path(source).expanduser()
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:/", source):
            path = download.local_path(source) or _fetched(source, _work(stack, scratch))
        if not path.exists():
            raise NotFoundError("no such file or folder", redact_url(source))
        if path.is_file() and is_archive(path):
            work = _work(stack, scratch)
            stack.enter_context(named_as(work, path))
            archive.extract(path, work)
            path = work
        yield path


def _work(stack: contextlib.ExitStack, scratch: Path) -> Path:
    return stack.enter_context(files.scratch_directory(scratch))


def _fetched(url: str, work: Path) -> Path:
    name = re.sub(r"[^\w.-]", "_", redact_url(url).rpartition("/")[2]).lstrip(".")[-100:]
    target = work / (name or "download")
    download.fetch(url, target)
    return target
