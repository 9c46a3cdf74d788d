"""Reads a dataset in the raw layout of the Open Graph Benchmark, as ogbl-citation2 is packed.

    raw/     edge.csv.gz, num-node-list.csv.gz, num-edge-list.csv.gz, and optional node-feat.csv.gz, node_year.csv.gz;
             tables without a header
    split/time/     train.pt, valid.pt, test.pt: source_node and target_node; the last two also target_node_neg

Legend: N papers, E citations, F features, C columns, R rows, P held-out citations, K candidates.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from citeflow.data.citation_graph import CitationGraph, HeldOut, OwnSplit
from citeflow.data.safe_pickle import read_arrays
from citeflow.data.tables import reading
from citeflow.errors import DataError, NotFoundError
from citeflow.utils.logging import log

REQUIRED = (
    "raw/edge.csv.gz",
    "raw/num-node-list.csv.gz",
    "raw/num-edge-list.csv.gz",
    "split/time/train.pt",
    "split/time/valid.pt",
    "split/time/test.pt",
)
OPTIONAL = ("raw/node-feat.csv.gz", "raw/node_year.csv.gz")

BLOCK_BYTES = 16 << 20
LAST_YEAR = 9999


@dataclass(frozen=True, kw_only=True, slots=True)
class OgbTables:
    """What the tables under raw/ hold, before the split is looked at."""

    edge_2E: np.ndarray
    """Rows of citing and cited paper, int32."""

    num_papers: int

    x_NF: np.ndarray | None
    """Features, float32, finite."""

    year_N: np.ndarray | None
    """Year of each paper, int32."""


def read_ogb(folder: Path) -> CitationGraph:
    """Read the papers, and the citations as OGB's split divides them; ids are OGB's node numbers.

    Args:
        folder: holds raw/ and split/.

    Raises:
        NotFoundError: a file is missing.
        DataError: a file is damaged, hostile, or does not agree with another.
    """
    tables = read_tables(folder / "raw")
    log("preprocess", "reading", file="split/time")
    edge_2E = _read_train(folder / "split" / "time" / "train.pt", tables.num_papers)
    valid, test = (
        _read_held_out(folder / "split" / "time" / name, tables.num_papers)
        for name in ("valid.pt", "test.pt")
    )
    _require_all_split(folder, tables, [edge_2E.shape[1], len(valid.source_P), len(test.source_P)])
    return CitationGraph(
        edge_2E=edge_2E,
        id_N=np.arange(tables.num_papers, dtype=np.int64),
        x_NF=tables.x_NF,
        day_N=None if tables.year_N is None else _first_of_january(tables.year_N),
        split=OwnSplit(valid=valid, test=test),
    )


def read_tables(raw: Path) -> OgbTables:
    """Read the tables under raw/; arguments and errors as for `read_ogb`."""
    num_papers, num_citations = (
        _read_count(raw / f"num-{what}-list.csv.gz") for what in ("node", "edge")
    )
    features, years = raw / "node-feat.csv.gz", raw / "node_year.csv.gz"
    return OgbTables(
        edge_2E=_read_edges(raw / "edge.csv.gz", num_citations, num_papers),
        num_papers=num_papers,
        x_NF=_read_features(features, num_papers) if features.exists() else None,
        year_N=_read_years(years, num_papers) if years.exists() else None,
    )


def _read_count(path: Path) -> int:
    count = int(_read_numbers(path, 1, np.dtype(np.int64))[0, 0])
    if not 1 <= count <= np.iinfo(np.int32).max:
        raise DataError(f"{path}: not a usable count", count)
    return count


def _read_edges(path: Path, num_citations: int, num_papers: int) -> np.ndarray:
    edge_E2 = _read_numbers(path, num_citations, np.dtype(np.int32), num_columns=2)
    _require_rows(str(path), edge_E2, num_papers)
    return np.ascontiguousarray(edge_E2.T)


def _read_features(path: Path, num_papers: int) -> np.ndarray:
    x_NF = _read_numbers(path, num_papers, np.dtype(np.float32))
    finite_N = np.isfinite(x_NF).all(axis=1)
    if not finite_N.all():
        row = int(np.argmin(finite_N))
        raise DataError(
            f"{path}, line {row + 1}: not a finite number", x_NF[row][~np.isfinite(x_NF[row])][0]
        )
    return x_NF


def _read_years(path: Path, num_papers: int) -> np.ndarray:
    year_N = _read_numbers(path, num_papers, np.dtype(np.int32), num_columns=1)[:, 0]
    bad_N = (year_N < 0) | (year_N > LAST_YEAR)
    if bad_N.any():
        row = int(np.argmax(bad_N))
        raise DataError(f"{path}, line {row + 1}: not a year", year_N[row])
    return year_N


def _first_of_january(year_N: np.ndarray) -> np.ndarray:
    return (year_N - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int32)


def _read_numbers(
    path: Path, num_rows: int, dtype: np.dtype, *, num_columns: int | None = None
) -> np.ndarray:
    """A table without header, in blocks, as [R, C]; all columns of the first line where none are asked for."""
    if not path.is_file():
        raise NotFoundError(
            "no such file", path, hint="the dataset is not complete; download it again"
        )
    log("preprocess", "reading", file=path.name, rows=num_rows)
    with reading(path):
        reader = _open_csv(path, num_columns or _count_columns(path), pa.from_numpy_dtype(dtype))
        table_RC = np.empty((num_rows, len(reader.schema)), dtype)
        end = 0
        for batch in reader:
            start, end = end, end + batch.num_rows
            if end <= num_rows:
                for column, values in enumerate(batch.columns):
                    table_RC[start:end, column] = values.to_numpy()
    if end != num_rows:
        raise DataError(f"{path}: {num_rows:,} rows expected", f"found {end:,}")
    return table_RC


def _open_csv(path: Path, num_columns: int, kind: pa.DataType) -> pyarrow.csv.CSVStreamingReader:
    names = [str(column) for column in range(num_columns)]
    return pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, kind), null_values=[]
        ),
    )


def _count_columns(path: Path) -> int:
    with gzip.open(path) as file:
        return file.readline().count(b",") + 1


def _read_train(path: Path, num_papers: int) -> np.ndarray:
    arrays = read_arrays(path)
    source_E, target_E = (
        _entry(path, arrays, name, num_papers, 1) for name in ("source_node", "target_node")
    )
    _require_lengths(path, source_E, target_E)
    return np.stack([source_E, target_E])


def _read_held_out(path: Path, num_papers: int) -> HeldOut:
    arrays = read_arrays(path)
    source_P, target_P = (
        _entry(path, arrays, name, num_papers, 1) for name in ("source_node", "target_node")
    )
    negative_PK = _entry(path, arrays, "target_node_neg", num_papers, 2)
    _require_lengths(path, source_P, target_P, negative_PK)
    return HeldOut(source_P=source_P, target_P=target_P, negative_PK=negative_PK)


def _entry(
    path: Path, arrays: dict[str, np.ndarray], name: str, num_papers: int, num_axes: int
) -> np.ndarray:
    if name not in arrays:
        raise DataError(f"{path}: no {name}", f"it holds {', '.join(sorted(arrays)) or 'nothing'}")
    array = arrays.pop(name)
    if array.dtype.kind not in "iu" or array.ndim != num_axes or array.size == 0:
        raise DataError(
            f"{path}: {name} must hold rows of papers in {num_axes} axes",
            f"{array.dtype} {array.shape}",
        )
    _require_rows(f"{path}: {name}", array, num_papers)
    return array.astype(np.int32)


def _require_rows(where: str, row_any: np.ndarray, num_papers: int) -> None:
    for bound in (row_any.min(), row_any.max()):
        if not 0 <= bound < num_papers:
            raise DataError(
                f"{where}: not a row of a paper", bound, hint=f"there are {num_papers:,}, from 0 on"
            )


def _require_lengths(path: Path, *arrays: np.ndarray) -> None:
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise DataError(f"{path}: arrays of different lengths", lengths)


def _require_all_split(folder: Path, tables: OgbTables, lengths: list[int]) -> None:
    """OGB's edge list holds the training citations only; one with the held-out ones would do as well."""
    num_citations = tables.edge_2E.shape[1]
    if num_citations not in (lengths[0], sum(lengths)):
        value = f"{num_citations:,} against {lengths[0]:,} for training"
        raise DataError(f"{folder}: edge list and split do not agree", value)
