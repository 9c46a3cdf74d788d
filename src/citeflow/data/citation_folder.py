"""The citation folder: the format in which users bring a network of their own.

`papers` (CSV, TSV or Parquet, CSV may be compressed) has a column `id` and may have `year` or
`date`, `title` and `abstract`; its other columns of numbers are features, as is `features.npy`
[papers, F], one row per paper in the order of the table. `citations` has the columns `citing` and
`cited`. Ids are compared as text, so that 7 and "7" are one paper and "07" is another.

What is taken for something else than it says, or left out, is a remark of the graph.

Legend: N papers, E citations, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from citeflow.config import DataConfig
from citeflow.data.bm25 import bm25_weights
from citeflow.data.citation_graph import CitationGraph
from citeflow.data.citation_table import (
    CITATION_COLUMNS,
    NUM_SHOWN,
    Citations,
    open_citations,
    read_citations,
)
from citeflow.data.dates import Dates, find_time_columns, read_dates
from citeflow.data.diagnosis import and_more, quote
from citeflow.data.features import FEATURES, Degrees, Features, read_features
from citeflow.data.paper_ids import PaperIds, read_ids
from citeflow.data.tables import (
    SHOWN_SUFFIXES,
    Column,
    TableFile,
    as_text,
    find_tables,
    is_text,
    open_table,
    parts_of,
    read_all,
    wrong_type,
)
from citeflow.data.text import TextModel, fit_text_model
from citeflow.errors import DataError, NotFoundError
from citeflow.utils.logging import log

TABLES = ("papers", "citations")
DESCRIPTION = (
    f"a citation folder holds papers and citations, each as {', '.join(SHOWN_SUFFIXES)}, "
    f"and may hold {FEATURES}"
)


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
    ids = read_ids(papers, columns["id"])
    citation_table = open_citations(folder, ids)
    texts = {
        name: _read_text(papers, name, columns[name])
        for name in ("title", "abstract")
        if name in columns
    }
    times = find_time_columns(columns)
    dates = _read_dates(papers, columns, times, config)
    citations = read_citations(citation_table, ids, papers, config)
    others = _without(columns, [*times, *texts, "id"])
    features = read_features(folder, papers, others, Degrees(citations.edge_2E, len(ids.key)))
    x_NF = features.x_NF
    bm25_NV = None
    text_model = None
    if texts and with_text:
        text_N = pc.binary_join_element_wise(*texts.values(), "\n").to_pylist()
        bm25_NV = bm25_weights(text_N)
        if x_NF is None:
            text_model, x_NF = _features_of_text(text_N, config)
    remarks = [
        *_remarks_of_tables(papers, citation_table, ids, citations),
        *_remarks_of_columns(papers, times, dates, features),
        *citations.remarks,
    ]
    if dates and dates.remark:
        remarks.append(dates.remark)
    graph = CitationGraph(
        edge_2E=citations.edge_2E,
        id_N=_as_objects(ids.key),
        title_N=_as_objects(texts["title"]) if "title" in texts else None,
        x_NF=x_NF,
        text_model=text_model,
        bm25_NV=bm25_NV,
        day_N=dates.day_N if dates else None,
        is_dated_N=dates.is_dated_N if dates else None,
        counts={"unknown": citations.num_unknown},
        features=tuple(features.names),
        unused=features.unused,
    )
    graph, remark = _without_undated(graph, config)
    return replace(graph, remarks=(*remarks, *remark))


def _as_objects(column: Column) -> np.ndarray:
    if pa.types.is_integer(column.type):
        return np.asarray(column)
    return np.asarray(column, dtype=object)


def _without(columns: Mapping[str, Column], names: list[str]) -> dict[str, Column]:
    return {name: column for name, column in columns.items() if name not in names}


def _read_text(papers: TableFile, name: str, column: Column) -> Column:
    if not is_text(column.type) and not pa.types.is_null(column.type):
        raise wrong_type(papers, name, column, "text")
    return as_text(column)


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
    shown = and_more([quote(each) for each in graph.id_N[row_D[:NUM_SHOWN]].tolist()], len(row_D))
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


def _remarks_of_tables(
    papers: TableFile, citation_table: TableFile, ids: PaperIds, citations: Citations
) -> list[str]:
    """Say how the tables were read where they are not what the format says."""
    remarks = [
        f"{table.path.name}: {', '.join(said)}"
        for table in (papers, citation_table)
        if (said := table.dialect.remarks())
    ]
    if ids.remark:
        remarks.append(f"{papers.path.name}: ids {ids.remark} are taken for whole numbers")
    if citations.are_floats:
        remarks.append(f"{citation_table.path.name}: ids of floats are taken for whole numbers")
    ignored = [name for name in citation_table.names if name not in CITATION_COLUMNS]
    if ignored:
        shown = ", ".join(map(quote, ignored))
        remarks.append(f"{citation_table.path.name}: columns ignored: {shown}")
    return remarks


def _remarks_of_columns(
    papers: TableFile, times: list[str], dates: Dates | None, features: Features
) -> list[str]:
    """Say in one line which columns are the date and the features, and which are not used."""
    said = []
    if dates is not None and dates.name not in ("year", "date"):
        said.append(f"the date is {quote(dates.name)}")
    if features.names:
        said.append(f"features are {and_more(features.names[:10], len(features.names))}")
    unused = {"more dates": [quote(name) for name in times[1:]]} | features.unused
    said += [
        f"not used, {reason}: {and_more(names[:10], len(names))}"
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
