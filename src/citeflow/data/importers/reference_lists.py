"""One table of papers with a column of references: several ids in a cell.

OpenAlex's own export to CSV has `referenced_works` so, ids between `|`; others have `;`, commas,
blanks, or a list as JSON or Python writes it. Other columns are as in tables of nodes.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from citeflow.data.importers import base
from citeflow.data.importers.base import CERTAIN, Citations, Evidence, Importer, Notes, Stream
from citeflow.data.importers.columns import ID, REFERENCES, ends, find
from citeflow.data.importers.delimited import Table, tables
from citeflow.data.importers.node_edge_tables import read_papers
from citeflow.data.importers.source import Source, SourceFile

SEPARATORS = {"|": r"\s*\|\s*", ";": r"\s*;\s*", ",": r"\s*,\s*", " ": r"\s+"}
"""Patterns between two ids, by a character that shows them; the first one present counts."""


class _List(NamedTuple):
    file: SourceFile
    table: Table
    column: str
    separator: str


def separator_of(cells: Iterable[str | None]) -> str | None:
    """Return the pattern between the ids of a cell; None where no cell holds several ids.

    So a column of counts, which may have the same name, is none of references.
    """
    given = [text for cell in cells if (text := (cell or "").strip())]
    if any(text[0] == "[" for text in given):
        return (
            SEPARATORS[","] if all(re.fullmatch(r"\[.*\]", text, re.S) for text in given) else None
        )
    inside = "".join(re.sub(r"\s", " ", text) for text in given)
    return next((pattern for mark, pattern in SEPARATORS.items() if mark in inside), None)


def citations_of_cells(id_B: pa.Array, cells_B: pa.Array, separator: str) -> Citations:
    """Make the citations of papers of their cells; quotes and brackets around ids are cut off."""
    bare_B = pc.replace_substring_regex(cells_B, r"^\s*[\[({]?\s*|\s*[\])}]?\s*$", "")
    lists_B = pc.split_pattern_regex(bare_B, separator)
    cited_R = pc.utf8_trim(pc.list_flatten(lists_B), " \t\r\n\"'")
    citing_R = id_B.take(pc.list_parent_indices(lists_B))
    is_given_R = pc.not_equal(cited_R, "")
    return base.citations(citing_R.filter(is_given_R), cited_R.filter(is_given_R))


def _lists(source: Source) -> list[_List]:
    found = []
    for file, table in tables(source):
        names = table.lines[0]
        column = find(names, REFERENCES)
        if column is None or ends(names) or find(names, ID) is None:
            continue
        at = names.index(column)
        if separator := separator_of(line[at] for line in table.lines[1:]):
            found.append(_List(file, table, column, separator))
    return found


def sniff(source: Source) -> Evidence | None:
    """Recognize a table with an id and cells of several references."""
    if not (found := _lists(source)):
        return None
    file, table, column, _ = found[0]
    because = f"{file.path.name} has {', '.join(table.lines[0][:6])}, and lists in {column}"
    return Evidence(CERTAIN - 5, because)


def read(source: Source, notes: Notes) -> Stream:
    """Read the papers of every table, then their references."""
    lists = _lists(source)
    notes.ignore_files(source, [each.file for each in lists], "no table with references")
    notes.name_table("papers", source, lists[0].file)
    notes.name_table("citations", source, lists[0].file)
    for file, table, column, separator in lists:
        notes.names |= {"cited": column}
        for papers, cells in read_papers(file, table, notes, extra=column):
            yield papers
            yield citations_of_cells(papers.batch.column("id"), cells, separator)


IMPORTER = Importer(
    name="reference lists",
    title="table of papers with a column of references",
    sniff=sniff,
    read=read,
)
