"""Structural features of a pair: paths between two papers, and the candidate's citations.

A pair's own citation is never seen. In training, citations s -> t are scored as if they were
missing: their targets are taken out of the references of s before any path is walked, walks do not
come back to s, and the citation count of t is one less. Otherwise a head would learn the trace that
a citation leaves in the graph (every other reference of s reaches t over s), which a missing one
does not leave.

Legend: N papers, S sources, P pairs, K candidates, D structural features, H hits.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from citeflow.data.citation_graph import DAYS_PER_YEAR
from citeflow.graph.csr import Csr, rows_of
from citeflow.graph.similar import unit_features
from citeflow.graph.source import Source
from citeflow.models.meta_paths import (
    BASELINE_PATHS,
    PATHS,
    REVERSE,
    MetaPath,
    Prefix,
    prefix_of,
    prefixes_of,
)
from citeflow.models.path_counts import (
    EndsOfWalk,
    InvertedIndex,
    PathEnds,
    Walk,
    extend,
    intersect,
    start,
)

DAYS_OF_YEAR = 366
"""From a day to the same one a year later, at most: dates may be known to the year only."""
HUB_FACTOR = 8
"""Estimate of how many more papers the next hop leads to from a paper on a walk, which is often a
hub, than from a random candidate."""

MAX_KEPT_FEATURES = 1 << 24
"""Features of all papers, 64 MB, that are kept as they are scaled for the cosine."""

Walks = dict[Prefix, Walk]
Sums = dict[str, np.ndarray]
RECENT_YEARS = (1, 3)
"""Lengths of the times before the source in which the citations of a candidate are counted."""


BASELINES = (*(path.name for path in BASELINE_PATHS), "popularity")
"""Predictors that need no training."""


@dataclass(frozen=True, slots=True)
class _Sources:
    """Properties of the sources of pairs, besides paths: one row per source.

    The shapes of `known` and `day` broadcast with that of the candidates.
    """

    known: np.ndarray
    """Number of references that are known of it."""

    day: np.ndarray | None
    """Its date in days."""

    unit_SF: np.ndarray | None
    """Its features, scaled."""


class StructuralFeatures:
    """Computes features of pairs, from walks that start at the sources and meet candidates."""

    def __init__(
        self,
        references: Csr,
        citations: Csr,
        neighbors: Csr,
        day_N: np.ndarray | None,
        *,
        hops: int = 3,
        similar: Csr | None = None,
        x_NF: np.ndarray | None = None,
    ) -> None:
        """Take the training citations; nothing is computed before it is needed.

        Args:
            references: from the citing to the cited paper.
            citations: from the cited to the citing paper.
            neighbors: in both directions, each once.
            day_N: date of each paper in days, where known.
            hops: length of the longest paths.
            similar: papers whose features are alike, symmetric, where known.
            x_NF: features, whose cosine is one of a pair, where known.
        """
        graphs = {"references": references, "citations": citations, "neighbors": neighbors}
        if similar is not None:
            graphs["similar"] = similar
        self.paths = tuple(
            path for path in PATHS if len(path.hops) <= hops and graphs.keys() >= {*path.hops}
        )
        # np.memmap slows down small index operations; a plain array shares its memory.
        self._graphs = {
            hop: Csr(np.asarray(csr.rowptr_N1), np.asarray(csr.col_E))
            for hop, csr in graphs.items()
        }
        self._degrees: dict[str, np.ndarray] = {}
        self._weights: dict[tuple[str, str], np.ndarray] = {}
        self._day_N = None if day_N is None else np.asarray(day_N)
        self._x_NF = None if x_NF is None else np.asarray(x_NF)
        self._unit_NF: np.ndarray | None = None
        self._all_by_day: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each feature, in the order of the last axis."""
        names = [path.name for path in self.paths]
        names += ["popularity", "references_given", "references_known"]
        if self._day_N is not None:
            names += ["age", "citations_per_year"]
            names += [f"citations_in_{years}_years" for years in RECENT_YEARS]
        if self._x_NF is not None:
            names.append("cosine")
        return tuple(names)

    def for_batch(
        self,
        source_S: np.ndarray,
        source_index_P: np.ndarray,
        target_P: np.ndarray,
        candidate_K: np.ndarray,
        *,
        is_hidden_S: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute features of training citations, and of the candidates that their sources share.

        Both are computed as if the sources lacked these citations; if only the citations were,
        positives and negatives would be told apart by the graph that they are seen in.

        Args:
            source_S: citing papers.
            source_index_P: index into `source_S` of each citation.
            target_P: cited papers.
            candidate_K: papers that every source is compared with.
            is_hidden_S: True for sources whose other references are as if missing, too.

        Returns:
            float32 [P, D] and float32 [S, K, D].
        """
        missing = self._missing(source_S, source_index_P, target_P, is_hidden_S)
        known_S = self._degree("references").take(source_S) - np.bincount(
            missing[0], minlength=len(source_S)
        )
        walks = self._walk(self.paths, source_S, excluded_edges=missing)
        order_P = np.argsort(source_index_P, kind="stable")
        ptr_S1 = np.searchsorted(source_index_P[order_P], np.arange(len(source_S) + 1))
        sums = self._sum_own(self.paths, walks, Csr(ptr_S1, target_P[order_P]))
        undo_P = np.argsort(order_P)
        own_PD = self._features(
            {name: sum_P[undo_P] for name, sum_P in sums.items()},
            self._sources(source_S[source_index_P], known_S[source_index_P]),
            target_P,
            num_own=1,
        )
        shared = self._sum_shared(walks, candidate_K, len(source_S))
        sources = self._sources(source_S[:, None], known_S[:, None])
        shared_SKD = self._features(shared, sources, candidate_K[None, :], num_own=0)
        return own_PD, shared_SKD

    def _missing(
        self,
        source_S: np.ndarray,
        source_index_P: np.ndarray,
        target_P: np.ndarray,
        is_hidden_S: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Citations that sources are seen without: their own in the batch, or all."""
        if is_hidden_S is None or not is_hidden_S.any():
            return source_index_P, target_P
        hidden = np.flatnonzero(is_hidden_S)
        rows = rows_of(self._graphs["references"], source_S[hidden])
        is_other_P = ~is_hidden_S[source_index_P]
        return (
            np.concatenate([source_index_P[is_other_P], np.repeat(hidden, rows.degree_N)]),
            np.concatenate([target_P[is_other_P], rows.col_E]),
        )

    def for_candidates(self, source_P: np.ndarray, candidate_PK: np.ndarray) -> np.ndarray:
        """Compute features of each source with candidates of its own; float32 [P, K, D]."""
        sums = self.sum_own(self.paths, source_P, candidate_PK)
        return self.features(sums, source_P, candidate_PK)

    def features(self, sums: Sums, source_P: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Join the features of pairs, float32 [P, K, D].

        Args:
            sums: over the paths of each pair.
            source_P: sources.
            candidates: of each source [P, K], or [K] where all sources share them.
        """
        known_P = self._degree("references").take(source_P)
        sources = self._sources(source_P[:, None], known_P[:, None])
        return self._features(sums, sources, np.atleast_2d(candidates), num_own=0)

    def walk_from(self, source: Source) -> Walks:
        """Walk from a source that may be none of the papers, once for all of its candidates."""
        first = {
            hop: Walk(np.array([0, len(paper_E)]), paper_E, np.ones(len(paper_E), np.float32))
            for hop, paper_E in source.hops.items()
        }
        return self._walk(self.paths, np.array([source.row]), first=first)

    def for_source(self, source: Source, walks: Walks, candidate_K: np.ndarray) -> np.ndarray:
        """Compute the features of a source with some candidates, float32 [K, D].

        Args:
            source: a paper of the graph or a new one.
            walks: those from it, of `walk_from`.
            candidate_K: distinct papers.
        """
        candidate_1K = candidate_K[None]
        sources = _Sources(
            known=np.array([[len(source.hops["references"])]]),
            day=None if source.day is None else np.array([[source.day]]),
            unit_SF=None if source.x_F is None else unit_features(source.x_F[None]),
        )
        sums = self._sum_own(self.paths, walks, _to_csr(candidate_1K))
        features_KD: np.ndarray = self._features(sums, sources, candidate_1K, num_own=0)[0]
        return features_KD

    def baselines(
        self, sums: Sums, source_P: np.ndarray, candidates: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield name and scores of each training-free predictor; float32 [P, K].

        The arguments are those of `features`.
        """
        shape = (len(source_P), candidates.shape[-1])
        for path in BASELINE_PATHS:
            yield path.name, sums[path.name].reshape(shape).astype(np.float32)
        popularity = self._degree("citations")[candidates].astype(np.float32)
        yield "popularity", np.array(np.broadcast_to(popularity, shape))

    def sum_own(
        self, paths: Sequence[MetaPath], source_P: np.ndarray, candidate_PK: np.ndarray
    ) -> Sums:
        """Sum over the paths to each source's own candidates, float64 [P * K] for each path."""
        return self._sum_own(paths, self._walk(paths, source_P), _to_csr(candidate_PK))

    def ends(self, paths: Sequence[MetaPath], source_S: np.ndarray) -> PathEnds:
        """Walk all paths from some sources to their ends, whatever papers these are."""
        walks = self._walk(paths, source_S)
        return PathEnds(
            num_sources=len(source_S),
            num_papers=self._num_papers,
            parts=tuple(
                self._ends(
                    [path for path in paths if (path.prefix, path.last) == (prefix, last)],
                    walks[prefix],
                )
                for prefix, last in prefixes_of(paths)
            ),
        )

    def _ends(self, paths: Sequence[MetaPath], walk: Walk) -> EndsOfWalk:
        reached = rows_of(self._graphs[paths[0].last], walk.paper_E)
        num_S = np.diff(reached.rowptr_N1[walk.ptr_S1])
        weights = [
            walk.path_weight_E * self._weight(path.last, path.weight).take(walk.paper_E)
            for path in paths
        ]
        return EndsOfWalk(
            row_E=np.repeat(np.arange(len(num_S)), num_S),
            paper_E=reached.col_E,
            weights={
                path.name: np.repeat(weight_E.astype(np.float64), reached.degree_N)
                for path, weight_E in zip(paths, weights, strict=True)
            },
        )

    def _walk(
        self,
        paths: Sequence[MetaPath],
        source_S: np.ndarray,
        excluded_edges: tuple[np.ndarray, np.ndarray] | None = None,
        first: Mapping[str, Walk] | None = None,
    ) -> Walks:
        """Walk all paths but for their last hops; prefixes that several share are walked once.

        Args:
            paths: what to walk.
            source_S: papers to start from.
            excluded_edges: citations that are not walked, as `path_counts.start` takes them.
            first: the first hops, where they are not those of the graph.
        """
        walks: Walks = {}
        for path in paths:
            for length, hop in enumerate(path.hops[:-1]):
                key = prefix_of(path.hops[: length + 1], path.weight)
                if key in walks:
                    continue
                if first is not None and not length:
                    walks[key] = first[hop]
                    continue
                if not length:
                    # A citation that is missing tells nothing of features that are alike.
                    excluded = None if hop == "similar" else excluded_edges
                    walks[key] = start(self._graphs[hop], source_S, excluded)
                    continue
                before = walks[prefix_of(path.hops[:length], path.weight)]
                weight_N = self._weight(hop, path.weight)
                walks[key] = extend(before, self._graphs[hop], weight_N, source_S)
        return walks

    def _sum_own(self, paths: Sequence[MetaPath], walks: Walks, candidates: Csr) -> Sums:
        """Sum over the paths to each source's own candidates, float64 [P] for each path.

        The last hop is walked from the side where it leads to fewer papers: from the ends of the
        walks, or back from the candidates.

        Args:
            paths: paths to sum.
            walks: their prefixes.
            candidates: of each source; P in all.
        """
        num_ends = {last: 0 for _, last in prefixes_of(paths)}
        for prefix, last in prefixes_of(paths):
            num_ends[last] += len(walks[prefix].paper_E)
        forward = [
            path for path in paths if HUB_FACTOR * num_ends[path.last] < len(candidates.col_E)
        ]
        backward = [path for path in paths if path not in forward]
        sums: Sums = {}
        if forward:
            sums |= self._sum_forward(forward, walks, candidates)
        if backward:
            sums |= self._sum_backward(backward, walks, candidates)
        return sums

    def _sum_forward(self, paths: Sequence[MetaPath], walks: Walks, candidates: Csr) -> Sums:
        """Walk the last hop forward, and find the candidates that it ends at."""
        ends = {
            (prefix, last): rows_of(self._graphs[last], walks[prefix].paper_E)
            for prefix, last in prefixes_of(paths)
        }
        queries = [
            (rows.rowptr_N1[walks[prefix].ptr_S1], rows.col_E) for (prefix, _), rows in ends.items()
        ]
        representative_P, hits = intersect(
            [(candidates.rowptr_N1, candidates.col_E)], queries, self._num_papers
        )
        sums: Sums = {}
        for ((prefix, last), rows), (position_H, pair_H) in zip(ends.items(), hits, strict=True):
            walk = walks[prefix]
            passed_H = _row_of(position_H, rows.rowptr_N1)
            sums |= self._sum(
                [path for path in paths if (path.prefix, path.last) == (prefix, last)],
                pair_H,
                walk.paper_E[passed_H],
                walk.path_weight_E[passed_H],
                len(representative_P),
            )
        # A candidate that a source has twice was summed at its representative.
        return {name: sum_P[representative_P] for name, sum_P in sums.items()}

    def _sum_backward(self, paths: Sequence[MetaPath], walks: Walks, candidates: Csr) -> Sums:
        """Walk the last hop back from the candidates, and find papers of the walks."""
        prefixes = list(dict.fromkeys(path.prefix for path in paths))
        before = {
            last: rows_of(self._graphs[REVERSE[last]], candidates.col_E)
            for last in {path.last for path in paths}
        }
        paper_E = np.concatenate([walks[prefix].paper_E for prefix in prefixes])
        lists = [(walks[prefix].ptr_S1, walks[prefix].paper_E) for prefix in prefixes]
        queries = [(rows.rowptr_N1[candidates.rowptr_N1], rows.col_E) for rows in before.values()]
        representative_E, hits = intersect(lists, queries, self._num_papers)
        weights_E = _sum_by_representative(
            representative_E, [walks[prefix].path_weight_E for prefix in prefixes]
        )
        path_weight_E = dict(zip(prefixes, weights_E, strict=True))
        sums: Sums = {}
        for (last, rows), (position_H, number_H) in zip(before.items(), hits, strict=True):
            pair_H = _row_of(position_H, rows.rowptr_N1)
            for path in (path for path in paths if path.last == last):
                weight_H = path_weight_E[path.prefix].take(number_H)
                sums |= self._sum(
                    [path], pair_H, paper_E[number_H], weight_H, len(candidates.col_E)
                )
        return sums

    def _sum_shared(self, walks: Walks, candidate_K: np.ndarray, num_sources: int) -> Sums:
        """Sum over the paths to candidates that all sources share, [S, K] for each path.

        The last hop is walked back from each candidate once for all sources.
        """
        sums: Sums = {}
        shape = (num_sources, len(candidate_K))
        for last in dict.fromkeys(path.last for path in self.paths):
            before = InvertedIndex.of(
                rows_of(self._graphs[REVERSE[last]], candidate_K), self._num_papers
            )
            for prefix in dict.fromkeys(path.prefix for path in self.paths if path.last == last):
                walk = walks[prefix]
                passed_H, candidate_H = before.find(walk.paper_E)
                pair_H = _row_of(passed_H, walk.ptr_S1) * len(candidate_K) + candidate_H
                found = self._sum(
                    [path for path in self.paths if (path.prefix, path.last) == (prefix, last)],
                    pair_H,
                    walk.paper_E[passed_H],
                    walk.path_weight_E[passed_H],
                    math.prod(shape),
                )
                sums |= {name: sum_P.reshape(shape) for name, sum_P in found.items()}
        return sums

    def _sum(
        self,
        paths: Sequence[MetaPath],
        pair_H: np.ndarray,
        paper_H: np.ndarray,
        path_weight_H: np.ndarray,
        num_pairs: int,
    ) -> Sums:
        """Sum the weights of paths to each pair, times that of the last paper passed; float64."""
        return {
            path.name: np.bincount(
                pair_H,
                path_weight_H * self._weight(path.last, path.weight).take(paper_H),
                num_pairs,
            )
            for path in paths
        }

    @property
    def _num_papers(self) -> int:
        return self._graphs["references"].num_rows

    def _weight(self, hop: str, weight: str) -> np.ndarray:
        if (hop, weight) not in self._weights:
            self._weights[hop, weight] = _paper_weight(self._degree(hop).astype(np.float32), weight)
        return self._weights[hop, weight]

    def _degree(self, hop: str) -> np.ndarray:
        if hop not in self._degrees:
            self._degrees[hop] = np.diff(self._graphs[hop].rowptr_N1).astype(np.int32)
        return self._degrees[hop]

    def _features(
        self,
        sums: Sums,
        sources: _Sources,
        target: np.ndarray,
        *,
        num_own: int,
    ) -> np.ndarray:
        """Join the features of paths and of papers, [..., D].

        Args:
            sums: of the paths.
            sources: of the pairs.
            target: candidates.
            num_own: citations of the pair itself in the graph, which do not count: 1 or 0.
        """
        shape = np.broadcast_shapes(sources.known.shape, target.shape)
        features = np.zeros((*shape, len(self.names)), dtype=np.float32)
        for i, path in enumerate(self.paths):
            # Most pairs have no path; the logarithm is taken where there is one.
            sum_P = sums[path.name].ravel()
            some = np.flatnonzero(sum_P != 0)  # nonzero() of floats takes four times as long
            features.reshape(-1, features.shape[-1])[some, i] = np.log1p(path.scale * sum_P[some])
        columns = self._paper_features(sources, target, num_own)
        for i, column in enumerate(columns, start=len(self.paths)):
            features[..., i] = column
        return features

    def _paper_features(
        self, sources: _Sources, target: np.ndarray, num_own: int
    ) -> list[np.ndarray]:
        """Features that take no path."""
        cited = np.maximum(self._degree("citations").take(target) - num_own, 0).astype(np.float32)
        columns = [
            np.log1p(cited),
            np.log1p(self._degree("references").take(target).astype(np.float32)),
            np.log1p(sources.known.astype(np.float32)),
        ]
        if self._day_N is not None and sources.day is not None:
            days = sources.day - self._day_N.take(target)
            years = np.maximum(days, 0).astype(np.float32) / np.float32(DAYS_PER_YEAR)
            columns += [np.log1p(years), np.log1p(cited / (years + np.float32(0.5)))]
            columns += [np.log1p(count) for count in self._recent_citations(sources.day, target)]
        if self._x_NF is not None and sources.unit_SF is not None:
            columns.append(self._cosine(sources.unit_SF, target))
        return columns

    def _sources(self, source: np.ndarray, known: np.ndarray) -> _Sources:
        """Look up papers of the graph, of any shape."""
        return _Sources(
            known=known,
            day=None if self._day_N is None else self._day_N.take(source),
            unit_SF=None if self._x_NF is None else self._unit_rows(source.ravel()),
        )

    def _recent_citations(self, day: np.ndarray, target: np.ndarray) -> Iterator[np.ndarray]:
        """Count the citations of candidates in the years before each source, not on its day.

        So neither the source itself counts, nor a paper that is newer.
        """
        assert self._day_N is not None
        if day.ndim == 2 and len(target) == 1:
            yield from self._recent_citations_of_shared(day.ravel(), target[0])
            return
        # In the order of the papers, neighboring searches end near each other.
        order_P = np.argsort(target, axis=None)
        paper_P = target.ravel()[order_P]
        paper_U, index_P = np.unique(paper_P, return_inverse=True)
        citing = rows_of(self._graphs["citations"], paper_U)
        # A new paper may be older, or newer, than all others.
        oldest, newest = int(self._day_N.min()), int(self._day_N.max())
        first_day = int(day.min(initial=oldest)) - DAYS_OF_YEAR * max(RECENT_YEARS)
        num_days = int(day.max(initial=newest)) - first_day + 1
        row_E = np.repeat(np.arange(len(paper_U), dtype=np.int64), citing.degree_N)
        key_E = np.sort(row_E * num_days + (self._day_N.take(citing.col_E) - first_day))
        day_P = np.broadcast_to(day, target.shape).ravel()[order_P]
        key_P = index_P * np.int64(num_days) + (day_P - first_day)
        before_P = np.searchsorted(key_E, key_P)
        for years in RECENT_YEARS:
            count = np.empty(target.shape, dtype=np.float32)
            first_P = np.searchsorted(key_E, key_P - DAYS_OF_YEAR * years)
            count.ravel()[order_P] = before_P - first_P
            yield count

    def _recent_citations_of_shared(
        self, day_S: np.ndarray, candidate_K: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Count them for candidates that all sources share, [S, K]."""
        if len(day_S) == 1:  # one pass takes less time than the sort that several sources share
            yield from self._recent_citations_of_one(int(day_S[0]), candidate_K)
            return
        if len(candidate_K) < self._num_papers:
            day_E, row_E = self._citations_by_day(candidate_K)
            num_rows, row_K = len(candidate_K), np.arange(len(candidate_K))
        else:
            if self._all_by_day is None:
                self._all_by_day = self._citations_by_day(np.arange(self._num_papers))
            day_E, row_E = self._all_by_day
            num_rows, row_K = self._num_papers, candidate_K
        end_S = np.searchsorted(day_E, day_S)
        for years in RECENT_YEARS:
            count_SK = np.empty((len(day_S), len(candidate_K)), dtype=np.float32)
            first_S = np.searchsorted(day_E, day_S - DAYS_OF_YEAR * years)
            for i, (first, end) in enumerate(zip(first_S, end_S, strict=True)):
                count_K = np.bincount(row_E[first:end], minlength=num_rows)
                count_SK[i] = count_K.take(row_K)
            yield count_SK

    def _recent_citations_of_one(self, day: int, candidate_K: np.ndarray) -> Iterator[np.ndarray]:
        """Count them for the candidates of one source, [1, K]."""
        assert self._day_N is not None
        citing = rows_of(self._graphs["citations"], candidate_K)
        age_E = day - self._day_N.take(citing.col_E)
        num_E1 = np.zeros(len(age_E) + 1, dtype=np.int64)
        for years in RECENT_YEARS:
            np.cumsum((age_E > 0) & (age_E <= DAYS_OF_YEAR * years), out=num_E1[1:])
            yield np.diff(num_E1.take(citing.rowptr_N1))[None].astype(np.float32)

    def _citations_by_day(self, paper_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the days of the citations of some papers, ascending, and which each is of."""
        assert self._day_N is not None
        citing = rows_of(self._graphs["citations"], paper_K)
        day_E = self._day_N.take(citing.col_E)
        order_E = np.argsort(day_E)
        return day_E[order_E], np.repeat(np.arange(len(paper_K)), citing.degree_N)[order_E]

    def _cosine(self, source_F: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Cosine of the features of sources and candidates, of the shape that both broadcast to."""
        if target.ndim == 1:
            cosine_P: np.ndarray = np.einsum("pf,pf->p", source_F, self._unit_rows(target))
            return cosine_P
        if len(target) == 1:
            cosine_SK: np.ndarray = source_F @ self._unit_rows(target[0]).T
            return cosine_SK
        cosine_PK = np.empty(target.shape, dtype=np.float32)
        # Source by source, so that the features of one source's candidates stay in the cache.
        for cosine_K, paper_K, one_F in zip(cosine_PK, target, source_F, strict=True):
            cosine_K[:] = self._unit_rows(paper_K) @ one_F
        return cosine_PK

    def _unit_rows(self, paper: np.ndarray) -> np.ndarray:
        """Return the features of some papers, scaled; those of a small graph are kept."""
        assert self._x_NF is not None
        if self._x_NF.size > MAX_KEPT_FEATURES:
            if (paper[1:] > paper[:-1]).all():  # as candidates are: each once
                return unit_features(self._x_NF[paper])
            paper_U, index = np.unique(paper, return_inverse=True)
            return unit_features(self._x_NF[paper_U]).take(index, axis=0)
        if self._unit_NF is None:
            self._unit_NF = unit_features(self._x_NF)
        return self._unit_NF.take(paper, axis=0)


def _paper_weight(degree_N: np.ndarray, weight: str) -> np.ndarray:
    if weight == "one":
        return np.ones_like(degree_N)
    # Bounds for papers that no path of two hops passes: they keep the weights finite.
    if weight == "log":
        weight_N: np.ndarray = 1 / np.log(np.maximum(degree_N, 2))
    else:
        weight_N = 1 / np.maximum(degree_N, 1)
    return weight_N


def _to_csr(candidate_PK: np.ndarray) -> Csr:
    num_sources, num_candidates = candidate_PK.shape
    return Csr(np.arange(num_sources + 1) * num_candidates, candidate_PK.ravel())


def _row_of(position_H: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Row that each position in a list of rows belongs to."""
    row_H: np.ndarray = np.searchsorted(ptr, position_H, side="right") - 1
    return row_H


def _sum_by_representative(
    representative_E: np.ndarray, path_weights: list[np.ndarray]
) -> list[np.ndarray]:
    """Add up the path weights of each walk where it lists a paper twice, for all entries."""
    first_of_walk = np.cumsum([0] + [len(path_weight_E) for path_weight_E in path_weights])
    bounds = itertools.pairwise(first_of_walk.tolist())
    return [
        np.bincount(representative_E[slice(*bound)], path_weight_E, len(representative_E))
        for bound, path_weight_E in zip(bounds, path_weights, strict=True)
    ]
