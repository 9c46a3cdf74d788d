"""The citation folder: the format in which users bring a network of their own.

`papers` (CSV, gzipped CSV or Parquet) has a column `id` and may have `year` or `date`, `title` and
`abstract`; its other columns of numbers are features, as is `features.npy` [papers, F], one row per
paper in the order of the table. `citations` has the columns `citing` and `cited`. Ids are compared
as text, so that 7 and "7" are one paper and "07" is another.

Legend: N papers, E citations, F features, B citations of one batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from citeflow.config import DataConfig
from citeflow.data.citation_graph import CitationGraph
from citeflow.data.diagnosis import quote
from citeflow.data.features import FEATURES, read_features
from citeflow.data.tables import (
    SUFFIXES,
    Column,
    TableFile,
    as_integers,
    as_mask,
    as_numbers,
    as_text,
    is_number,
    is_text,
    open_table,
    read_all,
    read_batches,
    require_values,
)
from citeflow.data.text import tfidf_features
from citeflow.errors import DataError, NotFoundError
from citeflow.utils.logging import log

TABLES = ("papers", "citations")
DESCRIPTION = (
    f"a citation folder holds papers and citations, each as {', '.join(SUFFIXES)}, "
    f"and may hold {FEATURES}"
)

ISO_DATE = r"^\d{4}(-\d{2}(-\d{2}([T ].*)?)?)?$"
FIRST_DAY = (date.min - date(1970, 1, 1)).days
LAST_DAY = (date.max - date(1970, 1, 1)).days


def find_files(folder: Path) -> tuple[str, ...]:
    """List the files of a citation folder, by name; other files in it are none of ours.

    Raises:
        NotFoundError: a table is missing.
        DataError: a table exists twice.
    """
    names: list[str] = []
    missing = []
    for table in TABLES:
        candidates = [f"{table}{suffix}" for suffix in SUFFIXES]
        present = [name for name in candidates if (folder / name).is_file()]
        if len(present) > 1:
            what = f"{folder} has the same table twice"
            raise DataError(what, ", ".join(present), hint="keep one of them")
        if not present:
            missing.append(f"no {table} table")
        names += present
    if missing:
        raise NotFoundError(" and ".join(missing), folder, hint=DESCRIPTION)
    return (*names, FEATURES) if (folder / FEATURES).is_file() else tuple(names)


def read_folder(folder: Path, config: DataConfig, *, with_text: bool = True) -> CitationGraph:
    """Read a citation folder.

    Args:
        folder: holds the two tables.
        config: how to read it.
        with_text: text becomes features where there are no others, which takes a while.

    Raises:
        NotFoundError: the folder or one of its tables is missing.
        DataError: something in it is wrong; the message names the file, the row, the value and how
            many rows have the same fault.
    """
    if not folder.exists():
        raise NotFoundError("no such folder", folder)
    if not folder.is_dir():
        raise DataError("a citation folder is a folder, this is a file", folder)
    papers = open_table(folder, "papers", ["id"])
    citations = open_table(folder, "citations", ["citing", "cited"])
    data = read_all(papers)
    columns = dict(zip(data.column_names, data.columns, strict=True))
    ids = _read_ids(papers, columns["id"])
    texts = {
        name: _read_text(papers, name, columns[name])
        for name in ("title", "abstract")
        if name in columns
    }
    day_N = _read_days(papers, columns)
    x_NF = read_features(folder, papers, columns)
    if x_NF is None and texts and with_text:
        x_NF = _features_of_text(texts, config)
    edge_2E, num_unknown = _read_citations(citations, ids, papers, config)
    return CitationGraph(
        edge_2E=edge_2E,
        id_N=_as_objects(ids.key),
        title_N=_as_objects(texts["title"]) if "title" in texts else None,
        x_NF=x_NF,
        day_N=day_N,
        counts={"unknown": num_unknown},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ids:
    key: Column
    """Ids in the order of the papers: int64 if all of them are whole numbers, else text."""

    are_rows: bool
    """True if each id is the row of its paper, so that no lookup table is needed."""

    def rows_of(self, key_B: Column) -> np.ndarray:
        """Look up the rows of papers by id, int32; -1 for an id that no paper has."""
        integer_B = as_integers(key_B) if pa.types.is_integer(self.key.type) else None
        if integer_B is None:
            row_B = pc.index_in(_trim(key_B), value_set=as_text(self.key))
        elif self.are_rows:
            # The ids of most large datasets: no hash lookup for every citation.
            row_B = np.asarray(integer_B)
            return np.where((row_B >= 0) & (row_B < len(self.key)), row_B, -1).astype(np.int32)
        else:
            row_B = pc.index_in(integer_B, value_set=self.key)
        return np.asarray(pc.fill_null(row_B, -1), dtype=np.int32)


def _trim(key: Column) -> Column:
    return pc.utf8_trim_whitespace(as_text(key))


def _as_objects(column: Column) -> np.ndarray:
    if pa.types.is_integer(column.type):
        return np.asarray(column)
    return np.asarray(column, dtype=object)


def _wrong_type(table: TableFile, name: str, column: Column, wanted: str) -> DataError:
    what = f"{table.path}: column {quote(name)} has the wrong type"
    return DataError(what, column.type, hint=f"it must hold {wanted}")


def _require_key(table: TableFile, name: str, column: Column) -> None:
    if not is_text(column.type) and not pa.types.is_integer(column.type):
        raise _wrong_type(table, name, column, "text or whole numbers")


def _read_ids(papers: TableFile, column: Column) -> _Ids:
    _require_key(papers, "id", column)
    text_N = _trim(column).combine_chunks()
    require_values(papers, "id", text_N)
    integer_N = as_integers(text_N)
    key_N = text_N if integer_N is None else integer_N
    if pc.count_distinct(key_N).as_py() < len(key_N):
        raise _repeated_id(papers, key_N)
    if len(key_N) < 2:
        raise DataError(
            f"{papers.path} has one paper",
            quote(key_N[0].as_py()),
            hint="a network needs at least two",
        )
    are_rows = integer_N is not None and np.array_equal(np.asarray(key_N), np.arange(len(key_N)))
    return _Ids(key=key_N, are_rows=are_rows)


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


def _read_text(papers: TableFile, name: str, column: Column) -> Column:
    if not is_text(column.type) and not pa.types.is_null(column.type):
        raise _wrong_type(papers, name, column, "text")
    return as_text(column)


def _read_days(papers: TableFile, columns: Mapping[str, Column]) -> np.ndarray | None:
    if "year" in columns and "date" in columns:
        raise DataError(
            f"{papers.path} has two columns of time", "year, date", hint="keep one of them"
        )
    if "year" in columns:
        return _days_of_years(papers, columns["year"])
    if "date" in columns:
        return _days_of_dates(papers, columns["date"])
    return None


def _days_of_years(papers: TableFile, column: Column) -> np.ndarray:
    if not is_text(column.type) and not is_number(column.type):
        raise _wrong_type(papers, "year", column, "whole numbers such as 1999")
    year_N = as_numbers(papers, "year", column)
    is_bad = ~((year_N >= 1) & (year_N <= 9999) & (year_N == np.floor(year_N)))
    if is_bad.any():
        raise papers.bad_value(
            "year", is_bad, column, "is not a year", hint="a whole number from 1 to 9999"
        )
    first_of_january_N = (year_N.astype(np.int64) - 1970).astype("datetime64[Y]")
    return first_of_january_N.astype("datetime64[D]").astype(np.int32)


def _days_of_dates(papers: TableFile, column: Column) -> np.ndarray:
    kind = column.type
    is_time = pa.types.is_date(kind) or pa.types.is_timestamp(kind)
    if not is_time and not is_text(kind):
        raise _wrong_type(papers, "date", column, "dates or text such as 1999-12-31")
    if not is_time:
        column = _trim(column)
    require_values(papers, "date", column)
    day_N = column if is_time else _parse_dates(papers, column)
    day_N = np.asarray(day_N.cast(pa.date32()).cast(pa.int32()))
    is_bad = (day_N < FIRST_DAY) | (day_N > LAST_DAY)
    if is_bad.any():
        raise papers.bad_value(
            "date", is_bad, column.cast(pa.string()), "is out of range", hint="years 1 to 9999"
        )
    return day_N


def _parse_dates(papers: TableFile, text_N: Column) -> Column:
    is_bad = ~as_mask(pc.match_substring_regex(text_N, ISO_DATE))
    if not is_bad.any():
        day_N = pc.utf8_slice_codeunits(text_N, 0, 10)
        # 1999 becomes 1999-01, and 1999-01 becomes 1999-01-01.
        for short in (r"^(\d{4})$", r"^(\d{4}-\d{2})$"):
            day_N = pc.replace_substring_regex(day_N, short, r"\1-01")
        try:
            return day_N.cast(pa.date32())
        except pa.ArrowInvalid:  # 30 February, which Arrow does not locate
            is_bad = np.array([not _is_date(text) for text in day_N.to_pylist()])
    raise papers.bad_value(
        "date", is_bad, text_N, "is not a date", hint="ISO dates, such as 1999-12-31"
    )


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _features_of_text(texts: Mapping[str, Column], config: DataConfig) -> np.ndarray | None:
    text_N = pc.binary_join_element_wise(*texts.values(), "\n")
    x_NF = tfidf_features(text_N.to_pylist(), width=config.text_dim, seed=config.seed)
    if x_NF is None:
        log("data", "text ignored, no two papers share a word")
    return x_NF


def _read_citations(
    citations: TableFile, ids: _Ids, papers: TableFile, config: DataConfig
) -> tuple[np.ndarray, int]:
    parts = []
    num_rows = 0
    first_unknown = None
    for batch in read_batches(citations, ["citing", "cited"]):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            _require_key(citations, name, column)
        edge_2B = np.stack([ids.rows_of(column) for column in batch.columns])
        if first_unknown is None and (edge_2B < 0).any():
            first_unknown = _first_unknown(batch, edge_2B, num_rows)
        parts.append(edge_2B[:, (edge_2B >= 0).all(axis=0)])
        num_rows += batch.num_rows
    edge_2E = np.concatenate(parts, axis=1)
    # Arrow keeps what it has read for its next allocation; here that is most of the memory in use.
    del parts
    pa.default_memory_pool().release_unused()
    num_unknown = num_rows - edge_2E.shape[1]
    if first_unknown and config.unknown == "error":
        row, name, key = first_unknown
        what = f"{citations.where(row)}: column {quote(name)} is not an id of {papers.path.name}"
        hint = "add the paper, or leave such citations out with --set data.unknown=drop"
        raise DataError(
            what,
            f"{quote(key)} ({num_unknown:,} such citation{'s' * (num_unknown > 1)})",
            hint=hint,
        )
    if num_unknown == num_rows:
        raise DataError(
            f"{citations.path} cites no paper of {papers.path.name}",
            f"{num_unknown:,} citations dropped",
        )
    return edge_2E, num_unknown


def _first_unknown(
    batch: pa.RecordBatch, edge_2B: np.ndarray, num_rows: int
) -> tuple[int, str, object]:
    row = int(np.argmax((edge_2B < 0).any(axis=0)))
    index = 0 if edge_2B[0, row] < 0 else 1
    return num_rows + row, batch.schema.names[index], batch.column(index)[row].as_py()
