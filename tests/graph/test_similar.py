"""The similarity graph equals a search of all pairs, and cells find most of it."""

import tracemalloc

import numpy as np
import pytest

from citeflow.graph import similar as module
from citeflow.graph.csr import Csr, build_csr, to_undirected
from citeflow.graph.similar import Cells, make_cells, similar_papers, unit_features

NUM_PAPERS = 60


def topics(num_papers=NUM_PAPERS, num_topics=8, seed=0):
    """Proportions of topics, float32 [N, F]."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(num_topics, 0.3), num_papers).astype(np.float32)


def by_all_pairs(x_NF, day_N, k):
    """Link each paper with its k nearest, from the definition of the distance."""
    root_NF = np.sign(x_NF) * np.sqrt(np.abs(x_NF.astype(np.float64)))
    pairs = []
    for s, root_F in enumerate(root_NF):
        distance = {}
        for t, other_F in enumerate(root_NF):
            if t != s and other_F.any() and root_F.any():
                cosine = root_F @ other_F / np.linalg.norm(root_F) / np.linalg.norm(other_F)
                years = 0 if day_N is None else (day_N[s] - day_N[t]) / 365.25
                distance[t] = 2 * (1 - cosine) + (years / 2) ** 2
        pairs += [(s, t) for t in sorted(distance, key=distance.get)[:k]]
    return to_undirected(build_csr(*np.array(pairs).T, len(x_NF)))


def test_similar_papers_are_found_in_the_memory_of_some_blocks():
    x_NF = topics(6 * module.BLOCK)
    tracemalloc.start()
    similar_papers(x_NF, None, 3)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    block_bytes = module.BLOCK * len(x_NF) * 12  # distances in float32, and their order in int64
    assert peak_bytes < 3 * block_bytes


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("k", [1, 5, 100])
def test_similar_papers_are_the_nearest_of_all(k, dated):
    rng = np.random.default_rng(1)
    x_NF = topics() * rng.choice(np.array([-1, 1], np.float32), (NUM_PAPERS, 8))
    x_NF[[7, 20]] = 0
    day_N = rng.integers(9000, 11000, NUM_PAPERS).astype(np.int32) if dated else None
    found = similar_papers(x_NF, day_N, k)
    expected = by_all_pairs(x_NF, day_N, k)
    assert np.array_equal(found.rowptr_N1, expected.rowptr_N1)
    assert np.array_equal(found.col_E, expected.col_E)
    assert not found.degree_N[[7, 20]].any()


def test_equal_papers_are_similar_to_each_other_and_not_to_themselves():
    x_NF = np.repeat(np.eye(4, 6, dtype=np.float32), 5, axis=0)
    found = similar_papers(x_NF, None, 3)
    source_E, target_E = found.edges()
    assert (source_E // 5 == target_E // 5).all()
    assert (source_E != target_E).all()
    assert (found.degree_N >= 3).all()


def test_cells_find_most_similar_papers(monkeypatch):
    x_NF = topics(3000)
    x_NF[::7] = 0
    day_N = np.arange(3000, dtype=np.int32)
    assert make_cells(x_NF, day_N) is None
    exact = similar_papers(x_NF, day_N, 10)
    monkeypatch.setattr(module, "EXACT", 1000)
    monkeypatch.setattr(module, "CELL_PAPERS", 100)
    found = similar_papers(x_NF, day_N, 10, cells=make_cells(x_NF, day_N))
    shared = exact.to_scipy().multiply(found.to_scipy()).nnz
    assert 0.955 * len(exact.col_E) < shared < len(exact.col_E)  # 0.944 around single papers
    monkeypatch.setattr(module, "BUCKET_BYTES", 5000)  # of many buckets, the same
    again = similar_papers(x_NF, day_N, 10, cells=make_cells(x_NF, day_N))
    assert np.array_equal(again.col_E, found.col_E)


@pytest.mark.parametrize("rows", [[], [7, 390, 391]])
def test_papers_without_features_have_no_similar_ones_in_cells(monkeypatch, rows):
    monkeypatch.setattr(module, "EXACT", 10)
    x_NF = np.zeros((400, 3), np.float32)
    x_NF[rows] = 1
    found = similar_papers(x_NF, None, 2, cells=make_cells(x_NF, None))
    assert np.flatnonzero(found.degree_N).tolist() == rows
    assert len(found.col_E) == 2 * len(rows)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_near_cells_are_the_nearest_and_begin_with_each_cell(block, monkeypatch):
    monkeypatch.setattr(module, "NEAR_BLOCK", block)
    center_CF = topics(40) + np.arange(40, dtype=np.float32)[:, None] // 20
    cells = Cells(center_CF=center_CF, members=Csr(np.zeros(41, np.int64), np.empty(0, np.int32)))
    distance_CC = np.square(center_CF[:, None] - center_CF[None]).sum(axis=2)
    near_CP = cells.near()
    assert near_CP[:, 0].tolist() == list(range(40))
    assert np.array_equal(np.sort(near_CP), np.sort(np.argsort(distance_CC)[:, : module.PROBES]))


def test_unit_features_have_the_cosine_of_bhattacharyya():
    unit_NF = unit_features(topics(5))
    expected_NN = [[np.sqrt(a * b).sum() for b in topics(5)] for a in topics(5)]
    np.testing.assert_allclose(unit_NF @ unit_NF.T, expected_NN, rtol=1e-5)
    assert not unit_features(np.zeros((2, 3))).any()


@pytest.mark.parametrize("dated", [False, True])
def test_similar_to_new_finds_what_a_stored_paper_with_these_features_has(dated, monkeypatch):
    monkeypatch.setattr(module, "EXACT", 25)
    x_NF = topics()
    x_NF[7] = 0
    day_N = np.random.default_rng(1).integers(9000, 11000, NUM_PAPERS) if dated else None
    new = [7, 3, 40]
    similar = module.SimilarToNew(x_NF, day_N, 5)
    found = {
        paper: similar.find(x_NF[paper], 0 if day_N is None else day_N[paper]) for paper in new
    }
    assert not len(found[7])
    for paper in new[1:]:
        distance = ((unit_features(x_NF) - unit_features(x_NF[paper : paper + 1])) ** 2).sum(axis=1)
        if dated:
            distance += ((day_N - day_N[paper]) / 365.25 / 2) ** 2
        distance[7] = np.inf
        assert found[paper].tolist() == sorted(np.argsort(distance)[:5].tolist())
