"""Looks into a table that Arrow refused, or whose values are wrong, for the line that a person must go to."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from citeflow.errors import DataError

FIELD_LIMIT_BYTES = 1 << 30


def show(value: object) -> str:
    """A value as a message shows it: quoted, on one line, cut to 60 characters."""
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str | bytes) else " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_parquet(path: Path) -> bool:
    """Whether a table is Parquet by its name; all others are CSV."""
    return path.suffix == ".parquet"


def open_text(path: Path) -> TextIO:
    """Open a CSV file, gzipped or not, as the `csv` module wants it, without the mark that Excel puts in front."""
    return io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig", newline="")


def explain(path: Path, error: Exception) -> DataError:
    """Find the cause of a failure in the file itself, because Arrow names no line."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if is_parquet(path):
        return DataError(f"{path} is not a readable Parquet file", reason)
    try:
        return _undecodable(path) or _ragged(path) or DataError(f"{path} cannot be read", reason)
    except gzip.BadGzipFile as other:
        return DataError(
            f"{path} is not a valid gzip file",
            other,
            hint=f"compress it with gzip, or name it {path.stem}",
        )
    except EOFError:
        return DataError(
            f"{path} is cut short", "the gzip stream has no end", hint="copy or download it again"
        )
    except zlib.error:
        return DataError(
            f"{path} is damaged", "the gzip stream is not valid", hint="copy or download it again"
        )
    except (OSError, csv.Error) as other:
        return DataError(f"{path} cannot be read", other)


def line_of_row(path: Path, row: int) -> int:
    """Line of a CSV file, from 1, on which a row starts; rows count from 0, below the header."""
    for index, (line, _) in enumerate(_records(path)):
        if index == row + 1:
            return line
    raise IndexError(row)


def ends_in_open_quote(path: Path) -> bool:
    """Whether a quote is never closed, which Arrow takes for a value that reaches to the end of the file."""
    try:
        for _ in _records(path, strict=True):
            pass
    except csv.Error:
        return True
    return False


def _undecodable(path: Path) -> DataError | None:
    with _open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return DataError(
                    f"{path}, line {number}: not UTF-8", show(line.strip()), hint="save it as UTF-8"
                )
    return None


def _ragged(path: Path) -> DataError | None:
    width = 0
    for line, record in _records(path):
        width = width or len(record)
        if len(record) != width:
            hint = "a comma inside a value needs quotes around the value"
            return DataError(
                f"{path}, line {line}: {width} values expected", f"found {len(record)}", hint=hint
            )
    return None


def _records(path: Path, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line that it starts on, the header first; empty lines are no records."""
    csv.field_size_limit(FIELD_LIMIT_BYTES)
    with open_text(path) as file:
        reader = csv.reader(file, strict=strict)
        line = 1
        for record in reader:
            if record:
                yield line, record
            line = reader.line_num + 1


def _open_bytes(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
