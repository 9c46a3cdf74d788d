"""The DBLP citation network of AMiner, versions 10 to 14: https://www.aminer.org/citation.

Version 10 and 11 are JSON lines, 12 and later one array of gigabytes; 11 and 12 have the abstract
as an inverted index, 13 is an export of MongoDB with `_id` and `NumberInt(2000)`.
"""

import msgspec

from citeflow.data.importers.base import LIKELY, Evidence, Importer, Notes, Stream
from citeflow.data.importers.columns import date_text
from citeflow.data.importers.json_stream import JsonReader, first_record
from citeflow.data.importers.records import Id, abstract_of_index, papers_and_references
from citeflow.data.importers.source import Source, SourceFile


class Index(msgspec.Struct, gc=False):
    """An abstract as the positions of its words."""

    InvertedIndex: dict[str, list[int]] | None = None


class Paper(msgspec.Struct, gc=False):
    """The fields of a paper that are read."""

    id: Id = None
    mongo_id: Id | dict[str, str] = msgspec.field(default=None, name="_id")
    title: str | None = None
    abstract: str | None = None
    indexed_abstract: Index | str | None = None
    year: int | float | str | None = None
    references: list[Id] | None = None


def papers(source: Source) -> tuple[SourceFile, ...]:
    """Return the files that hold papers."""
    return source.where(lambda file: _is_paper(first_record(file.head)))


def _is_paper(record: dict[str, object] | None) -> bool:
    if record is None or not record.keys() & {"id", "_id"}:
        return False
    references = record.get("references", [])
    is_list = isinstance(references, list) and all(
        isinstance(each, str | int) for each in references
    )
    return is_list and ("n_citation" in record or {"title", "references"} <= record.keys())


def sniff(source: Source) -> Evidence | None:
    """Recognize a paper by `n_citation`, or by an id, a title and a list of references."""
    if not (found := papers(source)):
        return None
    return Evidence(LIKELY + 20, f"{found[0].path.name} has papers with id, title and references")


def read(source: Source, notes: Notes) -> Stream:
    """Read papers with their references."""
    notes.names |= {"citing": "id", "cited": "references", "date": "year"}
    notes.ignore("n_citation", "counted from the citations")
    reader = JsonReader(Paper)
    found = papers(source)
    notes.ignore_files(source, found, "no papers with references")
    for file in found:
        for batch in reader.batches(file):
            yield from papers_and_references(
                [_id(paper) for paper in batch],
                [paper.references for paper in batch],
                title=[paper.title for paper in batch],
                abstract=[_abstract(paper) for paper in batch],
                date=[date_text(None, paper.year) for paper in batch],
            )


def _id(paper: Paper) -> Id:
    if paper.id is not None:
        return paper.id
    if isinstance(paper.mongo_id, dict):
        return paper.mongo_id.get("$oid")
    return paper.mongo_id


def _abstract(paper: Paper) -> str | None:
    if paper.abstract:
        return paper.abstract
    index = paper.indexed_abstract
    return abstract_of_index(index.InvertedIndex) if isinstance(index, Index) else index


IMPORTER = Importer(
    name="dblp",
    title="DBLP citation network (AMiner), or JSON records with references",
    sniff=sniff,
    read=read,
)
