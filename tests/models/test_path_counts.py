"""Walks come to the papers that a product of matrices comes to, and meet what a set would.

Legend: N papers, S sources, S1 = S + 1, E papers on walks.
"""

import numpy as np
import pytest
from small_graphs import csrs, random_citations

from citeflow.graph.csr import Csr
from citeflow.models.path_counts import Lookup, begin, go_on, meet, rows_of

SOURCE_S = np.array([4, 0, 4, 11])
NUM_PAPERS = 12


@pytest.fixture(scope="module")
def is_cited_NN():
    return random_citations(NUM_PAPERS, 0.3, seed=0)


@pytest.fixture(scope="module")
def references(is_cited_NN):
    return csrs(is_cited_NN)[0]


def dense(walk):
    """Ways to each paper, [S, N]."""
    ways_SN = np.zeros((len(walk.ptr_S1) - 1, NUM_PAPERS))
    np.add.at(
        ways_SN,
        (np.repeat(np.arange(len(ways_SN)), np.diff(walk.ptr_S1)), walk.paper_E),
        walk.ways_E,
    )
    return ways_SN


def random_lists(rng, lengths, num_papers):
    return np.cumsum([0, *lengths]), rng.integers(0, num_papers, sum(lengths)).astype(np.int32)


def test_rows_are_those_of_the_graph_and_may_be_empty(references):
    papers = np.array([3, 3, 0, 11])
    rows = rows_of(references, papers)
    assert [rows.row(i).tolist() for i in range(4)] == [
        references.row(paper).tolist() for paper in papers
    ]
    empty = rows_of(references, np.empty(0, dtype=np.int32))
    assert (empty.num_rows, len(empty.index_E)) == (0, 0)


def test_a_walk_begins_at_the_neighbours_that_are_not_hidden(is_cited_NN, references):
    expected_SN = is_cited_NN[SOURCE_S].astype(float)
    assert np.array_equal(dense(begin(references, SOURCE_S)), expected_SN)
    target = int(references.row(4)[0])
    expected_SN[2, target] = 0
    assert np.array_equal(
        dense(begin(references, SOURCE_S, (np.array([2]), np.array([target])))), expected_SN
    )


def test_a_walk_goes_on_as_a_product_without_the_way_back(is_cited_NN, references):
    weight_N = np.arange(1, NUM_PAPERS + 1, dtype=np.float32)
    expected_SN = (is_cited_NN[SOURCE_S] * weight_N) @ is_cited_NN
    assert expected_SN[np.arange(4), SOURCE_S].any()
    expected_SN[np.arange(4), SOURCE_S] = 0
    walk = go_on(begin(references, SOURCE_S), references, weight_N, SOURCE_S)
    np.testing.assert_allclose(dense(walk), expected_SN)


@pytest.mark.parametrize("seed", range(3))
def test_papers_are_met_within_the_same_source_and_one_stands_for_all_that_are_the_same(seed):
    rng = np.random.default_rng(seed)
    placed = [random_lists(rng, rng.integers(0, 6, 5), 10) for _ in range(2)]
    looked = [random_lists(rng, rng.integers(0, 9, 5), 10) for _ in range(3)]
    same_E, found = meet(placed, looked, 10)
    row_E = np.concatenate([np.repeat(np.arange(5), np.diff(ptr)) for ptr, _ in placed])
    paper_E = np.concatenate([papers for _, papers in placed])
    stands_for = {pair: set() for pair in zip(row_E.tolist(), paper_E.tolist(), strict=True)}
    for pair, same in zip(
        zip(row_E.tolist(), paper_E.tolist(), strict=True), same_E.tolist(), strict=True
    ):
        stands_for[pair].add(same)
    assert all(len(each) == 1 for each in stands_for.values())
    assert len(set(same_E.tolist())) == len(stands_for) < len(paper_E)
    for (ptr, papers), (hit, number) in zip(looked, found, strict=True):
        pairs = list(
            zip(np.repeat(np.arange(5), np.diff(ptr)).tolist(), papers.tolist(), strict=True)
        )
        assert hit.tolist() == [place for place, pair in enumerate(pairs) if pair in stands_for]
        assert [{each} for each in number.tolist()] == [stands_for[pairs[place]] for place in hit]


def test_nothing_is_met_where_there_is_no_source():
    nowhere = (np.zeros(1, dtype=int), np.empty(0, dtype=np.int32))
    same_E, [(hit, number)] = meet([nowhere], [nowhere], 3)
    assert len(same_E) == len(hit) == len(number) == 0


def test_a_paper_is_found_once_for_each_row_that_holds_it():
    rows = Csr(np.array([0, 2, 2, 5]), np.array([7, 3, 3, 1, 7], dtype=np.int32))
    place, row = Lookup.of(rows, 9).find(np.array([7, 8, 3, 7]))
    assert list(zip(place.tolist(), row.tolist(), strict=True)) == [
        (0, 0),
        (0, 2),
        (2, 0),
        (2, 2),
        (3, 0),
        (3, 2),
    ]
