"""What the graph says about a pair of papers: paths between them, and when and how often the candidate was cited.

The pair's own citation is never seen. Training citations s -> t are scored as if they were missing: their targets are
taken out of the references of s before any path is walked, walks do not come back to s, and t's count is one less.

Legend: N papers, S sources, P pairs, K candidates, D kinds of evidence.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from citeflow.graph.csr import Csr
from citeflow.models.path_counts import Lookup, Walk, begin, go_on, meet, rows_of

DAYS_PER_YEAR = 365.25
HUBS = 8
"""How many times as far as from a random paper the next hop leads from a paper on a walk, which is one often cited."""

Begun = tuple[tuple[str, ...], str]
Walks = dict[Begun, Walk]
Sums = dict[str, np.ndarray]
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

    @property
    def last(self) -> str:
        """The hop that ends at the candidate."""
        return self.hops[-1]

    @property
    def begun(self) -> Begun:
        """What it shares with the paths that differ from it in the last hop only."""
        return _begun(self.hops[:-1], self.weight)


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


class StructuralFeatures:
    """Answers what is known of pairs, from walks that start at the sources and meet the candidates half way."""

    def __init__(
        self,
        references: Csr,
        citations: Csr,
        neighbors: Csr,
        day_N: np.ndarray | None,
        *,
        hops: int = 3,
    ) -> None:
        """Look at the training citations, and at paths of up to `hops` of them; nothing is computed before it is asked.

        Args:
            references: from the citing to the cited paper.
            citations: the same turned round.
            neighbours: both together.
            day_N: date of each paper in days, where known.
            hops: length of the longest path that is looked for.
        """
        self.paths = tuple(path for path in PATHS if len(path.hops) <= hops)
        graphs = {"references": references, "citations": citations, "neighbours": neighbors}
        self._graphs = {
            hop: Csr(np.asarray(csr.ptr_N1), np.asarray(csr.index_E)) for hop, csr in graphs.items()
        }
        self._degrees: dict[str, np.ndarray] = {}
        self._weights: dict[tuple[str, str], np.ndarray] = {}
        self._day_N = None if day_N is None else np.asarray(day_N)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each kind, in the order of the last axis."""
        dated = ("age", "citations_per_year") if self._day_N is not None else ()
        return (*(path.name for path in self.paths), "popularity", "references_given", *dated)

    def for_batch(
        self,
        source_S: np.ndarray,
        source_index_P: np.ndarray,
        target_P: np.ndarray,
        candidate_K: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evidence for training citations and for the candidates that their sources share.

        Both are looked up as if the sources lacked these citations: the graph then looks alike for what is to be told
        apart.

        Args:
            source_S: citing papers.
            source_index_P: row of `source_S` that each citation belongs to.
            target_P: cited papers.
            candidate_K: papers that every source is compared with.

        Returns:
            float32 [P, D] and float32 [S, K, D].
        """
        walks = self._walks(self.paths, source_S, hidden=(source_index_P, target_P))
        order_P = np.argsort(source_index_P, kind="stable")
        ptr_S1 = np.searchsorted(source_index_P[order_P], np.arange(len(source_S) + 1))
        sums = self._own(self.paths, walks, Csr(ptr_S1, target_P[order_P]))
        back_P = np.argsort(order_P)
        own_PD = self._features(
            {name: sum_P[back_P] for name, sum_P in sums.items()},
            source_S[source_index_P],
            target_P,
            own=1,
        )
        shared = self._shared(walks, candidate_K, len(source_S))
        return own_PD, self._features(shared, source_S[:, None], candidate_K[None, :], own=0)

    def for_candidates(self, source_P: np.ndarray, candidate_PK: np.ndarray) -> np.ndarray:
        """Evidence for each source with candidates of its own; float32 [P, K, D]."""
        sums = self._own(self.paths, self._walks(self.paths, source_P), _listed(candidate_PK))
        return self._features(sums, source_P[:, None], candidate_PK, own=0)

    def baselines(
        self, source_P: np.ndarray, candidate_PK: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Scores of the training-free predictors, name by name; float32 [P, K]."""
        paths = [path for path in PATHS if path.name in BASELINES]
        sums = self._own(paths, self._walks(paths, source_P), _listed(candidate_PK))
        for path in paths:
            yield path.name, sums[path.name].reshape(candidate_PK.shape).astype(np.float32)
        yield "popularity", self._degree("citations")[candidate_PK].astype(np.float32)

    def _walks(
        self,
        paths: Sequence[Path],
        source_S: np.ndarray,
        hidden: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Walks:
        """Go all paths up to one hop before their ends, those that begin alike together.

        Args:
            paths: what to go.
            source_S: where the paths begin.
            hidden: rows of `source_S` and papers that they do not lead to directly.
        """
        walks: Walks = {}
        for path in paths:
            for length, hop in enumerate(path.hops[:-1]):
                key = _begun(path.hops[: length + 1], path.weight)
                if key not in walks and not length:
                    walks[key] = begin(self._graphs[hop], source_S, hidden)
                elif key not in walks:
                    before = walks[_begun(path.hops[:length], path.weight)]
                    walks[key] = go_on(
                        before, self._graphs[hop], self._weight(hop, path.weight), source_S
                    )
        return walks

    def _own(self, paths: Sequence[Path], walks: Walks, candidates: Csr) -> Sums:
        """Sum over the paths to each source's own candidates, going their last hop from the side where it is shorter.

        Args:
            paths: what to sum.
            walks: the paths but for their last hop.
            candidates: of each source; P in all.

        Returns:
            float64 [P] for each path.
        """
        num_passed = {last: 0 for _, last in _ends(paths)}
        for begun, last in _ends(paths):
            num_passed[last] += len(walks[begun].paper_E)
        ahead = [path for path in paths if HUBS * num_passed[path.last] < len(candidates.index_E)]
        behind = [path for path in paths if path not in ahead]
        sums = self._from_walks(ahead, walks, candidates) if ahead else {}
        return {**sums, **(self._from_candidates(behind, walks, candidates) if behind else {})}

    def _from_walks(self, paths: Sequence[Path], walks: Walks, candidates: Csr) -> Sums:
        """Go the last hop forwards, and see which candidates it ends at."""
        ends = {
            (begun, last): rows_of(self._graphs[last], walks[begun].paper_E)
            for begun, last in _ends(paths)
        }
        looked = [
            (rows.ptr_N1[walks[begun].ptr_S1], rows.index_E) for (begun, _), rows in ends.items()
        ]
        same_P, found = meet([(candidates.ptr_N1, candidates.index_E)], looked, self._num_papers)
        sums: Sums = {}
        for ((begun, last), rows), (hit_H, pair_H) in zip(ends.items(), found, strict=True):
            walk, passed_H = walks[begun], _row_of(hit_H, rows.ptr_N1)
            here = [path for path in paths if (path.begun, path.last) == (begun, last)]
            sums |= self._sum(
                here, pair_H, walk.paper_E[passed_H], walk.ways_E[passed_H], len(same_P)
            )
        return {name: sum_P[same_P] for name, sum_P in sums.items()}

    def _from_candidates(self, paths: Sequence[Path], walks: Walks, candidates: Csr) -> Sums:
        """Go the last hop backwards, and see which papers it comes to that the walks came to as well."""
        begun = list(dict.fromkeys(path.begun for path in paths))
        before = {
            last: rows_of(self._graphs[TURNED[last]], candidates.index_E)
            for last in {p.last for p in paths}
        }
        paper_E = np.concatenate([walks[key].paper_E for key in begun])
        placed = [(walks[key].ptr_S1, walks[key].paper_E) for key in begun]
        looked = [(rows.ptr_N1[candidates.ptr_N1], rows.index_E) for rows in before.values()]
        same_E, found = meet(placed, looked, self._num_papers)
        ways = dict(
            zip(begun, _together(same_E, [walks[key].ways_E for key in begun]), strict=True)
        )
        sums: Sums = {}
        for (last, rows), (hit_H, number_H) in zip(before.items(), found, strict=True):
            pair_H = _row_of(hit_H, rows.ptr_N1)
            for path in (path for path in paths if path.last == last):
                ways_H = ways[path.begun].take(number_H)
                sums |= self._sum(
                    [path], pair_H, paper_E[number_H], ways_H, len(candidates.index_E)
                )
        return sums

    def _shared(self, walks: Walks, candidate_K: np.ndarray, num_sources: int) -> Sums:
        """Sum over the paths to candidates that all sources share, going back from each of them once; [S, K] each."""
        sums: Sums = {}
        shape = (num_sources, len(candidate_K))
        for last in dict.fromkeys(path.last for path in self.paths):
            before = Lookup.of(rows_of(self._graphs[TURNED[last]], candidate_K), self._num_papers)
            for begun in dict.fromkeys(path.begun for path in self.paths if path.last == last):
                walk = walks[begun]
                passed_H, candidate_H = before.find(walk.paper_E)
                pair_H = _row_of(passed_H, walk.ptr_S1) * len(candidate_K) + candidate_H
                here = [path for path in self.paths if (path.begun, path.last) == (begun, last)]
                found = self._sum(
                    here, pair_H, walk.paper_E[passed_H], walk.ways_E[passed_H], math.prod(shape)
                )
                sums |= {name: sum_P.reshape(shape) for name, sum_P in found.items()}
        return sums

    def _sum(
        self,
        paths: Sequence[Path],
        pair_H: np.ndarray,
        paper_H: np.ndarray,
        ways_H: np.ndarray,
        num_pairs: int,
    ) -> Sums:
        """Sum the ways that lead to each pair, weighted by the last paper that they pass; float64."""
        weights = {path.name: self._weight(path.last, path.weight) for path in paths}
        return {
            name: np.bincount(pair_H, ways_H * weight_N.take(paper_H), num_pairs)
            for name, weight_N in weights.items()
        }

    @property
    def _num_papers(self) -> int:
        return self._graphs["references"].num_rows

    def _weight(self, hop: str, weight: str) -> np.ndarray:
        if (hop, weight) not in self._weights:
            self._weights[hop, weight] = _inverted(self._degree(hop).astype(np.float32), weight)
        return self._weights[hop, weight]

    def _degree(self, hop: str) -> np.ndarray:
        if hop not in self._degrees:
            self._degrees[hop] = np.diff(self._graphs[hop].ptr_N1).astype(np.int32)
        return self._degrees[hop]

    def _features(self, sums: Sums, source: np.ndarray, target: np.ndarray, own: int) -> np.ndarray:
        """Join what the paths and the papers say; `own` is 1 where the pairs are citations themselves, else 0."""
        shape = np.broadcast_shapes(source.shape, target.shape)
        joined = np.zeros((*shape, len(self.names)), dtype=np.float32)
        for i, path in enumerate(self.paths):
            sum_P = sums[path.name].ravel()
            some = np.flatnonzero(sum_P)
            joined.reshape(-1, joined.shape[-1])[some, i] = np.log1p(path.scale * sum_P[some])
        for i, column in enumerate(self._of_papers(source, target, own), start=len(self.paths)):
            joined[..., i] = column
        return joined

    def _of_papers(self, source: np.ndarray, target: np.ndarray, own: int) -> list[np.ndarray]:
        """What the two papers say without a path."""
        cited = np.maximum(self._degree("citations").take(target) - own, 0).astype(np.float32)
        columns = [
            np.log1p(cited),
            np.log1p(self._degree("references").take(target).astype(np.float32)),
        ]
        if self._day_N is not None:
            days = self._day_N.take(source) - self._day_N.take(target)
            years = np.maximum(days, 0).astype(np.float32) / np.float32(DAYS_PER_YEAR)
            columns += [np.log1p(years), np.log1p(cited / (years + np.float32(0.5)))]
        return columns


def _inverted(degree_N: np.ndarray, weight: str) -> np.ndarray:
    if weight == "one":
        return np.ones_like(degree_N)
    inverted_N: np.ndarray = 1 / (
        np.log(np.maximum(degree_N, 2)) if weight == "log" else np.maximum(degree_N, 1)
    )
    return inverted_N


def _begun(hops: tuple[str, ...], weight: str) -> Begun:
    """Hops that were gone, and how papers passed on them were weighted."""
    return hops, weight if len(hops) > 1 else "one"


def _ends(paths: Sequence[Path]) -> list[tuple[Begun, str]]:
    return list(dict.fromkeys((path.begun, path.last) for path in paths))


def _listed(candidate_PK: np.ndarray) -> Csr:
    num_sources, num_candidates = candidate_PK.shape
    return Csr(np.arange(num_sources + 1) * num_candidates, candidate_PK.ravel())


def _row_of(place_H: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Row that each place of a list of rows lies in."""
    row_H: np.ndarray = np.searchsorted(ptr, place_H, side="right") - 1
    return row_H


def _together(same_E: np.ndarray, ways: list[np.ndarray]) -> list[np.ndarray]:
    """Ways of each walk, added up where the papers that they lead to are the same; each as long as all walks."""
    begins = np.cumsum([0] + [len(ways_E) for ways_E in ways])
    bounds = itertools.pairwise(begins.tolist())
    return [
        np.bincount(same_E[slice(*bound)], part, len(same_E))
        for bound, part in zip(bounds, ways, strict=True)
    ]
