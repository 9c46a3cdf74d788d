"""Tables of text whose delimiter and header nobody states: found by looking at them."""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv

from citeflow.data.diagnosis import not_utf8, quote
from citeflow.data.importers.columns import ends
from citeflow.data.importers.source import Source, SourceFile, stream_of
from citeflow.errors import DataError

DELIMITERS = ("\t", ",", ";", "|")
COMMENTS = ("#", "%", "//")
SAMPLE_LINES = 200
BLOCK_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table by its first lines."""

    delimiter: str | None
    """None for any run of blanks."""

    skipped: int
    """Lines before the first row of values or of names."""

    comments: tuple[str, ...]
    """Those lines, as far as they are comments."""

    lines: tuple[tuple[str, ...], ...]
    """The first rows, that of names included."""

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.lines[0])


def look(file: SourceFile) -> Table | None:
    """Find the delimiter of a table; None for a file that is no table of two columns."""
    head = file.head
    if b"\0" in head or head[:1] in (b"{", b"[", b"<"):
        return None
    text = head.decode("utf-8-sig", "replace")
    lines = text.splitlines()
    if not file.is_whole_head:
        lines = lines[:-1]
    skipped = 0
    comments = []
    forced = None
    for line in lines:
        if match := re.fullmatch(r"\s*sep=(.)\s*", line, re.IGNORECASE):
            forced = match[1]
        elif line.lstrip().startswith(COMMENTS):
            comments.append(line.strip())
        elif line.strip():
            break
        skipped += 1
    rest = [
        line for line in lines[skipped:] if line.strip() and not line.lstrip().startswith(COMMENTS)
    ]
    for delimiter in (forced,) if forced else (*DELIMITERS, None):
        rows = _split(rest[:SAMPLE_LINES], delimiter)
        # Under a header that names citing and cited, an odd line is an error to be shown.
        if rows and len(rows[0]) >= 2 and (_is_even(rows) or ends(rows[0])):
            return Table(
                delimiter=delimiter,
                skipped=skipped,
                comments=tuple(comments),
                lines=tuple(tuple(row) for row in rows if len(row) == len(rows[0])),
            )
    return None


def tables(source: Source) -> Iterator[tuple[SourceFile, Table]]:
    """Yield the files of a source that are tables, of the first thousand."""
    for file in source.files[:1000]:
        if table := look(file):
            yield file, table


def _is_even(rows: list[list[str]]) -> bool:
    """True if rows have as many values as the first one; the last may be cut by the sample."""
    width = len(rows[0])
    even = sum(len(row) == width for row in rows)
    return even == len(rows) or (len(rows) > 20 and even >= 0.95 * len(rows))


def _split(lines: list[str], delimiter: str | None) -> list[list[str]]:
    if delimiter is None:
        return [line.split() for line in lines]
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter))
    except csv.Error:
        return []
    return [[value.strip() for value in row] for row in rows if row]


def read_table(
    file: SourceFile,
    table: Table,
    *,
    has_header: bool,
    columns: dict[int, str],
    is_prose: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Yield some columns as text, by new names; empty values are null.

    Args:
        file: where it lies.
        table: as `look` found it.
        has_header: the first row has names, not values.
        columns: the new name of each column to read, by its position.
        is_prose: values may have line breaks inside of quotes.

    Raises:
        DataError: a line has another number of values, or is no text.
    """
    names = [columns.get(index, f"#{index}") for index in range(table.width)]
    problem: list[str] = []

    def handle(row: Any) -> str:
        if row.text.lstrip().startswith(COMMENTS) or not row.text.strip():
            return "skip"
        problem.append(row.text)
        return "error"

    options: dict[str, Any] = {
        "read_options": pyarrow.csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES),
        "parse_options": pyarrow.csv.ParseOptions(
            delimiter=table.delimiter or "\t",
            quote_char='"' if table.delimiter else False,
            newlines_in_values=is_prose,
            invalid_row_handler=handle,
        ),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=list(columns.values()),
            strings_can_be_null=True,
            null_values=[""],
        ),
    }
    with file.open() as opened:
        stream = _stream(file, opened, table, table.skipped + has_header)
        try:
            yield from pyarrow.csv.open_csv(stream, **options)
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            if not problem:
                raise
            raise _ragged(file, table, problem[0]) from None


def _stream(file: SourceFile, opened: BinaryIO, table: Table, num_skipped: int) -> BinaryIO:
    """Skip the first lines, and make one delimiter of blanks."""
    checked = stream_of(_checked(file, opened), BLOCK_BYTES)
    for _ in range(num_skipped):
        checked.readline(1 << 20)
    return stream_of(_single_tabs(checked), BLOCK_BYTES) if table.delimiter is None else checked


def _checked(file: SourceFile, opened: BinaryIO) -> Iterator[bytes]:
    """Yield UTF-8 that is valid: pyarrow cannot hand over a row that is not to a handler."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    num_lines = 1
    chunk = b"\n"
    while chunk:
        chunk = opened.read(1 << 20)
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            lines = error.object.split(b"\n")
            before = error.object.count(b"\n", 0, error.start)
            raise not_utf8(f"{file.path}, line {num_lines + before}", lines[before]) from None
        num_lines += chunk.count(b"\n")
        yield chunk


def _single_tabs(opened: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while chunk := opened.read(1 << 20):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        yield b"".join(b"\t".join(line.split()) + b"\n" for line in lines)
    yield b"\t".join(rest.split())


def _ragged(file: SourceFile, table: Table, text: str) -> DataError:
    """Name the line of a row that has another number of values, by reading up to it again."""
    wanted = text.strip().encode()
    where = str(file.path)
    with file.open() as opened:
        for number, line in enumerate(_stream(file, opened, table, 0), 1):
            if line.strip() == wanted:
                where = f"{file.path}, line {number}"
                break
    return DataError(f"{where}: {table.width} values expected", quote(text.strip()))
