"""Sparse rows agree with plain sets of pairs."""

import numpy as np
import pytest

from citeflow.graph.csr import (
    Csr,
    build_csr,
    drop_self_and_duplicates,
    inverse_permutation,
    permute,
    to_undirected,
    transpose,
)


def random_edges(num_papers, num_edges, seed=0):
    return np.random.default_rng(seed).integers(0, num_papers, (2, num_edges), dtype=np.int32)


def pairs(csr):
    return [(i, int(j)) for i in range(csr.num_rows) for j in csr.row(i)]


@pytest.fixture
def edge_2E():
    return random_edges(20, 90)


def test_rows_are_ascending_and_hold_each_pair_once(edge_2E):
    csr = build_csr(edge_2E[0], edge_2E[1], 20)
    assert pairs(csr) == sorted(set(map(tuple, edge_2E.T.tolist())))
    assert (csr.ptr_N1.dtype, csr.index_E.dtype) == (np.int64, np.int32)


def test_papers_without_references_have_empty_rows():
    csr = build_csr(np.array([1], dtype=np.int32), np.array([3], dtype=np.int32), 5)
    assert csr.degree_N.tolist() == [0, 1, 0, 0, 0]
    assert csr.row(4).tolist() == []


def test_no_edges_make_empty_rows():
    csr = build_csr(*np.empty((2, 0), dtype=np.int32), 3)
    assert (csr.num_rows, pairs(csr), pairs(to_undirected(csr)), pairs(transpose(csr))) == (
        3,
        [],
        [],
        [],
    )


def test_edges_give_the_pairs_back_in_order(edge_2E):
    csr = build_csr(edge_2E[0], edge_2E[1], 20)
    assert csr.edges().T.tolist() == [list(pair) for pair in pairs(csr)]
    assert csr.edges().dtype == np.int32


def test_transposing_turns_every_pair_round(edge_2E):
    csr = build_csr(edge_2E[0], edge_2E[1], 20)
    assert pairs(transpose(csr)) == sorted((j, i) for i, j in pairs(csr))


def test_neighbours_are_the_union_of_both_directions_without_loops(edge_2E):
    csr = build_csr(edge_2E[0], edge_2E[1], 20)
    both = {pair for i, j in pairs(csr) for pair in [(i, j), (j, i)] if i != j}
    assert any(i == j for i, j in pairs(csr))
    assert any((j, i) in pairs(csr) for i, j in pairs(csr) if i != j)
    assert pairs(to_undirected(csr)) == sorted(both)
    assert to_undirected(csr).ptr_N1.dtype == np.int64


def test_the_scipy_matrix_shares_the_neighbours_and_holds_ones(edge_2E):
    csr = build_csr(edge_2E[0], edge_2E[1], 20)
    matrix = csr.to_scipy(np.float64)
    assert np.shares_memory(matrix.indices, csr.index_E)
    assert matrix.dtype == np.float64
    assert sorted(zip(*map(np.ndarray.tolist, matrix.nonzero()), strict=True)) == pairs(csr)
    assert set(matrix.data) == {1.0}


def test_a_read_only_map_of_a_file_becomes_a_scipy_matrix_without_a_copy(edge_2E, tmp_path):
    csr = build_csr(edge_2E[0], edge_2E[1], 20)
    np.save(tmp_path / "index.npy", csr.index_E)
    mapped = Csr(csr.ptr_N1, np.load(tmp_path / "index.npy", mmap_mode="r"))
    assert np.shares_memory(mapped.to_scipy().indices, mapped.index_E)
    assert (mapped.to_scipy() @ np.ones(20)).tolist() == csr.degree_N.tolist()
    assert pairs(transpose(mapped)) == pairs(transpose(csr))


def test_self_citations_and_repetitions_are_counted_and_dropped():
    edge_2E = np.array([[0, 1, 1, 2, 1, 2, 2], [1, 1, 0, 0, 0, 2, 2]], dtype=np.int32)
    cleaned_2E, num_self, num_duplicates = drop_self_and_duplicates(edge_2E, 3)
    assert cleaned_2E.T.tolist() == [[0, 1], [1, 0], [2, 0]]
    assert (num_self, num_duplicates) == (3, 1)


def test_reordered_rows_hold_the_same_pairs_under_their_new_numbers(edge_2E):
    csr = build_csr(edge_2E[0], edge_2E[1], 20)
    order_N = np.random.default_rng(1).permutation(20).astype(np.int32)
    made = permute(csr, order_N)
    assert sorted((order_N[i], order_N[j]) for i, j in pairs(made)) == pairs(csr)
    assert pairs(made) == sorted(pairs(made))
    assert (made.ptr_N1.dtype, made.index_E.dtype) == (np.int64, np.int32)
    assert np.array_equal(csr.edges(), build_csr(edge_2E[0], edge_2E[1], 20).edges())


def test_the_inverse_of_an_order_is_the_place_of_each_paper():
    order_N = np.array([2, 0, 3, 1], dtype=np.int32)
    assert inverse_permutation(order_N).tolist() == [1, 3, 0, 2]
    assert inverse_permutation(order_N).dtype == np.int32
