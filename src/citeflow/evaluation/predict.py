"""Predict the missing citations of papers, with reasons: of the graph, or of new ones.

Legend: N papers, K candidates, H hidden channels.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from citeflow import files
from citeflow.data.dates import FIRST_DAY
from citeflow.errors import CiteflowError, ConfigError, DataError, NotFoundError
from citeflow.evaluation import queries as reading
from citeflow.evaluation import trained_model
from citeflow.evaluation.inference import CHUNK, embed_all
from citeflow.evaluation.queries import NewPaper, PaperIndex, QueryPaper, parse_day
from citeflow.evaluation.reasons import Kind, Names, Reason, find_reasons
from citeflow.evaluation.scoring import score_candidates
from citeflow.evaluation.trained_model import TrainedModel
from citeflow.graph.prepared import PreparedGraph
from citeflow.graph.similar import unit_features
from citeflow.graph.views import with_papers
from citeflow.models.structural import StructuralFeatures
from citeflow.utils.logging import log


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

    is_cited: bool
    """It is cited already, which is listed with `exclude_cited=False` only."""

    reasons: tuple[Reason, ...]
    """At most three, the strongest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The predictions for one paper."""

    query: QueryPaper
    predictions: tuple[Prediction, ...] = ()
    remarks: tuple[str, ...] = ()
    """What was left out, and where the model is out of its depth."""

    error: CiteflowError | None = None
    """Why there are no predictions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which papers are listed."""

    k: int = 10
    """Length of the list."""

    exclude_cited: bool = True
    """Leave out what the paper cites already, its held-out citations included."""

    since: str = ""
    """Date or year that candidates are not older than."""


def predict(
    model: Path,
    queries: Sequence[QueryPaper],
    *,
    data_root: Path,
    wanted: Wanted | None = None,
) -> Iterator[Answer]:
    """Rank for each paper those that it most likely should cite and does not.

    Candidates are all papers of the graph that it does not cite and, where dates are known, that
    are no newer. All papers are embedded once for all queries. New papers do not see each other,
    and are not seen by the papers of the graph, so no answer depends on another query.

    Args:
        model: a TrainedModel.
        queries: papers of the graph, or new ones.
        data_root: where the PreparedGraph that it was trained on lies.
        wanted: length of the list, and what is in it.

    Returns:
        An answer for each query, in their order, each computed when it is taken. That of a query
        that cannot be answered has the error.

    Raises:
        NotFoundError: there is no such model or graph.
        ConfigError: `since` is no date, or papers have none.
    """
    wanted = wanted or Wanted()
    trained = trained_model.load(model)
    graph = PreparedGraph.open(find_graph(data_root, str(trained.manifest.inputs["PreparedGraph"])))
    index = PaperIndex(graph)
    since = _since(graph, wanted.since)
    found = reading.read_all(queries, graph, index)
    errors = [each if isinstance(each, CiteflowError) else None for each in found]
    if None not in errors:  # nothing to embed for
        return (
            Answer(query=query, error=error) for query, error in zip(queries, errors, strict=True)
        )
    new = [each for each in found if isinstance(each, NewPaper)]
    log("predict", "embedding", papers=graph.num_papers + len(new), new=len(new))
    ranking = _Ranking(trained, graph, index, new)
    return _answers(ranking, queries, found, wanted, since)


def _answers(
    ranking: "_Ranking",
    queries: Sequence[QueryPaper],
    found: Sequence[int | NewPaper | CiteflowError],
    wanted: Wanted,
    since: int | None,
) -> Iterator[Answer]:
    new_rows = itertools.count(ranking.num_papers)
    for query, each in zip(queries, found, strict=True):
        if isinstance(each, CiteflowError):
            yield Answer(query=query, error=each)
            continue
        row = each if isinstance(each, int) else next(new_rows)
        try:
            yield ranking.answer(query, each, row, wanted, since)
        except CiteflowError as error:
            yield Answer(query=query, error=error)


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


class _Ranking:
    """Everything that is computed once for all queries."""

    def __init__(
        self,
        trained: TrainedModel,
        graph: PreparedGraph,
        index: PaperIndex,
        new: Sequence[NewPaper],
    ) -> None:
        self._trained = trained
        self.num_papers = graph.num_papers
        self._index = index
        # One that has the mean features of its references is not like any paper by itself.
        self._own = [paper.has_own_features for paper in new]
        self._kind: Kind = "similar_features" if graph.text_model() is None else "similar_text"
        self._graph = with_papers(graph, *reading.stack(new)) if new else graph
        self._structural: StructuralFeatures = trained.structural_features(self._graph)
        self._embedding_NH: Tensor = embed_all(trained.model, self._graph)

    def answer(
        self,
        query: QueryPaper,
        source: int | NewPaper,
        row: int,
        wanted: Wanted,
        since: int | None,
    ) -> Answer:
        """Rank the candidates of one query.

        Raises:
            DataError: there are none.
        """
        known = self._cited(row)
        hidden = known if wanted.exclude_cited else known[:0]
        if isinstance(source, NewPaper) and source.same_title is not None:
            hidden = np.append(hidden, source.same_title)
        candidate_K = self._candidates(row, hidden, since)
        logit_K = self._score(row, candidate_K)
        best = np.lexsort((candidate_K, -logit_K))[: wanted.k]
        calibrated = self._trained.calibration(torch.from_numpy(logit_K[best])).sigmoid().numpy()
        names = Names(ids=self._index.ids, titles=self._index.titles)
        predictions = []
        for rank, (i, probability) in enumerate(zip(best, calibrated, strict=True), start=1):
            candidate = int(candidate_K[i])
            predictions.append(
                Prediction(
                    rank=rank,
                    id=names.ids[candidate],
                    title=names.titles[candidate] if names.titles is not None else None,
                    date=_date(self._graph, candidate),
                    logit=float(logit_K[i]),
                    probability=float(probability),
                    is_cited=candidate in known,
                    reasons=find_reasons(
                        self._graph,
                        row,
                        candidate,
                        names=names,
                        similarity=self._similarity,
                        kind=self._kind,
                    ),
                )
            )
        return Answer(
            query=query,
            predictions=tuple(predictions),
            remarks=source.remarks if isinstance(source, NewPaper) else self._remarks(row),
        )

    def _cited(self, row: int) -> np.ndarray:
        """Return the papers that a paper cites, its held-out citations included.

        A held-out citation is one that the dataset has: the user knows it.
        """
        graph = self._graph
        held_out = [
            np.asarray(part.target_P[part.source_P == row]) for part in (graph.valid, graph.test)
        ]
        return np.concatenate([graph.references.row(row), *held_out])

    def _candidates(self, row: int, hidden: np.ndarray, since: int | None) -> np.ndarray:
        """Return the rows of papers that may be cited, ascending.

        Raises:
            DataError: there are none.
        """
        graph = self._graph
        is_candidate_N = np.ones(self.num_papers, dtype=bool)
        is_candidate_N[hidden] = False
        if row < self.num_papers:
            is_candidate_N[row] = False
        if graph.day_N is not None:
            day_N = graph.day_N[: self.num_papers]
            is_older_N = day_N <= graph.day_N[row]
            is_recent_N = day_N >= (FIRST_DAY if since is None else since)
            if graph.is_dated_N is not None:
                is_dated_N = graph.is_dated_N[: self.num_papers]
                is_older_N |= ~is_dated_N | (not graph.is_dated_N[row])
                is_recent_N &= is_dated_N | (since is None)
            is_candidate_N &= is_older_N & is_recent_N
        if not is_candidate_N.any():
            hint = "a later --date, or an earlier --since"
            raise DataError("no paper is left to rank", _date(graph, row) or "none", hint=hint)
        return np.flatnonzero(is_candidate_N).astype(np.int32)

    def _score(self, row: int, candidate_K: np.ndarray) -> np.ndarray:
        """Compute the logits of candidates, float32 [K]."""
        source_1 = np.array([row], dtype=np.int32)
        logit_K = np.empty(len(candidate_K), dtype=np.float32)
        for first in range(0, len(candidate_K), CHUNK):
            candidate_1K = candidate_K[None, first : first + CHUNK]
            logit_K[first : first + CHUNK] = score_candidates(
                self._trained.model, self._embedding_NH, self._structural, source_1, candidate_1K
            )[0]
        return logit_K

    def _similarity(self, source: int, candidate: int) -> float | None:
        """Return the cosine of the features of two papers."""
        x_NF = self._graph.x_NF
        if x_NF is None or (source >= self.num_papers and not self._own[source - self.num_papers]):
            return None
        x_2F = np.stack([x_NF[source], x_NF[candidate]])
        if self._kind == "similar_features":
            x_2F = unit_features(x_2F)  # as where similar papers are found
        length = float(np.linalg.norm(x_2F[0]) * np.linalg.norm(x_2F[1]))
        return float(x_2F[0] @ x_2F[1]) / length if length else None

    def _remarks(self, row: int) -> tuple[str, ...]:
        """Say where the model is out of its depth with a paper of the graph."""
        if len(self._graph.references.row(row)):
            return ()
        return (
            "no references but held-out ones: the model is out of its depth, it has features, "
            "citations and popularity alone",
        )


def _since(graph: PreparedGraph, since: str) -> int | None:
    if not since:
        return None
    day = parse_day(since)
    if graph.day_N is None:
        hint = "leave --since out"
        raise ConfigError("the papers of the graph have no dates", since, hint=hint)
    return day


def _date(graph: PreparedGraph, row: int) -> str | None:
    if graph.day_N is None or (graph.is_dated_N is not None and not graph.is_dated_N[row]):
        return None
    return str(np.datetime64(int(graph.day_N[row]), "D"))
