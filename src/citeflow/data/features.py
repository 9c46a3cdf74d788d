"""Features of papers: the numeric columns of their table, and `features.npy` beside it.

Legend: N papers, F features, B papers of one block.
"""

import mmap
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError

import numpy as np

from citeflow.data.diagnosis import first_line, quote
from citeflow.data.tables import (
    KNOWN_COLUMNS,
    Column,
    TableFile,
    are_mostly_numbers,
    as_numbers,
    as_text,
    is_number,
    is_text,
)
from citeflow.errors import DataError
from citeflow.utils.logging import log

FEATURES = "features.npy"
BLOCK_ROWS = 1 << 16

NOT_AN_ARRAY = (ValueError, OSError, OverflowError, SyntaxError, TokenError)
"""Errors of numpy on a file that is no array; it parses the header as Python."""


def read_features(
    folder: Path, papers: TableFile, columns: Mapping[str, Column]
) -> np.ndarray | None:
    """Read the features [N, F] of papers as finite float32, those of `features.npy` first.

    Returns:
        None where there are none. An array of float32 with no columns beside it stays on the disk:
        the result is a read-only map of its file.

    Raises:
        DataError: a value is missing, not a number or not finite, or the array has another number
            of rows than the papers.
    """
    parts = []
    if (folder / FEATURES).exists():
        parts.append(_read_array(folder / FEATURES, len(columns["id"])))
    numbers = {
        name: column
        for name, column in columns.items()
        if name not in KNOWN_COLUMNS and _is_feature(name, column)
    }
    ignored = [quote(name) for name in columns if name not in KNOWN_COLUMNS | numbers.keys()]
    if ignored:
        log("data", "columns ignored, not numbers", file=papers.path, columns=", ".join(ignored))
    if numbers:
        parts.append(_numeric_columns(papers, numbers))
    if not parts:
        return None
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def feature_names(columns: Mapping[str, Column]) -> list[str]:
    """Return the columns of papers that become features."""
    others = {name: column for name, column in columns.items() if name not in KNOWN_COLUMNS}
    return [name for name, column in others.items() if _is_feature(name, column)]


def release_pages(array: np.ndarray) -> None:
    """Drop the pages of a memory-mapped file; other arrays stay as they are.

    Pages that are read again come back from the file. Without this, one pass over a file counts as
    resident memory of the process, and a container with a limit evicts what is needed instead.
    """
    if isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)


def _is_feature(name: str, column: Column) -> bool:
    """True for numbers, and for text that is mostly numbers, so that a typo is an error."""
    # The columns that pandas writes for its index, in CSV and in Parquet.
    is_index = name == "" or name.startswith("__index_level_")
    if is_index:
        return False
    return is_number(column.type) or (is_text(column.type) and are_mostly_numbers(as_text(column)))


def _numeric_columns(papers: TableFile, columns: Mapping[str, Column]) -> np.ndarray:
    x_NF = np.empty((len(next(iter(columns.values()))), len(columns)), np.float32)
    for index, (name, column) in enumerate(columns.items()):
        with np.errstate(over="ignore"):
            x_NF[:, index] = as_numbers(papers, name, column)
        is_bad = ~np.isfinite(x_NF[:, index])
        if is_bad.any():
            raise papers.bad_value(name, is_bad, column, "is not a finite number")
    return x_NF


def _read_array(path: Path, num_papers: int) -> np.ndarray:
    try:
        given_NF = np.lib.format.open_memmap(path, mode="r")
    except NOT_AN_ARRAY as error:
        raise DataError(f"{path} is not a usable .npy array", first_line(error)) from None
    if given_NF.dtype.kind not in "biuf":
        raise DataError(
            f"{path} does not hold real numbers", given_NF.dtype, hint="save it as float32"
        )
    if given_NF.ndim != 2 or given_NF.shape[1] == 0:
        raise DataError(f"{path} must have the shape [papers, features]", given_NF.shape)
    if len(given_NF) != num_papers:
        raise DataError(
            f"{path} must have a row for each of {num_papers:,} papers", f"{len(given_NF):,} rows"
        )
    return _as_finite(path, given_NF)


def _as_finite(path: Path, given_NF: np.ndarray) -> np.ndarray:
    """Check a mapped array block by block; float32 stays on the disk, other types are converted."""
    is_float32 = given_NF.dtype == np.float32 and given_NF.flags.c_contiguous
    x_NF = given_NF if is_float32 else np.empty(given_NF.shape, np.float32)
    num_bad = 0
    first_bad = (0, 0)
    for start in range(0, len(x_NF), BLOCK_ROWS):
        x_BF = x_NF[start : start + BLOCK_ROWS]
        if not is_float32:
            with np.errstate(over="ignore"):
                x_BF[:] = given_NF[start : start + BLOCK_ROWS]
        bad = np.argwhere(~np.isfinite(x_BF))
        if len(bad) and not num_bad:
            first_bad = (start + int(bad[0, 0]), int(bad[0, 1]))
        num_bad += len(bad)
        release_pages(given_NF)
    if num_bad:
        more = f" (and {num_bad - 1:,} more)" if num_bad > 1 else ""
        where = f"{path}, row {first_bad[0] + 1}, column {first_bad[1] + 1}"
        raise DataError(f"{where}: not a finite number", f"{given_NF[first_bad]}{more}")
    return x_NF
