"""The PreparedGraph: a directory of arrays that every worker maps into memory and shares with the others.

Legend: N papers, E citations, F features, P held-out citations, K candidates.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from citeflow import files
from citeflow.config import DataConfig
from citeflow.data.citation_graph import CitationGraph, HeldOut
from citeflow.data.datasets import read_raw
from citeflow.data.features import release_pages
from citeflow.data.tables import reading
from citeflow.errors import CorruptError, DataError, NotFoundError
from citeflow.graph.csr import (
    Csr,
    build_csr,
    drop_self_and_duplicates,
    inverse,
    reordered,
    transpose,
    undirected,
)
from citeflow.graph.maps import map_array, map_csr, map_held_out
from citeflow.graph.reorder import order_by_locality
from citeflow.graph.split import Split, count_in_training, hold_out_at_random, hold_out_by_date
from citeflow.utils.logging import log

KIND = "PreparedGraph"
FORMAT = 3
"""Goes up when the same input makes other files, so that older ones are not taken for the new."""

BLOCK_ROWS = 1 << 16
"""Rows that are taken from a map at once."""

CHUNK_ROWS = 1 << 20
"""Rows of features that are put in order in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedGraph:
    """A citation graph ready for training; all arrays are read-only maps of files.

    Papers are not in the order of the raw dataset: those that cite each other have rows near each other (see
    `graph.locality`), so that a few thousand consecutive rows hold most of their own citations. `ids` tells which paper
    a row is; every row number in here, those of the split included, is of this order.
    """

    path: Path
    """Where it lies."""

    manifest: files.Manifest
    """Content of its manifest.json."""

    x_NF: np.ndarray | None
    """Features, float32."""

    day_N: np.ndarray | None
    """Date of each paper in days since 1970-01-01, int32."""

    references: Csr
    """Training citations, from the citing to the cited paper."""

    citations: Csr
    """Training citations, from the cited to the citing paper."""

    neighbors: Csr
    """Training citations in both directions, without repetition."""

    valid: HeldOut
    """Citations held out for validation."""

    test: HeldOut
    """Citations held out for the test."""

    @classmethod
    def open(cls, path: Path) -> "PreparedGraph":
        """Map a prepared graph into memory; nothing is read but the manifest.

        Raises:
            NotFoundError: there is none.
            CorruptError: a file is missing, was cut or is no array.
        """
        manifest = files.read_manifest(path, KIND)
        return cls(
            path=path,
            manifest=manifest,
            x_NF=map_array(path, "x") if "x.npy" in manifest.files else None,
            day_N=map_array(path, "day") if "day.npy" in manifest.files else None,
            references=map_csr(path, "references"),
            citations=map_csr(path, "citations"),
            neighbors=map_csr(path, "neighbors"),
            valid=map_held_out(path, "valid"),
            test=map_held_out(path, "test"),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Counts and names, as the manifest holds them."""
        facts: dict[str, Any] = self.manifest.facts
        return facts

    @property
    def num_papers(self) -> int:
        """Number of papers, N."""
        return self.references.num_rows

    def ids(self) -> list[int] | list[str]:
        """Identifier of each paper."""
        return self._paper_column("id")

    def titles(self) -> list[str] | None:
        """Title of each paper, if the dataset has titles."""
        file = self.path / "papers.parquet"
        with reading(file):
            names = pyarrow.parquet.read_schema(file).names
        return self._paper_column("title") if "title" in names else None

    def _paper_column(self, name: str) -> list[Any]:
        file = self.path / "papers.parquet"
        with reading(file):
            table = pyarrow.parquet.read_table(file, columns=[name])
        values: list[Any] = table.column(name).to_pylist()
        return values


def prepare(raw: Path, *, data_root: Path, config: DataConfig) -> Path:
    """Make the PreparedGraph of a raw dataset, or return the one that is there already; one that was cut is made anew.

    Args:
        raw: a RawDataset.
        data_root: the shared folder; the result lies in its `prepared`.

    Raises:
        DataError: the dataset is malformed or too small.
    """
    manifest = files.read_manifest(raw, "RawDataset")
    key = {"raw": manifest.sha256, "data": config.model_dump(), "format": FORMAT}
    folder = data_root / "prepared" / files.sha256_of_json(key)[:16]
    if _is_whole(folder):
        log("preprocess", "already there", path=folder)
        return folder
    log("preprocess", "reading", path=raw)
    write_prepared(
        read_raw(raw, config),
        folder,
        config=config,
        inputs={"RawDataset": manifest.sha256},
        dataset=str(manifest.facts.get("dataset", raw.name)),
    )
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        files.read_manifest(folder, KIND)
    except (NotFoundError, CorruptError):
        return False
    return True


def write_prepared(
    graph: CitationGraph, folder: Path, *, config: DataConfig, inputs: files.Json, dataset: str = ""
) -> None:
    """Clean and split a graph, and write it as a PreparedGraph that appears at once.

    Raises:
        DataError: it has one paper, no citation, or none that can be held out.
    """
    num_papers = len(graph.id_N)
    if num_papers < 2:
        raise DataError("not enough papers", num_papers, hint="a citation takes two")
    num_given = graph.edge_2E.shape[1]
    edge_2E, num_self, num_duplicates = drop_self_and_duplicates(graph.edge_2E, num_papers)
    graph = dataclasses.replace(graph, edge_2E=edge_2E)  # lets go of what was read
    log(
        "preprocess",
        "cleaned",
        papers=num_papers,
        citations=edge_2E.shape[1],
        self=num_self,
        repeated=num_duplicates,
    )
    if not edge_2E.shape[1]:
        raise DataError(
            "no citations to learn from",
            dataset,
            hint=f"{num_self} of {num_given} were self-citations",
        )
    train_2E, valid, test = _split(graph, edge_2E, config)
    references = build_csr(train_2E[0], train_2E[1], num_papers)
    facts = {
        "dataset": dataset,
        **_describe(graph, train_2E, valid, test),
        "held_out_in_training": count_in_training(references, valid, test),
        "self_citations": num_self,
        "duplicates": num_duplicates,
        "unknown": graph.counts.get("unknown", 0),
    }
    counts = {
        "training": train_2E.shape[1],
        "held_out": len(valid.source_P),
        "negatives": test.negative_PK.shape[1],
    }
    log("preprocess", "split", **counts)
    graph = dataclasses.replace(graph, edge_2E=np.empty((2, 0), np.int32))
    del edge_2E, train_2E
    neighbors = undirected(references)
    order_N = order_by_locality(neighbors, seed=config.seed)
    log("preprocess", "ordered")
    with files.new_directory(folder) as work:
        _save_csrs(work, references, neighbors, order_N)
        del references, neighbors
        _save_held_out(work, "valid", valid, order_N)
        _save_held_out(work, "test", test, order_N)
        del valid, test
        _save_papers(work, graph, order_N)
        files.write_manifest(work, KIND, inputs=inputs, facts=facts)
    log("preprocess", "written", path=folder)


def _describe(
    graph: CitationGraph, train_2E: np.ndarray, valid: HeldOut, test: HeldOut
) -> files.Json:
    by_protocol = "random" if graph.day_N is None else "date"
    return {
        "split": by_protocol if graph.split is None else "own",
        "num_papers": len(graph.id_N),
        "num_citations": train_2E.shape[1] + len(valid.source_P) + len(test.source_P),
        "num_training_citations": train_2E.shape[1],
        "num_valid": len(valid.source_P),
        "num_test": len(test.source_P),
        "num_negatives": test.negative_PK.shape[1],
        "num_features": 0 if graph.x_NF is None else graph.x_NF.shape[1],
        "dates": graph.day_N is not None,
        "later_citations": _count_later(train_2E, graph.day_N),
    }


def _split(graph: CitationGraph, edge_2E: np.ndarray, config: DataConfig) -> Split:
    num_papers = len(graph.id_N)
    if graph.split is not None:
        valid, test = graph.split.valid, graph.split.test
        _check_held_out("valid", valid, num_papers)
        _check_held_out("test", test, num_papers)
        return edge_2E, valid, test
    share, negatives, seed = config.holdout, config.eval_negatives, config.seed
    if graph.day_N is None:
        return hold_out_at_random(
            edge_2E, num_papers=num_papers, share=share, negatives=negatives, seed=seed
        )
    return hold_out_by_date(edge_2E, graph.day_N, share=share, negatives=negatives, seed=seed)


def _check_held_out(name: str, held_out: HeldOut, num_papers: int) -> None:
    shape = held_out.negative_PK.shape
    if not len(held_out.source_P) == len(held_out.target_P) == shape[0] or min(shape) < 1:
        raise DataError(f"{name} split is empty or its parts differ in length", shape)
    for array in (held_out.source_P, held_out.target_P, held_out.negative_PK):
        if array.min() < 0 or array.max() >= num_papers:
            wrong = array.min() if array.min() < 0 else array.max()
            raise DataError(
                f"{name} split names a paper that does not exist",
                wrong,
                hint=f"rows are 0 to {num_papers - 1}",
            )


def _count_later(edge_2E: np.ndarray, day_N: np.ndarray | None) -> int:
    return 0 if day_N is None else int(np.count_nonzero(day_N[edge_2E[1]] > day_N[edge_2E[0]]))


def _save_papers(work: Path, graph: CitationGraph, order_N: np.ndarray) -> None:
    columns = {"id": pa.array(graph.id_N[order_N])}
    if graph.title_N is not None:
        columns["title"] = pa.array(graph.title_N[order_N], type=pa.large_string())
    files.save_table(work / "papers.parquet", columns)
    if graph.x_NF is not None:
        files.save_blocks(
            work / "x.npy", _in_order(graph.x_NF, order_N), graph.x_NF.shape, np.float32
        )
    if graph.day_N is not None:
        files.save_array(work / "day.npy", graph.day_N[order_N].astype(np.int32))


def _in_order(x_NF: np.ndarray, order_N: np.ndarray) -> Iterator[np.ndarray]:
    """Features in another order, chunk by chunk; each chunk goes through a map once, from its front to its end."""
    for row_C in np.array_split(order_N, range(CHUNK_ROWS, len(order_N), CHUNK_ROWS)):
        x_CF = np.empty((len(row_C), x_NF.shape[1]), np.float32)
        ascending = np.argsort(row_C)
        for at_B in np.array_split(ascending, range(BLOCK_ROWS, len(row_C), BLOCK_ROWS)):
            x_CF[at_B] = x_NF[row_C[at_B]]
            release_pages(x_NF)
        yield x_CF


def _save_csrs(work: Path, references: Csr, neighbors: Csr, order_N: np.ndarray) -> None:
    _save_csr(work, "neighbors", reordered(neighbors, order_N))
    references = reordered(references, order_N)
    _save_csr(work, "references", references)
    _save_csr(work, "citations", transpose(references))


def _save_csr(work: Path, name: str, csr: Csr) -> None:
    files.save_array(work / f"{name}_ptr.npy", csr.ptr_N1)
    files.save_array(work / f"{name}_index.npy", csr.index_E)


def _save_held_out(work: Path, part: str, held_out: HeldOut, order_N: np.ndarray) -> None:
    place_N = inverse(order_N)
    files.save_array(work / f"{part}_source.npy", place_N[held_out.source_P])
    files.save_array(work / f"{part}_target.npy", place_N[held_out.target_P])
    shape = held_out.negative_PK.shape
    blocks = (
        place_N[held_out.negative_PK[start : start + BLOCK_ROWS]]
        for start in range(0, shape[0], BLOCK_ROWS)
    )
    files.save_blocks(work / f"{part}_negative.npy", blocks, shape, np.int32)
