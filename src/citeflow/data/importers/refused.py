"""Files that are recognized and not read, each with the reason and the way out."""

import re

from citeflow.data.importers.source import Source, SourceFile, is_office, zip_names
from citeflow.errors import DataError

PICKLE = re.compile(rb"\x80[\x02-\x05](?:\x95.{8}|.)|\((?:lp|dp|i)\d", re.DOTALL)
MAGICS = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it, or pack it as .zip or .tar.gz"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it, or pack it as .zip or .tar.gz"),
    (b"%PDF-", "a PDF document", "citeflow reads tables and graphs"),
    (b"SQLite format 3\x00", "a SQLite database", "export its tables as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save its sheets as CSV"),
    (b"ARROW1", "an Arrow file", "save it as Parquet"),
    (b"Obj\x01", "an Avro file", "save it as Parquet"),
    (b"ORC", "an ORC file", "save it as Parquet"),
    (b"MATLAB 5.0", "a MATLAB 5 file", "save the matrix with scipy.sparse.save_npz"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file", "git lfs pull"),
)
WEB_PAGE = re.compile(rb"\s*(?:<!doctype html|<html)", re.IGNORECASE)


def refusal(source: Source) -> DataError | None:
    """Return the error for a source whose only file, or first one, is of a known other kind."""
    for file in source.files[:20]:
        if found := _kind(file):
            what, hint = found
            return DataError(f"{file.path} is {what}", "not read", hint=hint)
    return None


def _kind(file: SourceFile) -> tuple[str, str] | None:
    head = file.head or file.raw_head
    for magic, what, hint in MAGICS:
        if head.startswith(magic):
            return what, hint
    if PICKLE.match(head) or _is_torch(file):
        return (
            "a Python pickle, which runs code when it is loaded",
            "save the graph with networkx.write_graphml, or as a list of edges",
        )
    if head.startswith(b"PK") and is_office(zip_names(file.path)):
        return "a workbook or document of an office program", "save its sheets as CSV"
    if WEB_PAGE.match(head):
        return "a web page", "the server may want a login; download the data itself"
    return None


def _is_torch(file: SourceFile) -> bool:
    return file.raw_head.startswith(b"PK") and any(
        name.endswith("data.pkl") for name in zip_names(file.path)
    )
