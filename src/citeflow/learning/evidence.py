"""What the graph itself says about a pair of papers: paths between them, and when and how often the candidate was cited.

The pair's own citation is never seen. A training citation s -> t is scored as if it were missing: t is taken out of the
references of s before any path is walked, walks do not come back to s, and t's citation count is one less.

Legend: N papers, S sources, P pairs, K candidates, D kinds of evidence.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

DAYS_PER_YEAR = 365.25
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

    def __init__(self, references: Any, citations: Any, neighbours: Any, day_N: np.ndarray | None) -> None:  # noqa: ANN401 - scipy has no types
        """Take the training citations as N x N matrices of ones (scipy CSR): directed, turned round, and undirected."""
        self._hops = {"references": references, "citations": citations, "neighbours": neighbours}
        self._degrees = {name: np.diff(matrix.indptr) for name, matrix in self._hops.items()}
        self._weights = {
            (path.hops[i], path.weight): self._weight(path.hops[i], path.weight) for path, i in _inner_hops()
        }
        self.day_N = day_N
        self.num_papers: int = references.shape[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each kind, in the order of the last axis."""
        dated = ("age", "citations_per_year") if self.day_N is not None else ()
        return (*(path.name for path in PATHS), "popularity", "references_given", *dated)

    def of_citations(self, source_P: np.ndarray, target_P: np.ndarray) -> np.ndarray:
        """Evidence for training citations, each as if it were missing; float32 [P, D]."""
        columns = []
        left_of = self._left_sides(source_P, without_P=target_P)
        for path in PATHS:
            right = self._hops[TURNED[path.hops[-1]]][target_P]
            columns.append(np.log1p(path.scale * np.asarray(left_of[path].multiply(right).sum(axis=1)).ravel()))
        return self._join(columns, self._of_papers(source_P, target_P, own=1))

    def of_shared(self, source_S: np.ndarray, candidate_K: np.ndarray) -> np.ndarray:
        """Evidence for every source with every one of the candidates that they share; float32 [S, K, D]."""
        left_of = self._left_sides(source_S)
        columns = []
        for path in PATHS:
            right = self._hops[TURNED[path.hops[-1]]][candidate_K].T.tocsr()
            columns.append(np.log1p(path.scale * (left_of[path] @ right).toarray()))
        return self._join(columns, self._of_papers(source_S[:, None], candidate_K[None, :], own=0))

    def of_candidates(self, source_P: np.ndarray, candidate_PK: np.ndarray) -> np.ndarray:
        """Evidence for each source with candidates of its own; float32 [P, K, D].

        One sparse row per source and path holds the evidence for all papers, from which the candidates are picked.
        """
        rows_of = self._left_sides(source_P)
        columns = []
        for path in PATHS:
            rows = rows_of[path] @ self._hops[path.hops[-1]]
            columns.append(np.log1p(path.scale * pick(rows, candidate_PK)))
        return self._join(columns, self._of_papers(source_P[:, None], candidate_PK, own=0))

    def baselines(self, source_P: np.ndarray, candidate_PK: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Scores of the training-free predictors, name by name; float32 [P, K]."""
        neighbours = self._hops["neighbours"]
        for path in PATHS:
            if path.name in BASELINES:
                left = _scale(neighbours[source_P], self._weights["neighbours", path.weight])
                yield path.name, pick(left @ neighbours, candidate_PK)
        yield "popularity", self._degrees["citations"][candidate_PK].astype(np.float32)

    def _left_sides(self, source_S: np.ndarray, without_P: np.ndarray | None = None) -> dict[Path, Any]:
        """Walks from the sources up to, but without, the last hop of each path: S x N matrices."""
        done: dict[tuple[tuple[str, ...], str], Any] = {}
        for path in PATHS:
            for length in range(1, len(path.hops)):
                key = (path.hops[: length + 1], path.weight)
                if key not in done:
                    before = done.get((path.hops[:length], path.weight))
                    walk = (
                        self._first_hop(path, source_S, without_P)
                        if before is None
                        else self._hop(path, length, before)
                    )
                    done[key] = _scale(_without(walk, source_S), self._weights[path.hops[length], path.weight])
        return {path: done[path.hops, path.weight] for path in PATHS}

    def _first_hop(self, path: Path, source_S: np.ndarray, without_P: np.ndarray | None) -> Any:  # noqa: ANN401
        rows = self._hops[path.hops[0]][source_S]
        return rows if without_P is None else _without(rows, without_P)

    def _hop(self, path: Path, length: int, before: Any) -> Any:  # noqa: ANN401
        return before @ self._hops[path.hops[length - 1]]

    def _weight(self, hop: str, weight: str) -> np.ndarray:
        degree_N = self._degrees[hop].astype(np.float32)
        if weight == "log":
            return np.float32(1) / np.log(np.maximum(degree_N, 2))
        return np.float32(1) / np.maximum(degree_N, 1) if weight == "inverse" else np.ones_like(degree_N)

    def _of_papers(self, source: np.ndarray, target: np.ndarray, own: int) -> list[np.ndarray]:
        """What the two papers say without a path; `own` is 1 where the pair is itself a citation, else 0."""
        cited = np.maximum(self._degrees["citations"][target] - own, 0)
        shape = np.broadcast_shapes(source.shape, target.shape)
        columns = [np.log1p(cited), np.log1p(self._degrees["references"][target])]
        if self.day_N is not None:
            years = np.maximum(self.day_N[source].astype(np.float32) - self.day_N[target], 0) / DAYS_PER_YEAR
            columns += [np.log1p(years), np.log1p(cited / (years + 0.5))]
        return [np.broadcast_to(column, shape) for column in columns]

    def _join(self, paths: list[np.ndarray], papers: list[np.ndarray]) -> np.ndarray:
        return np.stack([*paths, *papers], axis=-1, dtype=np.float32, casting="same_kind")


def pick(rows: Any, candidate_PK: np.ndarray) -> np.ndarray:  # noqa: ANN401 - scipy has no types
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


def _inner_hops() -> Iterator[tuple[Path, int]]:
    for path in PATHS:
        for i in range(1, len(path.hops)):
            yield path, i


def _scale(matrix: Any, weight_N: np.ndarray) -> Any:  # noqa: ANN401 - scipy has no types
    """Multiply each column by its weight."""
    scaled = matrix.copy()
    scaled.data = scaled.data * weight_N[scaled.indices]
    return scaled


def _without(matrix: Any, column_S: np.ndarray) -> Any:  # noqa: ANN401 - scipy has no types
    """Set one entry per row to zero."""
    row_E = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    cleaned = matrix.copy()
    cleaned.data[cleaned.indices == column_S[row_E]] = 0
    return cleaned
