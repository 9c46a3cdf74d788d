"""The form of a table of text: its encoding, its delimiter, its way to escape quotes.

What the first lines show without doubt is taken and said; what they do not is left to the reader,
which names it. The `csv.Sniffer` of Python guesses from frequencies and takes letters for
delimiters; here the names of the columns that are looked for decide.
"""

import bz2
import csv
import gzip
import io
import lzma
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import pyarrow as pa

SAMPLE_BYTES = 1 << 18
"""Beginning of a file that is looked at."""

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}

FIELD_LIMIT_BYTES = 1 << 30

_OPEN: dict[bytes, Callable[[Path], object]] = {
    rb"\x1f\x8b": gzip.open,
    rb"BZh\d": bz2.open,
    rb"\xfd7zXZ\x00": lzma.open,
    rb"\x28\xb5\x2f\xfd": lambda path: pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"),
}
"""Functions that open a compressed file, by a pattern of its first bytes."""

_ENCODINGS = {b"\xff\xfe\x00\x00": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Encodings by the mark at the front of a file; that of UTF-8 is skipped by `utf-8-sig`."""

_SEP_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
"""Excel's own first line."""

_ESCAPED_QUOTE = re.compile(rb'[^"\\]\\"[^",;|\t\r\n]')
"""A quote behind a backslash inside of a value; in plain CSV a second quote would follow."""

_DECIMAL_COMMA = re.compile(r"(?m)(?:^|;)[+-]?\d+,\d+(?:;|\r?$)")
_DECIMAL_POINT = re.compile(r"(?m)(?:^|;)[+-]?\d+\.\d+(?:;|\r?$)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """The form of a table of text; the defaults are plain CSV."""

    encoding: str = "utf-8-sig"
    delimiter: str = ","
    has_escapes: bool = False
    """A backslash stands before a quote inside of a value."""

    decimal_point: str = "."
    num_skipped: int = 0
    """Lines before the header."""

    has_header: bool = True

    def remarks(self) -> list[str]:
        """Say what differs from plain CSV."""
        said = []
        if self.delimiter != ",":
            said.append(f"separated by {DELIMITERS.get(self.delimiter, repr(self.delimiter))}")
        if self.decimal_point != ".":
            said.append("with decimal commas")
        if self.encoding != "utf-8-sig":
            said.append(f"in {self.encoding.upper()}")
        if self.has_escapes:
            said.append("with quotes escaped by backslashes")
        if self.num_skipped:
            lines = "a line" if self.num_skipped == 1 else f"{self.num_skipped} lines"
            said.append(f"{lines} before the header skipped")
        if not self.has_header:
            said.append("without a header line: citing before cited")
        return said


PLAIN = Dialect()
"""Comma-separated UTF-8."""


def open_bytes(path: Path) -> BinaryIO:
    """Open a file, and decompress it if its content or its name says so."""
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path))
    return open_unpacked(path)


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file, and decompress it if its content says so, whatever its name is."""
    open_compressed = _opener(path)
    return cast(BinaryIO, open_compressed(path)) if open_compressed else path.open("rb")


def is_compressed(path: Path) -> bool:
    """True for gzip, bzip2, xz and zstd, whatever the name of the file is."""
    return _opener(path) is not None


def _opener(path: Path) -> Callable[[Path], object] | None:
    with path.open("rb") as file:
        magic = file.read(6)
    return next((opener for start, opener in _OPEN.items() if re.match(start, magic)), None)


def open_text(path: Path, encoding: str = "utf-8-sig") -> TextIO:
    """Open a table of text, compressed or not, for the `csv` module."""
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="")


def read_sample(path: Path) -> bytes:
    """Read the beginning of a file, decompressed."""
    with open_bytes(path) as file:
        return file.read(SAMPLE_BYTES)


def detect(path: Path, required: Sequence[str]) -> Dialect:
    """Find out how a table is written.

    Args:
        path: a table of text.
        required: columns that it must have, in lower case; the delimiter is the one that makes
            them columns, else the one that the header has most of.
    """
    sample = read_sample(path)
    encoding = encoding_of(sample)
    text = sample.decode(encoding, errors="replace")
    delimiter = ""
    if match := _SEP_LINE.match(text):
        delimiter = match[1]
    lines = text.splitlines(keepends=True)
    num_skipped = 1 if delimiter else _count_comments(lines, set(required))
    text = "".join(lines[num_skipped:])
    delimiter = delimiter or _delimiter(text, set(required))
    is_decimal_comma = delimiter == ";" and bool(_DECIMAL_COMMA.search(text))
    return Dialect(
        encoding=encoding,
        delimiter=delimiter,
        # Citations have no text in them, and there are many.
        has_escapes="citing" not in required and _has_escaped_quotes(path),
        decimal_point="," if is_decimal_comma and not _DECIMAL_POINT.search(text) else ".",
        num_skipped=num_skipped,
    )


def header_of(text: str, delimiter: str) -> list[str]:
    """Split the first record that is not empty into names."""
    csv.field_size_limit(FIELD_LIMIT_BYTES)
    try:
        return next(filter(None, csv.reader(io.StringIO(text), delimiter=delimiter)), [])
    except csv.Error:
        return []


def _has_escaped_quotes(path: Path) -> bool:
    # The whole file: the line numbers of messages are counted by what is found here.
    with open_bytes(path) as file:
        blocks = iter(lambda: file.read(SAMPLE_BYTES), b"")
        return any(b'\\"' in block and _ESCAPED_QUOTE.search(block) for block in blocks)


def encoding_of(sample: bytes) -> str:
    """Tell the encoding of a text by its beginning: UTF-8, where it is none of the wider ones."""
    for mark, encoding in _ENCODINGS.items():
        if sample.startswith(mark):
            return encoding
    # UTF-16 without a mark: every second byte of ASCII text is zero.
    even, odd = sample[:200:2], sample[1:200:2]
    if len(odd) > 3 and not any(odd) and all(even):
        return "utf-16-le"
    if len(even) > 3 and not any(even) and all(odd):
        return "utf-16-be"
    return "utf-8-sig"


def _count_comments(lines: list[str], required: set[str]) -> int:
    num = 0
    while num < len(lines) and lines[num].startswith("#"):
        num += 1
    rest = "".join(lines[num:])
    has_header = any(required <= _names(rest, delimiter) for delimiter in DELIMITERS)
    return num if num and required and has_header else 0


def _delimiter(text: str, required: set[str]) -> str:
    for delimiter in DELIMITERS:
        if required and required <= _names(text, delimiter):
            return delimiter
    first = next((line for line in text.splitlines() if line.strip()), "")
    most = max(DELIMITERS, key=first.count)
    return most if first.count(most) > first.count(",") else ","


def _names(text: str, delimiter: str) -> set[str]:
    return {name.strip().lower() for name in header_of(text, delimiter)}
