"""Ask for papers of the test as if they were new, and count how often what they cite is found.

    python benchmarks/new_papers.py RUN --data-root DIR [--papers 100] [--k 20]

All citations from and to these papers are taken out of a copy of the graph, and their features, so
that nothing is similar to them; their features, dates and training references are given as a user
would give them. Prints one JSON object for each way of
asking: recall@k of the held-out test citation among all older papers, and seconds per answer, all
papers in one batch and one at a time. `stored` asks for the same papers of the whole graph.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation import trained_model
from citeflow.evaluation.answers import Answer, Wanted
from citeflow.evaluation.predict import find_graph, predict
from citeflow.evaluation.queries import QueryPaper
from citeflow.evaluation.scoring import sample_held_out
from citeflow.files import MANIFEST, copy_directory
from citeflow.graph.csr import build_csr, to_undirected, transpose
from citeflow.graph.prepared import PreparedGraph

LONG = 100
"""Answers asked for: enough that k are left without what the paper cites, and the copies."""

SINGLE = 5
"""Papers that are asked for one at a time, to time it."""


def write_without(graph: PreparedGraph, paper_S: np.ndarray, root: Path) -> None:
    """Copy a graph, without the features of some papers and all that links them, elsewhere."""
    folder = root / "prepared" / graph.path.name
    copy_directory(graph.path, folder)
    source_E, target_E = graph.references.edges()
    is_kept_E = ~np.isin(source_E, paper_S) & ~np.isin(target_E, paper_S)
    references = build_csr(source_E[is_kept_E], target_E[is_kept_E], graph.num_papers)
    adjacencies = {
        "references": references,
        "citations": transpose(references),
        "neighbors": to_undirected(references),
    }
    if graph.similar is not None:
        source_E, target_E = graph.similar.edges()
        is_kept_E = ~np.isin(source_E, paper_S) & ~np.isin(target_E, paper_S)
        adjacencies["similar"] = build_csr(
            source_E[is_kept_E], target_E[is_kept_E], graph.num_papers
        )
    if graph.x_NF is not None:
        x_NF = np.array(graph.x_NF)
        x_NF[paper_S] = 0
        np.save(folder / "x.npy", x_NF)
    for name, csr in adjacencies.items():
        np.save(folder / f"{name}_ptr.npy", csr.rowptr_N1)
        np.save(folder / f"{name}_index.npy", csr.col_E)
    # The digest of the whole stays: it is what the model names.
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, entry in manifest["files"].items():
        entry["bytes"] = (folder / name).stat().st_size
    (folder / MANIFEST).write_text(json.dumps(manifest))


def describe(
    graph: PreparedGraph, row: int, ids: Sequence[object], *, features: bool, references: bool
) -> QueryPaper:
    """Describe a paper of the graph as its author would."""
    assert graph.x_NF is not None
    cited = graph.references.row(row).tolist() if references else []
    return QueryPaper(
        id=str(ids[row]),
        features=tuple(graph.x_NF[row].tolist()) if features else None,
        references=tuple(str(ids[each]) for each in cited),
        date="" if graph.day_N is None else str(np.datetime64(int(graph.day_N[row]), "D")),
    )


def recall(answers: list[Answer], targets: list[str], others: list[set[str]], k: int) -> float:
    """Share of the targets among the first k that are not to be counted."""
    hits = 0
    for answer, target, other in zip(answers, targets, others, strict=True):
        found = [str(each.id) for each in answer.predictions if str(each.id) not in other]
        hits += target in found[:k]
    return hits / len(targets)


def main() -> None:
    """Measure each way of asking."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--papers", type=int, default=100)
    parser.add_argument("--k", type=int, default=20)
    args = parser.parse_args()
    model = args.run / "model"
    sha256 = str(trained_model.load(model).manifest.inputs["PreparedGraph"])
    graph = PreparedGraph.open(find_graph(args.data_root, sha256))
    sample = sample_held_out(graph.test, most=args.papers)
    rows = sample.source_P.tolist()
    ids = [str(each) for each in graph.ids()]
    targets = [ids[row] for row in sample.target_P.tolist()]
    copies = {ids[row] for row in rows}
    others = [
        copies
        | {ids[each] for each in graph.valid.target_P[graph.valid.source_P == row].tolist()}
        | {ids[each] for each in graph.references.row(row)}
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as scratch:
        write_without(graph, sample.source_P, Path(scratch))
        asked = {
            "features and references": (True, True),
            "references": (False, True),
            "features": (True, False),
        }
        for name, (features, references) in asked.items():
            queries = [
                describe(graph, row, ids, features=features, references=references) for row in rows
            ]
            report(name, model, queries, Path(scratch), targets, others, args.k)
    stored = [QueryPaper(paper=ids[row]) for row in rows]
    report("stored", model, stored, args.data_root, targets, others, args.k)
    print(json.dumps({"asked": "cosine of features", **cosine(graph, sample, others, ids, args.k)}))


@contextlib.contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Yield what holds the seconds of a block, on the clock and of CPU, when it has ended."""
    taken: dict[str, float] = {}
    start = time.perf_counter(), time.process_time()
    yield taken
    taken |= {"s": time.perf_counter() - start[0], "cpu_s": time.process_time() - start[1]}


def report(
    name: str,
    model: Path,
    queries: list[QueryPaper],
    data_root: Path,
    targets: list[str],
    others: list[set[str]],
    k: int,
) -> None:
    """Print recall and times of one way of asking."""
    wanted = Wanted(k=LONG, exclude_cited=False)
    answers = list(predict(model, queries, data_root=data_root, wanted=wanted))
    with timed() as batch:
        list(predict(model, queries, data_root=data_root))
    with timed() as single:
        for query in queries[:SINGLE]:
            list(predict(model, [query], data_root=data_root))
    values = {
        "asked": name,
        "papers": len(queries),
        f"recall@{k}": round(recall(answers, targets, others, k), 3),
        "batch": {unit: round(value / len(queries), 4) for unit, value in batch.items()},
        "single": {unit: round(value / len(queries[:SINGLE]), 3) for unit, value in single.items()},
    }
    print(json.dumps(values), flush=True)


def cosine(
    graph: PreparedGraph, sample: HeldOut, others: list[set[str]], ids: list[str], k: int
) -> dict[str, float]:
    """Recall of the papers whose features are nearest, among all that are no newer."""
    assert graph.x_NF is not None
    assert graph.day_N is not None
    x_NF = np.asarray(graph.x_NF, dtype=np.float64)
    x_NF = x_NF / np.maximum(np.linalg.norm(x_NF, axis=1, keepdims=True), 1e-12)
    hits = 0
    pairs = zip(sample.source_P.tolist(), sample.target_P.tolist(), others, strict=True)
    for source, target, other in pairs:
        score_N = np.where(graph.day_N <= graph.day_N[source], x_NF @ x_NF[source], -np.inf)
        score_N[graph.references.row(source)] = -np.inf
        order = [row for row in np.argsort(-score_N)[:LONG].tolist() if ids[row] not in other]
        hits += target in order[:k]
    return {f"recall@{k}": round(hits / len(others), 3)}


if __name__ == "__main__":
    main()
