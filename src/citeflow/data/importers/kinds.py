"""Kinds of files that are known and not read, each with the way out."""

import re
from typing import NamedTuple

from citeflow.data.importers.source import Source, SourceFile, is_office, zip_names
from citeflow.errors import DataError


class Kind(NamedTuple):
    """The kind of a file, and the way out."""

    what: str
    hint: str


UNPACK = "unpack it, or pack it as .zip or .tar.gz"
AS_CSV = "export its tables as CSV"
AS_PARQUET = "save it as Parquet"
NO_LINKS = "it names cited papers in words: export from OpenAlex, or tables with ids"

BY_FIRST_BYTES = {
    b"7z\xbc\xaf\x27\x1c": Kind("a 7z archive", UNPACK),
    b"Rar!\x1a\x07": Kind("a RAR archive", UNPACK),
    b"%PDF-": Kind("a PDF document", "citeflow reads tables and graphs"),
    b"SQLite format 3\x00": Kind("a SQLite database", AS_CSV),
    b"\x00\x01\x00\x00Standard ": Kind("a database of Access", AS_CSV),
    b"\xd0\xcf\x11\xe0": Kind("an old Excel workbook", "save its sheets as CSV"),
    b"ARROW1": Kind("an Arrow file", AS_PARQUET),
    b"Obj\x01": Kind("an Avro file", AS_PARQUET),
    b"ORC": Kind("an ORC file", AS_PARQUET),
    b"MATLAB 5.0": Kind("a MATLAB 5 file", "save the matrix with scipy.sparse.save_npz"),
    b"%%MatrixMarket": Kind("a MatrixMarket matrix", "save it with scipy.sparse.save_npz"),
    b"version https://git-lfs": Kind("a pointer of Git LFS, not the file", "git lfs pull"),
}
BY_TEXT = {
    rb"(?i)\s*(?:<!doctype html|<html)": Kind(
        "a web page", "the server may want a login; download the data itself"
    ),
    rb"(?i)\s*(?:creator[^\n]*\s+)?graph\s*\[": Kind(
        "GML", "save the graph with networkx.write_graphml"
    ),
    rb"\s*TY  - ": Kind("a list of RIS", NO_LINKS),
    rb"\s*(?:FN |VR |PT [JBSC]\b)": Kind("an export of the Web of Science", NO_LINKS),
}
PICKLE = Kind(
    "a Python pickle, which runs code when it is loaded",
    "save the graph with networkx.write_graphml, or as a list of edges",
)
OFFICE = Kind("a workbook or document of an office program", "save its sheets as CSV")

_PICKLE = re.compile(rb"\x80[\x02-\x05](?:\x95.{8}|.)|\((?:lp|dp|i)\d", re.DOTALL)


def refusal(source: Source) -> DataError | None:
    """Return the error for a source whose only file, or first one, is of a known other kind."""
    for file in source.files[:20]:
        if kind := kind_of(file):
            return DataError(f"{file.path} is {kind.what}", "not read", hint=kind.hint)
    return None


def kind_of(file: SourceFile) -> Kind | None:
    """Return the kind of a file that nobody reads, by its content; None for every other one."""
    head = file.head or file.raw_head
    for magic, kind in BY_FIRST_BYTES.items():
        if head.startswith(magic):
            return kind
    for pattern, kind in BY_TEXT.items():
        if re.match(pattern, head):
            return kind
    names = zip_names(file.path) if head.startswith(b"PK") else []
    # A model of PyTorch is a zip with a pickle in it.
    if _PICKLE.match(head) or any(name.endswith("data.pkl") for name in names):
        return PICKLE
    return OFFICE if is_office(names) else None
