"""Find the faulty line of a CSV file that Arrow refused, because Arrow itself names none."""

import csv
import difflib
import gzip
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from citeflow.data.dialect import (
    DELIMITERS,
    FIELD_LIMIT_BYTES,
    Dialect,
    open_bytes,
    open_text,
)
from citeflow.errors import DataError


def quote(value: object) -> str:
    """Render a value for a message: text in quotes, on one line, cut to 60 characters."""
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str | bytes) else " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def and_more(shown: Sequence[str], num: int) -> str:
    """Join the first of `num` values, and say how many more there are."""
    return ", ".join(shown) + (f" and {num - len(shown):,} more" if num > len(shown) else "")


def plural(num: int, noun: str) -> str:
    """Format a count with its noun."""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]


def diagnose_csv(path: Path, reason: str, dialect: Dialect) -> DataError:
    """Read a CSV file again and build the error that names its first fault.

    Args:
        path: a file that Arrow could not read.
        reason: Arrow's message, for the case that no fault is found.
        dialect: how it is written.
    """
    try:
        return (
            _find_undecodable_line(path, dialect)
            or _find_ragged_line(path, dialect)
            or DataError(f"{path} cannot be read", reason)
        )
    except gzip.BadGzipFile as error:
        hint = f"compress it with gzip, or name it {path.stem}"
        return DataError(f"{path} is not a valid gzip file", error, hint=hint)
    except EOFError:
        hint = "copy or download it again"
        return DataError(f"{path} is cut short", "the gzip stream has no end", hint=hint)
    except (zlib.error, lzma.LZMAError):
        hint = "copy or download it again"
        return DataError(f"{path} is damaged", "the compressed stream is not valid", hint=hint)
    except (OSError, csv.Error, UnicodeError) as error:
        return DataError(f"{path} cannot be read", error)


def line_of_row(path: Path, row: int, dialect: Dialect) -> int:
    """Return the line of a CSV file, from 1, on which a row starts; row 0 is below the header."""
    for index, (line, _) in enumerate(_records(path, dialect)):
        if index == row + dialect.has_header:
            return line
    raise IndexError(row)


def ends_in_open_quote(path: Path, dialect: Dialect) -> bool:
    """True if a quote in a CSV file is never closed."""
    try:
        for _ in _records(path, dialect, strict=True):
            pass
    except csv.Error:
        return True
    return False


ALIASES = {
    "id": ("paper_id", "paperid", "node_id", "nodeid", "node", "doi", "pmid", "key", "corpusid"),
    "citing": ("source", "from", "src", "citing_id", "citing_paper", "from_id", "fromnodeid"),
    "cited": ("target", "to", "dst", "dest", "cited_id", "cited_paper", "to_id", "tonodeid"),
}
"""Names, in lower case, that other formats have for a column."""


class MissingColumnError(DataError):
    """A table lacks a column that it must have: it may be one of another format."""


def explain_missing_column(path: Path, name: str, names: Sequence[str]) -> MissingColumnError:
    """Build the error for a table without a column, with the most likely reason as its hint."""
    shown = ", ".join(quote(each) for each in names)
    if len(shown) > 200:
        shown = f"{shown[:200]}..."
    hint = _likely_header(name, names) or f"its columns are {shown}"
    value = f"{name}, among {shown}" if hint != f"its columns are {shown}" else name
    return MissingColumnError(f"{path} has no column", value, hint=hint)


def _likely_header(name: str, names: Sequence[str]) -> str:
    by_lower = {each.strip().lower(): each for each in names}
    for alias in ALIASES.get(name, ()):
        if alias in by_lower:
            convert = " (or `citeflow import` the folder)" if name != "id" else ""
            return f"rename {quote(by_lower[alias])} to {name}{convert}"
    if close := difflib.get_close_matches(name, by_lower, n=1, cutoff=0.7):
        return f"rename {quote(by_lower[close[0]])} to {name}"
    if any(_is_data(each) for each in names):
        wanted = "id,year" if name == "id" else "citing,cited"
        return f"it has no header line? write one on top, such as {wanted}"
    if len(names) == 1 and len(names[0].split()) > 1:
        return "separated by blanks? separate the columns by commas or tabs"
    if len(names) == 1 and any(mark in names[0] for mark in DELIMITERS):
        return "the header is in quotes as a whole? leave them out"
    return ""


def _is_data(name: str) -> bool:
    """True for what is rather a value than the name of a column: it has digits, and no words."""
    letters = sum(letter.isalpha() for letter in name)
    return any(letter.isdigit() for letter in name) and letters <= 2


def _find_undecodable_line(path: Path, dialect: Dialect) -> DataError | None:
    if dialect.encoding != "utf-8-sig":
        return None
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return not_utf8(f"{path}, line {number}", line)
    return None


def not_utf8(where: str, line: bytes) -> DataError:
    """Build the error for a line of text in another encoding."""
    hint = "save it as UTF-8; of an old Windows file: iconv -f WINDOWS-1252 -t UTF-8"
    return DataError(f"{where}: not UTF-8", quote(line.strip()), hint=hint)


def _find_ragged_line(path: Path, dialect: Dialect) -> DataError | None:
    width = 0
    for line, record in _records(path, dialect):
        width = width or len(record)
        if len(record) != width:
            where = f"{path}, line {line}: {width} values expected"
            return DataError(where, f"found {len(record)}", hint=_why_ragged(record, dialect))
    return None


def _why_ragged(record: Sequence[str], dialect: Dialect) -> str:
    if any("\\" in value for value in record) and any('"' in value for value in record):
        return 'quotes inside a value are doubled in CSV: "" rather than a backslash and a quote'
    one = DELIMITERS.get(dialect.delimiter, "separator").rstrip("s")
    return f"a {one} inside a value needs quotes around the value"


def _records(
    path: Path, dialect: Dialect, *, strict: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Yield each record, header first, with its first line; empty ones are skipped, as by Arrow."""
    csv.field_size_limit(FIELD_LIMIT_BYTES)
    with open_text(path, dialect.encoding) as file:
        for _ in range(dialect.num_skipped):
            file.readline()
        reader = csv.reader(
            file,
            strict=strict,
            delimiter=dialect.delimiter,
            escapechar="\\" if dialect.has_escapes else None,
        )
        line = 1
        for record in reader:
            if record:
                yield line + dialect.num_skipped, record
            line = reader.line_num + 1
