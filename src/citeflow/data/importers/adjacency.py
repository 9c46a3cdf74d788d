"""Adjacency matrices and edge indices in .npz, .npy and HDF5: row i cites column j.

Known are scipy's `save_npz` (CSR, CSC, COO), `adj_indices` and `adj_indptr` as in gnn-benchmark,
`edge_index` [2, E], a dense matrix `adj`, and in HDF5 also MATLAB's sparse matrices (`jc`, `ir`).
Objects in an .npz are pickles and are not read.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from citeflow.data.diagnosis import first_line
from citeflow.data.importers import base
from citeflow.data.importers.base import CERTAIN, Evidence, Importer, Notes, Stream
from citeflow.data.importers.source import Source, SourceFile, zip_names
from citeflow.errors import CiteflowError, DataError

HDF5 = b"\x89HDF\r\n\x1a\n"
NPY = b"\x93NUMPY"
BATCH_ROWS = 1 << 20
MAX_DENSE = 50_000
MIN_LIMIT_BYTES = 64 << 20
MAX_RATIO = 300
"""Bytes of an array per byte of its file, packed as well as HDF5 packs."""

PAPERS_PER_CITATION = 100
"""With more, numbers are ids and not rows, and only papers with citations count."""

FEATURES = ("x", "features", "attr_matrix", "feat")
YEARS = ("year", "years", "node_year")

Arrays = Mapping[str, Callable[[], np.ndarray]]


def _kind(file: SourceFile) -> str:
    if file.raw_head.startswith(HDF5):
        return "hdf5"
    if file.raw_head.startswith(NPY):
        return "npy"
    names = zip_names(file.path) if file.raw_head[:2] == b"PK" else []
    return "npz" if names and all(name.endswith(".npy") for name in names) else ""


def sniff(source: Source) -> Evidence | None:
    """Recognize one file of arrays."""
    file = source.only
    if file is None or not (kind := _kind(file)):
        return None
    return Evidence(CERTAIN, f"{file.path.name} holds arrays ({kind})")


def read(source: Source, notes: Notes) -> Stream:
    """Read the citations, and features and years where they are arrays of one row per paper."""
    file = source.only
    assert file is not None
    with _damage_as_data_error(file), _arrays(file, notes) as arrays:
        edge_2E, num_papers = _edges(file, arrays)
        if edge_2E.size and (edge_2E.min() < 0 or edge_2E.max() >= num_papers):
            raise DataError(
                f"{file.path}: not a row of a paper",
                edge_2E.max(),
                hint=f"there are {num_papers:,}",
            )
        has_rows = num_papers <= PAPERS_PER_CITATION * (edge_2E.shape[1] + 1000)
        if not has_rows:
            notes.remark("numbers are far apart: they are ids, not rows of papers")
        years = _take(arrays, YEARS, (num_papers,))
        dates = None if years is None else [str(int(year)) for year in years]
        if has_rows:
            yield base.papers(pa.array(np.arange(num_papers)).cast(pa.string()), date=dates)
        x_NF = _take(arrays, FEATURES, (num_papers, None))
        if has_rows and x_NF is not None:
            with np.errstate(over="ignore"):  # one that is not finite is found when it is read
                x_NF = x_NF.astype(np.float32)
            yield base.Features(x_NF)
    for start in range(0, edge_2E.shape[1], BATCH_ROWS):
        citing, cited = (
            pa.array(row).cast(pa.string()) for row in edge_2E[:, start : start + BATCH_ROWS]
        )
        yield base.citations(citing, cited)


@contextlib.contextmanager
def _damage_as_data_error(file: SourceFile) -> Iterator[None]:
    try:
        yield
    except CiteflowError:
        raise
    except Exception as error:  # of numpy and h5py, which raise whatever a damaged file leads to
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise DataError(f"{file.path}: arrays cannot be read", reason) from None


class _arrays:
    """Arrays of a file by name, each loaded when it is called for."""

    def __init__(self, file: SourceFile, notes: Notes) -> None:
        self._file = file
        self._notes = notes
        self._opened: Any = None

    def __enter__(self) -> Arrays:
        kind = _kind(self._file)
        if kind == "hdf5":
            h5py = base.library("h5py")
            self._opened = h5py.File(self._file.path, "r")
            found: dict[str, Callable[[], np.ndarray]] = {}

            def visit(name: str, node: Any) -> None:
                if isinstance(node, h5py.Dataset) and node.dtype.kind in "iufb":
                    found[name] = lambda: self._of_hdf5(node)

            self._opened.visititems(visit)
            return found
        if kind == "npy":
            return {"edge_index": lambda: np.load(self._file.path, allow_pickle=False)}
        self._opened = np.load(self._file.path, allow_pickle=False)
        return {name: self._loader(name) for name in self._opened.files}

    def _of_hdf5(self, node: Any) -> np.ndarray:
        # A damaged header may claim any size, and h5py would allocate and fill it.
        num_bytes = node.size * node.dtype.itemsize
        if num_bytes > MIN_LIMIT_BYTES + MAX_RATIO * self._file.path.stat().st_size:
            raise DataError(f"{self._file.path}: {node.name} is larger than the file", node.shape)
        array: np.ndarray = node[()]
        return array

    def _loader(self, name: str) -> Callable[[], np.ndarray]:
        def load() -> np.ndarray:
            array: np.ndarray = self._opened[name]
            return array

        return load

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()


def _find(arrays: Arrays, *ends: str) -> list[Callable[[], np.ndarray]] | None:
    """Return arrays of one group whose names end as given, such as `adj_indptr`."""
    for name in arrays:
        if name.endswith(ends[0]):
            group = name[: -len(ends[0])]
            if all(group + end in arrays for end in ends) and "attr" not in group:
                return [arrays[group + end] for end in ends]
    return None


def _edges(file: SourceFile, arrays: Arrays) -> tuple[np.ndarray, int]:
    for ends, make in (
        (("indptr", "indices"), _of_csr),
        (("jc", "ir"), _of_csc),
        (("row", "col"), lambda row, col: np.stack([row, col])),
        (("edge_index",), _of_edge_index),
        (("adj",), _of_dense),
        (("A",), _of_dense),
        (("adjacency",), _of_dense),
    ):
        if not (found := _find(arrays, *ends)):
            continue
        loaded = [load() for load in found]
        if any(each.dtype.kind not in "iufb" for each in loaded):
            continue
        edge_2E = make(*loaded)
        if ends[0] == "indptr" and _is_csc(arrays):
            edge_2E = edge_2E[::-1]
        if edge_2E.dtype.kind == "f" and not np.array_equal(edge_2E, np.floor(edge_2E)):
            raise DataError(f"{file.path}: rows of papers must be whole numbers", edge_2E.dtype)
        edge_2E = edge_2E.astype(np.int64)
        return edge_2E, _num_papers(arrays, edge_2E, loaded, ends[0])
    raise DataError(
        f"{file.path} has no adjacency matrix",
        ", ".join(list(arrays)[:8]) or "no arrays of numbers",
        hint="scipy.sparse.save_npz writes one, or name an array [2, E] edge_index",
    )


def _of_csr(indptr: np.ndarray, indices: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.diff(indptr.astype(np.int64))
    if (
        indptr.ndim != 1
        or indices.ndim != 1
        or (lengths < 0).any()
        or lengths.sum() != len(indices)
    ):
        raise DataError("not a sparse matrix", f"indptr {indptr.shape}, indices {indices.shape}")
    return np.stack([np.repeat(np.arange(len(indptr) - 1), lengths), indices])


def _of_csc(jc: np.ndarray, ir: np.ndarray) -> np.ndarray:
    return _of_csr(jc, ir)[::-1]


def _of_edge_index(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2 and 2 not in array.shape and array.shape[0] == array.shape[1]:
        return _of_dense(array)
    if array.ndim != 2 or 2 not in array.shape:
        raise DataError("edges must have the shape [2, E]", array.shape)
    return array if array.shape[0] == 2 else array.T


def _of_dense(array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or array.shape[0] != array.shape[1] or len(array) > MAX_DENSE:
        raise DataError("an adjacency matrix must be square", array.shape)
    return np.stack(np.nonzero(array))


def _is_csc(arrays: Arrays) -> bool:
    if "format" not in arrays:
        return False
    value = arrays["format"]()
    return value.size == 1 and value.item() in (b"csc", "csc")


def _num_papers(arrays: Arrays, edge_2E: np.ndarray, loaded: list[np.ndarray], kind: str) -> int:
    num = int(edge_2E.max()) + 1 if edge_2E.size else 0
    if kind in ("indptr", "jc"):
        num = max(num, len(loaded[0]) - 1)
    for name in ("shape", "adj_shape", "num_nodes"):
        if name in arrays:
            value = arrays[name]()
            if value.dtype.kind in "iu" and value.size and num <= int(value.flat[0]) < 2**31:
                num = int(value.flat[0])
    for name in (*FEATURES, *YEARS):
        if name in arrays:
            array = arrays[name]()
            if array.ndim and array.dtype.kind in "iuf" and num <= len(array):
                num = len(array)
    return num


def _take(
    arrays: Arrays, names: tuple[str, ...], shape: tuple[int | None, ...]
) -> np.ndarray | None:
    for name in names:
        if name in arrays:
            array = arrays[name]()
            if (
                array.ndim == len(shape)
                and array.shape[0] == shape[0]
                and array.dtype.kind in "iuf"
            ):
                return array
    return None


IMPORTER = Importer(name="adjacency", title="NPZ or HDF5 adjacency", sniff=sniff, read=read)
