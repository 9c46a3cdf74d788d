"""Tables in files (CSV or TSV, compressed or not, Parquet), read by Arrow.

A bad value is reported with its file and row. Rows count from 0 in the code and as a person counts
in messages: a CSV row by the line of the file that it starts on, with the header as line 1, and a
Parquet row from 1.

Legend: N rows of a table.
"""

import contextlib
import csv
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from citeflow.data.diagnosis import (
    diagnose_csv,
    ends_in_open_quote,
    explain_missing_column,
    first_line,
    line_of_row,
    quote,
)
from citeflow.data.dialect import (
    FIELD_LIMIT_BYTES,
    PLAIN,
    Dialect,
    detect,
    is_compressed,
    open_bytes,
    open_text,
)
from citeflow.errors import DataError, NotFoundError

TEXT_SUFFIXES = tuple(
    f"{kind}{packed}" for kind in (".csv", ".tsv") for packed in ("", ".gz", ".bz2", ".xz")
)
PARQUET = ".parquet"
SUFFIXES = (*TEXT_SUFFIXES, PARQUET)
SHOWN_SUFFIXES = (".csv", ".csv.gz", ".tsv", PARQUET)
"""The usual ones, for messages."""


KNOWN_COLUMNS = frozenset({"id", "title", "abstract", "year", "date", "citing", "cited"})
"""Columns with a meaning of their own; all others are candidates for features."""

BLOCK_BYTES = 64 << 20
BATCH_ROWS = 4 << 20

NUMBER = r"^\s*[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:nan|inf|infinity))\s*$"

Column = Any
"""An Arrow array or chunked array; pyarrow has no types that mypy could check."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFile:
    """A table whose header was read and checked."""

    path: Path
    names: tuple[str, ...]
    """Columns in the order of the file; those of KNOWN_COLUMNS in lower case."""

    header_lines: int
    """Lines before the first row of a CSV file, 0 in Parquet."""

    dialect: Dialect = PLAIN
    """How a CSV file is written."""

    parts: tuple[Path, ...] = ()
    """Files that make up a Parquet table; Spark writes a folder of them."""

    @property
    def is_parquet(self) -> bool:
        """True for Parquet, by the name of the file; all others are CSV."""
        return is_parquet(self.path)

    def where(self, row: int) -> str:
        """Return the location of a row, `papers.csv, line 17`; a CSV file is read again for it."""
        if not self.is_parquet:
            return f"{self.path}, line {line_of_row(self.path, row, self.dialect)}"
        for part in self.parts:
            num_rows = pq.ParquetFile(part).metadata.num_rows
            if row < num_rows:
                return f"{part}, row {row + 1}"
            row -= num_rows
        raise IndexError(row)

    def bad_value(
        self, name: str, bad_N: np.ndarray, values: Column, problem: str, *, hint: str = ""
    ) -> DataError:
        """Build the error for the first marked value; it says how many more there are."""
        row = int(np.argmax(bad_N))
        num_bad = int(np.count_nonzero(bad_N))
        more = f" (and {num_bad - 1:,} more)" if num_bad > 1 else ""
        return DataError(
            f"{self.where(row)}: column {quote(name)} {problem}",
            quote(values[row].as_py()) + more,
            hint=hint,
        )


def is_parquet(path: Path) -> bool:
    """True for a Parquet file, by its name, and for a folder, in which Spark writes them."""
    return path.suffix.lower() == PARQUET or (path.is_dir() and "." not in path.name)


def find_tables(folder: Path, stem: str) -> list[Path]:
    """List the files, and Spark's folders, that hold a table, in any case of their names."""
    names = {f"{stem}{suffix}": suffix for suffix in SUFFIXES}
    found = [path for path in folder.iterdir() if path.name.lower() in names]
    found += [path for path in folder.glob(stem) if path.is_dir() and any(path.glob("*.parquet"))]
    names[stem] = PARQUET
    return sorted(found, key=lambda path: (SUFFIXES.index(names[path.name.lower()]), path.name))


def parts_of(path: Path) -> tuple[Path, ...]:
    """List the files of a table: itself, or the part files of a folder as Spark writes it.

    Raises:
        DataError: there are none, or they are not Parquet.
    """
    if not path.is_dir():
        return (path,)
    parts = tuple(
        part for part in sorted(path.iterdir()) if part.is_file() and part.name[0] not in "._"
    )
    if not is_parquet(path):
        hint = "join its part files to one, or write them as Parquet"
        raise DataError(f"{path} cannot be read", "it is a folder", hint=hint)
    if not parts or not all(is_parquet(part) for part in parts):
        hint = "it may be a folder of .parquet files, as Spark writes it"
        raise DataError(f"{path} holds other files than Parquet, or none", len(parts), hint=hint)
    return parts


def open_table(
    folder: Path, stem: str, required: Sequence[str], *, has_header: bool = True
) -> TableFile:
    """Find the table of a stem, such as `papers`, in a folder and read its header.

    Args:
        folder: where it lies.
        stem: name of the file, up to the suffix, which is one of SUFFIXES.
        required: columns that it must have.
        has_header: False where the first line is a row, and the columns are the required ones.

    Raises:
        NotFoundError: there is none.
        DataError: there are two, or the file is empty, damaged, without rows or without a required
            column.
    """
    paths = find_tables(folder, stem)
    if not paths:
        names = ", ".join(f"{stem}{suffix}" for suffix in SHOWN_SUFFIXES)
        raise NotFoundError(
            f"no table of {stem} in the folder", folder, hint=f"it must hold one of {names}"
        )
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise DataError(
            f"{folder} holds more than one table of {stem}", names, hint="keep one of them"
        )
    table = _read_header(paths[0], required)
    if not has_header:
        dialect = replace(table.dialect, has_header=False)
        header_lines = dialect.num_skipped
        return replace(table, names=tuple(required), dialect=dialect, header_lines=header_lines)
    for name in required:
        if name not in table.names:
            raise explain_missing_column(table.path, name, table.names)
    return table


def wrong_type(table: TableFile, name: str, column: Column, wanted: str) -> DataError:
    """Build the error for a column whose type cannot be read."""
    what = f"{table.path}: column {quote(name)} has the wrong type"
    return DataError(what, column.type, hint=f"it must hold {wanted}")


def read_all(table: TableFile) -> pa.Table:
    """Read a whole table; known columns of CSV are text, others get the type of their values."""
    with reading(table.path):
        if table.is_parquet:
            parts = [_read_parquet(part) for part in table.parts]
            data = pa.concat_tables(parts, promote_options="permissive")
            return data.rename_columns(table.names)
    with reading(table.path, table.dialect):
        named = [name for name in table.names if name]
        data = pyarrow.csv.read_csv(_arrow_input(table.path), **_csv_options(table, named))
    _check_open_quote(table, data)
    return data


def read_batches(table: TableFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield some known columns in batches, in order; memory does not grow with the table."""
    with reading(table.path, table.dialect):
        for part in table.parts if table.is_parquet else ():
            names = pq.read_schema(part).names
            originals = [names[table.names.index(name)] for name in columns]
            for batch in parquet_batches(part, originals, batch_rows=BATCH_ROWS):
                yield batch.rename_columns(columns)
        if not table.is_parquet:
            yield from pyarrow.csv.open_csv(
                _arrow_input(table.path), **_csv_options(table, columns)
            )


def _read_parquet(path: Path) -> pa.Table:
    file = pq.ParquetFile(path)
    data = file.read()
    data.validate(full=True)  # Arrow does not check by itself that text is UTF-8
    _require_rows(file, data.num_rows)
    return data


def parquet_batches(
    path: Path, columns: Sequence[str], *, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield some columns of a Parquet file in batches, in order.

    Raises:
        ArrowException, OSError: it is damaged.
    """
    file = pq.ParquetFile(path)
    num_rows = 0
    for batch in file.iter_batches(batch_rows, columns=list(columns)):
        batch.validate(full=True)
        num_rows += batch.num_rows
        yield batch.select(columns)
    _require_rows(file, num_rows)


def _require_rows(file: pq.ParquetFile, num_rows: int) -> None:
    """Refuse a file of which Arrow leaves rows out without a word, as it does not find them."""
    if num_rows != file.metadata.num_rows:
        raise pa.ArrowInvalid(f"{file.metadata.num_rows:,} rows expected, {num_rows:,} found")


@contextlib.contextmanager
def reading(path: Path, dialect: Dialect = PLAIN) -> Iterator[None]:
    """Turn the errors that libraries raise on a damaged file into a DataError of one line."""
    try:
        yield
    except (
        pa.ArrowException,
        OSError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        csv.Error,
        UnicodeError,
    ) as error:
        reason = first_line(error)
        if is_parquet(path):
            raise DataError(f"{path} is not a readable Parquet file", reason) from None
        raise diagnose_csv(path, reason, dialect) from None


def is_text(kind: pa.DataType) -> bool:
    """True for a type of text, dictionary-encoded text included."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_number(kind: pa.DataType) -> bool:
    """True for a type of numbers or truth values."""
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(check(kind) for check in checks)


def as_text(column: Column) -> Column:
    """Cast a column of text or whole numbers to text, with "" for a missing value."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return pc.fill_null(column.cast(pa.string()), "")


def as_integers(column: Column) -> Column | None:
    """Cast a column to int64; None unless all values are whole numbers in their usual form."""
    if column.null_count:
        return None
    try:
        integers = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    if pa.types.is_integer(column.type):
        return integers
    return integers if pc.all(pc.equal(integers.cast(pa.string()), column)).as_py() else None


def as_mask(column: Column) -> np.ndarray:
    """Convert a column of truth values to bool [N]."""
    return np.asarray(column).astype(bool)


def are_mostly_numbers(text: Column) -> bool:
    """True if more than half of the values that are not empty read as numbers."""
    num_filled = as_mask(pc.not_equal(text, "")).sum()
    return bool(2 * as_mask(pc.match_substring_regex(text, NUMBER)).sum() > num_filled)


def as_numbers(table: TableFile, name: str, column: Column) -> np.ndarray:
    """Convert a column of numbers or text to float64 [N]; NaN and infinity may be among them.

    Raises:
        DataError: a value is missing or not a number.
    """
    if is_text(column.type):
        column = as_text(column)
        require_values(table, name, column)
        is_bad = ~as_mask(pc.match_substring_regex(column, NUMBER))
        if is_bad.any():
            raise table.bad_value(name, is_bad, column, "is not a number")
        column = pc.utf8_trim_whitespace(column)
    else:
        require_values(table, name, column)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    with reading(table.path):
        return np.asarray(column.cast(pa.float64(), safe=False))


def require_values(table: TableFile, name: str, column: Column) -> None:
    """Refuse a column with a missing value.

    Raises:
        DataError: a value is null or an empty text.
    """
    is_empty = as_mask(pc.equal(column, "") if is_text(column.type) else column.is_null())
    if is_empty.any():
        where = table.where(int(np.argmax(is_empty)))
        hint = "fill it for every paper, or leave the column out"
        raise DataError(
            f"{where}: column {quote(name)} has no value",
            f"{np.count_nonzero(is_empty):,} of {len(is_empty):,} are empty",
            hint="every paper needs an id" if name == "id" else hint,
        )


def _read_header(path: Path, required: Sequence[str]) -> TableFile:
    parts = parts_of(path)
    dialect = PLAIN
    with reading(path):
        if all(part.stat().st_size == 0 for part in parts):
            raise DataError(f"{path} is empty", "0 bytes")
        if is_parquet(path):
            files = [pq.ParquetFile(part) for part in parts]
            header = list(files[0].schema_arrow.names)
            header_lines = 0
            has_rows = any(file.metadata.num_rows for file in files)
        else:
            dialect = detect(path, required)
    if not is_parquet(path):
        with reading(path, dialect):
            header, header_lines, has_rows = _read_csv_header(path, dialect)
    if not has_rows:
        raise DataError(f"{path} has no rows", "a header and nothing below it")
    names = [lower if (lower := name.strip().lower()) in KNOWN_COLUMNS else name for name in header]
    repeated = [name for name, count in Counter(names).items() if count > 1 and name]
    if repeated and set(required) <= set(names):
        raise DataError(f"{path} has two columns of the same name", quote(repeated[0]))
    return TableFile(
        path=path, names=tuple(names), header_lines=header_lines, dialect=dialect, parts=parts
    )


def _read_csv_header(path: Path, dialect: Dialect) -> tuple[list[str], int, bool]:
    """Return the names, the number of lines up to the end of the header, and if a row follows."""
    csv.field_size_limit(FIELD_LIMIT_BYTES)
    with open_text(path, dialect.encoding) as text:
        for _ in range(dialect.num_skipped):
            text.readline()
        reader = csv.reader(text, delimiter=dialect.delimiter)
        header = next(filter(None, reader), [])
        has_rows = any(line.strip() for line in text)
    return header, dialect.num_skipped + reader.line_num, has_rows


def _arrow_input(path: Path) -> Any:
    # Arrow decompresses gzip itself, and faster, but goes by the name.
    return path if path.suffix == ".gz" or not is_compressed(path) else open_bytes(path)


def _csv_options(table: TableFile, columns: Sequence[str]) -> dict[str, Any]:
    text = {name: pa.string() for name in columns if name in KNOWN_COLUMNS}
    dialect = table.dialect
    return {
        "read_options": pyarrow.csv.ReadOptions(
            column_names=table.names,
            skip_rows=table.header_lines,
            block_size=BLOCK_BYTES,
            encoding=dialect.encoding.replace("utf-8-sig", "utf8"),
        ),
        "parse_options": pyarrow.csv.ParseOptions(
            newlines_in_values=True,
            delimiter=dialect.delimiter,
            escape_char="\\" if dialect.has_escapes else False,
        ),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=text,
            include_columns=list(columns),
            null_values=[""],
            decimal_point=dialect.decimal_point,
        ),
    }


def _check_open_quote(table: TableFile, data: pa.Table) -> None:
    # Arrow reads a quote that is never closed as one value up to the end of the file, without an
    # error. Only a line break in the last row hints at it, so no other file is parsed twice.
    last = data.slice(data.num_rows - 1).to_pylist()[0].values()
    if not any(isinstance(value, str) and "\n" in value for value in last):
        return
    if ends_in_open_quote(table.path, table.dialect):
        where = table.where(data.num_rows - 1)
        raise DataError(
            f"{where}: a quote is opened and never closed", f"{table.path.name} ends inside it"
        )
