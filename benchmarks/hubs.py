"""Measure the structural features of a graph in which all papers cite one, and half of them each of
four more.

    python benchmarks/hubs.py [--papers 100000]
    python benchmarks/hubs.py [--papers 100000] --write FOLDER

The second writes the graph as a citation folder, for `citeflow run` and `benchmarks/memory.py`.

Each measurement is a process of its own, as the peak of resident memory is that of a process.
Prints one JSON object a line: MiB above what the graph takes, seconds of CPU, and a digest.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from citeflow import files
from citeflow.graph.csr import Csr, build_csr, to_undirected, transpose
from citeflow.models.structural import StructuralFeatures

SHARED_CITATIONS = 8
"""Citations of each paper besides the hubs."""

FIRST_YEAR = 1990
YEARS = 30
FEATURES = 32
"""Of the citation folder."""

PAIRS = {"validation": (130, 1001), "calibration": (200, 2)}
"""Sources, and candidates of each."""


def citations_with_hubs(num_papers: int, rng: np.random.Generator) -> Csr:
    """Return references of papers in the order of their dates."""
    source_E = np.repeat(np.arange(10, num_papers), SHARED_CITATIONS)
    target_E = (rng.random(len(source_E)) ** 0.7 * source_E).astype(np.int64)
    edges = [np.stack([source_E, target_E])]
    for hub, share in enumerate((1, 0.5, 0.5, 0.5, 0.5)):
        citing = np.arange(hub + 1, num_papers)
        citing = citing[rng.random(len(citing)) < share]
        edges.append(np.stack([citing, np.full_like(citing, hub)]))
    source_E, target_E = np.concatenate(edges, axis=1)
    return build_csr(source_E, target_E, num_papers)


def write_folder(folder: Path, num_papers: int) -> None:
    """Write the graph as a citation folder, with features that say nothing."""
    rng = np.random.default_rng(0)
    references = citations_with_hubs(num_papers, rng)
    source_E = np.repeat(np.arange(num_papers), references.degree_N)
    year_N = FIRST_YEAR + np.arange(num_papers) * YEARS // num_papers
    x_NF = rng.standard_normal((num_papers, FEATURES), dtype=np.float32)
    with files.new_directory(folder) as work:
        files.save_table(work / "papers.parquet", {"id": np.arange(num_papers), "year": year_N})
        files.save_table(
            work / "citations.parquet", {"citing": source_E, "cited": references.col_E}
        )
        files.save_array(work / "features.npy", x_NF)


def measure(num_papers: int, what: str) -> dict[str, float | str]:
    """Compute the features of a training step, or of sources with candidates of their own."""
    rng = np.random.default_rng(0)
    references = citations_with_hubs(num_papers, rng)
    structural = StructuralFeatures(
        references,
        transpose(references),
        to_undirected(references),
        (np.arange(num_papers) * 10_000 // num_papers).astype(np.int32),
    )
    newer = np.arange(num_papers // 2, num_papers)
    before_mib, began_s = _peak_mib(), time.process_time()
    if what == "step":
        source_S = np.sort(rng.choice(newer, 192, replace=False))
        rows = [references.row(source)[::4] for source in source_S.tolist()]
        index_P = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        candidate_K = np.sort(rng.choice(num_papers, 256, replace=False))
        found = [*structural.for_batch(source_S, index_P, np.concatenate(rows), candidate_K)]
    else:
        shape = PAIRS[what]
        source_P = np.sort(rng.choice(newer, shape[0], replace=False))
        candidate_PK = rng.integers(0, num_papers // 2, shape)
        found = [structural.for_candidates(source_P, candidate_PK)]
    return {
        "what": what,
        "peak_mib": round(_peak_mib() - before_mib),
        "cpu_s": round(time.process_time() - began_s, 1),
        "sha256": hashlib.sha256(b"".join(each.tobytes() for each in found)).hexdigest()[:12],
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure each, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--papers", type=int, default=100_000, help="size of the graph")
    parser.add_argument("--what", choices=["step", *PAIRS], help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help="folder for the graph, instead of measurements")
    options = parser.parse_args()
    if options.write:
        write_folder(options.write, options.papers)
        return
    if options.what:
        print(json.dumps(measure(options.papers, options.what)))
        return
    for what in ("step", *PAIRS):
        subprocess.run([sys.executable, *sys.argv, "--what", what], check=True)


if __name__ == "__main__":
    main()
