"""The raw layout of the Open Graph Benchmark, in which ogbl-citation2 is packed.

    raw/          edge.csv.gz, num-node-list.csv.gz, num-edge-list.csv.gz, and optional
                  node-feat.csv.gz, node_year.csv.gz: tables without a header
    split/time/   train.pt, valid.pt, test.pt: source_node and target_node; the last two also
                  target_node_neg

OGB's own package loads the split by an unrestricted unpickler and asks on the terminal before it
downloads.

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
DESCRIPTION = f"OGB's raw layout holds {', '.join(REQUIRED)}"

BLOCK_BYTES = 16 << 20
LAST_YEAR = 9999


@dataclass(frozen=True, kw_only=True, slots=True)
class OgbTables:
    """Content of the tables under raw/, without the split."""

    edge_2E: np.ndarray
    """Rows of citing and cited paper, int32."""

    num_papers: int

    x_NF: np.ndarray | None
    """Features, float32, finite."""

    year_N: np.ndarray | None
    """Year of each paper, int32."""


def find_files(folder: Path) -> tuple[str, ...]:
    """List the files of a dataset in this layout, by relative path.

    Raises:
        NotFoundError: a required one is missing.
    """
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise NotFoundError("no such file", folder / name, hint=DESCRIPTION)
    return (*REQUIRED, *(name for name in OPTIONAL if (folder / name).is_file()))


def read_ogb(folder: Path) -> CitationGraph:
    """Read papers, citations and OGB's split; ids are OGB's node numbers.

    Args:
        folder: holds raw/ and split/.

    Raises:
        NotFoundError: a file is missing.
        DataError: a file is damaged, hostile, or does not agree with another.
    """
    tables = read_tables(folder / "raw")
    log("preprocess", "reading", file="split/time")
    edge_2E = _read_train(folder / "split" / "time" / "train.pt", tables.num_papers)
    valid = _read_held_out(folder / "split" / "time" / "valid.pt", tables.num_papers)
    test = _read_held_out(folder / "split" / "time" / "test.pt", tables.num_papers)
    _check_split_sizes(folder, tables, [edge_2E.shape[1], len(valid.source_P), len(test.source_P)])
    return CitationGraph(
        edge_2E=edge_2E,
        id_N=np.arange(tables.num_papers, dtype=np.int64),
        x_NF=tables.x_NF,
        day_N=None if tables.year_N is None else _first_of_january(tables.year_N),
        split=OwnSplit(valid=valid, test=test),
    )


def read_tables(raw: Path) -> OgbTables:
    """Read the tables under raw/; errors as for `read_ogb`."""
    num_papers = _read_count(raw / "num-node-list.csv.gz")
    num_citations = _read_count(raw / "num-edge-list.csv.gz")
    features = raw / "node-feat.csv.gz"
    years = raw / "node_year.csv.gz"
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
    """Read a table without header as [R, C]; C is that of the first line unless it is given."""
    if not path.is_file():
        raise NotFoundError(
            "no such file", path, hint="the dataset is not complete; download it again"
        )
    log("preprocess", "reading", file=path.name, rows=num_rows)
    with reading(path):
        reader = _open_csv(path, num_columns or _count_columns(path), pa.from_numpy_dtype(dtype))
        # Filled block by block: a whole Arrow table besides would double the memory.
        table_RC = np.empty((num_rows, len(reader.schema)), dtype)
        end = 0
        for batch in reader:
            start = end
            end += batch.num_rows
            if end <= num_rows:  # else only count, for the message
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
    source_E = _pop_rows(path, arrays, "source_node", num_papers, 1)
    target_E = _pop_rows(path, arrays, "target_node", num_papers, 1)
    _require_lengths(path, source_E, target_E)
    return np.stack([source_E, target_E])


def _read_held_out(path: Path, num_papers: int) -> HeldOut:
    arrays = read_arrays(path)
    source_P = _pop_rows(path, arrays, "source_node", num_papers, 1)
    target_P = _pop_rows(path, arrays, "target_node", num_papers, 1)
    negative_PK = _pop_rows(path, arrays, "target_node_neg", num_papers, 2)
    _require_lengths(path, source_P, target_P, negative_PK)
    return HeldOut(source_P=source_P, target_P=target_P, negative_PK=negative_PK)


def _pop_rows(
    path: Path, arrays: dict[str, np.ndarray], name: str, num_papers: int, num_axes: int
) -> np.ndarray:
    """Take an array of rows of papers out of a split, so that its int64 original can be freed."""
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


def _check_split_sizes(folder: Path, tables: OgbTables, lengths: list[int]) -> None:
    # OGB's edge list holds the training citations only; one with the held-out ones is fine too,
    # since the training citations are taken from the split.
    num_citations = tables.edge_2E.shape[1]
    if num_citations not in (lengths[0], sum(lengths)):
        value = f"{num_citations:,} against {lengths[0]:,} for training"
        raise DataError(f"{folder}: edge list and split do not agree", value)
