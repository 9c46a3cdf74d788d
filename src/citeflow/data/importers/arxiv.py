"""arXiv: its metadata as JSON lines (Kaggle), and lists of references by id.

The references are a JSON object `{"0704.0001": ["hep-ph/0002001", ...]}`, as the project
arxiv-public-datasets has them, or any list of citations whose ids are arXiv's. Versions (`v2`) and
the prefix `arXiv:` are cut off. An id tells the month of a paper, so a list alone has dates.
"""

import re
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from citeflow.data.importers import base, edges
from citeflow.data.importers.base import CERTAIN, Citations, Evidence, Importer, Notes, Stream
from citeflow.data.importers.columns import date_text
from citeflow.data.importers.json_stream import JsonReader, events, first_record
from citeflow.data.importers.source import Source, SourceFile

ID = re.compile(r"(?:arxiv:)?(\d{4}\.\d{4,5}|[a-z-]+(?:\.[a-z]{2})?/\d{7})(?:v\d+)?", re.IGNORECASE)
CLEAN = r"(?i)^(?:https?://arxiv\.org/(?:abs|pdf)/)?(?:arxiv:)?(.*?)(?:v\d+)?(?:\.pdf)?$"
MONTH = r"^(?:.*/)?(?P<yy>\d{2})(?P<mm>\d{2})"
BATCH = 1 << 16


class Version(msgspec.Struct, gc=False):
    """A version of a paper."""

    created: str | None = None


class Paper(msgspec.Struct, gc=False):
    """The fields of arXiv's metadata that are read."""

    id: str | None = None
    title: str | None = None
    abstract: str | None = None
    update_date: str | None = None
    versions: list[Version] | None = None


def _is_metadata(file: SourceFile) -> bool:
    record = first_record(file.head) or {}
    has_fields = {"id", "title"} <= record.keys() and record.keys() & {"versions", "update_date"}
    return bool(has_fields and ID.fullmatch(str(record["id"])))


def _is_reference_lists(file: SourceFile) -> bool:
    text = file.head[:4096].decode("utf-8", "ignore")
    match = re.match(r'\s*\{\s*"([^"]{1,40})"\s*:\s*\[', text)
    return bool(match and ID.fullmatch(match[1]))


def _is_edges(file: SourceFile) -> bool:
    layout = edges.layout_of(file)
    if layout is None:
        return False
    rows = layout.rows[:100]
    return bool(rows) and all(
        ID.fullmatch(value.strip())
        for row in rows
        for value in (row[layout.citing], row[layout.cited])
    )


def sniff(source: Source) -> Evidence | None:
    """Recognize metadata, lists of references, and citations whose ids are all arXiv's."""
    for test, seen in (
        (_is_reference_lists, "lists of references by arXiv id"),
        (_is_edges, "citations between arXiv ids"),
    ):
        if found := source.where(test):
            metadata = source.where(_is_metadata)
            more = f", {metadata[0].path.name} has arXiv's metadata" if metadata else ""
            return Evidence(CERTAIN, f"{found[0].path.name} has {seen}{more}")
    return None


def read(source: Source, notes: Notes) -> Stream:
    """Read metadata where there is any, then references; without metadata, ids tell the month."""
    metadata = source.where(_is_metadata)
    for file in metadata:
        for batch in JsonReader(Paper).batches(file):
            yield base.papers(
                _clean(base.text([paper.id for paper in batch])),
                title=[paper.title for paper in batch],
                abstract=[paper.abstract for paper in batch],
                date=[_date(paper) for paper in batch],
            )
    if metadata:
        yield from _citations(source, notes)
    else:
        notes.remark("dates are the months that the arXiv ids tell")
        yield from _with_dated_papers(_citations(source, notes))


def _date(paper: Paper) -> str | None:
    first = paper.versions[0].created if paper.versions else None
    return date_text(first, paper.update_date)


def _citations(source: Source, notes: Notes) -> Iterator[Citations]:
    for file in source.where(_is_reference_lists):
        for citing, cited in _pairs(file):
            yield base.citations(_clean(base.text(citing)), _clean(base.text(cited)))
    for file in source.where(_is_edges):
        layout = edges.layout_of(file)
        assert layout is not None
        for part in edges.read_file(file, layout, notes):
            yield base.citations(
                _clean(part.batch.column("citing")), _clean(part.batch.column("cited"))
            )


def _pairs(file: SourceFile) -> Iterator[tuple[list[str], list[str]]]:
    citing: list[str] = []
    cited: list[str] = []
    with file.open() as opened:
        for key, value in events(file, opened):
            if key and isinstance(value, list):
                references = [str(each) for each in value if isinstance(each, str | int)]
                citing += [key] * len(references)
                cited += references
            if len(citing) > BATCH:
                yield citing, cited
                citing, cited = [], []
    yield citing, cited


def _clean(column: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(column, CLEAN, r"\1")


def _with_dated_papers(parts: Iterable[Citations]) -> Stream:
    """Put the papers that the citations name first, with dates; only ids are kept meanwhile."""
    kept = list(parts)
    ids = pc.drop_null(
        pc.unique(
            pa.chunked_array(
                [part.batch.column(name) for part in kept for name in ("citing", "cited")]
            )
        )
    )
    ids = ids.filter(pc.not_equal(ids, ""))
    month = pc.extract_regex(ids, MONTH)
    year = pc.struct_field(month, "yy").cast(pa.int32())
    year = pc.if_else(pc.greater(year, 90), pc.add(year, 1900), pc.add(year, 2000))
    text = pc.binary_join_element_wise(year.cast(pa.string()), pc.struct_field(month, "mm"), "-")
    is_month = np.isin(
        np.asarray(pc.struct_field(month, "mm").cast(pa.int32()).fill_null(0)), range(1, 13)
    )
    yield base.papers(ids, date=pc.if_else(pa.array(is_month), text, pa.scalar(None, pa.string())))
    yield from kept


IMPORTER = Importer(name="arxiv", title="arXiv metadata and references", sniff=sniff, read=read)
