"""The ids of papers: text or whole numbers, unique, and looked up for every citation.

Legend: N papers, B citations of one batch.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from citeflow.data.diagnosis import quote
from citeflow.data.tables import (
    Column,
    TableFile,
    as_integers,
    as_text,
    is_text,
    require_values,
    wrong_type,
)
from citeflow.errors import DataError

WHOLE_FLOAT = r"^(-?\d+)\.0+$"
LARGEST_EXACT = 2**53
"""Whole numbers up to here are exact as floats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperIds:
    """The ids of all papers."""

    key: Column
    """Ids in the order of the papers: int64 if all of them are whole numbers, else text."""

    are_rows: bool
    """True if each id is the row of its paper, so that no lookup table is needed."""

    is_ascii: bool = True
    """False if ids have to be compared in NFC, Unicode's composed form."""

    remark: str = ""
    """Words for ids that were taken for whole numbers, such as "with .0"."""

    def rows_of(self, key_B: Column) -> np.ndarray:
        """Look up the rows of papers by id, int32; -1 for an id that no paper has."""
        is_integer = pa.types.is_integer(self.key.type)
        integer_B = as_integers(key_B) if is_integer else None
        if integer_B is None:
            text_B = _trim(key_B, is_ascii=self.is_ascii)
            if is_integer:
                text_B = pc.replace_substring_regex(text_B, WHOLE_FLOAT, r"\1")
            row_B = pc.index_in(text_B, value_set=as_text(self.key))
        elif self.are_rows:
            # The ids of most large datasets: no hash lookup for every citation.
            row_B = np.asarray(integer_B)
            return np.where((row_B >= 0) & (row_B < len(self.key)), row_B, -1).astype(np.int32)
        else:
            row_B = pc.index_in(integer_B, value_set=self.key)
        return np.asarray(pc.fill_null(row_B, -1), dtype=np.int32)


def _trim(key: Column, *, is_ascii: bool = True) -> Column:
    trimmed = pc.utf8_trim_whitespace(as_text(key))
    return trimmed if is_ascii else pc.utf8_normalize(trimmed, form="NFC")


def as_key(table: TableFile, name: str, column: Column) -> Column:
    """Return ids as text or whole numbers; floats are cast if they are whole.

    Raises:
        DataError: they are neither.
    """
    if is_text(column.type) or pa.types.is_integer(column.type):
        return column
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        value_B = np.asarray(column.cast(pa.float64(), safe=False).fill_null(0))
        is_whole_B = np.isnan(value_B) | (
            (value_B == np.floor(value_B)) & (np.abs(value_B) < LARGEST_EXACT)
        )
        if is_whole_B.all():
            is_known = pc.and_not(column.is_valid(), pa.array(np.isnan(value_B)))
            return pc.if_else(is_known, column, None).cast(pa.int64(), safe=False)
    raise wrong_type(table, name, column, "text or whole numbers; floats have lost digits")


def read_ids(papers: TableFile, column: Column) -> PaperIds:
    """Read the ids of papers.

    Raises:
        DataError: one is missing, not usable as an id or there twice, or there are fewer than two.
    """
    given = column.type
    text_N = _trim(as_key(papers, "id", column)).combine_chunks()
    require_values(papers, "id", text_N)
    remark = "" if is_text(given) or pa.types.is_integer(given) else f"of type {given}"
    if pc.all(pc.match_substring_regex(text_N, WHOLE_FLOAT)).as_py():
        text_N = pc.replace_substring_regex(text_N, WHOLE_FLOAT, r"\1")
        remark = "with .0"
    is_ascii = bool(pc.all(pc.string_is_ascii(text_N)).as_py())
    text_N = _trim(text_N, is_ascii=is_ascii)
    integer_N = as_integers(text_N)
    key_N = text_N if integer_N is None else integer_N
    are_rows = integer_N is not None and np.array_equal(np.asarray(key_N), np.arange(len(key_N)))
    if not are_rows and _count_distinct(key_N) < len(key_N):
        raise _repeated_id(papers, key_N)
    if len(key_N) < 2:
        raise DataError(
            f"{papers.path} has one paper",
            quote(key_N[0].as_py()),
            hint="a network needs at least two",
        )
    return PaperIds(key=key_N, are_rows=are_rows, is_ascii=is_ascii, remark=remark)


def _count_distinct(key_N: Column) -> int:
    if pa.types.is_integer(key_N.type):  # Arrow's table takes 200 bytes for each
        return len(np.unique(np.asarray(key_N)))
    num_distinct: int = pc.count_distinct(key_N).as_py()
    return num_distinct


def _repeated_id(papers: TableFile, key_N: Column) -> DataError:
    row_of: dict[object, int] = {}
    repeated = [
        (row_of[key], row)
        for row, key in enumerate(key_N.to_pylist())
        if row_of.setdefault(key, row) != row
    ]
    original, repetition = repeated[0]
    more = f" (and {len(repeated) - 1:,} more)" if len(repeated) > 1 else ""
    first_line = papers.where(original).rpartition(", ")[2]
    return DataError(
        f"{papers.where(repetition)}: id appears a second time",
        f"{quote(key_N[original].as_py())}, first on {first_line}{more}",
        hint="each paper needs an id of its own",
    )
