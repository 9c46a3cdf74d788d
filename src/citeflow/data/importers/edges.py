"""Edge lists: two columns of ids, in any text table; with SNAP's comments and files of dates.

A line is `citing cited`. A header may say it the other way round. SNAP (https://snap.stanford.edu)
has comments with `#` above the list and, for its arXiv graphs, a file of dates beside it, in which
ids have their leading zeros and cross-listed papers a leading 11.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from citeflow.data.importers import base, delimited
from citeflow.data.importers.base import (
    LIKELY,
    POSSIBLE,
    Citations,
    Evidence,
    Importer,
    Notes,
    Stream,
)
from citeflow.data.importers.columns import ABSTRACT, DATE, ID, TITLE, YEAR, ends, find
from citeflow.data.importers.delimited import Table
from citeflow.data.importers.source import Source, SourceFile

MAX_HEADERLESS_COLUMNS = 4
MATRIX = b"%%MatrixMarket"
"""Its first line of numbers is its size."""

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Columns of an edge list."""

    table: Table
    names: tuple[str, ...]
    """Those of the header or of SNAP's last comment; none where nothing names them."""

    has_header: bool
    citing: int
    cited: int

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The first rows of values."""
        return self.table.lines[1:] if self.has_header else self.table.lines


def layout_of(file: SourceFile) -> Layout | None:
    """Find the two columns of an edge list; None for a file that is none."""
    table = delimited.look(file)
    if table is None or file.head.startswith(MATRIX):
        return None
    if named := _by_header(table):
        return named
    names = _names_of_comment(table)
    is_id_table = any(find(table.lines[0], words) for words in (TITLE, ABSTRACT, YEAR, DATE, ID))
    if is_id_table or table.width > MAX_HEADERLESS_COLUMNS:
        return None
    has_header = _looks_like_header(table.lines)
    rows = table.lines[1:] if has_header else table.lines
    if not rows or _are_dates(rows) or not all(map(_are_ids, rows)):
        return None
    return Layout(table=table, names=names, has_header=has_header, citing=0, cited=1)


def _by_header(table: Table) -> Layout | None:
    for names, has_header in ((table.lines[0], True), (_names_of_comment(table), False)):
        if pair := ends(names):
            citing, cited = pair
            return Layout(
                table=table,
                names=tuple(names),
                has_header=has_header,
                citing=list(names).index(citing),
                cited=list(names).index(cited),
            )
    return None


def _names_of_comment(table: Table) -> tuple[str, ...]:
    last = table.comments[-1].lstrip("#%/ \t") if table.comments else ""
    names = last.split(table.delimiter) if table.delimiter else last.split()
    names = names if len(names) == table.width else last.split()
    return tuple(name.strip() for name in names) if len(names) == table.width else ()


def _looks_like_header(lines: Sequence[Sequence[str]]) -> bool:
    """True if the first line has no numbers, and the others begin with two."""
    are_numbers = [[bool(NUMBER.fullmatch(value)) for value in line[:2]] for line in lines]
    return len(lines) > 1 and not any(are_numbers[0]) and all(map(all, are_numbers[1:]))


def _are_ids(row: Sequence[str]) -> bool:
    return len(row) >= 2 and all(value and len(value) <= 200 for value in row[:2])


def _are_dates(rows: Sequence[Sequence[str]]) -> bool:
    return all(
        re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", row[1].strip()) for row in rows if len(row) > 1
    )


def sniff(source: Source) -> Evidence | None:
    """Recognize files of two columns of ids."""
    found = [file for file in source.files[:1000] if layout_of(file)]
    if not found:
        return None
    layout = layout_of(found[0])
    assert layout is not None
    delimiter = {None: "blanks", "\t": "tabs"}.get(
        layout.table.delimiter, f"'{layout.table.delimiter}'"
    )
    header = f"named {', '.join(layout.names)}" if layout.names else "without a header"
    because = f"{found[0].path.name} has {layout.table.width} columns between {delimiter}, {header}"
    is_sure = bool(layout.names) or bool(layout.table.comments)
    is_long = len(layout.table.lines) >= 3 or layout.table.delimiter is not None
    if not is_sure and not is_long:
        return None
    return Evidence(LIKELY if is_sure else POSSIBLE, because)


def read(source: Source, notes: Notes) -> Stream:
    """Read dates first, where there are any, then citations."""
    edges = [(file, layout) for file in source.files if (layout := layout_of(file))]
    listed = {file.path for file, _ in edges}
    companions = [file for file in source.files if file.path not in listed]
    dates = [file for file in companions if _date_table(file)]
    for file in companions:
        if file not in dates:
            notes.ignore(file.path.name, "neither citations nor dates")
    if dates:
        yield from _dated_papers(edges, dates, notes)
    for file, layout in edges:
        yield from read_file(file, layout, notes)


def read_file(file: SourceFile, layout: Layout, notes: Notes) -> Iterator[Citations]:
    """Yield the citations of an edge list; columns besides the two are named as ignored."""
    for index in set(range(layout.table.width)) - {layout.citing, layout.cited}:
        name = layout.names[index] if layout.names else f"column {index + 1}"
        if name:
            notes.ignore(f"{file.path.name}: {name}", "citations have no attributes")
    columns = {layout.citing: "citing", layout.cited: "cited"}
    if layout.names:
        notes.names |= {role: layout.names[index] for index, role in columns.items()}
    for batch in delimited.read_table(
        file, layout.table, has_header=layout.has_header, columns=columns
    ):
        yield base.citations(batch.column("citing"), batch.column("cited"))


def _date_table(file: SourceFile) -> Table | None:
    table = delimited.look(file)
    if table is None or table.width != 2:
        return None
    rows = table.lines[1:] if len(table.lines) > 1 else table.lines
    return table if _are_dates(rows) else None


def _dated_papers(
    edges: Sequence[tuple[SourceFile, Layout]], dates: Sequence[SourceFile], notes: Notes
) -> Stream:
    """Read the ids of an edge list, and yield them with the dates of another file."""
    ids = pa.array([], pa.string())
    for file, layout in edges:
        for part in read_file(file, layout, Notes()):
            ids = pc.unique(pa.chunked_array([ids, *part.batch.columns]))
    ids = pc.drop_null(ids)
    keys = []
    days = []
    for file in dates:
        table = _date_table(file)
        assert table is not None
        has_header = not _are_dates(table.lines[:1])
        for batch in delimited.read_table(
            file, table, has_header=has_header, columns={0: "id", 1: "date"}
        ):
            keys.append(batch.column("id"))
            days.append(batch.column("date"))
    key = pa.chunked_array(keys).combine_chunks()
    # SNAP's edges have 1001 for the paper that its dates have as 0001001, or 110001001.
    short = pc.replace_substring_regex(key, r"^(?:11(\d{7})|0*(\d+))$", r"\1\2")
    short = pc.replace_substring_regex(short, r"^0+(\d)", r"\1")
    row = pc.coalesce(pc.index_in(ids, value_set=key), pc.index_in(ids, value_set=short))
    notes.remark(f"dates from {', '.join(file.path.name for file in dates)}")
    yield base.papers(ids, date=pa.chunked_array(days).combine_chunks().take(row))


IMPORTER = Importer(
    name="edges", title="edge list, or SNAP's with a file of dates", sniff=sniff, read=read
)
