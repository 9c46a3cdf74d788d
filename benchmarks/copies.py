"""Write a PreparedGraph that holds another one several times, side by side.

    python benchmarks/copies.py GRAPH FOLDER --copies 9

So a graph can be trained on that preprocess would take hours for: nine copies of one with a tenth
of ogbn-papers100M's papers and citations have nearly its size. No citation leads from one copy to
another, so papers that cite each other lie as near as in a graph of the size of one copy; that is
to be told beside a figure. The held-out citations are those of the first copy.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from citeflow import files
from citeflow.graph.prepared import KIND, PreparedGraph
from citeflow.utils.progress import log_progress

BLOCK = 1 << 24
"""Values that are copied at once."""

ADJACENCIES = ("references", "citations", "neighbors", "similar")


def main() -> None:
    """Write, and print the folder and its counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--copies", type=int, default=9)
    options = parser.parse_args()
    graph = PreparedGraph.open(options.graph)
    with log_progress("copies", "writing"):
        write_copies(graph, options.folder, options.copies)
    written = PreparedGraph.open(options.folder)
    counts = {"papers": written.num_papers, "citations": len(written.references.col_E)}
    print(json.dumps({"path": str(options.folder), **counts}))


def write_copies(graph: PreparedGraph, folder: Path, copies: int) -> None:
    """Write a graph without titles and text."""
    num_papers = copies * graph.num_papers
    with files.new_directory(folder) as work:
        files.save_table(work / "papers.parquet", {"id": np.arange(num_papers)})
        for name in ("x", "day", "dated"):
            if f"{name}.npy" in graph.manifest.files:
                array = np.load(graph.path / f"{name}.npy", mmap_mode="r")
                shape = (num_papers, *array.shape[1:])
                blocks = (block for _ in range(copies) for block in _blocks(array))
                files.save_blocks(work / f"{name}.npy", blocks, shape, array.dtype)
        for name in ADJACENCIES:
            csr = getattr(graph, name)
            if csr is not None:
                end_N, row_E = csr.rowptr_N1[1:], csr.col_E
                zero = np.zeros(1, end_N.dtype)
                _write_shifted(work / f"{name}_ptr.npy", zero, end_N, copies, len(row_E))
                _write_shifted(
                    work / f"{name}_index.npy", row_E[:0], row_E, copies, graph.num_papers
                )
        for file in sorted(graph.path.glob("*.npy")):
            if file.name.startswith(("valid_", "test_", "hard_")):
                files.copy_file(file, work / file.name)
        facts = graph.facts.model_dump(mode="json")
        facts |= {"num_papers": num_papers}
        for name in ("num_citations", "num_training_citations"):
            facts[name] = copies * facts[name]
        files.write_manifest(
            work, KIND, inputs={KIND: graph.manifest.sha256, "copies": copies}, facts=facts
        )


def _write_shifted(
    path: Path, before: np.ndarray, array: np.ndarray, copies: int, step: int
) -> None:
    """Write an array several times behind another one, each time with more added."""

    def blocks() -> Iterator[np.ndarray]:
        yield before
        for copy in range(copies):
            for block in _blocks(array):
                yield block + array.dtype.type(copy * step)

    files.save_blocks(path, blocks(), (len(before) + copies * len(array),), array.dtype)


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(1, BLOCK // (array.shape[1] if array.ndim > 1 else 1))
    for first in range(0, len(array), rows):
        yield np.asarray(array[first : first + rows])


if __name__ == "__main__":
    main()
