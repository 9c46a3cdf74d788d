"""The files of a source that is to be imported: found, opened whatever packs them, and looked into.

What a file holds is told by its content alone: a name like `works.json.gz` may be of a file that
the browser has unpacked already.
"""

import codecs
import contextlib
import functools
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from citeflow.data.diagnosis import first_line
from citeflow.data.dialect import encoding_of, is_compressed, open_unpacked
from citeflow.errors import DataError, NotFoundError

HEAD_BYTES = 1 << 18
MIN_HEAD_BYTES = 1 << 14
HEADS_BYTES = 128 << 20
"""Memory for the heads of all files."""
MAX_FILES = 100_000
MAX_WHOLE_BYTES = 2 << 30

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zstd")

BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, ValueError)
"""Errors of the libraries that unpack, on a damaged file."""

SKIPPED = (
    "__MACOSX",
    "citeflow-data",
    "_SUCCESS",
    "_metadata",
    "_common_metadata",
    "manifest",
    "manifest.json",
)
"""Files and folders that go with data and hold none."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    path: Path
    head_bytes: int = HEAD_BYTES
    """Size of `head` at most."""

    @property
    def name(self) -> str:
        """Its name in lower case, without the suffix of what packs it."""
        name = self.path.name.lower()
        return next((name[: -len(end)] for end in SUFFIXES if name.endswith(end)), name)

    @functools.cached_property
    def raw_head(self) -> bytes:
        """The first bytes as they are on the disk."""
        with self.path.open("rb") as file:
            return file.read(512)

    @functools.cached_property
    def encoding(self) -> str:
        """The encoding of a text in UTF-16 or UTF-32, which is read as UTF-8; else nothing."""
        encoding = encoding_of(self._unpacked_head)
        return encoding if encoding.startswith(("utf-16", "utf-32")) else ""

    @functools.cached_property
    def head(self) -> bytes:
        """The first bytes, unpacked and in UTF-8; what can be unpacked of a damaged file."""
        head = self._unpacked_head
        if not self.encoding:
            return head
        return codecs.getincrementaldecoder(self.encoding)("replace").decode(head).encode()

    @functools.cached_property
    def _unpacked_head(self) -> bytes:
        parts = []
        try:
            with open_unpacked(self.path) as file:
                size = 0
                # `read` would wait for more of a file that is cut short, and lose what came.
                read = getattr(file, "read1", file.read)
                limit = self.head_bytes
                while size < limit and (part := read(min(1 << 14, limit - size))):
                    parts.append(part)
                    size += len(part)
        except BROKEN:
            pass
        return b"".join(parts)

    @property
    def is_whole_head(self) -> bool:
        """True if `head` holds all there is."""
        return len(self._unpacked_head) < self.head_bytes

    def read_whole(self) -> bytes:
        """Read a file for a library that needs all of it.

        Raises:
            DataError: it is damaged, or larger than 2 GiB.
        """
        with self.open() as file:
            content = file.read(MAX_WHOLE_BYTES + 1)
        if len(content) > MAX_WHOLE_BYTES:
            hint = "export the graph as a list of edges, which is read piece by piece"
            raise DataError(
                f"{self.path} is larger than 2 GiB", "in a format read whole", hint=hint
            )
        return content

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open it unpacked, texts as UTF-8; damage that shows in the block is a DataError."""
        with self.damage_as_data_error(), open_unpacked(self.path) as file:
            yield stream_of(_in_utf8(file, self.encoding)) if self.encoding else file

    @contextlib.contextmanager
    def damage_as_data_error(self) -> Iterator[None]:
        """Turn what libraries raise on a file that they cannot read into a DataError."""
        try:
            yield
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}: not UTF-8", error.reason, hint="save it as UTF-8"
            ) from None
        except (*BROKEN, MemoryError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            hint = "copy or download it again" if is_compressed(self.path) else ""
            raise DataError(f"{self.path} cannot be read", first_line(error), hint=hint) from None


def _in_utf8(file: BinaryIO, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    while chunk := file.read(1 << 20):
        yield decoder.decode(chunk).encode()
    yield decoder.decode(b"", final=True).encode()


class _Stream(io.RawIOBase):
    """A file of bytes that are made chunk by chunk."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def stream_of(chunks: Iterator[bytes], buffer_bytes: int = 1 << 20) -> BinaryIO:
    """Make a file of bytes that are made chunk by chunk."""
    return io.BufferedReader(_Stream(chunks), buffer_bytes)


@dataclass(frozen=True)
class Source:
    """A file or a folder that somebody brings."""

    path: Path
    files: tuple[SourceFile, ...]

    @property
    def only(self) -> SourceFile | None:
        """The file of a source of one file."""
        return self.files[0] if len(self.files) == 1 else None

    def where(self, test: Callable[[SourceFile], object]) -> tuple[SourceFile, ...]:
        """Return the files that pass a test."""
        return tuple(file for file in self.files if test(file))


def is_extra(path: Path) -> bool:
    """True for a hidden file and one that goes with data and holds none, by its relative path."""
    return any(part[0] == "." or part in SKIPPED for part in path.parts)


def open_source(path: Path) -> Source:
    """Find the files of a source; hidden and empty ones are none.

    Raises:
        NotFoundError: there is no such file or folder, or it holds nothing.
        DataError: it holds more than 100,000 files.
    """
    if path.is_file():
        return Source(path, (SourceFile(path), *_companions(path)))
    if not path.is_dir():
        raise NotFoundError("no such file or folder", path)
    found = []
    for each in path.rglob("*"):
        if each.is_file() and not is_extra(each.relative_to(path)) and each.stat().st_size:
            found.append(each)
        if len(found) > MAX_FILES:
            raise DataError(f"folder with more than {MAX_FILES:,} files", path)
    head_bytes = min(HEAD_BYTES, max(MIN_HEAD_BYTES, HEADS_BYTES // max(1, len(found))))
    return Source(path, tuple(SourceFile(each, head_bytes) for each in sorted(found)))


def _companions(path: Path) -> list[SourceFile]:
    """Return SNAP's file of dates beside an edge list: `cit-HepTh-dates.txt` of `cit-HepTh.txt`."""
    stem = SourceFile(path).name.rpartition(".")[0] or SourceFile(path).name
    names = [f"{stem}-dates.txt{suffix}" for suffix in ("", *SUFFIXES)]
    return [
        SourceFile(each) for each in sorted(path.parent.iterdir()) if each.name.lower() in names
    ]


def is_archive(path: Path) -> bool:
    """True for a zip or a tar, packed or not, that is no format of its own, such as .npz."""
    file = SourceFile(path)
    if file.raw_head[:2] == b"PK" and zipfile.is_zipfile(path):
        names = zip_names(path)
        return not all(name.endswith(".npy") for name in names) and not is_office(names)
    return file.head[257:262] == b"ustar" or _has_checksum(file.head[: tarfile.BLOCKSIZE])


def _has_checksum(head: bytes) -> bool:
    """True for a header of the oldest tar, which has no magic number."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def zip_names(path: Path) -> list[str]:
    """List the names in a zip; none where it is damaged."""
    try:
        with zipfile.ZipFile(path) as opened:
            return opened.namelist()
    except (zipfile.BadZipFile, *BROKEN, NotImplementedError, RuntimeError):
        return []


def is_office(names: list[str]) -> bool:
    """True for the names in a workbook or a document of Microsoft Office or OpenOffice."""
    return "[Content_Types].xml" in names or "META-INF/manifest.xml" in names
