"""The table of citations, as rows of papers; those of unknown papers are refused or left out.

Legend: E citations, B citations of one batch, U unknown ones.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from citeflow.config import DataConfig
from citeflow.data.diagnosis import and_more, quote
from citeflow.data.id_mismatch import MAX_UNKNOWN, Mismatch, find_mismatch
from citeflow.data.paper_ids import WHOLE_FLOAT, PaperIds, as_key
from citeflow.data.tables import TableFile, as_text, is_text, open_table, read_batches
from citeflow.errors import DataError
from citeflow.utils.large_arrays import large_array

CITATION_COLUMNS = ("citing", "cited")

PART_CITATIONS = 1 << 23
"""Citations of a part: 64 MB, as malloc gives back to the kernel what it has of 32 MB at least."""

NUM_SHOWN = 3
"""Rows that are shown of those left out."""


def open_citations(folder: Path, ids: PaperIds) -> TableFile:
    """Open the table of citations; without a header, if its first line are the ids of two papers.

    Raises:
        NotFoundError: there is none.
        DataError: it cannot be used.
    """
    try:
        return open_table(folder, "citations", CITATION_COLUMNS)
    except DataError:
        with_any_names = open_table(folder, "citations", [])
        names = with_any_names.names
        if with_any_names.is_parquet or len(names) != len(CITATION_COLUMNS):
            raise
        if (ids.rows_of(pa.array(names, pa.string())) < 0).any():
            raise
    return open_table(folder, "citations", CITATION_COLUMNS, has_header=False)


@dataclass(kw_only=True, slots=True)
class Citations:
    """The citations as rows of papers, and those that were left out."""

    edge_2E: np.ndarray = field(default_factory=lambda: np.empty((2, 0), np.int32))
    num_rows: int = 0
    num_unknown: int = 0
    first_unknown: list[tuple[int, str, object]] = field(default_factory=list)
    """Row, column and value of the first ones."""

    unknown: list[str] = field(default_factory=list)
    """Ids that no paper has, the first ones."""

    are_floats: bool = False
    """Some ids are whole floats that were taken for whole numbers."""

    remarks: list[str] = field(default_factory=list)

    def add(self, batch: pa.RecordBatch, edge_2B: np.ndarray) -> None:
        """Note what is unknown in a batch."""
        is_unknown_2B = edge_2B < 0
        row_U = np.flatnonzero(is_unknown_2B.any(axis=0))
        self.num_unknown += len(row_U)
        for row in row_U[: MAX_UNKNOWN - len(self.unknown)].tolist():
            index = 0 if is_unknown_2B[0, row] else 1
            key = batch.column(index)[row].as_py()
            self.unknown.append("" if key is None else str(key))
            if len(self.first_unknown) < NUM_SHOWN:
                self.first_unknown.append((self.num_rows + row, batch.schema.names[index], key))
        self.num_rows += batch.num_rows


def read_citations(
    table: TableFile, ids: PaperIds, papers: TableFile, config: DataConfig
) -> Citations:
    """Read the citations, batch by batch.

    Raises:
        DataError: an id is that of no paper and the settings refuse that, or all of them are.
    """
    parts: list[np.ndarray] = []
    batches: list[np.ndarray] = []
    citations = Citations()
    for batch in read_batches(table, CITATION_COLUMNS):
        keys = [
            as_key(table, name, column)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        edge_2B = np.stack([ids.rows_of(key) for key in keys])
        citations.are_floats |= _are_floats(batch, ids)
        citations.add(batch, edge_2B)
        batches.append(edge_2B[:, (edge_2B >= 0).all(axis=0)])
        if sum(batch.shape[1] for batch in batches) >= PART_CITATIONS:
            parts.append(np.concatenate(batches, axis=1))
            batches.clear()
    parts += batches
    batches.clear()
    citations.edge_2E = _join(parts)
    # Arrow keeps what it has read for its next allocation; here that is most of the memory in use.
    pa.default_memory_pool().release_unused()
    if citations.num_unknown:
        _handle_unknown(citations, table, papers, ids, config)
    return citations


def _join(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate parts, and let go of each: all of them twice may be more than there is room."""
    edge_2E = large_array((2, sum(part.shape[1] for part in parts)), np.int32)
    end = edge_2E.shape[1]
    while parts:
        part = parts.pop()
        edge_2E[:, end - part.shape[1] : end] = part
        end -= part.shape[1]
    return edge_2E


def _are_floats(batch: pa.RecordBatch, ids: PaperIds) -> bool:
    first = batch.column(0)
    if not is_text(first.type):
        return not pa.types.is_integer(first.type)
    is_whole = pa.types.is_integer(ids.key.type) and len(first) > 0
    return is_whole and bool(pc.match_substring_regex(as_text(first[:1]), WHOLE_FLOAT)[0].as_py())


def _handle_unknown(
    citations: Citations, table: TableFile, papers: TableFile, ids: PaperIds, config: DataConfig
) -> None:
    """Refuse citations of papers that are not in the list, or say which are left out.

    Raises:
        DataError: they are not allowed, or there are no others.
    """
    mismatch = find_mismatch(citations.unknown, as_text(ids.key))
    if config.unknown == "error":
        raise _unknown_id(citations, table, papers, mismatch)
    if citations.num_unknown == citations.num_rows:
        what = f"{table.path} cites no paper of {papers.path.name}"
        first = citations.first_unknown[0][2]
        value = f"{citations.num_unknown:,} citations dropped, such as of {quote(first)}"
        if mismatch:
            raise DataError(what, f"{value}: {mismatch.describe()}", hint=mismatch.hint)
        raise DataError(what, value, hint=f"an id is {quote(ids.key[0].as_py())}")
    shown = [f"{quote(key)} ({_line(table, row)})" for row, _, key in citations.first_unknown]
    text = (
        f"{citations.num_unknown:,} of {citations.num_rows:,} citations dropped, of unknown papers"
    )
    citations.remarks.append(f"{text}: {and_more(shown, citations.num_unknown)}")
    if mismatch:
        citations.remarks.append(
            f"WARNING: the id of most of these {mismatch.describe()}: {mismatch.hint}"
        )


def _line(table: TableFile, row: int) -> str:
    return table.where(row).rpartition(", ")[2]


def _unknown_id(
    citations: Citations, table: TableFile, papers: TableFile, mismatch: Mismatch | None
) -> DataError:
    row, name, key = citations.first_unknown[0]
    num = citations.num_unknown
    value = f"{quote(key)} ({num:,} such citation{'s' * (num > 1)})"
    hint = "add the paper, or leave such citations out with --set data.unknown=drop"
    if mismatch:
        value = f"{value}; {quote(mismatch.example[0])} {mismatch.describe()}"
        hint = mismatch.hint
    elif re.fullmatch(r"\d(\.\d+)?[eE]\+?\d+", str(key)):
        hint = "a float in scientific notation has lost digits: write ids as text"
    elif num == citations.num_rows:
        hint = "none of them is: do both tables use the same kind of id?"
    what = f"{table.where(row)}: column {quote(name)} is not an id of {papers.path.name}"
    return DataError(what, value, hint=hint)
