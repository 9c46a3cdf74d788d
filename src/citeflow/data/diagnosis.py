"""Find the faulty line of a CSV file that Arrow refused, because Arrow itself names none."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from citeflow.errors import DataError

FIELD_LIMIT_BYTES = 1 << 30


def quote(value: object) -> str:
    """Render a value for a message: text in quotes, on one line, cut to 60 characters."""
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str | bytes) else " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]


def open_text(path: Path) -> TextIO:
    """Open a CSV file, gzipped or not, for the `csv` module; Excel's byte order mark is skipped."""
    return io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig", newline="")


def diagnose_csv(path: Path, reason: str) -> DataError:
    """Read a CSV file again and build the error that names its first fault.

    Args:
        path: a file that Arrow could not read.
        reason: Arrow's message, for the case that no fault is found.
    """
    try:
        return (
            _find_undecodable_line(path)
            or _find_ragged_line(path)
            or DataError(f"{path} cannot be read", reason)
        )
    except gzip.BadGzipFile as error:
        hint = f"compress it with gzip, or name it {path.stem}"
        return DataError(f"{path} is not a valid gzip file", error, hint=hint)
    except EOFError:
        hint = "copy or download it again"
        return DataError(f"{path} is cut short", "the gzip stream has no end", hint=hint)
    except zlib.error:
        hint = "copy or download it again"
        return DataError(f"{path} is damaged", "the gzip stream is not valid", hint=hint)
    except (OSError, csv.Error) as error:
        return DataError(f"{path} cannot be read", error)


def line_of_row(path: Path, row: int) -> int:
    """Return the line of a CSV file, from 1, on which a row starts; row 0 is below the header."""
    for index, (line, _) in enumerate(_records(path)):
        if index == row + 1:
            return line
    raise IndexError(row)


def ends_in_open_quote(path: Path) -> bool:
    """True if a quote in a CSV file is never closed."""
    try:
        for _ in _records(path, strict=True):
            pass
    except csv.Error:
        return True
    return False


def _find_undecodable_line(path: Path) -> DataError | None:
    with _open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                where = f"{path}, line {number}: not UTF-8"
                return DataError(where, quote(line.strip()), hint="save it as UTF-8")
    return None


def _find_ragged_line(path: Path) -> DataError | None:
    width = 0
    for line, record in _records(path):
        width = width or len(record)
        if len(record) != width:
            hint = "a comma inside a value needs quotes around the value"
            where = f"{path}, line {line}: {width} values expected"
            return DataError(where, f"found {len(record)}", hint=hint)
    return None


def _records(path: Path, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield each record, header first, with its first line; empty ones are skipped, as by Arrow."""
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
