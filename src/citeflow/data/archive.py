"""Unpack archives from elsewhere: every entry is checked before the first one is written.

Refused are names that lead outside, links and devices, names that occur twice, more entries or more
bytes than allowed, and content that does not match its checksum.

`tarfile`'s filter "data" and `zipfile` cover the first two only, each by its own rules; here
both go through the same checks.
"""

import contextlib
import errno
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from citeflow import files
from citeflow.data.dialect import open_bytes
from citeflow.data.importers.kinds import kind_of
from citeflow.data.importers.source import SourceFile, is_archive, is_extra
from citeflow.errors import DataError, NotFoundError

MAX_BYTES = 64 << 30
MAX_FILES = 10_000
MAX_NESTED = 3

_READ_BYTES = 1 << 20
_BROKEN = (
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors of the standard library on a damaged, encrypted or unknown archive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    name: str
    size_bytes: int
    is_folder: bool
    is_file: bool
    open: Callable[[], IO[bytes] | None]


class _SmallReads:
    """A file that refuses large reads.

    tarfile reads a long name or a pax header of the size that the archive claims, into memory.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell
        self.seek = file.seek

    def read(self, size: int) -> bytes:
        if size > _READ_BYTES:
            raise ValueError(f"a header of {size:,} bytes")
        return self._file.read(size)


def extract(
    archive: Path, target: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> None:
    """Unpack a .zip or .tar, that may be compressed, told apart by content; else as `extract_zip`.

    Where all that it holds is an archive, that one is unpacked in its place.
    """
    unpack = extract_zip if zipfile.is_zipfile(archive) else extract_tar
    unpack(archive, target, max_bytes=max_bytes, max_files=max_files)
    for _ in range(MAX_NESTED):
        found = [path for path in target.rglob("*") if path.is_file()]
        inner = [path for path in found if not is_extra(path.relative_to(target))]
        if len(inner) != 1 or not is_archive(inner[0]):
            break
        unpack = extract_zip if zipfile.is_zipfile(inner[0]) else extract_tar
        below = inner[0].with_name(f"{inner[0].name}.unpacked")
        unpack(inner[0], below, max_bytes=max_bytes, max_files=max_files)
        inner[0].unlink()


def extract_zip(
    archive: Path, target: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> None:
    """Unpack a zip archive.

    Args:
        archive: the file.
        target: a temporary directory, as of `files.new_directory`, which is removed on an error.
        max_bytes: limit of all entries together, as declared and as really written.
        max_files: limit of entries.

    Raises:
        DataError: the archive is damaged or hostile.
        NotFoundError: there is no such file.
    """
    with _damage_as_data_error(archive), zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        entries = _check(
            archive, (_entry_of_zip(opened, info) for info in infos), max_bytes, max_files
        )
        _write(archive, entries, target, max_bytes)


def extract_tar(
    archive: Path, target: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> None:
    """Unpack a .tar, .tar.gz, .tar.bz2 or .tar.xz; arguments and errors as for `extract_zip`."""
    with (
        _damage_as_data_error(archive),
        open_bytes(archive) as plain,
        tarfile.open(fileobj=cast(IO[bytes], _SmallReads(plain)), mode="r:") as opened,
    ):
        entries = _check(
            archive, (_entry_of_tar(opened, info) for info in opened), max_bytes, max_files
        )
        _require_end(archive, plain)
        _write(archive, entries, target, max_bytes)


@contextlib.contextmanager
def _damage_as_data_error(archive: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFoundError("no such file", archive) from None
    except (*_BROKEN, OSError) as error:
        # bz2 has no error of its own, and an offset before the start of a zip is no failing disk.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DataError(
            "damaged archive", f"{archive.name}: {_one_line(error)}", hint=_hint(archive)
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _hint(archive: Path) -> str:
    kind = kind_of(SourceFile(archive))
    return f"it is {kind.what}: {kind.hint}" if kind else "download or pack it again"


def _entry_of_zip(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was packed on Windows
    # `filename` ends at a zero byte, which would hide the rest. Windows' own packers write
    # backslashes between folders, which the format forbids, and other unpackers take for slashes.
    name = info.orig_filename.replace("\\", "/")
    is_folder = name.endswith("/")
    return _Entry(
        name=name,
        size_bytes=info.file_size,
        is_folder=is_folder and kind in (0, stat.S_IFDIR),
        is_file=not is_folder and kind in (0, stat.S_IFREG),
        open=lambda: opened.open(info),
    )


def _entry_of_tar(opened: tarfile.TarFile, info: tarfile.TarInfo) -> _Entry:
    return _Entry(
        name=info.name,
        size_bytes=info.size,
        is_folder=info.isdir(),
        is_file=info.isreg(),
        open=lambda: opened.extractfile(info),
    )


def _require_end(archive: Path, plain: IO[bytes]) -> None:
    # The checksum of a gzip stream is at its end, and gzip compares it only when it gets there.
    if len(plain.read(_READ_BYTES)) == _READ_BYTES:
        raise DataError("more data behind the end of the archive", archive.name)


def _check(
    archive: Path, entries: Iterable[_Entry], max_bytes: int, max_files: int
) -> dict[PurePosixPath, _Entry]:
    """Return the files to write, by safe relative path; folders are made as their files need them.

    Entries are taken one by one, so that one archive of a million ends at the limit.
    """
    checked: dict[PurePosixPath, _Entry] = {}
    total_bytes = 0
    for count, entry in enumerate(entries, start=1):
        total_bytes += entry.size_bytes
        if count > max_files or total_bytes > max_bytes:
            raise DataError(
                f"archive with more than {max_files:,} entries or {max_bytes:,} bytes", archive.name
            )
        path = _safe_path(archive, entry)
        if path in checked:
            raise _refusal(archive, "the same name twice", entry)
        if path.parts:
            checked[path] = entry
    plain = {path: entry for path, entry in checked.items() if not entry.is_folder}
    for path in checked:
        for parent in path.parents:
            if parent in plain:
                raise _refusal(archive, "a file that is also a folder", plain[parent])
    return plain


def _safe_path(archive: Path, entry: _Entry) -> PurePosixPath:
    path = PurePosixPath(entry.name)
    # In a tar backslashes, and colons, are plain characters here, but lead outside where Windows
    # reads them.
    if path.is_absolute() or ".." in path.parts or any(mark in entry.name for mark in "\\:\0"):
        raise _refusal(archive, "a name that leads outside", entry)
    if not entry.is_file and not entry.is_folder:
        raise _refusal(archive, "a link or a device", entry)
    return path


def _refusal(archive: Path, what: str, entry: _Entry) -> DataError:
    return DataError(
        f"archive with {what}", f"{archive.name}: {entry.name!r}", hint="nothing was unpacked"
    )


def _write(
    archive: Path, entries: dict[PurePosixPath, _Entry], target: Path, max_bytes: int
) -> None:
    # Counted again as they are written: the declared sizes are the archive's own word.
    left_bytes = max_bytes
    for path, entry in entries.items():
        files.save_chunks(target / path, _chunks(archive, entry, left_bytes))
        left_bytes -= (target / path).stat().st_size


def _chunks(archive: Path, entry: _Entry, max_bytes: int) -> Iterator[bytes]:
    source = entry.open()
    assert source is not None
    with source:
        while chunk := source.read(_READ_BYTES):
            max_bytes -= len(chunk)
            if max_bytes < 0:
                raise _refusal(archive, "more bytes than it declares", entry)
            yield chunk
