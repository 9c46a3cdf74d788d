"""Walks equal products of matrices, and intersections those of sets.

Legend: N papers, S sources, S1 = S + 1.
"""

import contextlib

import numpy as np
import pytest
from small_graphs import csrs, random_citations

from citeflow.graph.csr import Csr
from citeflow.models import path_counts
from citeflow.models.path_counts import InvertedIndex, extend, intersect, start

SOURCE_S = np.array([4, 0, 4, 11])
NUM_PAPERS = 12


@pytest.fixture(scope="module")
def is_cited_NN():
    return random_citations(NUM_PAPERS, 0.3, seed=0)


@pytest.fixture(scope="module")
def references(is_cited_NN):
    return csrs(is_cited_NN)[0]


def to_dense(walk):
    """Path weights of each paper, [S, N]."""
    weight_SN = np.zeros((len(walk.ptr_S1) - 1, NUM_PAPERS))
    row_E = np.repeat(np.arange(len(weight_SN)), np.diff(walk.ptr_S1))
    np.add.at(weight_SN, (row_E, walk.paper_E), walk.path_weight_E)
    return weight_SN


def test_start_reaches_neighbors_that_are_not_excluded(is_cited_NN, references):
    expected_SN = is_cited_NN[SOURCE_S].astype(float)
    assert np.array_equal(to_dense(start(references, SOURCE_S)), expected_SN)
    target = int(references.row(4)[0])
    expected_SN[2, target] = 0
    walk = start(references, SOURCE_S, (np.array([2]), np.array([target])))
    assert np.array_equal(to_dense(walk), expected_SN)


def test_extend_multiplies_matrices_without_the_way_back(is_cited_NN, references):
    weight_N = np.arange(1, NUM_PAPERS + 1, dtype=np.float32)
    expected_SN = (is_cited_NN[SOURCE_S] * weight_N) @ is_cited_NN
    assert expected_SN[np.arange(4), SOURCE_S].any()
    expected_SN[np.arange(4), SOURCE_S] = 0
    walk = extend(start(references, SOURCE_S), references, weight_N, SOURCE_S)
    np.testing.assert_allclose(to_dense(walk), expected_SN)


def random_lists(rng, lengths):
    return np.cumsum([0, *lengths]), rng.integers(0, 10, sum(lengths)).astype(np.int32)


def to_pairs(lists):
    """Source and paper of each entry."""
    ptr_S1, papers = lists
    row_E = np.repeat(np.arange(len(ptr_S1) - 1), np.diff(ptr_S1))
    return list(zip(row_E.tolist(), papers.tolist(), strict=True))


@pytest.mark.parametrize("table", [1, 25, 10**6], ids=["each", "some", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_intersect_equals_sets_of_pairs(seed, table, monkeypatch):
    monkeypatch.setattr(path_counts, "TABLE", table)
    rng = np.random.default_rng(seed)
    lists = [random_lists(rng, rng.integers(0, 6, 5)) for _ in range(2)]
    queries = [random_lists(rng, rng.integers(0, 9, 5)) for _ in range(3)]
    representative_E, hits = intersect(lists, queries, 10)
    pairs = [pair for each in lists for pair in to_pairs(each)]
    representatives = dict(zip(pairs, representative_E.tolist(), strict=True))
    assert [representatives[pair] for pair in pairs] == representative_E.tolist()
    assert len(set(representative_E.tolist())) == len(representatives) < len(pairs)
    for query, (position, number) in zip(queries, hits, strict=True):
        wanted = to_pairs(query)
        assert position.tolist() == [i for i, pair in enumerate(wanted) if pair in representatives]
        assert number.tolist() == [representatives[wanted[i]] for i in position]


def test_inverted_index_finds_a_paper_once_for_each_row():
    rows = Csr(np.array([0, 2, 2, 5]), np.array([7, 3, 3, 1, 7], dtype=np.int32))
    with InvertedIndex.of(rows, 9) as index:
        position, row = index.find(np.array([7, 8, 3, 7]))
    assert position.tolist() == [0, 0, 2, 2, 3, 3]
    assert row.tolist() == [0, 2, 0, 2, 0, 2]


@pytest.mark.parametrize("error", [None, ValueError])
def test_tables_go_back_with_zeros(error, monkeypatch):
    monkeypatch.setattr(path_counts, "_tables", [np.zeros(8, dtype=np.int32)])
    rows = Csr(np.array([0, 2, 4]), np.array([7, 3, 3, 1], dtype=np.int32))
    expected = contextlib.nullcontext() if error is None else pytest.raises(error)
    with expected, InvertedIndex.of(rows, 9) as outer, InvertedIndex.of(rows, 9) as inner:
        assert outer.number_N is not inner.number_N
        assert np.array_equal(outer.number_N, inner.number_N)
        assert np.flatnonzero(outer.number_N).tolist() == [1, 3, 7]
        if error is not None:
            raise error
    # The table of another graph is gone.
    assert [len(table) for table in path_counts._tables] == [9, 9]
    assert not np.any(path_counts._tables)
    kept = path_counts._tables[-1]
    with InvertedIndex.of(rows, 9) as index:
        assert index.number_N is kept
