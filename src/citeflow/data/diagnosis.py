"""Find the faulty line of a CSV file that Arrow refused, because Arrow itself names none."""

import csv
import difflib
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from citeflow.data.dialect import (
    DELIMITERS,
    FIELD_LIMIT_BYTES,
    Dialect,
    open_bytes,
    open_text,
    read_sample,
)
from citeflow.errors import DataError

MAX_DESCRIBED = 20
"""Files of a folder that are looked into."""

BINARY = {
    b"PAR1": "a Parquet file",
    b"\x93NUMPY": "an array of NumPy",
    b"\x89HDF": "an HDF5 file",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a file compressed by zstd",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
    b"ARROW1": "an Arrow or Feather file",
    **{bytes([0x80, version]): "a Python pickle" for version in range(2, 6)},
}
"""Kinds of files by their first bytes."""

TEXT = {
    r"<\?xml[^>]*>\s*(<!--.*?-->\s*)?<graphml|<graphml": "GraphML",
    r"(<\?xml[^>]*>\s*(<!--.*?-->\s*)?)?<gexf": "GEXF",
    r"(?i)(<!doctype html|<html)": "a web page: the server wants a login, or a proxy answered",
    r"<": "XML",
    r'\{"(meta|results)":(?s:.*)"referenced_works"': "a page of OpenAlex",
    r'[{[](?s:.*)"referenced_works"': "OpenAlex works as JSON",
    r'[{[](?s:.*)"(citingcorpusid|corpusid|inCitations|paperId)"': "Semantic Scholar data",
    r'[{[](?s:.*)"(n_citation|references)"': "the DBLP citation network",
    r"[{[]": "JSON",
    r"(?i)@\w+\s*\{": "BibTeX",
    r"(?i)\*(vertices|network|arcs)": "a Pajek network",
    r"%%MatrixMarket": "a MatrixMarket matrix",
    r"%": "a network of KONECT",
    r"#(?s:.*?)\n\s*\d+\s+\d+\s": "a SNAP edge list",
    r"(?i)(creator.*\s)?graph\s*\[": "GML",
    r"TY  - ": "RIS",
    r"(FN |VR |PT [JBSC])": "an export of the Web of Science",
    r"(?i)\W?source\W+target\W+type\b": "a table of edges by Gephi",
    r"(?i)\W?(source|from|src|citing)\W+(target|to|dst|cited)\b": "an edge list with a header",
    r"\d+[ \t,;]+\d+\s*\n\d+[ \t,;]+\d+\s": "a plain edge list",
}
"""Kinds of text by how it begins."""

NO_COLUMNS = "text without columns"

UNREADABLE = {
    NO_COLUMNS: "papers and citations are wanted as tables",
    "Excel": "save each sheet as CSV (UTF-8): papers.csv, citations.csv",
    "zip archive": "unpack it first",
    "7-Zip": "unpack it, or pack it as .zip or .tar.gz",
    "RAR": "unpack it, or pack it as .zip or .tar.gz",
    "zstd": "decompress it, or use gzip",
    "pickle": "a pickle can run any code and is not read; save GraphML or tables of CSV",
    "web page": "download it again, with a login",
    "SQLite": "export the tables as papers.csv and citations.csv",
    "PDF": "papers and citations are wanted as tables",
    "empty": "copy or download it again",
    "damaged": "copy or download it again",
}
"""What to do with kinds that no importer reads."""


def quote(value: object) -> str:
    """Render a value for a message: text in quotes, on one line, cut to 60 characters."""
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str | bytes) else " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


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


def explain_missing_column(path: Path, name: str, names: Sequence[str]) -> DataError:
    """Build the error for a table without a column, with the most likely reason as its hint."""
    shown = ", ".join(quote(each) for each in names)
    if len(shown) > 200:
        shown = f"{shown[:200]}..."
    hint = _likely_header(name, names) or f"its columns are {shown}"
    value = f"{name}, among {shown}" if hint != f"its columns are {shown}" else name
    return DataError(f"{path} has no column", value, hint=hint)


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
                where = f"{path}, line {number}: not UTF-8"
                hint = "save it as UTF-8; of an old Windows file: iconv -f WINDOWS-1252 -t UTF-8"
                return DataError(where, quote(line.strip()), hint=hint)
    return None


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


def describe_folder(folder: Path) -> str:
    """Say what the files of a folder without the tables of a citation folder seem to be."""
    paths = sorted(path for path in folder.iterdir() if path.name[0] not in "._")
    for path in paths[:MAX_DESCRIBED]:
        kind = describe_source(path) if path.is_file() else NO_COLUMNS
        if kind != NO_COLUMNS:
            return f"{path.name} looks like {kind}: {way_out(kind, path)}"
    if not paths:
        return "the folder is empty"
    if below := [path for path in paths if path.is_dir()]:
        return f"is it one of its folders, such as {below[0].name}?"
    return ""


def way_out(kind: str, path: Path) -> str:
    """Say what to do with a file of a kind that `describe_source` named."""
    beside = {each.name.partition(".")[0].lower() for each in path.parent.iterdir()}
    if beside >= {"papers", "citations"}:
        is_text = path.suffix.lower() == ".txt"
        return "name them .csv" if is_text else f"name its folder: {path.parent}"
    for name, advice in UNREADABLE.items():
        if name in kind:
            return advice
    return f"`citeflow import {path} -o FOLDER` makes a citation folder of it"


def describe_source(path: Path) -> str:
    """Say what a file seems to be that is no archive of a citation folder.

    It goes by the content, decompressed, and not by the name. This is where the importers, which
    know the formats better, may take over.
    """
    try:
        head = read_sample(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return "a damaged compressed file"
    if not head:
        return "an empty file"
    if zipfile.is_zipfile(path):
        return _describe_zip(path)
    for start, kind in BINARY.items():
        if head.startswith(start):
            return kind
    if b"\0" in head[:1024] and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "a binary file"
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = head.decode(encoding, errors="replace").lstrip()
    for pattern, kind in TEXT.items():
        if re.match(pattern, text):
            return kind
    return _describe_columns(text)


def _describe_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return "a damaged zip archive"
    if "[Content_Types].xml" in names:
        return "an Excel workbook"
    is_numpy = bool(names) and all(name.endswith(".npy") for name in names)
    return "arrays of NumPy (.npz)" if is_numpy else "a zip archive"


def _describe_columns(text: str) -> str:
    first = text.partition("\n")[0].strip()
    for delimiter, name in DELIMITERS.items():
        names = [each.strip().strip('"') for each in first.split(delimiter)]
        if len(names) > 1:
            shown = ", ".join(map(quote, names[:6]))
            return f"a table separated by {name}, with the columns {shown}"
    return NO_COLUMNS
