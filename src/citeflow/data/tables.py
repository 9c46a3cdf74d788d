"""Tables in files: CSV, gzipped CSV and Parquet, read by Arrow, refused with the file, the row and the value.

Rows count from 0 in the code. A message counts as a person does: a CSV row is the line of the file that it starts on,
where the header is line 1; a Parquet row counts from 1.

Legend: N rows of a table.
"""

import contextlib
import csv
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from citeflow.data.diagnosis import (
    ends_in_open_quote,
    explain,
    is_parquet,
    line_of_row,
    open_text,
    show,
)
from citeflow.errors import DataError, NotFoundError

SUFFIXES = (".csv", ".csv.gz", ".parquet")
KNOWN = frozenset({"id", "title", "abstract", "year", "date", "citing", "cited"})
BLOCK_BYTES = 64 << 20
BATCH_ROWS = 4 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFile:
    """A table whose header was read and found in order."""

    path: Path
    names: tuple[str, ...]
    """Columns in the order of the file; the names in KNOWN are in lower case, whatever the file has."""

    header_lines: int
    """Lines before the first row of a CSV file, 0 in Parquet."""

    def where(self, row: int) -> str:
        """Place of a row in words, `papers.csv, line 17`; reads a CSV file again to count its lines."""
        if is_parquet(self.path):
            return f"{self.path}, row {row + 1}"
        return f"{self.path}, line {line_of_row(self.path, row)}"

    def bad_value(
        self, name: str, bad_N: np.ndarray, values: Any, problem: str, *, hint: str = ""
    ) -> DataError:
        """Describe the first value that a mask marks, and how many there are."""
        row, num_bad = int(np.argmax(bad_N)), int(np.count_nonzero(bad_N))
        more = f" (and {num_bad - 1:,} more)" if num_bad > 1 else ""
        return DataError(
            f"{self.where(row)}: column {show(name)} {problem}",
            show(values[row].as_py()) + more,
            hint=hint,
        )


def open_table(folder: Path, stem: str, required: Sequence[str]) -> TableFile:
    """Find `stem`.csv, .csv.gz or .parquet in a folder and read its header.

    Raises:
        NotFoundError: none of them is there.
        DataError: two of them are, or the file is empty, damaged, without rows or without a required column.
    """
    found = [path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").exists()]
    if not found:
        names = ", ".join(f"{stem}{suffix}" for suffix in SUFFIXES)
        raise NotFoundError(
            f"no table of {stem} in the folder", folder, hint=f"it must hold one of {names}"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(
            f"{folder} holds more than one table of {stem}", names, hint="keep one of them"
        )
    table = _open(found[0])
    for name in required:
        if name not in table.names:
            present = ", ".join(show(name) for name in table.names)
            raise DataError(
                f"{table.path} has no column", name, hint=f"its columns are {present[:200]}"
            )
    return table


def read_all(table: TableFile) -> pa.Table:
    """Read a whole table: in CSV the known columns come as text, the others in the type that all their values allow."""
    with reading(table.path):
        if is_parquet(table.path):
            read = pq.ParquetFile(table.path).read()
            read.validate(full=True)  # text that is no UTF-8
            return read.rename_columns(table.names)
        data = pyarrow.csv.read_csv(
            table.path, **_csv_options(table, [name for name in table.names if name])
        )
    _refuse_open_quote(table, data)
    return data


def read_batches(table: TableFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read some known columns piece by piece, in order, so that memory does not grow with the table."""
    with reading(table.path):
        if is_parquet(table.path):
            file = pq.ParquetFile(table.path)
            originals = [file.schema_arrow.names[table.names.index(name)] for name in columns]
            for batch in file.iter_batches(BATCH_ROWS, columns=originals):
                batch.validate(full=True)
                yield batch.select(originals).rename_columns(columns)
        else:
            yield from pyarrow.csv.open_csv(table.path, **_csv_options(table, columns))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a library says about a damaged file into one line."""
    try:
        yield
    except (
        pa.ArrowException,
        OSError,
        EOFError,
        zlib.error,
        csv.Error,
        UnicodeDecodeError,
    ) as error:
        raise explain(path, error) from None


def _open(path: Path) -> TableFile:
    with reading(path):
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty", "0 bytes")
        names, header_lines, has_rows = (
            _parquet_header(path) if is_parquet(path) else _csv_header(path)
        )
    if not has_rows:
        raise DataError(f"{path} has no rows", "a header and nothing below it")
    names = [lower if (lower := name.strip().lower()) in KNOWN else name for name in names]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise DataError(f"{path} has two columns of the same name", show(twice[0]))
    return TableFile(path=path, names=tuple(names), header_lines=header_lines)


def _parquet_header(path: Path) -> tuple[list[str], int, bool]:
    file = pq.ParquetFile(path)
    return list(file.schema_arrow.names), 0, file.metadata.num_rows > 0


def _csv_header(path: Path) -> tuple[list[str], int, bool]:
    with open_text(path) as file:
        reader = csv.reader(file)
        names = next(filter(None, reader), [])
        header_lines = reader.line_num
        return names, header_lines, any(line.strip() for line in file)


def _csv_options(table: TableFile, columns: Sequence[str]) -> dict[str, Any]:
    text = {name: pa.string() for name in columns if name in KNOWN}
    return {
        "read_options": pyarrow.csv.ReadOptions(
            column_names=table.names, skip_rows=table.header_lines, block_size=BLOCK_BYTES
        ),
        "parse_options": pyarrow.csv.ParseOptions(newlines_in_values=True),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=text, include_columns=list(columns), null_values=[""]
        ),
    }


def _refuse_open_quote(table: TableFile, data: pa.Table) -> None:
    last = data.slice(data.num_rows - 1).to_pylist()[0].values()
    if not any(isinstance(value, str) and "\n" in value for value in last):
        return
    if ends_in_open_quote(table.path):
        where = table.where(data.num_rows - 1)
        raise DataError(
            f"{where}: a quote is opened and never closed", f"{table.path.name} ends inside it"
        )
