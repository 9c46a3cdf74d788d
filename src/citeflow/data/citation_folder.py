"""The citation folder: the format in which users bring a network of their own.

`papers` (CSV, TSV or Parquet, CSV may be compressed) has a column `id` and may have `year` or
`date`, `title` and `abstract`; its other columns of numbers are features, as is `features.npy`
[papers, F], one row per paper in the order of the table. `citations` has the columns `citing` and
`cited`. Ids are compared as text, so that 7 and "7" are one paper and "07" is another.

What is taken for something else than it says, or left out, is a remark of the graph.

Legend: N papers, E citations, F features, B citations of one batch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from citeflow.config import DataConfig
from citeflow.data.bm25 import bm25_weights
from citeflow.data.citation_graph import CitationGraph
from citeflow.data.dates import Dates, find_time_columns, read_dates
from citeflow.data.diagnosis import quote
from citeflow.data.features import FEATURES, Degrees, Features, read_features
from citeflow.data.id_mismatch import MAX_UNKNOWN, Mismatch, find_mismatch
from citeflow.data.tables import (
    SHOWN_SUFFIXES,
    Column,
    TableFile,
    as_integers,
    as_text,
    find_tables,
    is_text,
    open_table,
    parts_of,
    read_all,
    read_batches,
    require_values,
    wrong_type,
)
from citeflow.data.text import TextModel, fit_text_model
from citeflow.errors import DataError, NotFoundError
from citeflow.utils.logging import log

TABLES = ("papers", "citations")
CITATION_COLUMNS = ("citing", "cited")
DESCRIPTION = (
    f"a citation folder holds papers and citations, each as {', '.join(SHOWN_SUFFIXES)}, "
    f"and may hold {FEATURES}"
)

WHOLE_FLOAT = r"^(-?\d+)\.0+$"
LARGEST_EXACT = 2**53
"""Whole numbers up to here are exact as floats."""

NUM_SHOWN = 3
"""Rows that are shown of those left out."""


def find_files(folder: Path) -> tuple[str, ...]:
    """List the files of a citation folder, by relative path; others in it are none of ours.

    Raises:
        NotFoundError: a table is missing.
        DataError: a table exists twice.
    """
    names: list[str] = []
    missing = []
    for table in TABLES:
        present = find_tables(folder, table)
        if len(present) > 1:
            what = f"{folder} has the same table twice"
            shown = ", ".join(path.name for path in present)
            raise DataError(what, shown, hint="keep one of them")
        if not present:
            missing.append(f"no {table} table")
        for path in present:
            names += [str(part.relative_to(folder)) for part in parts_of(path)]
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
    data = read_all(papers)
    columns = dict(zip(data.column_names, data.columns, strict=True))
    ids = _read_ids(papers, columns["id"])
    citations = _open_citations(folder, ids)
    texts = {
        name: _read_text(papers, name, columns[name])
        for name in ("title", "abstract")
        if name in columns
    }
    times = find_time_columns(columns)
    dates = _read_dates(papers, columns, times, config)
    linked = _read_citations(citations, ids, papers, config)
    others = _without(columns, [*times, *texts, "id"])
    features = read_features(folder, papers, others, Degrees(linked.edge_2E, len(ids.key)))
    x_NF = features.x_NF
    bm25_NV = None
    text_model = None
    if texts and with_text:
        text_N = pc.binary_join_element_wise(*texts.values(), "\n").to_pylist()
        bm25_NV = bm25_weights(text_N)
        if x_NF is None:
            text_model, x_NF = _features_of_text(text_N, config)
    remarks = [
        *_remarks_of_tables(papers, citations, ids, linked),
        *_remarks_of_columns(papers, times, dates, features),
        *linked.remarks,
    ]
    if dates and dates.remark:
        remarks.append(dates.remark)
    graph = CitationGraph(
        edge_2E=linked.edge_2E,
        id_N=_as_objects(ids.key),
        title_N=_as_objects(texts["title"]) if "title" in texts else None,
        x_NF=x_NF,
        text_model=text_model,
        bm25_NV=bm25_NV,
        day_N=dates.day_N if dates else None,
        is_dated_N=dates.is_dated_N if dates else None,
        counts={"unknown": linked.num_unknown},
        features=tuple(features.names),
        unused=features.unused,
    )
    graph, remark = _without_undated(graph, config)
    return replace(graph, remarks=(*remarks, *remark))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ids:
    key: Column
    """Ids in the order of the papers: int64 if all of them are whole numbers, else text."""

    are_rows: bool
    """True if each id is the row of its paper, so that no lookup table is needed."""

    is_ascii: bool = True
    """False if ids have to be compared in NFC, Unicode's composed form."""

    remark: str = ""

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


def _as_objects(column: Column) -> np.ndarray:
    if pa.types.is_integer(column.type):
        return np.asarray(column)
    return np.asarray(column, dtype=object)


def _without(columns: Mapping[str, Column], names: list[str]) -> dict[str, Column]:
    return {name: column for name, column in columns.items() if name not in names}


def _as_key(table: TableFile, name: str, column: Column) -> Column:
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


def _read_ids(papers: TableFile, column: Column) -> _Ids:
    given = column.type
    text_N = _trim(_as_key(papers, "id", column)).combine_chunks()
    require_values(papers, "id", text_N)
    remark = "" if is_text(given) or pa.types.is_integer(given) else f"of type {given}"
    if pc.all(pc.match_substring_regex(text_N, WHOLE_FLOAT)).as_py():
        text_N = pc.replace_substring_regex(text_N, WHOLE_FLOAT, r"\1")
        remark = "with .0"
    is_ascii = bool(pc.all(pc.string_is_ascii(text_N)).as_py())
    text_N = _trim(text_N, is_ascii=is_ascii)
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
    return _Ids(key=key_N, are_rows=are_rows, is_ascii=is_ascii, remark=remark)


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
        raise wrong_type(papers, name, column, "text")
    return as_text(column)


def _open_citations(folder: Path, ids: _Ids) -> TableFile:
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


def _read_dates(
    papers: TableFile, columns: Mapping[str, Column], times: list[str], config: DataConfig
) -> Dates | None:
    if "year" in columns and "date" in columns:
        raise DataError(
            f"{papers.path} has two columns of time", "year, date", hint="keep one of them"
        )
    if not times:
        return None
    name = times[0]
    return read_dates(papers, name, columns[name], without_date=config.without_date)


def _without_undated(graph: CitationGraph, config: DataConfig) -> tuple[CitationGraph, list[str]]:
    """Leave out the papers without a date, if the settings say so, and say how many there are."""
    if graph.is_dated_N is None:
        return graph, []
    row_D = np.flatnonzero(~graph.is_dated_N)
    what = f"{len(row_D):,} of {len(graph.id_N):,} papers have no date"
    shown = _and_more([quote(each) for each in graph.id_N[row_D[:NUM_SHOWN]].tolist()], len(row_D))
    if config.without_date == "undated":
        return graph, [f"{what}, they are neither test sources nor candidates: {shown}"]
    new_row_N = np.cumsum(graph.is_dated_N, dtype=np.int32) - 1
    is_kept_E = graph.is_dated_N[graph.edge_2E].all(axis=0)
    num_dropped = int(np.count_nonzero(~is_kept_E))
    kept = graph.is_dated_N
    graph = replace(
        graph,
        edge_2E=new_row_N[graph.edge_2E[:, is_kept_E]],
        id_N=graph.id_N[kept],
        title_N=None if graph.title_N is None else graph.title_N[kept],
        x_NF=None if graph.x_NF is None else graph.x_NF[kept],
        bm25_NV=None if graph.bm25_NV is None else graph.bm25_NV[kept],
        day_N=None if graph.day_N is None else graph.day_N[kept],
        is_dated_N=None,
        counts={**graph.counts, "without_date": num_dropped},
    )
    return graph, [f"{what}, left out with {num_dropped:,} citations: {shown}"]


def _and_more(shown: list[str], num: int) -> str:
    return ", ".join(shown) + (f" and {num - len(shown):,} more" if num > len(shown) else "")


def _remarks_of_tables(
    papers: TableFile, citations: TableFile, ids: _Ids, linked: "_Linked"
) -> list[str]:
    """Say how the tables were read where they are not what the format says."""
    remarks = [
        f"{table.path.name}: {', '.join(said)}"
        for table in (papers, citations)
        if (said := table.dialect.remarks())
    ]
    if ids.remark:
        remarks.append(f"{papers.path.name}: ids {ids.remark} are taken for whole numbers")
    if linked.are_floats:
        remarks.append(f"{citations.path.name}: ids of floats are taken for whole numbers")
    ignored = [name for name in citations.names if name not in CITATION_COLUMNS]
    if ignored:
        shown = ", ".join(map(quote, ignored))
        remarks.append(f"{citations.path.name}: columns ignored: {shown}")
    return remarks


def _remarks_of_columns(
    papers: TableFile, times: list[str], dates: Dates | None, features: Features
) -> list[str]:
    """Say in one line which columns are the date and the features, and which are not used."""
    said = []
    if dates is not None and dates.name not in ("year", "date"):
        said.append(f"the date is {quote(dates.name)}")
    if features.names:
        said.append(f"features are {_and_more(features.names[:10], len(features.names))}")
    unused = {"more dates": [quote(name) for name in times[1:]]} | features.unused
    said += [
        f"not used, {reason}: {_and_more(names[:10], len(names))}"
        for reason, names in unused.items()
        if names
    ]
    return [f"{papers.path.name}: {'; '.join(said)}"] if said else []


def _features_of_text(
    text_N: Sequence[str], config: DataConfig
) -> tuple[TextModel, np.ndarray] | tuple[None, None]:
    fitted = fit_text_model(text_N, width=config.text_dim, seed=config.seed)
    if fitted is None:
        log("data", "text ignored, no two papers share a word")
        return None, None
    return fitted


@dataclass(kw_only=True, slots=True)
class _Linked:
    """Citations as rows of papers, and those that were left out."""

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


def _read_citations(
    citations: TableFile, ids: _Ids, papers: TableFile, config: DataConfig
) -> _Linked:
    parts = []
    linked = _Linked()
    for batch in read_batches(citations, CITATION_COLUMNS):
        keys = [
            _as_key(citations, name, column)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        edge_2B = np.stack([ids.rows_of(key) for key in keys])
        linked.are_floats |= _are_floats(batch, ids)
        linked.add(batch, edge_2B)
        parts.append(edge_2B[:, (edge_2B >= 0).all(axis=0)])
    linked.edge_2E = np.concatenate(parts, axis=1)
    # Arrow keeps what it has read for its next allocation; here that is most of the memory in use.
    del parts
    pa.default_memory_pool().release_unused()
    if linked.num_unknown:
        _handle_unknown(linked, citations, papers, ids, config)
    return linked


def _are_floats(batch: pa.RecordBatch, ids: _Ids) -> bool:
    first = batch.column(0)
    if not is_text(first.type):
        return not pa.types.is_integer(first.type)
    is_whole = pa.types.is_integer(ids.key.type) and len(first) > 0
    return is_whole and bool(pc.match_substring_regex(as_text(first[:1]), WHOLE_FLOAT)[0].as_py())


def _handle_unknown(
    linked: _Linked, citations: TableFile, papers: TableFile, ids: _Ids, config: DataConfig
) -> None:
    """Refuse citations of papers that are not in the list, or say which are left out.

    Raises:
        DataError: they are not allowed, or there are no others.
    """
    mismatch = find_mismatch(linked.unknown, as_text(ids.key))
    if config.unknown == "error":
        raise _unknown_id(linked, citations, papers, mismatch)
    if linked.num_unknown == linked.num_rows:
        what = f"{citations.path} cites no paper of {papers.path.name}"
        first = linked.first_unknown[0][2]
        value = f"{linked.num_unknown:,} citations dropped, such as of {quote(first)}"
        if mismatch:
            raise DataError(what, f"{value}: {mismatch.describe()}", hint=mismatch.hint)
        raise DataError(what, value, hint=f"an id is {quote(ids.key[0].as_py())}")
    shown = [f"{quote(key)} ({_line(citations, row)})" for row, _, key in linked.first_unknown]
    text = f"{linked.num_unknown:,} of {linked.num_rows:,} citations dropped, of unknown papers"
    linked.remarks.append(f"{text}: {_and_more(shown, linked.num_unknown)}")
    if mismatch:
        linked.remarks.append(
            f"WARNING: the id of most of these {mismatch.describe()}: {mismatch.hint}"
        )


def _line(table: TableFile, row: int) -> str:
    return table.where(row).rpartition(", ")[2]


def _unknown_id(
    linked: _Linked, citations: TableFile, papers: TableFile, mismatch: Mismatch | None
) -> DataError:
    row, name, key = linked.first_unknown[0]
    num = linked.num_unknown
    value = f"{quote(key)} ({num:,} such citation{'s' * (num > 1)})"
    hint = "add the paper, or leave such citations out with --set data.unknown=drop"
    if mismatch:
        value = f"{value}; {quote(mismatch.example[0])} {mismatch.describe()}"
        hint = mismatch.hint
    elif re.fullmatch(r"\d(\.\d+)?[eE]\+?\d+", str(key)):
        hint = "a float in scientific notation has lost digits: write ids as text"
    elif num == linked.num_rows:
        hint = "none of them is: do both tables use the same kind of id?"
    what = f"{citations.where(row)}: column {quote(name)} is not an id of {papers.path.name}"
    return DataError(what, value, hint=hint)
