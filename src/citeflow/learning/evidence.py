"""What the graph says about a pair of papers: paths between them, and when and how often the candidate was cited.

The pair's own citation is never seen. Training citations s -> t are scored as if they were missing: their targets are
taken out of the references of s before any path is walked, walks do not come back to s, and t's count is one less.

Legend: N papers, S sources, P pairs, K candidates, D kinds of evidence.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

DAYS_PER_YEAR = 365.25
Hidden = tuple[np.ndarray, np.ndarray]
WEIGHTS = ("one", "log", "inverse")
TURNED = {"references": "citations", "citations": "references", "neighbours": "neighbours"}


@dataclass(frozen=True, slots=True)
class Path:
    """A way from the source to a candidate; every paper on the way is weighted by how many ways lead on from it."""

    name: str
    hops: tuple[str, ...]
    weight: str
    """Of a paper on the way with degree d along the next hop: "one", "log" (1 / ln d) or "inverse" (1 / d)."""

    scale: float
    """Brings the evidence e to a range where ln(1 + scale * e) tells weak from strong."""


PATHS = (
    Path("common_neighbors", ("neighbours", "neighbours"), "one", 1.0),
    Path("adamic_adar", ("neighbours", "neighbours"), "log", 1.0),
    Path("resource_allocation", ("neighbours", "neighbours"), "inverse", 10.0),
    Path("reference_of_reference", ("references", "references"), "inverse", 10.0),
    Path("bibliographic_coupling", ("references", "citations"), "inverse", 10.0),
    Path("co_citation", ("references", "citations", "references"), "inverse", 100.0),
    Path("reference_chain", ("references", "references", "references"), "inverse", 100.0),
    Path("coupling_of_reference", ("references", "references", "citations"), "inverse", 100.0),
    Path("citation_of_coupled", ("references", "citations", "citations"), "inverse", 100.0),
)
"""The first three are the training-free predictors of Liben-Nowell & Kleinberg (2007), Adamic & Adar (2003) and Zhou,
Lü & Zhang (2009)."""

BASELINES = ("common_neighbors", "adamic_adar", "resource_allocation", "popularity")


class Evidence:
    """Answers what is known of pairs, from sparse products that start at the sources."""

    def __init__(
        self,
        references: Any,
        citations: Any,
        neighbours: Any,
        day_N: np.ndarray | None,
        *,
        hops: int = 3,
    ) -> None:
        """Look at the training citations, and at paths of up to `hops` of them.

        Args:
            references: N x N matrix of ones, scipy CSR, from the citing to the cited paper.
            citations: the same turned round.
            neighbours: both together.
            day_N: date of each paper in days, where known.
            hops: length of the longest path that is looked for.
        """
        self.paths = tuple(path for path in PATHS if len(path.hops) <= hops)
        self._hops = {"references": references, "citations": citations, "neighbours": neighbours}
        self._degrees = {name: np.diff(matrix.indptr) for name, matrix in self._hops.items()}
        self._weights = {(hop, weight): self._weight(hop, weight) for hop in self._hops for weight in WEIGHTS}
        self._day_N = day_N

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each kind, in the order of the last axis."""
        dated = ("age", "citations_per_year") if self._day_N is not None else ()
        return (*(path.name for path in self.paths), "popularity", "references_given", *dated)

    def of_batch(
        self, source_S: np.ndarray, row_P: np.ndarray, target_P: np.ndarray, candidate_K: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evidence for training citations and for the candidates that their sources share.

        Both are looked up as if the sources lacked these citations: the graph then looks alike for what is to be told
        apart.

        Args:
            source_S: citing papers.
            row_P: row of `source_S` that each citation belongs to.
            target_P: cited papers.
            candidate_K: papers that every source is compared with.

        Returns:
            float32 [P, D] and float32 [S, K, D].
        """
        walk = self._walks(source_S, hidden=(row_P, target_P))
        own, shared = [], []
        for path in self.paths:
            back = self._hops[TURNED[path.hops[-1]]]
            own.append(
                _as_feature(path, np.asarray(walk[path.name][row_P].multiply(back[target_P]).sum(axis=1)).ravel())
            )
            shared.append(_as_feature(path, (walk[path.name] @ back[candidate_K].T.tocsr()).toarray()))
        own += self._of_papers(source_S[row_P], target_P, own=1)
        shared += self._of_papers(source_S[:, None], candidate_K[None, :], own=0)
        return _join(own), _join(shared)

    def of_candidates(self, source_P: np.ndarray, candidate_PK: np.ndarray) -> np.ndarray:
        """Evidence for each source with candidates of its own; float32 [P, K, D].

        One sparse row per source and path holds the evidence for all papers, from which the candidates are picked.
        """
        columns = []
        walk = self._walks(source_P)
        for path in self.paths:
            columns.append(_as_feature(path, pick(walk[path.name] @ self._hops[path.hops[-1]], candidate_PK)))
        return _join([*columns, *self._of_papers(source_P[:, None], candidate_PK, own=0)])

    def baselines(self, source_P: np.ndarray, candidate_PK: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Scores of the training-free predictors, name by name; float32 [P, K]."""
        neighbours = self._hops["neighbours"]
        for path in PATHS:
            if path.name in BASELINES:
                walk = _weighted(neighbours[source_P], self._weights["neighbours", path.weight])
                yield path.name, pick(walk @ neighbours, candidate_PK)
        yield "popularity", self._degrees["citations"][candidate_PK].astype(np.float32)

    def _walks(self, source_S: np.ndarray, hidden: Hidden | None = None) -> dict[str, Any]:
        """Weighted S x N matrices of the papers that each path reaches one hop before its end.

        Args:
            source_S: where the paths begin.
            hidden: rows of `source_S` and papers that they do not lead to directly.
        """
        begun: dict[tuple[str, ...], Any] = {}
        for path in self.paths:
            for length in range(1, len(path.hops)):
                key = (*path.hops[: length + 1], path.weight)
                if key not in begun:
                    before = begun.get((*path.hops[:length], path.weight))
                    begun[key] = self._step(before, path, length, source_S, hidden)
        return {path.name: begun[*path.hops, path.weight] for path in self.paths}

    def _step(
        self,
        before: Any,
        path: Path,
        length: int,
        source_S: np.ndarray,
        hidden: Hidden | None,
    ) -> Any:
        """Take a path's hop number `length`, and weight the papers that it reaches by the hop after it."""
        if length == 1:
            reached = self._hops[path.hops[0]][source_S]
            reached = reached if hidden is None else _zeroed(reached, *hidden)
        else:
            reached = _zeroed(before @ self._hops[path.hops[length - 1]], np.arange(len(source_S)), source_S)
        return _weighted(reached, self._weights[path.hops[length], path.weight])

    def _weight(self, hop: str, weight: str) -> np.ndarray:
        degree_N: np.ndarray = np.maximum(self._degrees[hop], 1).astype(np.float32)
        if weight == "one":
            return np.ones_like(degree_N)
        inverted_N: np.ndarray = np.reciprocal(np.log(np.maximum(degree_N, 2)) if weight == "log" else degree_N)
        return inverted_N

    def _of_papers(self, source: np.ndarray, target: np.ndarray, own: int) -> list[np.ndarray]:
        """What the two papers say without a path; `own` is 1 where the pair is itself a citation, else 0."""
        cited = np.maximum(self._degrees["citations"][target] - own, 0)
        shape = np.broadcast_shapes(source.shape, target.shape)
        columns = [np.log1p(cited), np.log1p(self._degrees["references"][target])]
        if self._day_N is not None:
            years = np.maximum(self._day_N[source].astype(np.float32) - self._day_N[target], 0) / DAYS_PER_YEAR
            columns += [np.log1p(years), np.log1p(cited / (years + 0.5))]
        return [np.broadcast_to(column, shape) for column in columns]


def pick(rows: Any, candidate_PK: np.ndarray) -> np.ndarray:
    """Values of a sparse P x N matrix at the columns wanted in each row, float32 [P, K]."""
    rows = rows.tocsr()
    values_PK = np.zeros(candidate_PK.shape, dtype=np.float32)
    dense_N = np.zeros(rows.shape[1], dtype=np.float32)
    for i, candidate_K in enumerate(candidate_PK):
        here = slice(rows.indptr[i], rows.indptr[i + 1])
        dense_N[rows.indices[here]] = rows.data[here]
        values_PK[i] = dense_N[candidate_K]
        dense_N[rows.indices[here]] = 0
    return values_PK


def _as_feature(path: Path, value: np.ndarray) -> np.ndarray:
    feature: np.ndarray = np.log1p(path.scale * value)
    return feature


def _join(columns: list[np.ndarray]) -> np.ndarray:
    return np.stack(columns, axis=-1, dtype=np.float32, casting="same_kind")


def _weighted(matrix: Any, weight_N: np.ndarray) -> Any:
    """Multiply each column by its weight, in place: rows that were picked or multiplied are a copy of the graph's."""
    matrix.data *= weight_N[matrix.indices]
    return matrix


def _zeroed(matrix: Any, row_P: np.ndarray, column_P: np.ndarray) -> Any:
    """Set entries to zero, in place."""
    num_rows, num_columns = matrix.shape
    row_E = np.repeat(np.arange(num_rows, dtype=np.int64), np.diff(matrix.indptr))
    matrix.data[np.isin(row_E * num_columns + matrix.indices, row_P * np.int64(num_columns) + column_P)] = 0
    return matrix
