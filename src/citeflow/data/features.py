"""Features of papers: the numeric columns of their table, and `features.npy` beside it.

Legend: N papers, F features, B papers of one block.
"""

import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    reading,
    require_values,
)
from citeflow.errors import DataError
from citeflow.utils.large_arrays import count_values

FEATURES = "features.npy"

STORED = (np.float32, np.float16)
"""Types of features that are kept as they are; all that is computed with them is float32."""

BLOCK_ROWS = 1 << 16

COUNT = re.compile(
    r"citation|citedby|timescited|^(n|num|no)?cite[sd]?$|fwci|pagerank|^(in|out)?deg(ree)?$"
    r"|^(n|num|count|no|total)?(of)?(ref(erence)?s?|referencedworks?)(count|num|total)?$"
)
"""Names, in lower case and letters alone, of columns that count citations or references."""

MAX_OFFSET = 1e4
"""A mean of more than so many standard deviations is subtracted before it costs digits."""

SAMPLE = 10_000
"""Papers that a column is compared with the number of citations on."""

MIN_SAMPLE = 10
MIN_DEGREES = 3
SAME_ORDER = 0.99
"""Rank correlation of a column that counts citations."""

NOT_AN_ARRAY = (ValueError, OSError, OverflowError, SyntaxError, TokenError)
"""Errors of numpy on a file that is no array; it parses the header as Python."""


class Degrees:
    """Citations and references of each paper, on a sample, to tell columns that count them."""

    def __init__(self, edge_2E: np.ndarray, num_papers: int) -> None:
        """Count the rows of citing and cited paper; repetitions change little."""
        self.num_papers = num_papers
        self._step = max(1, num_papers // SAMPLE)
        references_N, citations_N = (count_values(row_E, num_papers) for row_E in edge_2E)
        counts = (citations_N, references_N, citations_N + references_N)
        sampled = [count_N[:: self._step] for count_N in counts]
        self._ranks = [_ranks(each) for each in sampled if len(np.unique(each)) >= MIN_DEGREES]

    def sample(self, x_NF: np.ndarray) -> np.ndarray:
        """Return the rows that are compared; a column of a map would read all of its pages."""
        return np.array(x_NF[:: self._step])

    def are_followed_by(self, value_S: np.ndarray) -> bool:
        """True if a sampled column has nearly the order of a count, such as its logarithm has."""
        if len(value_S) < MIN_SAMPLE or len(np.unique(value_S)) < MIN_DEGREES:
            return False
        rank_S = _ranks(value_S)
        return any(
            abs(np.corrcoef(rank_S, count_rank_S)[0, 1]) > SAME_ORDER
            for count_rank_S in self._ranks
        )


def _ranks(value_S: np.ndarray) -> np.ndarray:
    """Rank values, equal ones alike: their mean rank."""
    _, group_S, size_U = np.unique(value_S, return_inverse=True, return_counts=True)
    rank_U = np.cumsum(size_U) - (size_U - 1) / 2
    ranks: np.ndarray = rank_U[group_S]
    return ranks


@dataclass(kw_only=True, slots=True)
class Features:
    """Features of papers, and what became of the columns that might have been some."""

    x_NF: np.ndarray | None = None
    """Finite float32 or float16; None where there are none. An array on the disk with no columns
    beside it stays there: it is a read-only map of its file."""

    names: list[str] = field(default_factory=list)
    """The array and the columns that they come from."""

    unused: dict[str, list[str]] = field(default_factory=dict)
    """Columns that are none, by the reason."""

    def leave_out(self, name: str, reason: str) -> None:
        """Note that a column is no feature."""
        self.unused.setdefault(reason, []).append(name)


def read_features(
    folder: Path, papers: TableFile, columns: Mapping[str, Column], degrees: Degrees
) -> Features:
    """Read the features of papers, those of `features.npy` first.

    Counts of citations are none: they count the citations that are held out, too. They are known by
    their names, or because they follow the number of citations that the graph has.

    Args:
        folder: may hold `features.npy`.
        papers: the table, for messages.
        columns: those of the table that have no other meaning.
        degrees: citations and references of each paper.

    Raises:
        DataError: a value is missing, not a number or not finite, or the array has another number
            of rows than the papers.
    """
    features = Features()
    parts = []
    if (folder / FEATURES).exists():
        x_NF = _read_array(folder / FEATURES, degrees.num_papers)
        parts.append(_without_counts(features, FEATURES, x_NF, degrees))
        release_pages(x_NF)
    for name, column in columns.items():
        if name in KNOWN_COLUMNS or not len(column):
            continue
        numbers = _read_column(features, papers, name, column)
        if numbers is not None:
            parts.append(_without_counts(features, quote(name), numbers, degrees))
    parts = [part for part in parts if part.shape[1]]
    if parts:
        features.x_NF = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return features


def unit_rows(x_BF: np.ndarray) -> np.ndarray:
    """Scale rows to length 1; a row of zeros stays one."""
    x_BF = np.asarray(x_BF, dtype=np.float32)
    length_B = np.sqrt(np.einsum("bf,bf->b", x_BF, x_BF))
    unit_BF: np.ndarray = x_BF / np.maximum(length_B, np.finfo(np.float32).tiny)[:, None]
    return unit_BF


def release_pages(array: np.ndarray) -> None:
    """Drop the pages of a memory-mapped file; other arrays stay as they are.

    Pages that are read again come back from the file. Without this, one pass over a file counts as
    resident memory of the process, and a container with a limit evicts what is needed instead.
    """
    if isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)


def _read_column(
    features: Features, papers: TableFile, name: str, column: Column
) -> np.ndarray | None:
    """Return a column as float32 [N, F]; None, and the reason noted, if it is no feature."""
    shown = quote(name)
    # The columns that pandas writes for its index, in CSV and in Parquet.
    if name == "" or name.startswith("__index_level_"):
        features.leave_out(shown, "an index")
        return None
    if COUNT.search(re.sub(r"[^a-z]", "", name.lower())):
        features.leave_out(shown, "counts of citations")
        return None
    column = _parse_lists(column)
    if _is_list(column.type):
        return _read_lists(features, papers, name, column)
    # Text that is mostly numbers is a feature, so that a typo is an error.
    if is_number(column.type) or (is_text(column.type) and are_mostly_numbers(as_text(column))):
        return _read_numbers(papers, name, column)[:, None]
    features.leave_out(shown, "not numbers")
    return None


def _read_numbers(papers: TableFile, name: str, column: Column) -> np.ndarray:
    value_N = as_numbers(papers, name, column)
    with np.errstate(over="ignore"):
        x_N = value_N.astype(np.float32)
    is_bad = ~np.isfinite(x_N)
    if is_bad.any():
        raise papers.bad_value(name, is_bad, column, "is not a finite number")
    mean = value_N.mean()
    deviation = value_N.std()
    # float32 would round away what tells these papers apart: seconds since 1970, masses in grams.
    if deviation > 0 and not MAX_OFFSET * deviation > abs(mean):
        x_N = ((value_N - mean) / deviation).astype(np.float32)
    return x_N


def _is_list(kind: pa.DataType) -> bool:
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in checks)


def _parse_lists(column: Column) -> Column:
    """Turn text such as [0.5, 1.5], which a list becomes in CSV, into lists of numbers."""
    if not is_text(column.type) or not str(column[0].as_py()).startswith("["):
        return column
    try:
        lists = [json.loads(text) for text in as_text(column).to_pylist()]
        return pa.array(lists, pa.list_(pa.float64()))
    except (ValueError, TypeError, RecursionError, pa.ArrowException):
        return column


def _read_lists(
    features: Features, papers: TableFile, name: str, column: Column
) -> np.ndarray | None:
    """Return a column of lists of one length, such as an embedding, as float32 [N, F]."""
    if not is_number(column.type.value_type):
        features.leave_out(quote(name), "lists, but not of numbers")
        return None
    require_values(papers, name, column)
    length_N = np.asarray(pc.list_value_length(column))
    if length_N.min() != length_N.max() or not length_N.min():
        lengths = f"lists of {length_N.min()} to {length_N.max()} numbers"
        features.leave_out(quote(name), lengths)
        return None
    flat = pc.list_flatten(column)
    with np.errstate(over="ignore"), reading(papers.path):
        value_V = np.asarray(flat.cast(pa.float64(), safe=False), dtype=np.float64)
        x_NF: np.ndarray = value_V.astype(np.float32).reshape(len(column), -1)
    is_bad = np.asarray(~np.isfinite(x_NF).all(axis=1))
    if is_bad.any():
        raise papers.bad_value(name, is_bad, column, "has a number that is missing or not finite")
    return x_NF


def _without_counts(
    features: Features, name: str, x_NF: np.ndarray, degrees: Degrees
) -> np.ndarray:
    """Leave out the columns that follow the degree of the papers; keep a map that has none."""
    x_SF = degrees.sample(x_NF)
    counts = [index for index in range(x_NF.shape[1]) if degrees.are_followed_by(x_SF[:, index])]
    if len(counts) < x_NF.shape[1]:
        features.names.append(name)
    if not counts:
        return x_NF
    for index in counts:
        features.leave_out(
            name if x_NF.shape[1] == 1 else f"{name}, column {index + 1}",
            "as many as the citations of the paper",
        )
    return np.delete(x_NF, counts, axis=1)


def _read_array(path: Path, num_papers: int) -> np.ndarray:
    try:
        given_NF = np.lib.format.open_memmap(path, mode="r")
    except NOT_AN_ARRAY as error:
        raise DataError(f"{path} is not a usable .npy array", first_line(error)) from None
    if given_NF.dtype.kind not in "biuf":
        raise DataError(
            f"{path} does not hold real numbers",
            given_NF.dtype,
            hint="save it as float32 or float16",
        )
    if given_NF.ndim != 2 or given_NF.shape[1] == 0:
        raise DataError(f"{path} must have the shape [papers, features]", given_NF.shape)
    if len(given_NF) != num_papers:
        raise DataError(
            f"{path} must have a row for each of {num_papers:,} papers", f"{len(given_NF):,} rows"
        )
    return _as_finite(path, given_NF)


def _as_finite(path: Path, given_NF: np.ndarray) -> np.ndarray:
    """Check a mapped array block by block; what is stored as it is stays on the disk."""
    is_kept = given_NF.dtype in STORED and given_NF.flags.c_contiguous
    x_NF = given_NF if is_kept else np.empty(given_NF.shape, np.float32)
    num_bad = 0
    first_bad = (0, 0)
    for start in range(0, len(x_NF), BLOCK_ROWS):
        x_BF = x_NF[start : start + BLOCK_ROWS]
        if not is_kept:
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
