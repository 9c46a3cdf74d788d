"""Predict the missing citations of one paper.

Legend: N papers, K candidates.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from citeflow import files
from citeflow.errors import NotFoundError
from citeflow.evaluation import trained_model
from citeflow.evaluation.inference import CHUNK, embed_all
from citeflow.evaluation.scoring import build_structural_features, score_candidates
from citeflow.graph.prepared import PreparedGraph
from citeflow.utils.logging import log

SEARCHED = 100_000
"""Identifiers that are compared with one that does not exist."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One paper that is probably missing from a list of references."""

    rank: int
    """1 for the likeliest."""
    id: int | str
    title: str | None
    date: str | None
    """ISO date, where it is known."""
    logit: float
    probability: float
    """That of telling the paper from one random paper, not that of a citation among all papers."""

    def to_json(self) -> dict[str, int | str | float]:
        """Return plain values, without those that are unknown."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


def predict(model: Path, *, data_root: Path, paper: str, k: int = 10) -> list[Prediction]:
    """List the k papers that a paper most likely should cite and does not.

    Candidates are all papers that it does not cite and, where dates are known, that are no newer.

    Args:
        model: a TrainedModel.
        data_root: where the PreparedGraph that it was trained on lies.
        paper: its identifier in the dataset.
        k: length of the list.

    Raises:
        NotFoundError: there is no such model, graph or paper.
    """
    trained = trained_model.load(model)
    graph = PreparedGraph.open(find_graph(data_root, str(trained.manifest.inputs["PreparedGraph"])))
    ids = graph.ids()
    titles = graph.titles()
    source = _find_row(paper, ids)
    candidate_K = _candidates(graph, source)
    log("predict", "scoring", paper=paper, candidates=len(candidate_K))
    structural = build_structural_features(graph, trained.config.model)
    embedding_NH = embed_all(trained.model, graph)
    source_1 = np.array([source], dtype=np.int32)
    logit_K = np.empty(len(candidate_K), dtype=np.float32)
    for first in range(0, len(candidate_K), CHUNK):
        candidate_1K = candidate_K[None, first : first + CHUNK]
        logit_K[first : first + CHUNK] = score_candidates(
            trained.model, embedding_NH, structural, source_1, candidate_1K
        )[0]
    probability_K = trained.calibration(torch.from_numpy(logit_K)).sigmoid().numpy()
    predictions = []
    for rank, i in enumerate(np.lexsort((candidate_K, -logit_K))[:k], start=1):
        row = int(candidate_K[i])
        predictions.append(
            Prediction(
                rank=rank,
                id=ids[row],
                title=titles[row] if titles is not None else None,
                date=_date(graph, row),
                logit=float(logit_K[i]),
                probability=float(probability_K[i]),
            )
        )
    return predictions


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


def _find_row(paper: str, ids: list[int] | list[str]) -> int:
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
    for held_out in (graph.valid, graph.test):
        is_candidate_N[held_out.target_P[held_out.source_P == source]] = False
    if graph.day_N is not None:
        is_older_N = graph.day_N <= graph.day_N[source]
        if graph.is_dated_N is not None:
            is_older_N |= ~graph.is_dated_N | (not graph.is_dated_N[source])
        is_candidate_N &= is_older_N
    return np.flatnonzero(is_candidate_N).astype(np.int32)


def _date(graph: PreparedGraph, row: int) -> str | None:
    if graph.day_N is None or (graph.is_dated_N is not None and not graph.is_dated_N[row]):
        return None
    return str(np.datetime64(int(graph.day_N[row]), "D"))
