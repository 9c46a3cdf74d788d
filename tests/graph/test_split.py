"""Held-out citations follow OGB's protocol, whatever the graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citeflow.errors import DataError
from citeflow.graph.csr import build_csr, drop_self_and_duplicates
from citeflow.graph.split import hold_out_at_random, hold_out_by_date


def random_graph(seed, num_papers=120, num_edges=900, num_days=40, later=0.1):
    """Clean citations, most of them of older papers, with the date of each paper."""
    rng = np.random.default_rng(seed)
    day_N = rng.integers(0, num_days, num_papers).astype(np.int32)
    edge_2E = rng.integers(0, num_papers, (2, num_edges), dtype=np.int32)
    is_later_E = (day_N[edge_2E[0]] < day_N[edge_2E[1]]) & (rng.random(num_edges) > later)
    edge_2E[:, is_later_E] = edge_2E[::-1, is_later_E]
    return drop_self_and_duplicates(edge_2E, num_papers)[0].edges(), day_N


def split_by_date(edge_2E, day_N, **settings):
    return hold_out_by_date(build_csr(*edge_2E, len(day_N)), day_N, **settings)


def split_at_random(edge_2E, num_papers, **settings):
    return hold_out_at_random(build_csr(*edge_2E, num_papers), **settings)


def pairs(source, target):
    return set(zip(source.tolist(), target.tolist(), strict=True))


def both_ways(some):
    return some | {(j, i) for i, j in some}


def to_bytes(split):
    train, *parts, _ = split
    arrays = [(part.source_P, part.target_P, part.negative_PK) for part in parts]
    return train.edges().tobytes(), [array.tobytes() for part in arrays for array in part]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    num_days=st.sampled_from([2, 5, 400]),
    share=st.sampled_from([0.02, 0.2, 0.5]),
)
def test_hold_out_by_date_follows_the_protocol(seed, num_days, share):
    edge_2E, day_N = random_graph(seed, num_days=num_days)
    everything = pairs(*edge_2E)
    train, valid, test, _ = split_by_date(edge_2E, day_N, share=share, num_negatives=30, seed=seed)
    held_valid, held_test = (pairs(part.source_P, part.target_P) for part in (valid, test))

    assert np.array_equal(valid.source_P, test.source_P)
    assert len(set(valid.source_P.tolist())) == len(valid.source_P) <= max(1, share * 120)
    assert np.isin(valid.source_P, train.sources()).all()
    assert held_valid | held_test | pairs(*train.edges()) == everything
    assert len(held_valid) + len(held_test) + len(train.col_E) == len(everything)
    assert not both_ways(held_valid | held_test) & pairs(*train.edges())
    assert valid.negative_PK.shape[1] == 1 or not np.array_equal(
        valid.negative_PK, test.negative_PK
    )
    for part in (valid, test):
        assert (day_N[part.target_P] < day_N[part.source_P]).all()
        for array in (part.source_P, part.target_P, part.negative_PK):
            assert array.dtype == np.int32
        for source, row in zip(part.source_P, part.negative_PK, strict=True):
            assert len(set(row.tolist())) == len(row)
            assert (day_N[row] < day_N[source]).all()
            assert not {(source, j) for j in row.tolist()} & everything


def test_sources_are_the_newest_papers_with_two_references():
    edge_2E, day_N = random_graph(2)
    _, valid, *_ = split_by_date(edge_2E, day_N, share=0.1, num_negatives=5, seed=0)
    everything = pairs(*edge_2E)

    def is_source(paper):
        cited = edge_2E[1][edge_2E[0] == paper].tolist()
        older = [j for j in cited if day_N[j] < day_N[paper] and (j, paper) not in everything]
        return len(cited) >= 3 and len(older) >= 2

    newest_first = sorted(range(120), key=lambda paper: (day_N[paper], paper), reverse=True)
    assert valid.source_P.tolist() == [paper for paper in newest_first if is_source(paper)][:12]


@pytest.mark.parametrize(
    ("days", "edges", "left"),
    [
        ([0, 0, 0, 5, 5, 9], [[3, 3, 3, 3], [0, 1, 4, 5]], {(3, 4), (3, 5)}),
        ([0, 0, 0, 0, 5], [[4, 4, 4, 0], [0, 1, 2, 4]], {(4, 0), (0, 4)}),
    ],
    ids=["not older", "cites back"],
)
def test_ineligible_reference_is_never_held_out(days, edges, left):
    for seed in range(20):
        train, *_ = split_by_date(
            np.array(edges, dtype=np.int32),
            np.array(days, dtype=np.int32),
            share=0.5,
            num_negatives=9,
            seed=seed,
        )
        assert pairs(*train.edges()) == left


def test_split_is_seeded_and_independent_of_the_order():
    edge_2E, day_N = random_graph(3)
    shuffled_2E = edge_2E[:, np.random.default_rng(0).permutation(edge_2E.shape[1])]

    def by_date(seed, edges=edge_2E):
        return to_bytes(split_by_date(edges, day_N, share=0.2, num_negatives=20, seed=seed))

    def at_random(seed):
        return to_bytes(
            split_at_random(edge_2E, num_papers=120, share=0.1, num_negatives=20, seed=seed)
        )

    for split in (by_date, at_random):
        assert split(7) == split(7) != split(8)
    assert by_date(7, shuffled_2E) == by_date(7)


def test_source_with_fewest_candidates_sets_their_number():
    day_N = np.array([0, 0, 0, 0, 0, 5, 6], dtype=np.int32)
    edge_2E = np.array([[5, 5, 5, 6, 6, 6], [0, 1, 2, 0, 1, 2]], dtype=np.int32)
    _, valid, test, _ = split_by_date(edge_2E, day_N, share=0.5, num_negatives=1000, seed=0)
    assert valid.source_P.tolist() == [6, 5]
    assert valid.negative_PK.shape == test.negative_PK.shape == (2, 2)
    assert set(valid.negative_PK[1].tolist()) == {3, 4}


def test_candidates_are_drawn_evenly():
    day_N = np.r_[np.zeros(20), 1].astype(np.int32)
    edge_2E = np.array([[20, 20, 20], [3, 4, 19]], dtype=np.int32)
    counts = np.zeros(21, dtype=int)
    for seed in range(600):
        _, valid, *_ = split_by_date(edge_2E, day_N, share=0.05, num_negatives=5, seed=seed)
        counts[valid.negative_PK] += 1
    free = np.setdiff1d(np.arange(20), [3, 4, 19])
    assert counts.sum() == counts[free].sum() == 3000
    expected = 3000 / len(free)
    assert np.abs(counts[free] - expected).max() < 5 * np.sqrt(expected)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.001, 0.1, 0.5]))
def test_hold_out_at_random_hides_both_directions(seed, share):
    edge_2E, _ = random_graph(seed, num_papers=60, num_edges=500, later=0.5)
    everything = pairs(*edge_2E)
    train, valid, test, _ = split_at_random(
        edge_2E, num_papers=60, share=share, num_negatives=30, seed=seed
    )
    held = pairs(valid.source_P, valid.target_P) | pairs(test.source_P, test.target_P)

    wanted = max(1, int(share * len(everything)))
    assert len(valid.source_P) == len(test.source_P) <= wanted
    assert share == 0.5 or len(valid.source_P) == wanted
    assert len(held) == 2 * len(valid.source_P)
    assert held | pairs(*train.edges()) == everything
    assert len(train.col_E) == len(everything) - len(held) > 0
    assert not both_ways(held) & pairs(*train.edges())
    for part in (valid, test):
        for source, row in zip(part.source_P.tolist(), part.negative_PK.tolist(), strict=True):
            assert len(set(row)) == len(row) > 0
            assert not {(source, j) for j in row} & (both_ways(everything) | {(source, source)})


@pytest.mark.parametrize(
    ("targets", "days"),
    [
        ([0, 1], [0, 0, 0, 5, 5]),
        ([0, 1, 4], [5, 5, 5, 5, 5]),
        ([0, 4, 2], [0, 5, 5, 5, 5]),
        ([0, 1, 2], [0, 0, 0, 5, 9]),
    ],
    ids=["two references", "one day", "one older reference", "all older papers cited"],
)
def test_dated_graph_without_sources_is_refused(targets, days):
    edge_2E = np.array([[3] * len(targets), targets], dtype=np.int32)
    day_N = np.array(days, dtype=np.int32)
    with pytest.raises(DataError, match="no test candidates") as caught:
        split_by_date(edge_2E, day_N, share=0.5, num_negatives=10, seed=0)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("edges", "num_papers"),
    [
        ([[0, 1], [1, 2]], 9),
        ([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]], 9),
        ([[0, 1, 2], [1, 2, 0]], 3),
    ],
    ids=["two citations", "every link in both directions", "everything linked"],
)
def test_undated_graph_without_candidates_is_refused(edges, num_papers):
    edge_2E = np.array(edges, dtype=np.int32)
    with pytest.raises(DataError, match="no test candidates") as caught:
        split_at_random(edge_2E, num_papers=num_papers, share=0.5, num_negatives=10, seed=0)
    assert caught.value.hint


def test_three_citations_are_enough_for_a_random_split():
    edge_2E = np.array([[0, 1, 2], [1, 2, 3]], dtype=np.int32)
    train, valid, test, _ = split_at_random(
        edge_2E, num_papers=4, share=0.05, num_negatives=1000, seed=0
    )
    assert (len(train.col_E), len(valid.source_P), len(test.source_P)) == (1, 1, 1)


def with_hub(num_papers):
    """A graph in which the last paper cites nearly all others, and the others a few each."""
    edge_2E, day_N = random_graph(4, num_papers=num_papers, num_edges=6 * num_papers)
    hub = num_papers - 1
    edge_2E = edge_2E[:, (edge_2E != hub).all(axis=0)]
    hub_2E = np.stack([np.full(hub - 3, hub), np.arange(3, hub)]).astype(np.int32)
    return np.concatenate([edge_2E, hub_2E], axis=1), np.where(
        np.arange(num_papers) == hub, 10**6, day_N
    )


@pytest.mark.parametrize("is_dated", [True, False], ids=["by date", "at random"])
def test_paper_that_cites_nearly_all_leaves_the_candidates_of_others_alone(is_dated):
    edge_2E, day_N = with_hub(300)
    hub = 299
    settings = {"share": 0.1, "num_negatives": 1000, "seed": 0}
    split = (
        split_by_date(edge_2E, day_N.astype(np.int32), **settings)
        if is_dated
        else split_at_random(edge_2E, num_papers=300, **settings)
    )
    assert hub not in split.test.source_P
    assert split.test.negative_PK.shape[1] == split.candidates.fewest > 200
    assert split.candidates.num_short >= 1


def test_paper_with_most_citations_leaves_a_random_split_alone():
    hub_2E = np.stack([np.zeros(197), np.arange(3, 200)]).astype(np.int32)
    others_2E = np.stack([np.arange(1, 190), np.arange(2, 191)]).astype(np.int32)
    edge_2E = np.concatenate([hub_2E, others_2E], axis=1)
    split = split_at_random(edge_2E, num_papers=200, share=0.1, num_negatives=999, seed=0)
    assert 0 not in split.test.source_P
    assert split.test.negative_PK.shape[1] > 190


def test_paper_without_a_date_is_neither_source_nor_candidate():
    edge_2E, day_N = random_graph(5)
    is_dated_N = np.arange(120) % 5 > 0
    split = split_by_date(
        edge_2E, day_N, share=0.2, num_negatives=20, seed=0, is_dated_N=is_dated_N
    )
    for part in (split.valid, split.test):
        for array in (part.source_P, part.target_P, part.negative_PK):
            assert is_dated_N[array].all()
