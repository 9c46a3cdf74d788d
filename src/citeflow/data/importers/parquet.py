"""Parquet in one file or a folder of parts, as Spark writes it.

A file with the columns of an edge list has citations, one with an id has papers, and a list of
references beside the id is both at once.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from citeflow.data.importers import base
from citeflow.data.importers.base import CERTAIN, Evidence, Importer, Notes, Stream
from citeflow.data.importers.columns import ID, REFERENCES, ends, find, is_count
from citeflow.data.importers.node_edge_tables import ROLES, papers_of_columns
from citeflow.data.importers.reference_lists import citations_of_cells, separator_of
from citeflow.data.importers.source import Source, SourceFile
from citeflow.data.tables import is_text, parquet_batches
from citeflow.errors import DataError

BATCH_ROWS = 1 << 18
MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class _Part:
    file: SourceFile
    kind: str
    """`papers`, `citations` or `references`."""
    names: tuple[str, ...]
    separator: str | None = None
    """What stands between references that are text in one cell."""


def _part(file: SourceFile) -> _Part | None:
    if not file.raw_head.startswith(MAGIC):
        return None
    with file.damage_as_data_error():
        schema = pq.read_schema(file.path)
    names = tuple(schema.names)
    if ends(names):
        return _Part(file, "citations", names)
    if find(names, ID) is None:
        return None
    references = find(names, REFERENCES)
    if references is None:
        return _Part(file, "papers", names)
    if _is_list(schema.field(references).type):
        return _Part(file, "references", names)
    separator = _separator(file, references) if is_text(schema.field(references).type) else None
    return _Part(file, "references" if separator else "papers", names, separator)


def _separator(file: SourceFile, name: str) -> str | None:
    """Return what stands between references that are text in one cell."""
    with file.damage_as_data_error():
        batch = next(pq.ParquetFile(file.path).iter_batches(200, columns=[name]), None)
        return None if batch is None else separator_of(batch.column(0).to_pylist())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def sniff(source: Source) -> Evidence | None:
    """Recognize Parquet with columns that say citations."""
    found = [file for file in source.files if file.raw_head.startswith(MAGIC)]
    if not found:
        return None
    try:
        parts = [part for file in found if (part := _part(file))]
    except DataError:
        parts = []
    if not any(part.kind != "papers" for part in parts):
        return None
    kinds = {part.kind: part for part in parts}
    seen = [
        f"{part.file.path.name} has {kind}: {', '.join(part.names[:6])}"
        for kind, part in kinds.items()
    ]
    return Evidence(CERTAIN, "; ".join(seen))


def read(source: Source, notes: Notes) -> Stream:
    """Read papers, then citations."""
    parts = [part for file in source.files if (part := _part(file))]
    read_files = [part.file for part in parts]
    notes.ignore_files(source, read_files, "no papers or citations in Parquet")
    for kind in ("papers", "references", "citations"):
        for part in parts:
            if part.kind == kind:
                with part.file.damage_as_data_error():
                    yield from _read_part(part, notes)


def _read_part(part: _Part, notes: Notes) -> Stream:
    if pair := ends(part.names):
        citing, cited = pair
        notes.names |= {"citing": citing, "cited": cited}
        for name in set(part.names) - set(pair):
            notes.ignore(f"{part.file.path.name}: {name}", "citations have no attributes")
        for batch in parquet_batches(part.file.path, [citing, cited], batch_rows=BATCH_ROWS):
            yield base.citations(_id(batch.column(0)), _id(batch.column(1)))
        return
    references = str(find(part.names, REFERENCES)) if part.kind == "references" else ""
    roles = {role: find(part.names, words) for role, words in ROLES.items()}
    taken = {str(name): role for role, name in roles.items() if name is not None}
    notes.names |= {role: name for name, role in taken.items()}
    if references:
        notes.names["cited"] = references
    counts = [
        name for name in part.names if name not in taken and is_count(name) and name != references
    ]
    for name in counts:
        notes.ignore(f"{part.file.path.name}: {name}", "counted from the citations")
    names = [name for name in part.names if name not in counts]
    for batch in parquet_batches(part.file.path, names, batch_rows=BATCH_ROWS):
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        lists = columns.pop(references, None)
        id_B = _id(columns[str(roles["id"])])
        yield _papers(columns, taken, id_B, notes, part)
        if lists is not None and part.separator:
            yield citations_of_cells(id_B, lists.cast(pa.string()), part.separator)
        elif lists is not None:
            values = lists.flatten()
            sizes = np.asarray(pc.fill_null(pc.list_value_length(lists), 0))
            if pa.types.is_struct(values.type):
                raise DataError(f"{part.file.path}: references are records", values.type)
            yield base.citations(
                id_B.take(pa.array(np.repeat(np.arange(len(sizes)), sizes))), _id(values)
            )


def _id(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = column.cast(pa.int64())  # pandas makes whole numbers with a gap so; else it raises
    return column.cast(pa.string())


def _papers(
    columns: dict[str, pa.Array], taken: dict[str, str], id_B: pa.Array, notes: Notes, part: _Part
) -> base.Papers:
    kept: dict[str, pa.Array] = {"id": id_B}
    for name, column in columns.items():
        role = taken.get(name, name)
        if role == "id":
            continue
        if pa.types.is_nested(column.type):
            notes.ignore(f"{part.file.path.name}: {name}", f"{column.type} is no number")
        else:
            kept[role] = column.cast(pa.string())
    return papers_of_columns(kept)


IMPORTER = Importer(
    name="parquet", title="Parquet of one file or a folder of parts", sniff=sniff, read=read
)
