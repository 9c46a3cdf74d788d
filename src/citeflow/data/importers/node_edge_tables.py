"""A table of nodes and a table of edges, as Gephi, Neo4j and many programs export them.

Which is which is told by the names of the columns: `Source` and `Target` make a table of edges,
`Id` one of nodes. A label is a title. Other columns of nodes are features where they are numbers,
unless they count citations; other columns of edges are ignored.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from citeflow.data.importers import base, edges
from citeflow.data.importers.base import CERTAIN, LIKELY, Evidence, Importer, Notes, Stream
from citeflow.data.importers.columns import (
    ABSTRACT,
    DATE,
    ID,
    TITLE,
    YEAR,
    date_text,
    ends,
    find,
    is_count,
)
from citeflow.data.importers.delimited import Table, read_table, tables
from citeflow.data.importers.source import Source, SourceFile
from citeflow.errors import DataError

ROLES = {"id": ID, "title": TITLE, "abstract": ABSTRACT, "year": YEAR, "date": DATE}
EXTRA = "#extra"
NO_ATTRIBUTES = ("timeset", "type", "interval", "weight", ":label", ":type")


@dataclass(frozen=True, slots=True)
class _Nodes:
    file: SourceFile
    table: Table

    @property
    def names(self) -> tuple[str, ...]:
        return self.table.lines[0]


def _nodes(source: Source) -> list[_Nodes]:
    found = []
    for file, table in tables(source):
        names = table.lines[0]
        if not ends(names) and find(names, ID) is not None and len(table.lines) > 1:
            found.append(_Nodes(file, table))
    return found


def _edges(source: Source) -> list[tuple[SourceFile, edges.Layout]]:
    return [
        (file, layout)
        for file in source.files[:1000]
        if (layout := edges.layout_of(file)) and layout.names and layout.has_header
    ]


def sniff(source: Source) -> Evidence | None:
    """Recognize a table with an id and one with two ends."""
    nodes, ends = _nodes(source), _edges(source)
    if not nodes or not ends:
        return None
    seen = f"{nodes[0].file.path.name} has {', '.join(nodes[0].names[:6])}, "
    file, layout = ends[0]
    is_sure = len({each.names for each in nodes}) == 1
    return Evidence(
        CERTAIN - 10 if is_sure else LIKELY,
        f"{seen}{file.path.name} has {', '.join(layout.names[:6])}",
    )


def read(source: Source, notes: Notes) -> Stream:
    """Read nodes, then edges."""
    nodes, ends = _nodes(source), _edges(source)
    read_files = [*(each.file for each in nodes), *(file for file, _ in ends)]
    notes.ignore_files(source, read_files, "neither nodes nor edges")
    folders = sorted({str(each.file.path.parent) for each in nodes})
    if len(folders) > 1 or len({each.names for each in nodes}) > 1:
        listed = ", ".join(str(each.file.path.relative_to(source.path)) for each in nodes[:4])
        raise DataError(
            f"{source.path} has several tables of papers", listed, hint="name one folder"
        )
    notes.name_table("papers", source, nodes[0].file)
    notes.name_table("citations", source, ends[0][0])
    for each in nodes:
        for papers, _ in read_papers(each.file, each.table, notes):
            yield papers
    for file, layout in ends:
        _tell_direction(file, layout, notes)
        yield from edges.read_file(file, layout, notes)


def _tell_direction(file: SourceFile, layout: edges.Layout, notes: Notes) -> None:
    if "Type" in layout.names:
        index = layout.names.index("Type")
        if any(len(row) > index and row[index].lower() == "undirected" for row in layout.rows):
            notes.remark(
                f"{file.path.name}: edges without direction are read as from source to target"
            )


def read_papers(
    file: SourceFile, table: Table, notes: Notes, *, extra: str = ""
) -> Iterator[tuple[base.Papers, pa.Array | None]]:
    """Yield the papers of a table, and a column of the same rows that is read besides.

    Args:
        file: where the table lies.
        table: as `look` found it, with a header.
        notes: what is not taken over, and the names of the columns.
        extra: name of the column besides.
    """
    names = list(table.lines[0])
    roles = {role: find(names, words) for role, words in ROLES.items()}
    taken = {name: role for role, name in roles.items() if name is not None}
    columns: dict[int, str] = {}
    notes.names |= {role: name for name, role in taken.items() if role != "year"}
    if "date" not in taken.values() and roles["year"]:
        notes.names["date"] = roles["year"]
    for index, name in enumerate(names):
        if name and name == extra:
            columns[index] = EXTRA
        elif name in taken and taken[name] not in columns.values():
            columns[index] = taken[name]
        elif not name or name.lower() in NO_ATTRIBUTES:
            continue
        elif is_count(name):
            notes.ignore(f"{file.path.name}: {name}", "counted from the citations")
        elif name not in columns.values():
            columns[index] = name
    for batch in read_table(file, table, has_header=True, columns=columns, is_prose=True):
        values = dict(zip(batch.schema.names, batch.columns, strict=True))
        besides = values.pop(EXTRA, None)
        yield papers_of_columns(values), besides


def papers_of_columns(columns: dict[str, pa.Array]) -> base.Papers:
    """Make a batch of papers of columns by role, and of others."""
    years, dates = (columns.pop(name, None) for name in ("year", "date"))
    if years is not None or dates is not None:
        columns["date"] = _dates(years, dates)
    return base.papers(columns.pop("id"), **columns)


def _dates(years: pa.Array | None, dates: pa.Array | None) -> pa.Array:
    known: dict[tuple[object, object], str | None] = {}
    given = years if years is not None else dates
    num_rows = 0 if given is None else len(given)
    pairs = zip(
        dates.to_pylist() if dates is not None else [None] * num_rows,
        years.to_pylist() if years is not None else [None] * num_rows,
        strict=True,
    )
    values = []
    for pair in pairs:
        if pair not in known:
            known[pair] = date_text(*pair)
        values.append(known[pair])
    return pa.array(values, pa.string())


IMPORTER = Importer(
    name="tables", title="tables of nodes and edges, such as Gephi's", sniff=sniff, read=read
)
