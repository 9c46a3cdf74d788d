"""Structural features of a pair: paths between two papers, and the candidate's citations.

A pair's own citation is never seen. In training, citations s -> t are scored as if they were
missing: their targets are taken out of the references of s before any path is walked, walks do not
come back to s, and the citation count of t is one less. Otherwise a head would learn the trace that
a citation leaves in the graph (every other reference of s reaches t over s), which a missing one
does not leave.

Legend: N papers, S sources, P pairs, K candidates, D structural features.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from citeflow.data.citation_graph import DAYS_PER_YEAR
from citeflow.graph.csr import Csr, rows_of
from citeflow.graph.similar import unit_features
from citeflow.graph.source import Source
from citeflow.models.feature_cosine import FeatureCosine
from citeflow.models.meta_paths import BASELINE_PATHS, MetaPath
from citeflow.models.path_counts import PathEnds, Walk
from citeflow.models.path_sums import PathSums, Sums, Walks
from citeflow.models.recent_citations import RECENT_YEARS, RecentCitations

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
        self._sums = PathSums(graphs, hops)
        self._day_N = None if day_N is None else np.asarray(day_N)
        self._recent: RecentCitations | None = None
        if self._day_N is not None:
            self._recent = RecentCitations(self._sums.graphs["citations"], self._day_N)
        self._cosine = None if x_NF is None else FeatureCosine(np.asarray(x_NF))

    @property
    def x_NF(self) -> np.ndarray | None:
        """Features of papers, where their cosine is one of a pair."""
        return None if self._cosine is None else self._cosine.x_NF

    def holding(self, paper_U: np.ndarray) -> "StructuralFeatures":
        """Return the same for pairs of some papers, ascending, whose features are in memory."""
        if self._cosine is None:
            return self
        held = copy.copy(self)
        held._cosine = self._cosine.holding(paper_U)
        return held

    @property
    def paths(self) -> tuple[MetaPath, ...]:
        """Kinds of paths that are summed, one feature each."""
        return self._sums.paths

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each feature, in the order of the last axis."""
        names = [path.name for path in self.paths]
        names += ["popularity", "references_given", "references_known"]
        if self._day_N is not None:
            names += ["age", "citations_per_year"]
            names += [f"citations_in_{years}_years" for years in RECENT_YEARS]
        if self._cosine is not None:
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
        known_S = self._sums.degree("references").take(source_S) - np.bincount(
            missing[0], minlength=len(source_S)
        )
        order_P = np.argsort(source_index_P, kind="stable")
        ptr_S1 = np.searchsorted(source_index_P[order_P], np.arange(len(source_S) + 1))
        own = Csr(ptr_S1, target_P[order_P])
        parts = []
        for rows in self._sums.groups(self.paths, source_S, own):
            is_of_rows = (missing[0] >= rows.start) & (missing[0] < rows.stop)
            excluded = missing[0][is_of_rows] - rows.start, missing[1][is_of_rows]
            walks = self._sums.walk(self.paths, source_S[rows], excluded_edges=excluded)
            shared_part = self._sums.shared(walks, candidate_K, rows.stop - rows.start)
            parts.append((self._sums.own(self.paths, walks, _slice(own, rows)), shared_part))
        sums, shared = (_concatenate(each) for each in zip(*parts, strict=True))
        undo_P = np.argsort(order_P)
        own_PD = self._features(
            {name: sum_P[undo_P] for name, sum_P in sums.items()},
            self._sources(source_S[source_index_P], known_S[source_index_P]),
            target_P,
            num_own=1,
        )
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
        rows = rows_of(self._sums.graphs["references"], source_S[hidden])
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
        known_P = self._sums.degree("references").take(source_P)
        sources = self._sources(source_P[:, None], known_P[:, None])
        return self._features(sums, sources, np.atleast_2d(candidates), num_own=0)

    def walk_from(self, source: Source) -> Walks:
        """Walk from a source that may be none of the papers, once for all of its candidates."""
        first = {
            hop: Walk(np.array([0, len(paper_E)]), paper_E, np.ones(len(paper_E), np.float32))
            for hop, paper_E in source.hops.items()
        }
        return self._sums.walk(self.paths, np.array([source.row]), first=first)

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
        sums = self._sums.own(self.paths, walks, _to_csr(candidate_1K))
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
        popularity = self._sums.degree("citations")[candidates].astype(np.float32)
        yield "popularity", np.array(np.broadcast_to(popularity, shape))

    def sum_own(
        self, paths: Sequence[MetaPath], source_P: np.ndarray, candidate_PK: np.ndarray
    ) -> Sums:
        """Sum over the paths to each source's own candidates, float64 [P * K] for each path."""
        candidates = _to_csr(candidate_PK)
        return _concatenate(
            self._sums.own(paths, self._sums.walk(paths, source_P[rows]), _slice(candidates, rows))
            for rows in self._sums.groups(paths, source_P, candidates)
        )

    def ends(self, paths: Sequence[MetaPath], source_S: np.ndarray) -> PathEnds:
        """Walk all paths from some sources to their ends, whatever papers these are."""
        return self._sums.ends(paths, source_S)

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
        cited = np.maximum(self._sums.degree("citations").take(target) - num_own, 0)
        cited = cited.astype(np.float32)
        columns = [
            np.log1p(cited),
            np.log1p(self._sums.degree("references").take(target).astype(np.float32)),
            np.log1p(sources.known.astype(np.float32)),
        ]
        if self._recent is not None and self._day_N is not None and sources.day is not None:
            days = sources.day - self._day_N.take(target)
            years = np.maximum(days, 0).astype(np.float32) / np.float32(DAYS_PER_YEAR)
            columns += [np.log1p(years), np.log1p(cited / (years + np.float32(0.5)))]
            columns += [np.log1p(count) for count in self._recent.count(sources.day, target)]
        if self._cosine is not None and sources.unit_SF is not None:
            columns.append(self._cosine.cosine(sources.unit_SF, target))
        return columns

    def _sources(self, source: np.ndarray, known: np.ndarray) -> _Sources:
        """Look up papers of the graph, of any shape."""
        return _Sources(
            known=known,
            day=None if self._day_N is None else self._day_N.take(source),
            unit_SF=None if self._cosine is None else self._cosine.unit_rows(source.ravel()),
        )


def _concatenate(parts: Iterable[Sums]) -> Sums:
    """Join the sums of groups of sources."""
    first, *others = parts
    if not others:
        return first
    return {
        name: np.concatenate([sum_P, *(each[name] for each in others)])
        for name, sum_P in first.items()
    }


def _slice(csr: Csr, rows: slice) -> Csr:
    """Take consecutive rows."""
    ptr = csr.rowptr_N1[rows.start : rows.stop + 1]
    return Csr(ptr - ptr[0], csr.col_E[ptr[0] : ptr[-1]])


def _to_csr(candidate_PK: np.ndarray) -> Csr:
    num_sources, num_candidates = candidate_PK.shape
    return Csr(np.arange(num_sources + 1) * num_candidates, candidate_PK.ravel())
