"""The similarity graph: each paper with those of the same time whose features are most alike.

It tells what a paper without references is about: its similar papers' references are what it should
cite, too. What is cited moves on with time, so that of two papers on the same topic the one of the
same year says more.

Legend: N papers, F features, C cells, B papers of a cell, k similar papers of each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from citeflow.data.citation_graph import DAYS_PER_YEAR
from citeflow.data.features import release_pages, unit_rows
from citeflow.graph.csr import Csr, keep_entries, to_undirected
from citeflow.utils.large_arrays import large_array
from citeflow.utils.progress import Counter
from citeflow.utils.threads import thread_per_core

EXACT = 50_000
"""Papers up to which each is compared with all."""

CELL_PAPERS = 500
"""Mean size of a cell of a larger graph."""

GROUP_CENTERS = 64
"""Mean number of centers that are searched as one group."""

CENTER_PAPERS = 20
"""Papers for each cell, of which the nearest ones are averaged to its center."""

BLOCK = 512
"""Papers that are compared with others at a time, which bounds the memory for it."""

NEAR_BLOCK = 16 * BLOCK
"""Centers whose nearest others are looked for at a time."""

BUCKET_BYTES = 1 << 28
"""Points that are put in order in memory, in bytes; twice as much is needed meanwhile."""

PROBES = 8
"""Cells that are searched for the similar papers of one cell, itself included."""


BOUND_PAPERS = 512
"""Papers whose distances bound those of the nearest of all."""

LARGEST = 6e4
"""Coordinate of a point in float16, at most: that of a date 100,000 years away."""

YEARS = 2.0
"""Difference in date that counts as much as features at a right angle do, over the root of 2."""


def unit_features(x_BF: np.ndarray) -> np.ndarray:
    """Scale the signed square root of features to length 1, or 0 for a paper that has none.

    The cosine of square roots is the Bhattacharyya coefficient where features are proportions, as
    those of topics are; for other features it keeps single large values from deciding alone.
    """
    x_BF = np.asarray(x_BF, dtype=np.float32)
    root_BF = np.abs(x_BF)
    np.copysign(np.sqrt(root_BF, out=root_BF), x_BF, out=root_BF)
    return unit_rows(root_BF)


def similar_papers(
    x_NF: np.ndarray,
    day_N: np.ndarray | None,
    k: int,
    *,
    cells: "Cells | None" = None,
    progress: Counter | None = None,
) -> Csr:
    """Link each paper with the k others that are nearest in features and date, both ways.

    The square of the distance is 2 (1 - cosine) + (difference in years / YEARS)^2.

    Args:
        x_NF: features; a map of a file is read in pieces.
        day_N: date of each paper in days, where known.
        k: similar papers of each.
        cells: of these papers: similar ones are only looked for in the cells that lie nearest to a
            paper's own. Without cells each paper is compared with all.
        progress: counts the papers whose similar ones are found.

    Returns:
        Symmetric; a paper whose features are all 0 has no row.
    """
    papers = _Papers(x_NF, day_N, _middle(day_N))
    progress = progress or Counter()
    near_Nk = large_array((len(x_NF), min(k, len(x_NF))), np.int32)
    near_Nk.fill(-1)
    if cells is None:
        paper_B, point_BF = papers.points(np.arange(len(x_NF)))
        _link(near_Nk, paper_B, point_BF, paper_B, point_BF)
    else:
        _link_cells(near_Nk, papers, cells, progress)
    near_Nk.sort(axis=1)
    rows = Csr(np.arange(len(x_NF) + 1) * near_Nk.shape[1], near_Nk.reshape(-1))
    return to_undirected(keep_entries(rows, rows.col_E >= 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """The papers of a graph by the center that is nearest to them, of which few are searched."""

    center_CF: np.ndarray
    """Points of the centers."""

    members: Csr
    """Papers of each."""

    def near(self) -> np.ndarray:
        """Return for each cell those that are nearest to it, itself first; int64 [C, P]."""
        centers, origin_F = self.center_CF, self.center_CF.mean(axis=0)
        num_near = min(PROBES, len(centers))

        def search(first: int) -> np.ndarray:
            asked_BF = centers[first : first + NEAR_BLOCK]
            return _neighbors(centers, asked_BF, num_near, origin_F)[1]

        with thread_per_core() as pool:
            near_CP = np.concatenate(list(pool.map(search, range(0, len(centers), NEAR_BLOCK))))
        is_other_CP = near_CP != np.arange(len(near_CP))[:, None]
        return np.take_along_axis(near_CP, np.argsort(is_other_CP, axis=1, kind="stable"), axis=1)

    def around(self, point_F: np.ndarray) -> np.ndarray:
        """Return the papers of the cells that are nearest to a point, ascending."""
        near_P = _search(self.center_CF, point_F[None], min(PROBES, len(self.center_CF)))[0]
        return np.sort(np.concatenate([self.members.row(cell) for cell in near_P.tolist()]))


def make_cells(
    x_NF: np.ndarray,
    day_N: np.ndarray | None,
    *,
    seed: int = 0,
    progress: Counter | None = None,
) -> Cells | None:
    """Put papers into cells (an inverted file: Sivic & Zisserman 2003).

    Args:
        x_NF: features; a map of a file is read in pieces.
        day_N: date of each paper in days, where known.
        seed: of the choice of centers.
        progress: counts the papers that have been looked at.

    Returns:
        None for up to `EXACT` papers, each of which can be compared with all.
    """
    if len(x_NF) <= EXACT:
        return None
    papers = _Papers(x_NF, day_N, _middle(day_N))
    progress = progress or Counter()
    rng = np.random.default_rng(seed)
    center_CF = _in_order(_centers(papers, rng), rng)
    search = _CenterSearch(center_CF, rng)

    def put(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        paper_B, point_BF = papers.points(block)
        return paper_B.astype(np.int32), search.nearest(point_BF)

    blocks = []
    with thread_per_core() as pool:
        for paper_B, cell_B in pool.map(put, _blocks(len(x_NF))):
            blocks.append((paper_B, cell_B))
            release_pages(x_NF)
            progress.done = min(progress.done + EXACT, len(x_NF))
    paper_M, cell_M = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    members = _group(cell_M, len(center_CF))
    return Cells(center_CF=center_CF, members=Csr(members.rowptr_N1, paper_M[members.col_E]))


class SimilarToNew:
    """Finds the papers that are nearest to one that is not in the graph."""

    def __init__(
        self, x_NF: np.ndarray, day_N: np.ndarray | None, k: int, cells: Cells | None = None
    ) -> None:
        """Take the papers of the graph.

        Args:
            x_NF: features.
            day_N: date of each paper in days, where known.
            k: how many are found, at most.
            cells: of these papers; without them all papers are searched.
        """
        self._papers = _Papers(x_NF, day_N, _middle(day_N))
        self._k = k
        self._cells = cells

    def find(self, x_F: np.ndarray, day: int, *, exact: bool = True) -> np.ndarray:
        """Return the nearest papers, ascending, int32; none for a paper whose features are all 0.

        Args:
            x_F: features.
            day: date; not looked at where papers have none.
            exact: search all papers, and not only those of near cells.
        """
        papers = self._papers
        day_1 = None if papers.day_N is None else np.array([day])
        asked, asked_1F = _Papers(x_F[None], day_1, papers.middle).points(np.array([0]))
        if not len(asked):
            return np.empty(0, dtype=np.int32)
        found: list[np.ndarray] = []
        distances: list[np.ndarray] = []
        for paper_B, point_BF in self._searched(asked_1F[0], exact=exact):
            if len(paper_B):
                distance_1K, index_1K = _neighbors(point_BF, asked_1F, self._k)
                distances.append(distance_1K[0])
                found.append(paper_B[index_1K[0]])
        if not found:
            return np.empty(0, dtype=np.int32)
        nearest_K = np.argsort(np.concatenate(distances), kind="stable")[: self._k]
        return np.sort(np.concatenate(found)[nearest_K]).astype(np.int32)

    def _searched(
        self, point_F: np.ndarray, *, exact: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield papers and their points."""
        if self._cells is not None and not exact:
            yield self._papers.points(self._cells.around(point_F))
        elif len(self._papers.x_NF) <= EXACT:
            yield self._all
        else:
            for block in _blocks(len(self._papers.x_NF)):
                yield self._papers.points(block)

    @cached_property
    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        """All papers of a small graph, whose points are kept."""
        return self._papers.points(np.arange(len(self._papers.x_NF)))


def _blocks(num_papers: int) -> Iterator[np.ndarray]:
    for first in range(0, num_papers, EXACT):
        yield np.arange(first, min(first + EXACT, num_papers))


def _middle(day_N: np.ndarray | None) -> float:
    return 0.0 if day_N is None else float(np.median(day_N))


@dataclass(frozen=True, slots=True)
class _Papers:
    """Papers as points, whose distance tells how alike they are."""

    x_NF: np.ndarray
    day_N: np.ndarray | None
    middle: float
    """Day that the years of the points are counted from: float32 would round those of dates far
    from 1970."""

    def points(self, paper_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the papers that have features, and their points."""
        unit_BF = unit_features(self.x_NF[paper_B])
        has_features_B = unit_BF.any(axis=1)
        paper_B = paper_B[has_features_B]
        unit_BF = unit_BF[has_features_B]
        if self.day_N is None:
            return paper_B, unit_BF
        years_B = (self.day_N[paper_B] - self.middle) / DAYS_PER_YEAR / YEARS
        return paper_B, np.column_stack([unit_BF, years_B.astype(np.float32)])


def _centers(papers: _Papers, rng: np.random.Generator) -> np.ndarray:
    """Choose the centers of the cells: the means of the papers nearest to randomly chosen ones.

    That is k-means on a sample, ended after one round. On the synthetic graph with 60,000 papers
    cells around single papers find 0.90 of the similar papers, these 0.98, and those of three
    rounds no more; with 200,000 papers it is 0.55 and 0.71.
    """
    num_papers = len(papers.x_NF)
    num_cells = max(1, num_papers // CELL_PAPERS)
    _, center_CF = papers.points(np.sort(rng.choice(num_papers, num_cells, replace=False)))
    num_sampled = min(num_papers, CENTER_PAPERS * num_cells)
    sampled = np.sort(rng.choice(num_papers, num_sampled, replace=False))
    if not len(center_CF):
        # So few papers have features that one cell holds them.
        points = (papers.points(block)[1][:1] for block in _blocks(num_papers))
        return next((point_1F for point_1F in points if len(point_1F)), center_CF)
    search = _CenterSearch(center_CF, rng)
    sum_CF = np.zeros_like(center_CF)
    count_C = np.zeros(len(center_CF), np.int64)
    for block in np.array_split(sampled, range(EXACT, num_sampled, EXACT)):
        _, point_BF = papers.points(block)
        members = _group(search.nearest(point_BF), len(center_CF))
        used = np.flatnonzero(members.degree_N)
        if len(used):  # reduceat takes no empty list
            sum_CF[used] += np.add.reduceat(point_BF[members.col_E], members.rowptr_N1[used])
        count_C += members.degree_N
    is_used_C = count_C > 0
    center_CF[is_used_C] = sum_CF[is_used_C] / count_C[is_used_C, None]
    return center_CF


def _in_order(center_CF: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put centers that are near each other next to each other.

    Points lie in the order of their cells, maybe on the disk, and a cell is read with its nearest.
    So the order is that of groups of centers, and of groups that of the leaves of their tree.
    """
    num_groups = len(center_CF) // GROUP_CENTERS
    if num_groups < 2:
        return center_CF
    group_GF = center_CF[rng.choice(len(center_CF), num_groups, replace=False)]
    leaves = leaves_list(linkage(group_GF, "average"))
    group_C = _search(group_GF[leaves], center_CF, 1)[:, 0]
    return center_CF[np.argsort(group_C, kind="stable")]


class _CenterSearch:
    """Finds the center that is nearest to a point.

    Of many centers only those of near groups are looked at: else the time for all papers would grow
    with the square of their number.
    """

    def __init__(self, center_CF: np.ndarray, rng: np.random.Generator) -> None:
        self._center_CF = center_CF
        num_groups = len(center_CF) // GROUP_CENTERS
        if num_groups <= PROBES:
            self._group_GF = center_CF[:1]
            self._centers = [np.arange(len(center_CF))]
            return
        chosen = np.sort(rng.choice(len(center_CF), num_groups, replace=False))
        group_C = _search(center_CF[chosen], center_CF, 1)[:, 0]
        used, group_C = np.unique(group_C, return_inverse=True)  # equal centers have one group
        self._group_GF = center_CF[chosen[used]]
        members = _group(group_C, len(used))
        near_GP = _search(self._group_GF, self._group_GF, min(PROBES, len(used)))
        self._centers = [
            np.concatenate([members.row(group) for group in near_P]) for near_P in near_GP.tolist()
        ]

    def nearest(self, point_BF: np.ndarray) -> np.ndarray:
        """Return the center of each point, int32 [B]."""
        nearest_B = np.empty(len(point_BF), np.int32)
        if not len(point_BF):
            return nearest_B
        members = _group(_search(self._group_GF, point_BF, 1)[:, 0], len(self._group_GF))
        for group in np.flatnonzero(members.degree_N).tolist():
            own = members.row(group)
            centers = self._centers[group]
            nearest_B[own] = centers[_search(self._center_CF[centers], point_BF[own], 1)[:, 0]]
        return nearest_B


def _group(group_B: np.ndarray, num_groups: int) -> Csr:
    """List the positions of each group, ascending."""
    rowptr_G1 = np.zeros(num_groups + 1, np.int64)
    np.cumsum(np.bincount(group_B, minlength=num_groups), out=rowptr_G1[1:])
    return Csr(rowptr_G1, np.argsort(group_B, kind="stable").astype(np.int32))


def _link_cells(near_Nk: np.ndarray, papers: _Papers, cells: Cells, progress: Counter) -> None:
    """Link the papers of each cell with those around it."""
    if not len(cells.center_CF):
        return
    point_MF = _points_by_cell(papers, cells)
    near_CP = cells.near()

    def link(cell: int) -> int:
        own, searched = (_rows_of_cells(cells, each) for each in ([cell], near_CP[cell].tolist()))
        _link(
            near_Nk,
            cells.members.col_E[own],
            point_MF[own].astype(np.float32),
            cells.members.col_E[searched],
            point_MF[searched].astype(np.float32),
        )
        return len(own)

    with thread_per_core() as pool:
        for num_linked in pool.map(link, range(len(near_CP))):
            progress.done += num_linked


def _points_by_cell(papers: _Papers, cells: Cells) -> np.ndarray:
    """Return the points of all papers, cell after cell, so that each cell is read in one piece.

    float16, as every point is read eight times. Features and points may be larger than the memory,
    and cells take papers from everywhere. So the features are read once in their order, each point
    goes to the bucket of its place, in the order in which they come, and then the buckets are put
    in order one after the other (the distribution step of an external sort).
    """
    num_points, width = len(cells.members.col_E), cells.center_CF.shape[1]
    point_MF = large_array((num_points, width), np.float16)
    place_M = np.empty(num_points, np.int32)
    bucket_rows = max(1, BUCKET_BYTES // (2 * width))
    end_B = np.arange(0, num_points, bucket_rows)  # of what is filled of each bucket
    place_N = np.empty(len(papers.x_NF), np.int32)
    place_N[cells.members.col_E] = np.arange(num_points, dtype=np.int32)
    for block in _blocks(len(papers.x_NF)):
        paper_B, point_BF = papers.points(block)
        np.clip(point_BF, -LARGEST, LARGEST, out=point_BF)
        place_B = place_N[paper_B]
        members = _group(place_B // bucket_rows, len(end_B))
        for bucket in np.flatnonzero(members.degree_N).tolist():
            own = members.row(bucket)
            filled = slice(end_B[bucket], end_B[bucket] + len(own))
            point_MF[filled], place_M[filled] = point_BF[own], place_B[own]
            end_B[bucket] = filled.stop
        release_pages(papers.x_NF)
    for first in range(0, num_points, bucket_rows):
        bucket_BF = point_MF[first : first + bucket_rows]
        bucket_BF[place_M[first : first + bucket_rows] - first] = bucket_BF.copy()
    return point_MF


def _rows_of_cells(cells: Cells, chosen: list[int]) -> np.ndarray:
    """List the rows that some cells have where the papers are ordered by cell."""
    bounds = cells.members.rowptr_N1
    return np.concatenate([np.arange(bounds[cell], bounds[cell + 1]) for cell in chosen])


def _link(
    near_Nk: np.ndarray,
    asked_B: np.ndarray,
    asked_BF: np.ndarray,
    searched: np.ndarray,
    searched_F: np.ndarray,
) -> None:
    """Write down, for some papers, the nearest others among those searched."""
    k = near_Nk.shape[1]
    if not len(asked_B):
        return
    # One more, as a paper is found for itself; of several with the same features it may be missed.
    found = searched[_search(searched_F, asked_BF, min(k + 1, len(searched)))]
    is_other = found != asked_B[:, None]
    is_other &= np.cumsum(is_other, axis=1) <= k
    row, _ = np.nonzero(is_other)
    place = (np.cumsum(is_other, axis=1) - 1)[is_other]
    near_Nk[asked_B[row], place] = found[is_other]


def _search(searched_F: np.ndarray, asked_BF: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest rows, in no order, int64 [B, k]."""
    return _neighbors(searched_F, asked_BF, k)[1]


def _neighbors(
    searched_F: np.ndarray, asked_BF: np.ndarray, k: int, origin_F: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return squared distance and index of the k nearest rows, or of all if they are fewer; [B, k].

    This is not NearestNeighbors of scikit-learn, which computes in float64 and takes four times as
    long.

    Args:
        searched_F: rows that are searched.
        asked_BF: rows whose nearest are looked for.
        k: how many of them.
        origin_F: that coordinates are taken from, so that the products are of small numbers, which
            keep more digits: dates far from the usual ones are large. The mean of the rows that
            are asked for by default.
    """
    if origin_F is None:
        origin_F = asked_BF.mean(axis=0)
    searched_F = searched_F - origin_F
    asked_BF = asked_BF - origin_F
    length_M = np.square(searched_F).sum(axis=1)
    searched_F *= -2
    last = min(k, len(searched_F)) - 1
    distances = []
    found = []
    for first in range(0, len(asked_BF), BLOCK):
        block_BF = asked_BF[first : first + BLOCK]
        distance_BM = block_BF @ searched_F.T
        distance_BM += length_M
        if last == 0:  # A minimum is found many times as fast.
            nearest_Bk = distance_BM.argmin(axis=1)[:, None]
        else:
            nearest_Bk = _smallest(distance_BM, last)
        found.append(nearest_Bk)
        length_B1 = np.square(block_BF).sum(axis=1, keepdims=True)
        distances.append(np.take_along_axis(distance_BM, nearest_Bk, axis=1) + length_B1)
    return np.concatenate(distances), np.concatenate(found)


def _smallest(value_BM: np.ndarray, last: int) -> np.ndarray:
    """Return the columns of the `last + 1` smallest values of each row, in no order.

    Values above those of the first columns' smallest are left out before the rest is partitioned,
    which takes ten times as long for a value as a comparison.
    """
    num_rows, num_columns = value_BM.shape
    if num_columns <= 2 * BOUND_PAPERS or last >= BOUND_PAPERS:
        return np.argpartition(value_BM, last, axis=1)[:, : last + 1].copy()  # no view: memory
    bound_B1 = np.partition(value_BM[:, :BOUND_PAPERS], last, axis=1)[:, last : last + 1]
    row_S, column_S = np.divmod(np.flatnonzero(value_BM <= bound_B1), num_columns)
    first_B1 = np.searchsorted(row_S, np.arange(num_rows + 1))
    place_S = np.arange(len(row_S)) - first_B1[row_S]
    shape = (num_rows, int(np.diff(first_B1).max()))
    small_BK = np.full(shape, np.inf, value_BM.dtype)
    small_BK[row_S, place_S] = value_BM[row_S, column_S]
    column_BK = np.zeros(shape, np.int64)
    column_BK[row_S, place_S] = column_S
    chosen_Bk = np.argpartition(small_BK, last, axis=1)[:, : last + 1]
    return np.take_along_axis(column_BK, chosen_Bk, axis=1)
