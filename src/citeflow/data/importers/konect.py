"""KONECT: `out.NAME` with the edges and `meta.NAME` with what is known of them.

http://konect.cc. The first line of `out.NAME` is `% FORMAT WEIGHTS`; `asym` is directed. Weights
and timestamps of the edges are not read: a citation has neither.
"""

from citeflow.data.importers import delimited, edges
from citeflow.data.importers.base import CERTAIN, Evidence, Importer, Notes, Stream
from citeflow.data.importers.edges import Layout
from citeflow.data.importers.source import Source, SourceFile
from citeflow.errors import DataError

KINDS = ("sym", "asym", "bip")
COLUMNS = ("from", "to", "weight", "timestamp")


def _kind(file: SourceFile) -> str:
    words = file.head[:200].split(b"\n")[0].split()
    is_konect = len(words) >= 2 and words[0] == b"%"
    kind = words[1].decode("ascii", "ignore") if is_konect else ""
    return kind if kind in KINDS else ""


def sniff(source: Source) -> Evidence | None:
    """Recognize the first line of the edges."""
    if not (found := source.where(_kind)):
        return None
    return Evidence(CERTAIN, f"{found[0].path.name} begins with '% {_kind(found[0])}'")


def read(source: Source, notes: Notes) -> Stream:
    """Read the edges."""
    found = source.where(_kind)
    notes.ignore_files(source, found, "no edges")
    for file in found:
        kind = _kind(file)
        if kind == "bip":
            hint = "citations are between papers, of one kind"
            raise DataError(f"{file.path}: a bipartite graph", "% bip", hint=hint)
        if kind == "sym":
            notes.remark("the edges have no direction; they are read as the file has them")
        if (table := delimited.look(file)) is None:
            raise DataError(f"{file.path}: no edges", "two columns of numbers are expected")
        more = (f"column {number}" for number in range(len(COLUMNS) + 1, table.width + 1))
        names = (*COLUMNS, *more)[: table.width]
        yield from edges.read_file(
            file, Layout(table=table, names=names, has_header=False, citing=0, cited=1), notes
        )


IMPORTER = Importer(name="konect", title="KONECT (out.*, meta.*)", sniff=sniff, read=read)
