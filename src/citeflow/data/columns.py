"""Columns of a table as text, whole numbers or numbers, each value accounted for.

Legend: N rows of a table.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from citeflow.data.diagnosis import show
from citeflow.data.tables import TableFile, reading
from citeflow.errors import DataError

Column = Any
"""An Arrow array or chunked array; Arrow has no types that mypy could check."""

NUMBER = r"^\s*[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:nan|inf|infinity))\s*$"


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers or truth values."""
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(check(kind) for check in checks)


def as_text(column: Column) -> Column:
    """Text of a column of text or whole numbers, "" where a value is missing."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return pc.fill_null(column.cast(pa.string()), "")


def as_integers(column: Column) -> Column | None:
    """Whole numbers of a column as int64; None unless every value is one without leading zeros or a plus."""
    if column.null_count:
        return None
    try:
        integers = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    if pa.types.is_integer(column.type):
        return integers
    return integers if pc.all(pc.equal(integers.cast(pa.string()), column)).as_py() else None


def mask_of(column: Column) -> np.ndarray:
    """A column of truth values as bool [N]."""
    return np.asarray(column).astype(bool)


def are_mostly_numbers(text: Column) -> bool:
    """Whether more than half of the values that are not empty read as numbers."""
    num_filled = mask_of(pc.not_equal(text, "")).sum()
    return bool(2 * mask_of(pc.match_substring_regex(text, NUMBER)).sum() > num_filled)


def numbers_of(table: TableFile, name: str, column: Column) -> np.ndarray:
    """Numbers of a column of numbers or of text, float64 [N]; NaN and infinity may be among them.

    Raises:
        DataError: a value is missing or not a number.
    """
    if is_text(column.type):
        column = as_text(column)
        require_values(table, name, column)
        is_bad = ~mask_of(pc.match_substring_regex(column, NUMBER))
        if is_bad.any():
            raise table.bad_value(name, is_bad, column, "is not a number")
        column = pc.utf8_trim_whitespace(column)
    else:
        require_values(table, name, column)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    with reading(table.path):
        return np.asarray(column.cast(pa.float64(), safe=False))


def require_values(table: TableFile, name: str, column: Column) -> None:
    """Refuse a column with a missing value.

    Raises:
        DataError: a value is null or an empty text.
    """
    is_empty = mask_of(pc.equal(column, "") if is_text(column.type) else column.is_null())
    if is_empty.any():
        what = f"{table.where(int(np.argmax(is_empty)))}: column {show(name)} has no value"
        hint = (
            "every paper needs an id"
            if name == "id"
            else "fill it for every paper, or leave the column out"
        )
        raise DataError(
            what, f"{np.count_nonzero(is_empty):,} of {len(is_empty):,} are empty", hint=hint
        )
