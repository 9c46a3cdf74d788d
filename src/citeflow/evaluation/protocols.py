"""Protocols: which papers a test citation is ranked against, and what of the graph is seen.

- `ogb`: the random papers of the split, 1,000 of them by default.
- `all`: every paper that the source may be ranked against (`graph.candidates`), as `predict` ranks
  them. A random sample of the test citations where all of them would take long.
- `hard`: the hard candidates of the prepared graph.
- `cold`: as `all`, for the same test citations, in a graph without their sources' references, all
  papers embedded again. The references that were taken away are no candidates there either. Few
  sources lose theirs at a time: new papers are cited by new papers, so taking all of them away
  would take away who cites the sources, too.

With `data.time_cut` all of them score a source in the graph as of its date: a view of the graph for
each slice of time.

Legend: P test citations, N papers, H hidden channels, K candidates.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from citeflow.data.citation_graph import HeldOut
from citeflow.data.features import release_pages
from citeflow.errors import ConfigError
from citeflow.evaluation import metrics, ranking
from citeflow.evaluation.baselines import Baselines
from citeflow.evaluation.chunks import Chunk, hard_chunks, random_chunks
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.ranking import Groups, Ranks, SharedMethods
from citeflow.evaluation.scoring import PaperRows, score_candidates, score_pairs
from citeflow.evaluation.trained_model import TrainedModel
from citeflow.graph.candidates import sample_rows
from citeflow.graph.prepared import PreparedGraph
from citeflow.graph.time_slices import time_slices
from citeflow.graph.views import without_later_citations, without_references
from citeflow.models.meta_paths import BASELINE_PATHS
from citeflow.models.path_sums import Sums
from citeflow.report import ProtocolScores, RankScores
from citeflow.utils.progress import log_progress

MODEL = "model"
"""Name of the model among the methods that are ranked."""

MAX_PAIRS = 50_000_000
"""Pairs of a source and a paper that `all` scores, and `cold` as many, if no number of sources is
asked for."""

MIN_SOURCES = 100
"""Sources that are ranked whatever it takes, as fewer say too little."""

COLD_SHARE = 0.03
"""Of the test citations, whose sources lose their references in one graph, at most; each graph
costs an embedding of all papers."""

NEGATIVES_PER_POSITIVE = 10
"""For AUC and the ROC curve; accuracy takes one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitScores:
    """Scores of a split, reduced so that memory does not grow with the candidates."""

    rank_P: Tensor
    positive_P: Tensor
    negative_PK: Tensor
    """Only the first NEGATIVES_PER_POSITIVE of each source."""
    num_negatives: int
    """Candidates that each positive was ranked against."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A model's scores of both splits among random papers, and the ranks in each protocol."""

    valid: SplitScores
    test: SplitScores
    protocols: dict[str, Ranks]
    """Protocols in which no test citation has a candidate are left out."""


class Scorer:
    """A model and the baselines on one view of the graph."""

    def __init__(self, trained: TrainedModel, graph: PreparedGraph) -> None:
        """Embed all papers."""
        self._model = trained.model
        structural = trained.structural_features(graph)
        with log_progress("evaluate", "embedding the papers"):
            embedding_NH = embed_all(trained.model, graph)
        self._rows = PaperRows(embedding_NH, structural)
        self._baselines = Baselines(graph, structural)
        own = structural.paths if trained.model.uses_structural_features else ()
        self._paths = tuple(dict.fromkeys([*BASELINE_PATHS, *own]))

    def model_alone(self, chunks: Iterable[Chunk]) -> Groups:
        """Group chunks, and have the model alone score them."""
        return self._group(chunks, self._score_by_model)

    def methods(self, chunks: Iterable[Chunk]) -> Groups:
        """Group chunks, and have the model and each baseline score them."""
        return self._group(chunks, self._score_own)

    def shared_methods(
        self, source_P: np.ndarray
    ) -> Callable[[np.ndarray], Iterator[tuple[str, np.ndarray]]]:
        """Return a function from candidates [K], which the sources share, to scores of the same."""
        ends = self._rows.structural.ends(self._paths, source_P)
        return lambda candidate_K: self._score(
            self._rows, ends.sums(candidate_K), source_P, candidate_K
        )

    def shared_model_alone(
        self, source_P: np.ndarray
    ) -> Callable[[np.ndarray], Iterator[tuple[str, np.ndarray]]]:
        """Return the same of the model alone."""
        score = self.shared_methods(source_P)
        return lambda candidate_K: itertools.islice(score(candidate_K), 1)

    def _group(
        self,
        chunks: Iterable[Chunk],
        score: Callable[[PaperRows, np.ndarray, np.ndarray], Iterable[tuple[str, np.ndarray]]],
    ) -> Groups:
        for rows, group in self._rows.groups(self._model, chunks):
            yield functools.partial(score, rows), group
            del rows  # they have to go before others are read

    def _score_by_model(
        self, rows: PaperRows, source_P: np.ndarray, candidate_PK: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield name and scores, float32 [P, K]."""
        yield MODEL, score_candidates(self._model, rows, source_P, candidate_PK)

    def _score_own(
        self, rows: PaperRows, source_P: np.ndarray, candidate_PK: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the same, then those of each baseline."""
        sums = rows.structural.sum_own(self._paths, source_P, candidate_PK)
        yield from self._score(rows, sums, source_P, candidate_PK)

    def _score(
        self, rows: PaperRows, sums: Sums, source_P: np.ndarray, candidates: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        structural_PKD = None
        if self._model.uses_structural_features:
            structural_PKD = rows.structural.features(sums, source_P, candidates)
        yield MODEL, score_pairs(self._model, rows, source_P, candidates, structural_PKD)
        yield from self._baselines(sums, source_P, candidates)


@dataclass(frozen=True, slots=True)
class _View:
    """The graph that some rows of the splits are scored in."""

    graph: PreparedGraph
    valid_row_P: np.ndarray
    test_row_P: np.ndarray


@dataclass(slots=True)
class _Parts:
    """The results of the views so far."""

    valid: list[SplitScores] = field(default_factory=list)
    test: list[SplitScores] = field(default_factory=list)
    rows: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    """Rows of valid and test of each view."""
    protocols: dict[str, list[Ranks]] = field(default_factory=dict)

    def add(self, protocol: str, ranks: Ranks) -> None:
        """Add the ranks of a view, if there are any."""
        if len(ranks.num_candidates_Q):
            self.protocols.setdefault(protocol, []).append(ranks)


def measure(trained: TrainedModel, graph: PreparedGraph) -> Measured:
    """Rank the held-out citations in all protocols."""
    parts = _Parts()
    most = num_sources(trained.config.evaluation.num_sources, num_papers=graph.num_papers)
    sampled_P = sample_rows(len(graph.test.source_P), most, trained.config.data.seed)
    for view in _views(graph):
        _measure_view(trained, view, np.intersect1d(sampled_P, view.test_row_P), parts)
    valid_rows, test_rows = zip(*parts.rows, strict=True)
    return Measured(
        valid=_in_order(parts.valid, valid_rows),
        test=_in_order(parts.test, test_rows),
        protocols={name: ranking.join(ranks) for name, ranks in parts.protocols.items()},
    )


def num_sources(wanted: int, *, num_papers: int) -> int:
    """Return how many test citations `all` and `cold` rank at most; `wanted` is 0 for a budget."""
    return wanted or max(MIN_SOURCES, MAX_PAIRS // num_papers)


def scores(ranks: Ranks, *, of: int, seed: int) -> ProtocolScores:
    """Compute the figures of a protocol, with confidence intervals if it is of a sample.

    Args:
        ranks: by the model and by each baseline.
        of: test citations that there are.
        seed: of the bootstrap.
    """
    by_method = {name: metrics.ranking(rank_P) for name, rank_P in ranks.by_method.items()}
    num = len(ranks.num_candidates_Q)
    return ProtocolScores(
        **by_method.pop(MODEL),
        num_sources=num,
        of_sources=of,
        num_candidates=round(ranks.num_candidates_Q.double().median().item()),
        # One source has no spread.
        ci=None
        if num in (1, of)
        else ranking.confidence_intervals(ranks.by_method[MODEL], seed=seed),
        seconds=round(ranks.seconds, 3),
        baselines={name: RankScores(**figures) for name, figures in by_method.items()},
    )


def _views(graph: PreparedGraph) -> Iterator[_View]:
    """Yield the graph for all rows, or a view for each slice of time."""
    valid = np.asarray(graph.valid.source_P)
    test = np.asarray(graph.test.source_P)
    if not graph.facts.time_cut:
        yield _View(graph, np.arange(len(valid)), np.arange(len(test)))
        return
    assert graph.day_N is not None
    for part in time_slices(np.concatenate([valid, test]), graph.day_N):
        seen = without_later_citations(graph, part)
        yield _View(seen, part.rows(graph.day_N[valid]), part.rows(graph.day_N[test]))


def _measure_view(trained: TrainedModel, view: _View, sampled_P: np.ndarray, parts: _Parts) -> None:
    """Score the rows of a view; of the test also the sampled ones among all papers."""
    graph = view.graph
    scorer = Scorer(trained, graph)
    parts.rows.append((view.valid_row_P, view.test_row_P))
    valid, _ = rank_split(scorer.model_alone, graph.valid, view.valid_row_P, "valid")
    parts.valid.append(valid)
    test, ogb = rank_split(scorer.methods, graph.test, view.test_row_P, "ogb")
    parts.test.append(test)
    parts.add("ogb", ogb)
    row_Q = view.test_row_P[graph.hard.index(graph.test.source_P[view.test_row_P]) >= 0]
    hard = scorer.methods(hard_chunks(graph.test, graph.hard, row_Q))
    parts.add("hard", ranking.rank(hard, name="hard", of=len(row_Q)))
    shared = scorer.shared_methods
    parts.add("all", _rank_among_all(shared, "all", graph, graph.test, sampled_P))
    del scorer, shared  # the embeddings have to go before others are computed
    for ranks in _rank_cold(trained, graph, graph.test, sampled_P):
        parts.add("cold", ranks)
    if graph.x_NF is not None:
        release_pages(graph.x_NF)


def _rank_among_all(
    methods: SharedMethods, name: str, graph: PreparedGraph, held_out: HeldOut, row_Q: np.ndarray
) -> Ranks:
    return ranking.rank_among_all(methods, held_out, graph.candidates(), row_Q, name=name)


def _rank_cold(
    trained: TrainedModel,
    graph: PreparedGraph,
    held_out: HeldOut,
    row_Q: np.ndarray,
    *,
    baselines: bool = True,
) -> Iterator[Ranks]:
    """Rank some rows of a split among all papers, some at a time without their references."""
    at_once = max(1, int(COLD_SHARE * len(held_out.source_P)))
    num_groups = -(-len(row_Q) // at_once)
    for group in range(num_groups):
        # Every so manyth, as neighbors in the order of the split are of one time.
        part_Q = row_Q[group::num_groups]
        began = time.monotonic()
        scorer = Scorer(trained, without_references(graph, held_out.source_P[part_Q]))
        methods = scorer.shared_methods if baselines else scorer.shared_model_alone
        # The candidates are those of the graph with the references.
        ranks = _rank_among_all(methods, "cold", graph, held_out, part_Q)
        del scorer, methods
        yield dataclasses.replace(ranks, seconds=time.monotonic() - began)


def validation_mrr(trained: TrainedModel, graph: PreparedGraph, protocol: str) -> float:
    """Rank the validation citations by the model in one protocol; no test citation is ranked.

    As many of them as `measure` ranks of the test citations.

    Raises:
        ConfigError: no source has a candidate there.
    """
    source_P = graph.valid.source_P
    most = num_sources(trained.config.evaluation.num_sources, num_papers=graph.num_papers)
    if protocol in ("ogb", "hard"):
        most = len(source_P)
    sampled_P = sample_rows(len(source_P), most, trained.config.data.seed)
    parts: list[Ranks] = []
    for view in _views(graph):
        row_Q = np.intersect1d(sampled_P, view.valid_row_P)
        if protocol == "hard":
            row_Q = row_Q[graph.hard.index(source_P[row_Q]) >= 0]
        if len(row_Q):
            parts += _rank_validation(trained, view.graph, protocol, row_Q)
    if not parts:
        hint = "take another evaluation.protocol"
        raise ConfigError("no validation citation has candidates of protocol", protocol, hint=hint)
    return metrics.ranking(ranking.join(parts).by_method[MODEL])["mrr"]


def _rank_validation(
    trained: TrainedModel, graph: PreparedGraph, protocol: str, row_Q: np.ndarray
) -> Iterator[Ranks]:
    valid = graph.valid
    if protocol == "cold":
        yield from _rank_cold(trained, graph, valid, row_Q, baselines=False)
        return
    scorer = Scorer(trained, graph)
    if protocol == "all":
        yield _rank_among_all(scorer.shared_model_alone, "all", graph, valid, row_Q)
        return
    chunks = random_chunks(valid, row_Q)
    if protocol == "hard":
        chunks = hard_chunks(valid, graph.hard, row_Q)
    yield ranking.rank(scorer.model_alone(chunks), name=protocol, of=len(row_Q))


def rank_split(
    methods: Callable[[Iterable[Chunk]], Groups], held_out: HeldOut, row_Q: np.ndarray, name: str
) -> tuple[SplitScores, Ranks]:
    """Rank some rows of a split among their negatives, and keep scores of the first method."""
    num_negatives = held_out.negative_PK.shape[1]
    few = min(NEGATIVES_PER_POSITIVE, num_negatives)
    positive_P = torch.empty(len(row_Q))
    negative_PK = torch.empty(len(row_Q), few)

    def keep(row_P: np.ndarray, score_PK: np.ndarray) -> None:
        positive_P[row_P] = torch.from_numpy(score_PK[:, 0])
        negative_PK[row_P] = torch.from_numpy(score_PK[:, 1 : 1 + few])

    groups = methods(random_chunks(held_out, row_Q))
    ranks = ranking.rank(groups, name=name, of=len(row_Q), keep=keep)
    scores = SplitScores(
        rank_P=ranks.by_method.get(MODEL, torch.empty(0)),
        positive_P=positive_P,
        negative_PK=negative_PK,
        num_negatives=num_negatives,
    )
    return scores, ranks


def _in_order(parts: list[SplitScores], rows: Sequence[np.ndarray]) -> SplitScores:
    """Put the parts of a split together, in the order of its rows."""
    order_P = torch.from_numpy(np.argsort(np.concatenate(rows)))
    return SplitScores(
        rank_P=torch.cat([part.rank_P for part in parts])[order_P],
        positive_P=torch.cat([part.positive_P for part in parts])[order_P],
        negative_PK=torch.cat([part.negative_PK for part in parts])[order_P],
        num_negatives=parts[0].num_negatives,
    )
