"""Candidates: which papers a source may be ranked against, and the hardest of them.

A candidate is no newer than the source, if dates are known, and no paper that it is known to cite:
not in training, and not held out. A true citation that is ranked above the one that is asked for
would count as a mistake otherwise (the filtered setting of Bordes et al., 2013). Without dates
nobody knows who cited first, so papers that cite the source are no candidates either; the random
split, too, draws its negatives among those that are not linked in either direction.

Hard candidates are chosen as HeaRT does (Li et al., Evaluating Graph Neural Networks for Link
Prediction, NeurIPS 2023, section 4): every heuristic ranks all candidates of a source, and those
with the best rank in any of them are taken. The heuristics are resource allocation, the cosine of
the features, and the number of citations. All come from the training citations.

Legend: N papers, P held-out citations, S distinct sources, K candidates, F features, B papers of a
block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from citeflow.config import DataConfig
from citeflow.data.citation_graph import HeldOut
from citeflow.data.features import release_pages, unit_rows
from citeflow.graph.csr import Csr, drop_rows, rows_of, to_undirected
from citeflow.graph.time_slices import newer_papers, time_slices
from citeflow.utils.threads import thread_per_core

BLOCK_SOURCES = 512
BLOCK_PAPERS = 1 << 15
"""Cosines of so many sources and papers are in memory at once: 64 MB."""

DENSE_SHARE = 8
"""Where paths lead to more than one in so many papers, it takes less time to add them up in an
array of all papers than to sort their ends: one hub among the neighbors leads to all that cite it.
"""

MAX_COSINES = 10_000_000_000
"""Pairs of a source and a paper whose features are compared, at most; it takes about a minute. At
citation2's shape that is 3,415 of 86,596 sources."""


class Candidates:
    """The rule that says which papers a source may be ranked against."""

    def __init__(
        self,
        linked: Csr,
        held_out: Sequence[HeldOut],
        day_N: np.ndarray | None,
        is_dated_N: np.ndarray | None,
    ) -> None:
        """Take what the rule depends on.

        Args:
            linked: training citations of each source; in both directions where there are no dates.
            held_out: the parts of the split, whose citations are true as well.
            day_N: date of each paper in days, where known.
            is_dated_N: False for papers without a date, which may be cited by, and may cite, any.
        """
        self._linked = linked
        source_P = np.concatenate([part.source_P for part in held_out])
        order_P = np.argsort(source_P, kind="stable")
        self._source_P = source_P[order_P]
        self._target_P = np.concatenate([part.target_P for part in held_out])[order_P]
        self._day_N = None if day_N is None else np.asarray(day_N)
        self.is_dated_N = None if is_dated_N is None else np.asarray(is_dated_N)

    @property
    def num_papers(self) -> int:
        """Number of papers, N."""
        return self._linked.num_rows

    @property
    def days(self) -> np.ndarray:
        """Date of each paper in days [N]; only for a graph that has dates."""
        assert self._day_N is not None
        return self._day_N

    def true_citations(self, source: int) -> np.ndarray:
        """List the papers that a source is known to be linked with, the held-out ones included."""
        first, end = np.searchsorted(self._source_P, [source, source + 1])
        return np.concatenate([self._linked.row(source), self._target_P[first:end]])

    def mask(self, source: int, paper_K: np.ndarray) -> np.ndarray:
        """Mark those papers that the source may be ranked against, bool [K]."""
        is_candidate_K: np.ndarray = np.isin(
            paper_K, np.append(self.true_citations(source), source), invert=True
        )
        if self._day_N is not None:
            is_older_K = self._day_N[paper_K] <= self._day_N[source]
            if self.is_dated_N is not None:
                is_older_K |= ~self.is_dated_N[paper_K] | (not self.is_dated_N[source])
            is_candidate_K &= is_older_K
        return is_candidate_K

    def exclude(
        self, source_S: np.ndarray, first: int, score_SB: np.ndarray, true_2T: np.ndarray
    ) -> None:
        """Set the scores of papers that are no candidates to -inf, in place.

        Args:
            source_S: sources, one of each row.
            first: paper of the first column; the others follow it.
            score_SB: scores.
            true_2T: what `true_pairs` gives for the sources.
        """
        end = first + score_SB.shape[1]
        if self._day_N is not None:
            day_S, day_B = self._day_N[source_S], self._day_N[first:end]
            # Sources are among the newest papers, so that most blocks have nothing newer.
            if day_B.max() > day_S.min():
                is_newer_SB = day_B > day_S[:, None]
                if self.is_dated_N is not None:
                    is_newer_SB &= self.is_dated_N[first:end] & self.is_dated_N[source_S, None]
                np.copyto(score_SB, -np.inf, where=is_newer_SB)
        row_T, paper_T = true_2T[:, slice(*np.searchsorted(true_2T[1], [first, end]))]
        score_SB[row_T, paper_T - first] = -np.inf

    def true_pairs(self, source_S: np.ndarray) -> np.ndarray:
        """List row of the source and paper, for all that each is linked with and itself; [2, T].

        They are ordered by paper.
        """
        true = [np.append(self.true_citations(source), source) for source in source_S.tolist()]
        row_T = np.repeat(np.arange(len(true)), [len(paper_T) for paper_T in true])
        pairs_2T = np.stack([row_T, np.concatenate(true)])
        return pairs_2T[:, np.argsort(pairs_2T[1], kind="stable")]

    def of(self, source: int) -> np.ndarray:
        """List all papers that the source may be ranked against, ascending, int32."""
        return np.flatnonzero(self.mask(source, np.arange(self.num_papers))).astype(np.int32)


@dataclass(frozen=True, slots=True)
class HardCandidates:
    """The papers that are hardest to tell from those that a source cites."""

    source_S: np.ndarray
    """Sources of held-out citations, ascending, int32."""

    candidates: Csr
    """For each of them at least one paper, hardest first, int32."""

    @classmethod
    def none(cls) -> "HardCandidates":
        """Return the hard candidates of no source."""
        return cls(np.empty(0, np.int32), Csr(np.zeros(1, np.int64), np.empty(0, np.int32)))

    def index(self, source_P: np.ndarray) -> np.ndarray:
        """Return the index of each source, int64 [P]; -1 for one without hard candidates."""
        if not len(self.source_S):
            return np.full(len(source_P), -1)
        index_P = np.minimum(np.searchsorted(self.source_S, source_P), len(self.source_S) - 1)
        return np.where(self.source_S[index_P] == source_P, index_P, -1)


def choose_hard(
    source_P: np.ndarray,
    rule: Candidates,
    *,
    references: Csr,
    neighbors: Csr,
    x_NF: np.ndarray | None,
    config: DataConfig,
) -> HardCandidates:
    """Choose the hard candidates of the sources of held-out citations, or of a sample of very many.

    Args:
        source_P: the sources; one that is given twice is taken once.
        rule: which papers may be chosen.
        references: training citations.
        neighbors: the same in both directions, each once.
        x_NF: features, if there are any.
        config: how many to choose, whether citations by later papers count, and the seed.

    Returns:
        The candidates, in the row numbers of the arguments; a source that has none is left out.
    """
    source_S = np.unique(source_P)
    source_S = source_S[sample_rows(len(source_S), MAX_COSINES // rule.num_papers, config.seed)]
    chosen: dict[int, np.ndarray] = {}
    for part, seen, links in _as_seen(source_S, rule, references, neighbors, config):
        choice = _Choice(rule, seen, links, x_NF, config.hard_candidates)
        chosen |= zip(part.tolist(), choice.of(part), strict=True)
    chosen = {source: paper_K for source, paper_K in sorted(chosen.items()) if len(paper_K)}
    rowptr_S1 = np.cumsum([0, *map(len, chosen.values())], dtype=np.int64)
    col_K = np.concatenate([np.empty(0, np.int32), *chosen.values()], dtype=np.int32)
    return HardCandidates(np.array(list(chosen), dtype=np.int32), Csr(rowptr_S1, col_K))


def _as_seen(
    source_S: np.ndarray, rule: Candidates, references: Csr, neighbors: Csr, config: DataConfig
) -> Iterator[tuple[np.ndarray, Csr, Csr]]:
    """Yield sources with the references and neighbors that they see, of all or of their time."""
    if not config.time_cut:
        yield source_S, references, neighbors
        return
    for part in time_slices(source_S, rule.days):
        seen = drop_rows(references, newer_papers(part, rule.days, rule.is_dated_N))
        yield part.source_S, seen, to_undirected(seen)


def sample_rows(num_rows: int, most: int, seed: int) -> np.ndarray:
    """Draw at most so many of the rows of a split, at least one, ascending."""
    if num_rows <= most:
        return np.arange(num_rows)
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(num_rows, max(1, most), replace=False))


@dataclass(frozen=True, slots=True)
class _Choice:
    """The heuristics that choose hard candidates, on one graph."""

    rule: Candidates
    references: Csr
    neighbors: Csr
    x_NF: np.ndarray | None
    most: int

    def of(self, source_S: np.ndarray) -> list[np.ndarray]:
        """Choose the candidates of each source, hardest first; one with fewer gets them all."""
        weight_N = 1 / np.maximum(self.neighbors.degree_N, 1)
        most_cited_N = np.argsort(-self.references.in_degree_N, kind="stable")
        nearest = None
        if self.x_NF is not None:
            nearest = _nearest(source_S, self.rule, self.x_NF, self.most)
        chosen = []
        for source in source_S.tolist():
            orders = [self._by_resource_allocation(source, weight_N)]
            if nearest is not None:
                orders.append(next(nearest))
            orders.append(self._first_valid(source, most_cited_N))
            chosen.append(_merge(orders, self.most))
        return chosen

    def _by_resource_allocation(self, source: int, weight_N: np.ndarray) -> np.ndarray:
        """Rank the papers that share a neighbor with the source (Zhou, Lü & Zhang, 2009)."""
        between = self.neighbors.row(source)
        if not len(between):
            return np.empty(0, dtype=np.int32)
        reached = rows_of(self.neighbors, between)
        weight_E = np.repeat(weight_N[between], reached.degree_N)
        if DENSE_SHARE * len(reached.col_E) < self.rule.num_papers:
            paper_K, index_E = np.unique(reached.col_E, return_inverse=True)
            score_K = np.bincount(index_E, weight_E)
        else:
            score_N = np.bincount(reached.col_E, weight_E)
            paper_K = np.flatnonzero(score_N)
            score_K = score_N[paper_K]
        is_candidate_K = self.rule.mask(source, paper_K)
        paper_K, score_K = paper_K[is_candidate_K], score_K[is_candidate_K]
        if len(score_K) > self.most:
            is_best_K = score_K >= np.partition(score_K, -self.most)[-self.most]
            paper_K, score_K = paper_K[is_best_K], score_K[is_best_K]
        best_K: np.ndarray = paper_K[np.argsort(-score_K, kind="stable")[: self.most]]
        return best_K

    def _first_valid(self, source: int, order_N: np.ndarray) -> np.ndarray:
        """Take the first candidates of an order of all papers."""
        wanted = 2 * self.most + len(self.rule.true_citations(source))
        while True:
            found: np.ndarray = order_N[:wanted][self.rule.mask(source, order_N[:wanted])]
            if len(found) >= self.most or wanted >= len(order_N):
                return found[: self.most]
            wanted *= 4


def _merge(orders: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Take papers by their best place in any order; of equal ones, that of the first order."""
    place_K = np.concatenate([np.arange(len(order)) for order in orders])
    paper_K = np.concatenate(orders)[np.argsort(place_K, kind="stable")]
    _, first_U = np.unique(paper_K, return_index=True)
    return paper_K[np.sort(first_U)][:most].astype(np.int32)


def _nearest(
    source_S: np.ndarray, rule: Candidates, x_NF: np.ndarray, most: int
) -> Iterator[np.ndarray]:
    """Yield the candidates of each source with the highest cosine of the features, best first."""
    blocks = np.array_split(source_S, range(BLOCK_SOURCES, len(source_S), BLOCK_SOURCES))
    with thread_per_core() as pool:
        for papers in pool.map(lambda block: _nearest_of_block(block, rule, x_NF, most), blocks):
            yield from papers


def _nearest_of_block(
    source_S: np.ndarray, rule: Candidates, x_NF: np.ndarray, most: int
) -> list[np.ndarray]:
    """Search all papers block by block; after the first ones few come near the best so far."""
    x_SF = unit_rows(x_NF[source_S])
    true_2T = rule.true_pairs(source_S)
    best = _Best(len(source_S), most)
    for first in range(0, len(x_NF), BLOCK_PAPERS):
        cosine_SB = x_SF @ unit_rows(x_NF[first : first + BLOCK_PAPERS]).T
        rule.exclude(source_S, first, cosine_SB, true_2T)
        best.add(cosine_SB, first)
        release_pages(x_NF)
    return best.papers()


class _Best:
    """The papers with the highest scores of each source; of equal ones those of lower rows."""

    def __init__(self, num_sources: int, most: int) -> None:
        self._num_sources = num_sources
        self._most = most
        self._least_S1 = np.full((num_sources, 1), -np.inf, np.float32)
        """What a score must exceed to be among the best that are known."""
        self._kept = (np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int32))
        """Sources, scores and papers; of each source the papers ascend where scores are equal."""
        self._pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._num_pending = 0

    def add(self, score_SB: np.ndarray, first: int) -> None:
        """Take the scores of a block of papers, -inf for those that are none of a source's."""
        num_papers = score_SB.shape[1]
        least_S1 = self._least_S1
        if np.isneginf(least_S1).any() and num_papers > self._most:
            lowest_S1 = np.partition(score_SB, -self._most, axis=1)[:, -self._most, None]
            # A score as high as the lowest of the best is one of them.
            least_S1 = np.maximum(least_S1, np.nextafter(lowest_S1, -np.inf, dtype=np.float32))
        row_K, column_K = np.divmod(np.flatnonzero(score_SB > least_S1), num_papers)
        paper_K = (column_K + first).astype(np.int32)
        self._pending.append((row_K, score_SB[row_K, column_K], paper_K))
        self._num_pending += len(row_K)
        if self._num_pending >= self._num_sources * self._most:
            self._sort()

    def papers(self) -> list[np.ndarray]:
        """Return the papers of each source, best first, int32."""
        self._sort()
        row_K, _, paper_K = self._kept
        return np.split(paper_K, np.searchsorted(row_K, np.arange(1, self._num_sources)))

    def _sort(self) -> None:
        """Put what was added among the best, and forget what is none of them."""
        row_K, score_K, paper_K = (
            np.concatenate(parts) for parts in zip(self._kept, *self._pending, strict=True)
        )
        order_K = np.lexsort((-score_K, row_K))
        row_K, score_K, paper_K = row_K[order_K], score_K[order_K], paper_K[order_K]
        first_S = np.searchsorted(row_K, np.arange(self._num_sources))
        place_K = np.arange(len(row_K)) - first_S[row_K]
        is_last_K = place_K == self._most - 1
        self._least_S1[row_K[is_last_K], 0] = score_K[is_last_K]
        is_kept_K = place_K < self._most
        self._kept = (row_K[is_kept_K], score_K[is_kept_K], paper_K[is_kept_K])
        self._pending = []
        self._num_pending = 0
