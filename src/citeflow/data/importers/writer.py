"""Write what an importer yields as a citation folder: papers.parquet and citations.parquet.

Batches go to the disk as they come. Kept in memory are the ids of the papers where the source has
no table of them, because they are then those that the citations name.

Legend: N papers, E citations, B rows of one batch.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from citeflow import files
from citeflow.data.importers.base import Citations, Features, Notes, Papers, Stream
from citeflow.data.tables import as_integers
from citeflow.errors import DataError
from citeflow.utils.logging import log

COMPACT_ROWS = 8 << 20
"""Ids that are gathered before repeated ones are dropped."""

OPTIONAL = ("title", "abstract", "date")
"""Columns that are left out where no paper has a value."""

NO_ID = "papers without an id"
REPEATED = "papers whose id appeared before"
NO_END = "citations without a citing or a cited paper"


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """The size of what was written, and what was left out."""

    papers: int
    citations: int
    columns: list[str]
    dropped: dict[str, int]
    examples: dict[str, list[str]]
    ignored: dict[str, str]
    remarks: list[str]
    names: dict[str, str]

    def lines(self) -> list[str]:
        """Say what was left out, and why, a sentence each."""
        dropped = []
        for reason, count in self.dropped.items():
            shown = ", ".join(self.examples[reason])
            dropped.append(f"{count:,} dropped: {reason}" + (f", such as {shown}" if shown else ""))
        ignored = [f"not read: {name} ({reason})" for name, reason in self.ignored.items()]
        return [*dropped, *ignored, *self.remarks]

    def to_dict(self) -> dict[str, object]:
        """Return plain values, for JSON."""
        return asdict(self)


class _Ids:
    """Different ids, in the order in which they first appear."""

    def __init__(self) -> None:
        self._parts: list[pa.Array] = []
        self._num_rows = 0
        self._limit = COMPACT_ROWS

    def add(self, *columns: pa.Array) -> None:
        # Column by column of each batch; papers are found in the order of the file.
        for column in columns:
            part = pc.unique(column)
            self._parts.append(part)
            self._num_rows += len(part)
        if self._num_rows > self._limit:
            merged = self.all()
            self._parts = [merged]
            self._num_rows = len(merged)
            self._limit = max(COMPACT_ROWS, 2 * len(merged))

    def all(self) -> pa.Array:
        if not self._parts:
            return pa.array([], pa.string())
        unique = pc.unique(pa.chunked_array(self._parts))
        return pc.drop_null(unique)


def write_folder(stream: Stream, notes: Notes, folder: Path) -> Imported:
    """Write a stream of papers and citations into a folder, inside of `files.new_directory`.

    Raises:
        DataError: there is no citation in it, or what the importer raises.
    """
    ids = _Ids()
    with (
        files.TableStream(folder / "papers.parquet") as papers,
        files.TableStream(folder / "citations.parquet") as citations,
    ):
        for part in stream:
            if isinstance(part, Papers):
                papers.write(_aligned(_with_ids(part.batch, notes), papers.schema, notes))
            elif isinstance(part, Citations):
                batch = _whole(part.batch, notes)
                citations.write(batch)
                if not papers.num_rows:
                    ids.add(*batch.columns)
            elif isinstance(part, Features):
                files.save_array(folder / "features.npy", np.asarray(part.array))
        if not citations.num_rows:
            raise DataError("no citations in what was read", _summary(papers.num_rows, notes))
        if not papers.num_rows:
            notes.remark("there is no table of papers: they are those that the citations name")
            papers.write(pa.RecordBatch.from_pydict({"id": _in_order(ids.all())}))
    num_papers = _clean_papers(folder / "papers.parquet", notes)
    imported = Imported(
        papers=num_papers,
        citations=citations.num_rows,
        columns=pq.read_schema(folder / "papers.parquet").names,
        dropped=notes.dropped,
        examples=notes.examples,
        ignored=notes.ignored,
        remarks=notes.remarks,
        names=notes.names,
    )
    _log(imported)
    return imported


def _summary(num_papers: int, notes: Notes) -> str:
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in notes.dropped.items())
    return f"{num_papers:,} papers" + (f"; dropped: {dropped}" if dropped else "")


def _trimmed(batch: pa.RecordBatch, names: tuple[str, ...]) -> pa.RecordBatch:
    for name in names:
        column = pc.utf8_trim_whitespace(batch.column(name))
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        batch = batch.set_column(batch.schema.get_field_index(name), name, column)
    return batch


def _with_ids(batch: pa.RecordBatch, notes: Notes) -> pa.RecordBatch:
    batch = _trimmed(batch, ("id",))
    missing = batch.column("id").null_count
    if missing:
        lost = batch.filter(pc.is_null(batch.column("id")))
        titles = lost.column("title").to_pylist() if "title" in lost.schema.names else []
        notes.drop(NO_ID, [title or "without a title" for title in titles], missing)
        batch = batch.filter(pc.is_valid(batch.column("id")))
    return batch


def _aligned(batch: pa.RecordBatch, schema: pa.Schema | None, notes: Notes) -> pa.RecordBatch:
    """Give a batch of another file the columns of the first one."""
    if schema is None or batch.schema.equals(schema):
        return batch
    for name in set(batch.schema.names) - set(schema.names):
        notes.ignore(name, "the first file of papers has no such column")
    nothing = pa.nulls(len(batch), pa.string())
    columns = {
        name: batch.column(name) if name in batch.schema.names else nothing for name in schema.names
    }
    return pa.RecordBatch.from_pydict(columns)


def _whole(batch: pa.RecordBatch, notes: Notes) -> pa.RecordBatch:
    batch = _trimmed(batch, ("citing", "cited"))
    is_whole = pc.and_(pc.is_valid(batch.column("citing")), pc.is_valid(batch.column("cited")))
    if not (count := len(batch) - (pc.sum(is_whole).as_py() or 0)):
        return batch
    lost = batch.filter(pc.invert(is_whole)).slice(0, 3).to_pylist()
    shown = [f"{row['citing'] or '?'} -> {row['cited'] or '?'}" for row in lost]
    notes.drop(NO_END, shown, count)
    return batch.filter(is_whole)


def _in_order(ids: pa.Array) -> pa.Array:
    """Sort numbers, so that ids from 0 on are rows; text stays in the order of the source."""
    numbers = as_integers(ids)
    return ids if numbers is None else ids.take(pc.sort_indices(numbers))


def _clean_papers(path: Path, notes: Notes) -> int:
    """Drop papers whose id appeared before, and columns that no paper has a value in."""
    table = pq.ParquetFile(path)
    ids = table.read(columns=["id"]).column("id").combine_chunks()
    empty = [
        name for name in OPTIONAL if name in table.schema_arrow.names and _is_empty(path, name)
    ]
    first_N = None
    if pc.count_distinct(ids).as_py() < len(ids):
        first_N = np.zeros(len(ids), bool)
        rows = pa.table({"id": ids, "row": np.arange(len(ids))})
        kept = rows.group_by("id").aggregate([("row", "min")]).column("row_min")
        first_N[np.asarray(kept)] = True
        notes.drop(REPEATED, ids.filter(~first_N).slice(0, 3).to_pylist(), int((~first_N).sum()))
    num_papers = len(ids) if first_N is None else int(first_N.sum())
    if first_N is None and not empty:
        return num_papers
    names = [name for name in table.schema_arrow.names if name not in empty]
    cleaned = path.with_suffix(".cleaned")
    row = 0
    with files.TableStream(cleaned) as out:
        for batch in table.iter_batches(1 << 16, columns=names):
            if first_N is not None:
                batch_first = first_N[row : row + len(batch)]
                row += len(batch)
                out.write(batch.filter(pa.array(batch_first)))
            else:
                out.write(batch)
    files.move_file(cleaned, path)
    return num_papers


def _is_empty(path: Path, name: str) -> bool:
    """True if a column holds nothing but nulls and empty text."""
    for batch in pq.ParquetFile(path).iter_batches(1 << 20, columns=[name]):
        if pc.any(pc.not_equal(batch.column(0), "")).as_py():
            return False
    return True


def _log(imported: Imported) -> None:
    log("import", "read", papers=imported.papers, citations=imported.citations)
    for line in imported.lines():
        log("import", line)
