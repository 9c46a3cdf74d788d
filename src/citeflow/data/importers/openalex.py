"""OpenAlex: works as JSON lines, pages of the API, or the folders of a snapshot, gzipped or not.

https://docs.openalex.org/api-entities/works/work-object. Counts (`cited_by_count`, `fwci`,
`counts_by_year`) are not read. An abstract, which OpenAlex has as an inverted index, is put
together again.
"""

import re

import msgspec

from citeflow.data.importers.base import CERTAIN, Evidence, Importer, Notes, Stream
from citeflow.data.importers.columns import date_text
from citeflow.data.importers.json_stream import JsonReader, first_record
from citeflow.data.importers.records import abstract_of_index, papers_and_references
from citeflow.data.importers.source import Source, SourceFile

START = re.compile(rb'\s*\{\s*"id"\s*:\s*"https?://openalex\.org/[Ww]\d')
FIELDS = ("referenced_works", "cited_by_count", "abstract_inverted_index", "authorships")


class Work(msgspec.Struct, gc=False):
    """The fields of a work that are read."""

    id: str | None = None
    title: str | None = None
    display_name: str | None = None
    publication_date: str | None = None
    publication_year: int | float | str | None = None
    referenced_works: list[str | None] | None = None
    abstract_inverted_index: dict[str, list[int]] | None = None


def sniff(source: Source) -> Evidence | None:
    """Recognize a work by its id, or by the fields that only works have."""
    if not (found := works(source)):
        return None
    fields = ", ".join(key for key in (first_record(found[0].head) or {}) if key in FIELDS)
    return Evidence(CERTAIN, f"{found[0].path.name} has works of OpenAlex: {fields}")


def works(source: Source) -> tuple[SourceFile, ...]:
    """Return the files that hold works; a snapshot has folders of authors and venues, too."""
    return source.where(_is_work)


def _is_work(file: SourceFile) -> bool:
    record = first_record(file.head)
    if record is None:
        # A paper of thousands of authors is longer than what was looked at.
        return bool(START.match(file.head))
    has_id = (
        str(record.get("id", ""))
        .lower()
        .startswith(("https://openalex.org/w", "http://openalex.org/w"))
    )
    return "referenced_works" in record or (has_id and "publication_year" in record)


def read(source: Source, notes: Notes) -> Stream:
    """Read works; references that OpenAlex lists twice count once, later."""
    notes.names |= {"citing": "id", "cited": "referenced_works", "date": "publication_date"}
    notes.ignore("cited_by_count, counts_by_year, fwci", "counted from the citations")
    reader = JsonReader(Work)
    found = works(source)
    notes.ignore_files(source, found, "no works")
    for file in found:
        for batch in reader.batches(file):
            yield from papers_and_references(
                [work.id for work in batch],
                [work.referenced_works for work in batch],
                title=[work.title or work.display_name for work in batch],
                abstract=[abstract_of_index(work.abstract_inverted_index) for work in batch],
                date=[date_text(work.publication_date, work.publication_year) for work in batch],
            )


IMPORTER = Importer(name="openalex", title="OpenAlex works", sniff=sniff, read=read)
