"""The engine: ranks the papers that one paper most likely should cite, with reasons.

It holds arrays alone, and no query changes them, so that threads share it. All papers are embedded
beforehand; a new paper is embedded from the papers around it.

Where not all papers are to be scored, those that walks of the graph reach are: of the ten best for
each of 1,000 papers of hepth they hold 99.9 %, as `benchmarks/serving.py` measures it. A paper that
few are reached from has all papers for candidates, a quarter of those 1,000.

Legend: N papers, K candidates, H hidden channels, D structural features.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from citeflow.data.dates import FIRST_DAY
from citeflow.errors import CiteflowError, ConfigError, DataError
from citeflow.evaluation.answers import Answer, Method, Prediction, Wanted
from citeflow.evaluation.inference import CHUNK, embed_new
from citeflow.evaluation.queries import NewPaper, Papers, QueryPaper, QueryReader, parse_day
from citeflow.evaluation.reasons import Kind, Names, find_reasons
from citeflow.evaluation.trained_model import Scorer
from citeflow.graph.csr import Csr, rows_of
from citeflow.graph.prepared import PreparedGraph
from citeflow.graph.similar import SimilarToNew, unit_features
from citeflow.graph.source import NOBODY, Source, relations

FEWEST = 50
"""Candidates that a walk has to reach; where they are fewer, all papers are."""

NEAR = (("neighbors", "neighbors"), ("references", "citations", "references"))
"""Walks that nearly all of the best candidates end, and whose candidates are counted."""

FURTHER = (("similar", "references"), ("references", "similar"))
"""Walks that add the rest of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A query in rows and numbers."""

    source: Source
    embedding_1H: Tensor
    hidden: np.ndarray
    """Rows that are no candidates."""
    has_own_features: bool
    remarks: tuple[str, ...]


class Engine:
    """Answers queries from a model, a graph and the embeddings of its papers."""

    def __init__(
        self,
        scorer: Scorer,
        graph: PreparedGraph,
        papers: Papers,
        embedding_NH: Tensor,
    ) -> None:
        """Take what all queries need.

        Args:
            scorer: the model.
            graph: its papers.
            papers: their names.
            embedding_NH: of each paper.

        Raises:
            ConfigError: another version trained the model, on other features.
        """
        self.graph = _plain(graph)
        self.papers = papers
        self._scorer = scorer
        self._embedding_NH = embedding_NH
        self._structural = scorer.structural_features(graph)
        self._reader = QueryReader(graph, papers)
        # The text model is read here, and not by the first of several threads.
        self._kind: Kind = "similar_text" if self._reader.text_model else "similar_features"
        self._held_out = _held_out_citations(graph)
        self._relations = relations(self.graph)
        self._similar: SimilarToNew | None = None
        if graph.similar is not None and self.graph.x_NF is not None:
            self._similar = SimilarToNew(
                self.graph.x_NF, self.graph.day_N, graph.facts.num_similar, graph.cells
            )

    @property
    def has_text(self) -> bool:
        """A text can be made into the features of a new paper."""
        return self._kind == "similar_text"

    @property
    def num_papers(self) -> int:
        """Number of papers, N."""
        return self.graph.num_papers

    def answer(self, query: QueryPaper, wanted: Wanted) -> Answer:
        """Rank the candidates of one query.

        Raises:
            ConfigError: the query contradicts itself, or a value is no date.
            DataError: nothing is known of the paper, or no paper is left to rank.
            NotFoundError: no paper has the identifier.
        """
        since = since_day(self.graph, wanted.since)
        asked = self._read(query, wanted)
        candidate_K, method = self._candidates(asked, since, wanted)
        logit_K = self._score(asked, candidate_K)
        best = _best(logit_K, candidate_K, wanted.k)
        logit_k = torch.from_numpy(logit_K[best])
        probability_k = self._scorer.details.calibration(logit_k).sigmoid().tolist()
        return Answer(
            query=query,
            predictions=self._predictions(
                asked, candidate_K[best], logit_k.tolist(), probability_k
            ),
            remarks=asked.remarks,
            method=method,
            num_candidates=len(candidate_K),
        )

    def embedding(self, query: QueryPaper) -> Tensor:
        """Return the embedding of a paper of the graph, or of a new one, [H]."""
        return self._read(query, Wanted()).embedding_1H[0]

    def date(self, row: int) -> str | None:
        """Return the ISO date of a paper, where it is known."""
        graph = self.graph
        if graph.day_N is None or (graph.is_dated_N is not None and not graph.is_dated_N[row]):
            return None
        return _iso(int(graph.day_N[row]))

    def cited_by(self, row: int) -> int:
        """Count the citations of a paper."""
        return len(self.graph.citations.row(row))

    def _read(self, query: QueryPaper, wanted: Wanted) -> _Asked:
        found = self._reader.read(query)
        if isinstance(found, NewPaper):
            return self._read_new(found, wanted)
        source = Source.stored(self.graph, found)
        hidden = self._cited(source) if wanted.exclude_cited else NOBODY
        return _Asked(
            source=source,
            embedding_1H=self._embedding_NH[found : found + 1],
            hidden=np.append(hidden, found),
            has_own_features=True,
            remarks=_remarks(source),
        )

    def _read_new(self, paper: NewPaper, wanted: Wanted) -> _Asked:
        similar_k = NOBODY
        if self._similar is not None and paper.x_F is not None:
            similar_k = self._similar.find(paper.x_F, paper.day, exact=wanted.exact)
        hidden = paper.reference_R if wanted.exclude_cited else NOBODY
        embedding_H = embed_new(self._scorer.model, self.graph, paper.x_F, paper.reference_R)
        return _Asked(
            source=Source.new(
                self.graph,
                x_F=paper.x_F,
                reference_R=paper.reference_R,
                similar_k=similar_k,
                day=paper.day,
            ),
            embedding_1H=embedding_H[None],
            hidden=hidden if paper.same_title is None else np.append(hidden, paper.same_title),
            has_own_features=paper.has_own_features,
            remarks=paper.remarks,
        )

    def _cited(self, source: Source) -> np.ndarray:
        """Return the papers that a paper cites, its held-out citations included.

        A held-out citation is one that the dataset has: the user knows it.
        """
        source_P, target_P = self._held_out
        first, end = np.searchsorted(source_P, [source.row, source.row + 1])
        return np.concatenate([source.hops["references"], target_P[first:end]])

    def _candidates(
        self, asked: _Asked, since: int | None, wanted: Wanted
    ) -> tuple[np.ndarray, Method]:
        """Return the rows of papers that are ranked, ascending.

        Raises:
            DataError: there are none.
        """
        # Without structural features a paper is near others by its embedding, and not by paths.
        if not wanted.exact and self._scorer.model.uses_structural_features:
            near_K = self._eligible(asked, since, self._reached(asked.source, NEAR))
            if len(near_K) >= FEWEST:
                further_K = self._eligible(asked, since, self._reached(asked.source, FURTHER))
                return np.union1d(near_K, further_K), "walk"
        candidate_K = self._eligible(asked, since, np.arange(self.num_papers, dtype=np.int32))
        if not len(candidate_K):
            source = asked.source
            is_known = source.day is not None and source.is_dated
            hint = "a later --date, or an earlier --since"
            raise DataError(
                "no paper is left to rank",
                _iso(source.day) if is_known and source.day is not None else "none",
                hint=hint,
            )
        return candidate_K, "exact"

    def _reached(self, source: Source, paths: Sequence[tuple[str, ...]]) -> np.ndarray:
        """Return the papers at the ends of some paths, ascending, int32."""
        is_reached_N = np.zeros(self.num_papers, dtype=bool)
        for first, *hops in paths:
            paper_E = source.hops.get(first, NOBODY)
            for hop in hops:
                if hop not in self._relations:
                    paper_E = NOBODY
                    break
                paper_E = _distinct(rows_of(self._relations[hop], paper_E).col_E, self.num_papers)
            is_reached_N[paper_E] = True
        return np.flatnonzero(is_reached_N).astype(np.int32)

    def _eligible(self, asked: _Asked, since: int | None, paper_K: np.ndarray) -> np.ndarray:
        """Return those of some papers that may be listed."""
        graph = self.graph
        is_hidden_N = np.zeros(self.num_papers, dtype=bool)
        is_hidden_N[asked.hidden] = True
        is_candidate_K = ~is_hidden_N[paper_K]
        if graph.day_N is not None:
            day_K = graph.day_N[paper_K]
            is_older_K = day_K <= asked.source.day
            is_recent_K = day_K >= (FIRST_DAY if since is None else since)
            if graph.is_dated_N is not None:
                is_dated_K = graph.is_dated_N[paper_K]
                is_older_K |= ~is_dated_K | (not asked.source.is_dated)
                is_recent_K &= is_dated_K | (since is None)
            is_candidate_K &= is_older_K & is_recent_K
        eligible_K: np.ndarray = paper_K[is_candidate_K]
        return eligible_K

    @torch.inference_mode()
    def _score(self, asked: _Asked, candidate_K: np.ndarray) -> np.ndarray:
        """Compute the logits of candidates, float32 [K]."""
        model = self._scorer.model
        logit_K = np.empty(len(candidate_K), dtype=np.float32)
        walks = self._structural.walk_from(asked.source) if model.uses_structural_features else None
        for first in range(0, len(candidate_K), CHUNK):
            part_K = candidate_K[first : first + CHUNK]
            target_KH = self._embedding_NH.index_select(0, torch.from_numpy(part_K))
            score_1K = model.score_embeddings(asked.embedding_1H, target_KH)
            if walks is not None:
                features_KD = self._structural.for_source(asked.source, walks, part_K)
                score_1K = model.add_structural_score(score_1K, torch.from_numpy(features_KD)[None])
            logit_K[first : first + CHUNK] = score_1K[0].numpy()
        return logit_K

    def _predictions(
        self, asked: _Asked, row_k: np.ndarray, logits: list[float], probabilities: list[float]
    ) -> tuple[Prediction, ...]:
        """Describe the best candidates, in their order."""
        papers = self.papers
        cited = set(self._cited(asked.source).tolist())
        rows = row_k.tolist()
        no_cosines: list[float | None] = [None] * len(rows)
        reasons = find_reasons(
            self.graph,
            asked.source,
            row_k,
            names=Names(ids=papers.ids, titles=papers.titles),
            cosines=self._cosines(asked.source, row_k) if asked.has_own_features else no_cosines,
            kind=self._kind,
        )
        return tuple(
            Prediction(
                rank=rank,
                id=papers.ids[row],
                title=papers.titles[row] if papers.titles is not None else None,
                date=self.date(row),
                logit=logit,
                probability=probability,
                is_cited=row in cited,
                reasons=of_row,
            )
            for rank, (row, logit, probability, of_row) in enumerate(
                zip(rows, logits, probabilities, reasons, strict=True), start=1
            )
        )

    def _cosines(self, source: Source, row_k: np.ndarray) -> list[float | None]:
        """Return the cosines of the features of the source and some papers."""
        if source.x_F is None or self.graph.x_NF is None:
            return [None] * len(row_k)
        x_BF = np.concatenate([source.x_F[None], self.graph.x_NF[row_k].astype(np.float32)])
        if self._kind == "similar_features":
            x_BF = unit_features(x_BF)  # as where similar papers are found
        x_F, *others = x_BF
        length = float(np.linalg.norm(x_F))
        lengths = [length * float(np.linalg.norm(each_F)) for each_F in others]
        return [
            float(x_F @ each_F) / length if length else None
            for each_F, length in zip(others, lengths, strict=True)
        ]


def since_day(graph: PreparedGraph, since: str) -> int | None:
    """Return the day that candidates are not older than; None for the empty text.

    Raises:
        ConfigError: it is no date, or papers have none.
    """
    if not since:
        return None
    day = parse_day(since)
    if graph.day_N is None:
        hint = "leave --since out"
        raise ConfigError("the papers of the graph have no dates", since, hint=hint)
    return day


def answer_all(engine: Engine, queries: Sequence[QueryPaper], wanted: Wanted) -> Iterator[Answer]:
    """Answer queries in their order, each when it is taken; one that cannot be has the error."""
    for query in queries:
        try:
            yield engine.answer(query, wanted)
        except CiteflowError as error:
            yield Answer(query=query, error=error)


def _plain(graph: PreparedGraph) -> PreparedGraph:
    """Take the arrays of a graph as plain ones: np.memmap slows down small index operations."""

    def csr(rows: Csr) -> Csr:
        return Csr(np.asarray(rows.rowptr_N1), np.asarray(rows.col_E))

    def array(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else np.asarray(values)

    return dataclasses.replace(
        graph,
        x_NF=array(graph.x_NF),
        day_N=array(graph.day_N),
        is_dated_N=array(graph.is_dated_N),
        references=csr(graph.references),
        citations=csr(graph.citations),
        neighbors=csr(graph.neighbors),
        similar=None if graph.similar is None else csr(graph.similar),
    )


def _held_out_citations(graph: PreparedGraph) -> tuple[np.ndarray, np.ndarray]:
    """Return sources, ascending, and targets."""
    source_P = np.concatenate([graph.valid.source_P, graph.test.source_P])
    target_P = np.concatenate([graph.valid.target_P, graph.test.target_P])
    order_P = np.argsort(source_P, kind="stable")
    return source_P[order_P], target_P[order_P]


def _best(logit_K: np.ndarray, candidate_K: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the k highest logits, the highest first; of equal ones, by row."""
    if k < len(logit_K):
        least = np.partition(logit_K, -k)[-k]
        some = np.flatnonzero(logit_K >= least)
        return some[np.lexsort((candidate_K[some], -logit_K[some]))][:k]
    return np.lexsort((candidate_K, -logit_K))


def _distinct(paper_E: np.ndarray, num_papers: int) -> np.ndarray:
    """Return each paper once, ascending; a table of N is quicker than a sort of many."""
    if len(paper_E) < num_papers // 64:
        return np.unique(paper_E)
    is_there_N = np.zeros(num_papers, dtype=bool)
    is_there_N[paper_E] = True
    return np.flatnonzero(is_there_N)


def _remarks(source: Source) -> tuple[str, ...]:
    """Say where the model is out of its depth with a paper of the graph."""
    if len(source.hops["references"]):
        return ()
    return (
        "no references but held-out ones: the model is out of its depth, it has features, "
        "citations and popularity alone",
    )


def _iso(day: int) -> str:
    return str(np.datetime64(day, "D"))
