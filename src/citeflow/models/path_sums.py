"""Sums over the paths between two papers, for each of the kinds in `meta_paths`.

Legend: N papers, S sources, P pairs, K candidates, E papers on walks, H hits.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from citeflow.graph.csr import Csr, rows_of
from citeflow.models.meta_paths import (
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

HUB_FACTOR = 8
"""Estimate of how many more papers the next hop leads to from a paper on a walk, which is often a
hub, than from a random candidate."""

WALK = 1 << 22
"""Papers that the walks of the sources that are computed at once lead to, at most, those that lead
to their candidates included: 0.3 GB. A source that alone has more of them is computed alone; a hub
among its references adds all papers that cite the hub."""

Walks = dict[Prefix, Walk]
Sums = dict[str, np.ndarray]


class PathSums:
    """Walks from sources, and sums the weights of their paths to candidates."""

    def __init__(self, graphs: Mapping[str, Csr], hops: int) -> None:
        """Take adjacencies by the name of the hop; paths longer than `hops` are left out."""
        self.paths = tuple(
            path for path in PATHS if len(path.hops) <= hops and graphs.keys() >= {*path.hops}
        )
        # np.memmap slows down small index operations; a plain array shares its memory.
        self.graphs = {
            hop: Csr(np.asarray(csr.rowptr_N1), np.asarray(csr.col_E))
            for hop, csr in graphs.items()
        }
        self._degrees: dict[str, np.ndarray] = {}
        self._weights: dict[tuple[str, str], np.ndarray] = {}

    @property
    def num_papers(self) -> int:
        """Number of papers, N."""
        return self.graphs["references"].num_rows

    def degree(self, hop: str) -> np.ndarray:
        """Return the papers that each paper leads to, int32 [N]; kept."""
        if hop not in self._degrees:
            self._degrees[hop] = np.diff(self.graphs[hop].rowptr_N1).astype(np.int32)
        return self._degrees[hop]

    def walk(
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
                    walks[key] = start(self.graphs[hop], source_S, excluded)
                    continue
                before = walks[prefix_of(path.hops[:length], path.weight)]
                weight_N = self._weight(hop, path.weight)
                walks[key] = extend(before, self.graphs[hop], weight_N, source_S)
        return walks

    def groups(
        self, paths: Sequence[MetaPath], source_S: np.ndarray, candidates: Csr
    ) -> list[slice]:
        """Divide sources into consecutive ones whose walks fit into `WALK`."""
        size_S = np.zeros(len(source_S), dtype=np.int64)
        hops = dict.fromkeys(path.hops[:2] for path in paths if len(path.hops) > 2)
        for first, second in hops:
            reached = rows_of(self.graphs[first], source_S)
            size_S += _sum_rows(self.degree(second).take(reached.col_E), reached.rowptr_N1)
        for last in dict.fromkeys(path.last for path in paths):
            size_P = self.degree(REVERSE[last]).take(candidates.col_E)
            size_S += _sum_rows(size_P, candidates.rowptr_N1)
        group_S = np.cumsum(size_S) // WALK
        bounds = [0, *(np.flatnonzero(np.diff(group_S)) + 1).tolist(), len(source_S)]
        return [slice(first, end) for first, end in itertools.pairwise(bounds)]

    def own(self, paths: Sequence[MetaPath], walks: Walks, candidates: Csr) -> Sums:
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

    def shared(self, walks: Walks, candidate_K: np.ndarray, num_sources: int) -> Sums:
        """Sum over the paths to candidates that all sources share, [S, K] for each path.

        The last hop is walked back from each candidate once for all sources.
        """
        sums: Sums = {}
        shape = (num_sources, len(candidate_K))
        for last in dict.fromkeys(path.last for path in self.paths):
            reached = rows_of(self.graphs[REVERSE[last]], candidate_K)
            prefixes = dict.fromkeys(path.prefix for path in self.paths if path.last == last)
            with InvertedIndex.of(reached, self.num_papers) as before:
                for prefix in prefixes:
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

    def ends(self, paths: Sequence[MetaPath], source_S: np.ndarray) -> PathEnds:
        """Walk all paths from some sources to their ends, whatever papers these are."""
        walks = self.walk(paths, source_S)
        return PathEnds(
            num_sources=len(source_S),
            parts=tuple(
                self._ends(
                    [path for path in paths if (path.prefix, path.last) == (prefix, last)],
                    walks[prefix],
                )
                for prefix, last in prefixes_of(paths)
            ),
        )

    def _ends(self, paths: Sequence[MetaPath], walk: Walk) -> EndsOfWalk:
        num_S = np.diff(walk.ptr_S1)
        weights = {
            path.name: (
                walk.path_weight_E * self._weight(path.last, path.weight).take(walk.paper_E)
            ).astype(np.float64)
            for path in paths
        }
        return EndsOfWalk.of(
            rows_of(self.graphs[paths[0].last], walk.paper_E),
            np.repeat(np.arange(len(num_S)), num_S),
            weights,
            self.num_papers,
        )

    def _sum_forward(self, paths: Sequence[MetaPath], walks: Walks, candidates: Csr) -> Sums:
        """Walk the last hop forward, and find the candidates that it ends at."""
        ends = {
            (prefix, last): rows_of(self.graphs[last], walks[prefix].paper_E)
            for prefix, last in prefixes_of(paths)
        }
        queries = [
            (rows.rowptr_N1[walks[prefix].ptr_S1], rows.col_E) for (prefix, _), rows in ends.items()
        ]
        representative_P, hits = intersect(
            [(candidates.rowptr_N1, candidates.col_E)], queries, self.num_papers
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
            last: rows_of(self.graphs[REVERSE[last]], candidates.col_E)
            for last in {path.last for path in paths}
        }
        paper_E = np.concatenate([walks[prefix].paper_E for prefix in prefixes])
        lists = [(walks[prefix].ptr_S1, walks[prefix].paper_E) for prefix in prefixes]
        queries = [(rows.rowptr_N1[candidates.rowptr_N1], rows.col_E) for rows in before.values()]
        representative_E, hits = intersect(lists, queries, self.num_papers)
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

    def _weight(self, hop: str, weight: str) -> np.ndarray:
        if (hop, weight) not in self._weights:
            self._weights[hop, weight] = _paper_weight(self.degree(hop).astype(np.float32), weight)
        return self._weights[hop, weight]


def _paper_weight(degree_N: np.ndarray, weight: str) -> np.ndarray:
    if weight == "one":
        return np.ones_like(degree_N)
    # Bounds for papers that no path of two hops passes: they keep the weights finite.
    if weight == "log":
        weight_N: np.ndarray = 1 / np.log(np.maximum(degree_N, 2))
    else:
        weight_N = 1 / np.maximum(degree_N, 1)
    return weight_N


def _sum_rows(value_E: np.ndarray, rowptr_S1: np.ndarray) -> np.ndarray:
    """Add up the values of each row, int64 [S]."""
    total_E1 = np.zeros(len(value_E) + 1, dtype=np.int64)
    np.cumsum(value_E, out=total_E1[1:])
    return np.diff(total_E1[rowptr_S1])


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
