"""The most likely missing citations of one paper.

Legend: N papers, K candidates.
"""

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from citeflow import files
from citeflow.errors import NotFoundError
from citeflow.evaluation import trained_model
from citeflow.evaluation.inference import PIECE, embed_all
from citeflow.evaluation.scoring import score_candidates, structural_features_of
from citeflow.graph.prepared import PreparedGraph
from citeflow.utils.logging import log

SEARCHED = 100_000
"""Identifiers that are compared with one that does not exist."""


def predict(model: Path, *, data_root: Path, paper: str, k: int = 10) -> list[dict[str, Any]]:
    """List the k papers that a paper most likely should cite and does not.

    Candidates are all papers that it does not cite and, where dates are known, that are no newer than it.

    Args:
        model: a TrainedModel.
        data_root: where the PreparedGraph that it was trained on lies.
        paper: its identifier in the dataset.
        k: length of the list.

    Returns:
        Records with rank, id, title and date (where known), logit and probability, the likeliest first. The
        probability is that of telling the paper from one random paper, not that of a citation among all papers.

    Raises:
        NotFoundError: there is no such model, graph or paper.
    """
    trained = trained_model.load(model)
    graph = PreparedGraph.open(find_graph(data_root, str(trained.manifest.inputs["PreparedGraph"])))
    ids, titles = graph.ids(), graph.titles()
    source = _row_of(paper, ids)
    candidate_K = _candidates(graph, source)
    log("predict", "scoring", paper=paper, candidates=len(candidate_K))
    structural = structural_features_of(graph, trained.config.model)
    embedding_NH = embed_all(trained.predictor, graph)
    pieces = [candidate_K[first : first + PIECE] for first in range(0, len(candidate_K), PIECE)]
    source_1 = np.array([source], dtype=np.int32)
    scored = [
        score_candidates(trained.predictor, embedding_NH, structural, source_1, piece[None])[0]
        for piece in pieces
    ]
    logit_K = np.concatenate(scored) if scored else np.empty(0, dtype=np.float32)
    best = np.lexsort((candidate_K, -logit_K))[:k]
    probability_K = trained.calibration(torch.from_numpy(logit_K)).sigmoid().numpy()
    return [
        _record(
            place,
            int(candidate_K[i]),
            float(logit_K[i]),
            float(probability_K[i]),
            graph,
            ids,
            titles,
        )
        for place, i in enumerate(best, start=1)
    ]


def find_graph(data_root: Path, sha256: str) -> Path:
    """Find a PreparedGraph by the digest of its content.

    Raises:
        NotFoundError: it is not in `data_root`.
    """
    for manifest in sorted((data_root / "prepared").glob(f"*/{files.MANIFEST}")):
        content = files.read_json(manifest)
        if isinstance(content, dict) and content.get("sha256") == sha256:
            return manifest.parent
    hint = "give the --data-root of the run, or run preprocess again"
    raise NotFoundError(
        "the graph that the model was trained on is not in", data_root / "prepared", hint=hint
    )


def _row_of(paper: str, ids: list[int] | list[str]) -> int:
    names = [str(each) for each in ids]
    try:
        return names.index(paper)
    except ValueError:
        close = difflib.get_close_matches(paper, names[:SEARCHED], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"ids look like {names[0]}"
        raise NotFoundError("no paper with this id", paper, hint=hint) from None


def _candidates(graph: PreparedGraph, source: int) -> np.ndarray:
    is_candidate_N = np.ones(graph.num_papers, dtype=bool)
    is_candidate_N[[source, *graph.references.row(source)]] = False
    for part in (graph.valid, graph.test):
        is_candidate_N[part.target_P[part.source_P == source]] = False
    if graph.day_N is not None:
        is_candidate_N &= graph.day_N <= graph.day_N[source]
    return np.flatnonzero(is_candidate_N).astype(np.int32)


def _record(
    place: int,
    paper: int,
    logit: float,
    probability: float,
    graph: PreparedGraph,
    ids: list[int] | list[str],
    titles: list[str] | None,
) -> dict[str, Any]:
    record: dict[str, Any] = {"rank": place, "id": ids[paper]}
    if titles is not None:
        record["title"] = titles[paper]
    if graph.day_N is not None:
        record["date"] = str(np.datetime64(int(graph.day_N[paper]), "D"))
    return {**record, "logit": logit, "probability": probability}
