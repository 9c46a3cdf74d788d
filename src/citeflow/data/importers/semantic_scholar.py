"""Semantic Scholar: the datasets `papers`, `citations` and `abstracts`, the API, and S2ORC.

https://api.semanticscholar.org/api-docs/datasets. Papers of the datasets have a `corpusid`, those
of the API a `paperId`, those of the older Open Research Corpus an `id` with `outCitations`.
"""

from collections.abc import Iterator

import msgspec

from citeflow.data.importers import base
from citeflow.data.importers.base import CERTAIN, Evidence, Importer, Notes, Stream
from citeflow.data.importers.columns import date_text
from citeflow.data.importers.json_stream import JsonReader, first_record
from citeflow.data.importers.records import Id, papers_and_references
from citeflow.data.importers.source import Source, SourceFile

MAX_ABSTRACTS_BYTES = 256 << 20


class Link(msgspec.Struct, gc=False):
    """A reference as the API lists it: the paper itself, or inside of `citedPaper`."""

    paperId: str | None = None
    corpusId: Id = None
    citedPaper: "Link | None" = None
    citingPaper: "Link | None" = None


class Paper(msgspec.Struct, gc=False):
    """The fields of a paper that are read, in the spelling of all three."""

    paperId: str | None = None
    corpusid: Id = None
    corpusId: Id = None
    id: Id = None
    paper_id: Id = None
    title: str | None = None
    abstract: str | None = None
    paperAbstract: str | None = None
    year: int | float | str | None = None
    publicationdate: str | None = None
    publicationDate: str | None = None
    references: list[Link | None] | None = None
    citations: list[Link | None] | None = None
    outCitations: list[str | None] | None = None
    inCitations: list[str | None] | None = None
    outbound_citations: list[str | None] | None = None
    inbound_citations: list[str | None] | None = None


class Citation(msgspec.Struct, gc=False):
    """A line of the dataset `citations`."""

    citingcorpusid: Id = None
    citedcorpusid: Id = None
    citingPaperId: Id = None
    citedPaperId: Id = None


def _kind(file: SourceFile) -> str:
    record = first_record(file.head) or {}
    if "citingcorpusid" in record or "citingPaperId" in record:
        return "citations"
    if record.keys() & {"paperId", "outCitations", "outbound_citations"} or (
        "corpusid" in record and "title" in record
    ):
        return "papers"
    return "abstracts" if {"corpusid", "abstract"} <= record.keys() else ""


def sniff(source: Source) -> Evidence | None:
    """Recognize papers and citations by their fields."""
    found = {_kind(file): file.path.name for file in source.files[:1000]}
    found.pop("", None)
    if not found.keys() & {"papers", "citations"}:
        return None
    seen = ", ".join(f"{name} has {kind}" for kind, name in sorted(found.items()))
    return Evidence(CERTAIN, f"Semantic Scholar: {seen}")


def read(source: Source, notes: Notes) -> Stream:
    """Read papers first, then the citations between them."""
    notes.ignore(
        "citationcount, referencecount, influentialcitationcount", "counted from the citations"
    )
    kinds = {file: _kind(file) for file in source.files}
    abstracts = _abstracts([file for file, kind in kinds.items() if kind == "abstracts"], notes)
    for file in (file for file, kind in kinds.items() if kind == "papers"):
        yield from _read_papers(file, abstracts)
    reader = JsonReader(Citation)
    for file in (file for file, kind in kinds.items() if kind == "citations"):
        for batch in reader.batches(file):
            yield base.citations(
                [
                    each.citingPaperId if each.citingcorpusid is None else each.citingcorpusid
                    for each in batch
                ],
                [
                    each.citedPaperId if each.citedcorpusid is None else each.citedcorpusid
                    for each in batch
                ],
            )


def _abstracts(files: list[SourceFile], notes: Notes) -> dict[Id, str]:
    """Read the dataset `abstracts`, which has to be in memory to be joined."""
    if sum(file.path.stat().st_size for file in files) > MAX_ABSTRACTS_BYTES:
        for file in files:
            notes.ignore(file.path.name, "abstracts of more than 256 MiB are not joined")
        return {}
    reader = JsonReader(Paper)
    return {
        paper.corpusid: paper.abstract
        for file in files
        for batch in reader.batches(file)
        for paper in batch
        if paper.abstract
    }


def _read_papers(file: SourceFile, abstracts: dict[Id, str]) -> Stream:
    for batch in JsonReader(Paper).batches(file):
        uses_paper_id = any(paper.paperId for paper in batch)
        ids = [_id(paper, uses_paper_id) for paper in batch]
        yield from papers_and_references(
            ids,
            [list(_references(paper, uses_paper_id)) for paper in batch],
            title=[paper.title for paper in batch],
            abstract=[
                paper.abstract or paper.paperAbstract or abstracts.get(paper.corpusid)
                for paper in batch
            ],
            date=[
                date_text(paper.publicationdate or paper.publicationDate, paper.year)
                for paper in batch
            ],
        )
        incoming = [
            (citing, cited)
            for paper, cited in zip(batch, ids, strict=True)
            for citing in _incoming(paper, uses_paper_id)
        ]
        if incoming:
            yield base.citations([each for each, _ in incoming], [each for _, each in incoming])


def _id(paper: Paper, uses_paper_id: bool) -> Id:
    if uses_paper_id:
        return paper.paperId
    return next(
        (
            each
            for each in (paper.corpusid, paper.corpusId, paper.id, paper.paper_id)
            if each is not None
        ),
        None,
    )


def _link_id(link: Link | None, uses_paper_id: bool) -> Id:
    if link is None:
        return None
    link = link.citedPaper or link.citingPaper or link
    return link.paperId if uses_paper_id else link.corpusId


def _references(paper: Paper, uses_paper_id: bool) -> Iterator[Id]:
    yield from (_link_id(link, uses_paper_id) for link in paper.references or ())
    yield from paper.outCitations or paper.outbound_citations or ()


def _incoming(paper: Paper, uses_paper_id: bool) -> Iterator[Id]:
    yield from (_link_id(link, uses_paper_id) for link in paper.citations or ())
    yield from paper.inCitations or paper.inbound_citations or ()


IMPORTER = Importer(
    name="semantic-scholar", title="Semantic Scholar papers and citations", sniff=sniff, read=read
)
