import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import csrs, random_citations, random_days

from citeflow.graph.csr import build_csr, transpose, undirected
from citeflow.learning.sampling import MOST_OF_GRAPH, PER_SOURCE, EpochPlan, make_batch, neighbourhood, positions


def plan_of(references, *, seed=0, epoch=0, batch=8, world_size=1):
    return EpochPlan(references, seed=seed, epoch=epoch, batch=batch, world_size=world_size)


def dealt(plan, world_size):
    """What each rank gets in each step."""
    return {(step, rank): plan.citations(step, rank) for step in range(plan.num_steps) for rank in range(world_size)}


def times_dealt(plan, world_size, num_citations):
    return np.bincount(np.concatenate(list(dealt(plan, world_size).values())), minlength=num_citations)


def star(num_references):
    """Paper 0 cites all others."""
    return build_csr(np.zeros(num_references, dtype=int), np.arange(1, num_references + 1), num_references + 1)


def source_of(references, position_P):
    return references.edges()[0][position_P]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("batch", [1, 7, 64, 10_000])
def test_an_epoch_deals_every_citation_exactly_once(world_size, batch):
    references, _, _ = csrs(random_citations(40, 0.15, seed=0))
    counts = times_dealt(plan_of(references, batch=batch, world_size=world_size), world_size, len(references.index_E))
    assert counts.tolist() == [1] * len(references.index_E)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    degrees=st.lists(st.integers(0, 14), min_size=15, max_size=15).filter(any),
    world_size=st.integers(1, 9),
    batch=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_every_citation_is_dealt_and_only_shared_where_ranks_outnumber_groups(degrees, world_size, batch, seed):
    source_E = np.repeat(np.arange(15), degrees)
    target_E = np.concatenate([(i + 1 + np.arange(degree)) % 15 for i, degree in enumerate(degrees)])
    references = build_csr(source_E, target_E, 15)
    parts = dealt(plan_of(references, seed=seed, batch=batch, world_size=world_size), world_size)
    counts = np.bincount(np.concatenate(list(parts.values())), minlength=len(source_E))
    num_groups = sum(-(-degree // min(max(degree // 2, 1), PER_SOURCE)) for degree in degrees if degree)
    assert counts.min() >= 1
    assert all(len(part) for part in parts.values())
    if num_groups >= world_size:
        assert counts.max() == 1


def test_two_citations_and_five_ranks_leave_no_rank_without_work():
    references = star(2)
    plan = plan_of(references, world_size=5)
    assert plan.num_steps == 1
    assert all(len(plan.citations(0, rank)) == 1 for rank in range(5))
    assert set(np.concatenate([plan.citations(0, rank) for rank in range(5)])) == {0, 1}


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5, 7, 8, 9, 21])
def test_a_group_takes_at_most_half_of_its_sources_references_and_at_most_four(degree):
    parts = dealt(plan_of(star(degree), batch=1), 1).values()
    assert max(map(len, parts)) <= max(1, min(degree // 2, PER_SOURCE))
    assert len(parts) == -(-degree // max(1, min(degree // 2, PER_SOURCE)))


def test_a_group_is_of_one_source():
    references, _, _ = csrs(random_citations(30, 0.2, seed=1))
    parts = dealt(plan_of(references, batch=1), 1).values()
    assert all(len(set(source_of(references, part))) == 1 for part in parts)
    assert max(map(len, parts)) > 1


def test_a_batch_has_about_as_many_citations_as_asked_over_all_ranks():
    references, _, _ = csrs(random_citations(100, 0.2, seed=2))
    for world_size in (1, 4):
        plan = plan_of(references, batch=120, world_size=world_size)
        sizes = [sum(len(plan.citations(step, rank)) for rank in range(world_size)) for step in range(plan.num_steps)]
        assert np.mean(sizes) == pytest.approx(120, rel=0.1)
        assert max(sizes) < 150


def test_a_rank_takes_no_more_than_about_a_tenth_of_a_small_graph():
    references, _, _ = csrs(random_citations(60, 0.15, seed=3))
    for world_size in (1, 3):
        parts = dealt(plan_of(references, batch=65_536, world_size=world_size), world_size).values()
        assert max(map(len, parts)) <= 1.2 * MOST_OF_GRAPH * len(references.index_E)


def test_the_same_seed_and_epoch_deal_the_same():
    references, _, _ = csrs(random_citations(30, 0.2, seed=4))
    first, again = (dealt(plan_of(references, seed=5, epoch=3, world_size=2), 2) for _ in range(2))
    assert all(np.array_equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("other", [{"seed": 6}, {"epoch": 4}])
def test_another_seed_or_epoch_deals_otherwise(other):
    references, _, _ = csrs(random_citations(30, 0.2, seed=4))
    first = dealt(plan_of(references, seed=5, epoch=3), 1)
    second = dealt(plan_of(references, **{"seed": 5, "epoch": 3, **other}), 1)
    same = [np.array_equal(first[key], second[key]) for key in first.keys() & second.keys()]
    assert sum(same) <= 1


def test_an_epoch_groups_a_sources_references_anew():
    references = star(8)
    groups = [{frozenset(part) for part in dealt(plan_of(references, batch=1, epoch=e), 1).values()} for e in range(5)]
    assert len({frozenset(each) for each in groups}) > 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(num_papers=st.integers(2, 12), share=st.floats(0, 1), seed=st.integers(0, 999))
def test_positions_are_those_of_a_search_pair_by_pair(num_papers, share, seed):
    is_cited_NN = random_citations(num_papers, share, seed=seed)
    references, _, _ = csrs(is_cited_NN)
    row_P, column_P = (side.astype(np.int32) for side in np.indices(is_cited_NN.shape).reshape(2, -1))
    place = {pair: i for i, pair in enumerate(zip(*references.edges().tolist(), strict=True))}
    expected = [place.get(pair, -1) for pair in zip(row_P.tolist(), column_P.tolist(), strict=True)]
    assert positions(references, row_P, column_P).tolist() == expected


def batch_of(is_cited_NN, *, day_N=None, negatives=50, seed=(0, 0, 0), position_P=None):
    references, _, neighbours = csrs(is_cited_NN)
    if position_P is None:
        position_P = np.random.default_rng(1).permutation(len(references.index_E))[:17]
    batch = make_batch(
        position_P, references=references, neighbours=neighbours, day_N=day_N, negatives=negatives, seed=seed
    )
    return batch, references.edges()[:, position_P]


def test_a_batch_holds_its_citations_in_the_order_of_their_positions():
    batch, edge_2P = batch_of(random_citations(20, 0.2, seed=5))
    assert np.array_equal(batch.source_P, edge_2P[0])
    assert np.array_equal(batch.target_P, edge_2P[1])
    assert batch.source_S.tolist() == sorted(set(edge_2P[0].tolist()))


def test_papers_without_references_are_passed_over():
    is_cited_NN = np.zeros((6, 6), dtype=bool)
    is_cited_NN[[2, 2, 4], [0, 5, 1]] = True
    batch, _ = batch_of(is_cited_NN, position_P=np.array([2, 0, 1]))
    assert batch.source_P.tolist() == [4, 2, 2]
    assert batch.target_P.tolist() == [1, 0, 5]


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_masked_are_the_source_itself_its_neighbours_and_papers_that_are_not_older(seed, dated):
    is_cited_NN = random_citations(15, 0.15, seed=seed)
    day_N = random_days(15, seed=seed) if dated else None
    batch, _ = batch_of(is_cited_NN, day_N=day_N)
    expected_SK = [
        [s == n or is_cited_NN[s, n] or is_cited_NN[n, s] or (dated and day_N[n] >= day_N[s]) for n in batch.negative_K]
        for s in batch.source_S
    ]
    assert np.array_equal(batch.masked_SK, expected_SK)
    assert 0 < batch.masked_SK.mean() < 1


def test_negatives_are_drawn_evenly_from_all_papers():
    batch, _ = batch_of(random_citations(10, 0.3, seed=6), negatives=20_000)
    counts = np.bincount(batch.negative_K, minlength=10)
    assert len(counts) == 10
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)


def test_negatives_follow_from_seed_step_and_rank():
    is_cited_NN = random_citations(20, 0.2, seed=7)
    drawn = [batch_of(is_cited_NN, seed=seed)[0].negative_K.tolist() for seed in [(1, 2, 3)] * 2]
    assert drawn[0] == drawn[1]
    for other in [(0, 2, 3), (1, 0, 3), (1, 2, 0)]:
        assert batch_of(is_cited_NN, seed=other)[0].negative_K.tolist() != drawn[0]


def heard(near, layer):
    """Papers that each paper of a block listens to, in papers of the graph: {row: [columns]}."""
    block = near.blocks[layer]
    rows = near.paper_B[: block.num_rows].tolist()
    columns = [near.paper_B[block.index[block.ptr[i] : block.ptr[i + 1]]].tolist() for i in range(block.num_rows)]
    return dict(zip(rows, columns, strict=True))


def ball(is_linked_NN, papers, hops):
    """Papers within some hops."""
    for _ in range(hops):
        papers = papers | {int(j) for i in papers for j in np.flatnonzero(is_linked_NN[i])}
    return papers


WANTED = np.array([3, 17, 8], dtype=np.int32)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_a_full_fanout_covers_exactly_the_papers_within_as_many_hops_as_layers(layers):
    is_cited_NN = random_citations(40, 0.02, seed=8)
    near = neighbourhood(WANTED, neighbours=csrs(is_cited_NN)[2], layers=layers)
    assert len(near.blocks) == layers
    assert len(set(near.paper_B.tolist())) == len(near.paper_B)
    assert set(near.paper_B.tolist()) == ball(is_cited_NN | is_cited_NN.T, set(WANTED.tolist()), layers)


def test_a_full_fanout_hears_every_neighbour_once_in_every_layer():
    is_cited_NN = random_citations(40, 0.03, seed=9)
    near = neighbourhood(WANTED, neighbours=csrs(is_cited_NN)[2], layers=3)
    for layer in range(3):
        for row, columns in heard(near, layer).items():
            assert sorted(columns) == np.flatnonzero(is_cited_NN[row] | is_cited_NN[:, row]).tolist()


def test_the_rows_of_a_block_are_its_first_columns_and_the_columns_of_the_next_layer():
    near = neighbourhood(WANTED, neighbours=csrs(random_citations(40, 0.03, seed=9))[2], layers=3, fanout=(2, 2, 2))
    first, second, third = near.blocks
    assert near.paper_B[: third.num_rows].tolist() == WANTED.tolist()
    assert (first.num_columns, second.num_columns, third.num_columns) == (
        len(near.paper_B),
        first.num_rows,
        second.num_rows,
    )
    for block in near.blocks:
        assert block.num_rows <= block.num_columns
        assert block.ptr.dtype == block.index.dtype == np.int32
        assert 0 <= block.index.min() <= block.index.max() < block.num_columns


@pytest.mark.parametrize("fanout", [(), (6, 6)])
def test_pairs_left_out_are_heard_in_neither_direction_and_all_others_are(fanout):
    is_cited_NN = random_citations(25, 0.1, seed=10)
    source_P, target_P = (side[::3].astype(np.int32) for side in np.nonzero(is_cited_NN))
    hidden = set(zip(source_P.tolist(), target_P.tolist(), strict=True))
    hidden |= {(target, source) for source, target in hidden}
    near = neighbourhood(
        np.arange(25, dtype=np.int32),
        neighbours=csrs(is_cited_NN)[2],
        layers=2,
        fanout=fanout,
        without=(source_P, target_P),
    )
    linked = set(zip(*(side.tolist() for side in np.nonzero(is_cited_NN | is_cited_NN.T)), strict=True))
    for layer in range(2):
        pairs = {(row, column) for row, columns in heard(near, layer).items() for column in columns}
        assert not pairs & hidden
        assert pairs <= linked - hidden
        assert fanout or pairs == linked - hidden


def test_leaving_out_a_pair_that_is_no_citation_changes_nothing():
    neighbours = csrs(random_citations(20, 0.1, seed=11))[2]
    alone = (np.array([0, 5], dtype=np.int32), np.array([0, 5], dtype=np.int32))
    first = neighbourhood(WANTED, neighbours=neighbours, layers=2)
    second = neighbourhood(WANTED, neighbours=neighbours, layers=2, without=alone)
    assert np.array_equal(first.paper_B, second.paper_B)
    assert all(np.array_equal(a.index, b.index) for a, b in zip(first.blocks, second.blocks, strict=True))


def test_a_paper_hears_no_more_than_its_layers_fanout_and_all_of_fewer_neighbours():
    is_cited_NN = random_citations(30, 0.12, seed=12)
    is_linked_NN = is_cited_NN | is_cited_NN.T
    fanout = (2, 5)
    near = neighbourhood(WANTED, neighbours=csrs(is_cited_NN)[2], layers=2, fanout=fanout)
    for hop, layer in enumerate((1, 0)):
        for row, columns in heard(near, layer).items():
            linked = np.flatnonzero(is_linked_NN[row]).tolist()
            assert set(columns) <= set(linked)
            assert len(columns) == min(len(linked), fanout[hop])
            assert len(linked) > fanout[hop] or columns == linked


def test_neighbours_are_drawn_evenly():
    neighbours = undirected(star(10))
    drawn = [
        heard(neighbourhood(np.array([0]), neighbours=neighbours, layers=1, fanout=(5,), seed=(seed,)), 0)[0]
        for seed in range(1000)
    ]
    counts = np.bincount(np.concatenate(drawn), minlength=11)[1:]
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


def test_the_drawing_follows_from_the_seed():
    neighbours = csrs(random_citations(60, 0.2, seed=13))[2]
    near = [neighbourhood(WANTED, neighbours=neighbours, layers=1, fanout=(3,), seed=seed) for seed in [(1, 1), (1, 1)]]
    other = neighbourhood(WANTED, neighbours=neighbours, layers=1, fanout=(3,), seed=(1, 2))
    assert heard(near[0], 0) == heard(near[1], 0)
    assert heard(near[0], 0) != heard(other, 0)


def test_a_paper_that_nothing_is_known_of_hears_nothing():
    neighbours = undirected(transpose(build_csr(np.array([0]), np.array([1]), 4)))
    near = neighbourhood(np.array([3, 0]), neighbours=neighbours, layers=2)
    assert heard(near, 1) == {3: [], 0: [1]}
    assert near.paper_B.tolist() == [3, 0, 1]
