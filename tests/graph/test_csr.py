"""Sparse rows agree with plain sets of pairs."""

import numpy as np
import pytest

from citeflow.graph.csr import (
    Csr,
    build_csr,
    drop_rows,
    drop_self_and_duplicates,
    inverse_permutation,
    keep_entries,
    permute,
    rows_of,
    to_undirected,
    transpose,
)


def pairs(csr):
    return [(i, int(j)) for i in range(csr.num_rows) for j in csr.row(i)]


@pytest.fixture
def edge_2E():
    return np.random.default_rng(0).integers(0, 20, (2, 90), dtype=np.int32)


@pytest.fixture
def csr(edge_2E):
    return build_csr(edge_2E[0], edge_2E[1], 20)


def test_build_csr_sorts_and_deduplicates(csr, edge_2E):
    assert pairs(csr) == sorted(set(map(tuple, edge_2E.T.tolist())))
    assert (csr.rowptr_N1.dtype, csr.col_E.dtype) == (np.int64, np.int32)
    assert list(map(tuple, csr.edges().T.tolist())) == pairs(csr)
    assert csr.edges().dtype == np.int32
    assert csr.degree_N.sum() == len(pairs(csr))
    assert csr.in_degree_N.tolist() == np.bincount(csr.col_E, minlength=20).tolist()


def test_build_csr_takes_no_edges():
    empty = build_csr(*np.empty((2, 0), dtype=np.int32), 3)
    for csr in (empty, to_undirected(empty), transpose(empty)):
        assert (csr.num_rows, pairs(csr)) == (3, [])
    assert empty.degree_N.tolist() == [0, 0, 0]


def test_transpose_reverses_pairs(csr):
    assert pairs(transpose(csr)) == sorted((j, i) for i, j in pairs(csr))


def test_to_undirected_drops_loops(csr):
    both = set(pairs(csr)) | {(j, i) for i, j in pairs(csr)}
    assert any(i == j for i, j in both)
    assert pairs(to_undirected(csr)) == sorted((i, j) for i, j in both if i != j)


def test_to_scipy_shares_a_read_only_map(csr, tmp_path):
    np.save(tmp_path / "index.npy", csr.col_E)
    mapped = Csr(csr.rowptr_N1, np.load(tmp_path / "index.npy", mmap_mode="r"))
    assert np.shares_memory(mapped.to_scipy().indices, mapped.col_E)
    assert (mapped.to_scipy() @ np.ones(20)).tolist() == csr.degree_N.tolist()
    assert pairs(transpose(mapped)) == pairs(transpose(csr))


def test_rows_of_gathers_rows(csr):
    papers = np.array([3, 3, 0, 11])
    rows = rows_of(csr, papers)
    for i, paper in enumerate(papers):
        assert np.array_equal(rows.row(i), csr.row(paper))
    empty = rows_of(csr, np.empty(0, dtype=np.int32))
    assert (empty.num_rows, len(empty.col_E)) == (0, 0)


def test_drop_rows_empties_them_alone(csr):
    left = drop_rows(csr, np.array([3, 0]))
    assert pairs(left) == [(i, j) for i, j in pairs(csr) if i not in (0, 3)]
    assert (left.rowptr_N1.dtype, left.col_E.dtype) == (np.int64, np.int32)


def test_drop_self_and_duplicates_counts_them():
    edge_2E = np.array([[0, 1, 1, 2, 1, 2, 2], [1, 1, 0, 0, 0, 2, 2]], dtype=np.int32)
    cleaned, num_self, num_duplicates = drop_self_and_duplicates(edge_2E, 3)
    assert pairs(cleaned) == [(0, 1), (1, 0), (2, 0)]
    assert (num_self, num_duplicates) == (3, 1)


def test_find_gives_entries_of_pairs(csr):
    source_S, target_S = (each.ravel() for each in np.indices((20, 20)))
    found_S = csr.find(source_S, target_S)
    known = pairs(csr)
    for source, target, entry in zip(source_S, target_S, found_S, strict=True):
        assert (known[entry] == (source, target)) if entry >= 0 else (source, target) not in known
    assert np.array_equal(np.sort(found_S[found_S >= 0]), np.arange(len(known)))
    empty = build_csr(*np.empty((2, 0), dtype=np.int32), 3)
    assert empty.find(np.array([2]), np.array([0])).tolist() == [-1]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_blocks_of_any_size_hold_all_entries_once(csr, size, monkeypatch):
    undirected, order_N = to_undirected(csr), np.random.default_rng(1).permutation(20)
    permuted = permute(csr, order_N)
    monkeypatch.setattr("citeflow.graph.csr.BLOCK_ENTRIES", size)
    blocks = list(csr.blocks())
    assert len(blocks) == {1: 20, 1000: 1}.get(size, len(blocks))
    found = [
        np.concatenate([block.source_B for block in blocks]),
        np.concatenate([block.target_B for block in blocks]),
    ]
    assert list(zip(*(each.tolist() for each in found), strict=True)) == pairs(csr)
    assert np.array_equal(found[0], csr.sources())
    assert np.array_equal(found[0], csr.sources_of(np.arange(len(csr.col_E))))
    assert [block.entries.stop for block in blocks[:-1]] == [
        block.entries.start for block in blocks[1:]
    ]
    assert pairs(to_undirected(csr)) == pairs(undirected)
    assert pairs(permute(csr, order_N)) == pairs(permuted)
    assert pairs(transpose(csr)) == sorted((j, i) for i, j in pairs(csr))


def test_rows_on_the_disk_are_those_in_memory(csr, monkeypatch):
    order_N, is_kept_E = np.random.default_rng(1).permutation(20), csr.col_E % 3 > 0

    def made():
        return [
            to_undirected(csr),
            transpose(csr),
            permute(csr, order_N),
            keep_entries(csr, is_kept_E),
        ]

    in_memory = made()
    monkeypatch.setattr("citeflow.utils.large_arrays.memory_limit", lambda: 0)
    for on_disk, expected in zip(made(), in_memory, strict=True):
        assert not on_disk.col_E.flags.owndata
        assert np.shares_memory(on_disk.to_scipy().indices, on_disk.col_E)
        assert pairs(on_disk) == pairs(expected)


def test_permute_renumbers_pairs(csr):
    order_N = np.random.default_rng(1).permutation(20).astype(np.int32)
    before = pairs(csr)
    permuted = permute(csr, order_N)
    assert sorted((order_N[i], order_N[j]) for i, j in pairs(permuted)) == before == pairs(csr)
    assert pairs(permuted) == sorted(pairs(permuted))
    assert (permuted.rowptr_N1.dtype, permuted.col_E.dtype) == (np.int64, np.int32)


def test_inverse_permutation_gives_positions():
    assert inverse_permutation(np.array([2, 0, 3, 1], dtype=np.int32)).tolist() == [1, 3, 0, 2]
