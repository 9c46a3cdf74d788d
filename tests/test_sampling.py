"""Parts cover the graph, and a batch holds the citations of its part as targets or as messages, never as both.

Legend: N papers, B papers of a batch, P citations, S sources, K negatives.
"""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import csrs, random_citations, random_days

from citeflow import sampling
from citeflow.graph.csr import build_csr, to_undirected
from citeflow.sampling import FOLDS, Partition, PartitionSampler, make_batch


def plan_of(num_papers=50, nodes_per_batch=10, *, world_size=1, seed=0):
    return PartitionSampler(
        num_papers=num_papers, nodes_per_batch=nodes_per_batch, world_size=world_size, seed=seed
    )


def slots(plan, passed=0):
    """Step and rank of each part of a pass."""
    numbers = range(passed * plan.num_partitions, (passed + 1) * plan.num_partitions)
    return [divmod(number, plan.world_size) for number in numbers]


def partition_of(*bounds, epoch=0, fold=0):
    return Partition(bounds_R2=np.array(bounds), epoch=epoch, fold=fold)


def batch_of(is_cited_NN, part, *, day_N=None, num_negatives=8, seed=(0, 0, 0)):
    references, _, neighbors = csrs(is_cited_NN)
    return make_batch(
        part,
        references=references,
        neighbors=neighbors,
        day_N=day_N,
        num_negatives=num_negatives,
        seed=seed,
    )


def targets(batch):
    """Citations that are told from negatives, as pairs of papers of the graph."""
    citing_P, cited_P = (
        batch.paper_B[batch.source_S[batch.source_index_P]],
        batch.paper_B[batch.target_P],
    )
    return list(zip(citing_P.tolist(), cited_P.tolist(), strict=True))


def messages(batch):
    """Links that carry a message, as pairs of papers of the graph."""
    row_E, column_E = batch.paper_B[batch.adj.edges()]
    return list(zip(row_E.tolist(), column_E.tolist(), strict=True))


def inside(is_NN, papers):
    """Pairs of the graph of which both papers lie in a part."""
    chosen = set(papers.tolist())
    pairs = zip(*(side.tolist() for side in np.nonzero(is_NN)), strict=True)
    return {(a, b) for a, b in pairs if a in chosen and b in chosen}


def turned(pairs):
    return {(b, a) for a, b in pairs}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    num_papers=st.integers(1, 90),
    nodes_per_batch=st.integers(2, 100),
    world_size=st.integers(1, 5),
    passed=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_the_parts_of_a_pass_hold_every_paper_once(num_papers, papers, world_size, passed, seed):
    plan = plan_of(num_papers, papers, world_size=world_size, seed=seed)
    parts = [plan.partition(*slot) for slot in slots(plan, passed)]
    assert np.sort(np.concatenate([part.paper_B for part in parts])).tolist() == list(
        range(num_papers)
    )
    assert {(part.epoch, part.fold) for part in parts} == {divmod(passed, FOLDS)}
    for part in parts:
        bounds = part.bounds_R2.ravel()
        assert bounds[0] >= 0
        assert bounds[-1] <= num_papers
        assert (part.bounds_R2[:, 0] < part.bounds_R2[:, 1]).all()
        assert (np.diff(bounds) >= 0).all()
        assert part.paper_B.dtype == np.int32
        assert (np.diff(part.paper_B) > 0).all()


@pytest.mark.parametrize("papers", [2, 7, 10, 25])
def test_parts_have_about_as_many_papers_as_were_asked_for(papers):
    plan = plan_of(1000, papers)
    sizes = [len(plan.partition(*slot).paper_B) for slot in slots(plan)]
    assert plan.num_partitions == round(1000 / papers)
    assert np.ptp(sizes) <= sampling.SEGMENTS
    assert max(sizes) <= papers + sampling.SEGMENTS


def test_a_part_is_a_few_runs_of_consecutive_papers():
    plan = plan_of(1000, 100)
    num_runs = [
        len(plan.partition(*slot).bounds_R2) for passed in range(4) for slot in slots(plan, passed)
    ]
    assert max(num_runs) <= sampling.SEGMENTS + 1
    assert np.mean(num_runs) > sampling.SEGMENTS - 1


def test_a_segment_that_passes_the_end_goes_on_at_the_first_paper():
    plan = plan_of(60, 20)
    parts = [plan.partition(*slot) for passed in range(20) for slot in slots(plan, passed)]
    assert any(part.bounds_R2[0, 0] == 0 and part.bounds_R2[-1, 1] == 60 for part in parts)


def test_each_pass_cuts_at_other_places_and_deals_in_another_order():
    plan = plan_of(100, 20)
    passes = [[plan.partition(*slot) for slot in slots(plan, passed)] for passed in range(8)]
    cuts = {
        frozenset(np.concatenate([part.bounds_R2.ravel() for part in parts]).tolist())
        for parts in passes
    }
    assert len(cuts) > 2
    assert len({tuple(part.paper_B.tobytes() for part in parts) for parts in passes}) == 8


def test_a_graph_no_larger_than_a_part_is_one_part_and_every_step_takes_all_of_it():
    plan = plan_of(50, 50)
    assert (plan.num_partitions, plan.steps_per_epoch) == (1, FOLDS)
    for step in range(9):
        part = plan.partition(step, 0)
        assert part.bounds_R2.tolist() == [[0, 50]]
        assert (part.epoch, part.fold) == divmod(step, FOLDS)


@pytest.mark.parametrize(
    ("num_papers", "expected"), [(1999, 1), (4000, 2), (11_000, 5), (400_000, 6), (10**6, 10)]
)
def test_small_graphs_are_cut_so_that_there_are_some_steps(num_papers, expected, monkeypatch):
    monkeypatch.setattr(sampling, "FEWEST_PARTS", 6)
    monkeypatch.setattr(sampling, "SMALLEST_PART", 2000)
    assert plan_of(num_papers, 100_000).num_partitions == expected


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("num_papers", [9, 50, 100])
def test_the_steps_of_an_epoch_have_room_for_all_parts_and_no_step_more(num_papers, world_size):
    plan = plan_of(num_papers, 10, world_size=world_size)
    num_slots = FOLDS * plan.num_partitions
    assert num_slots <= plan.steps_per_epoch * world_size < num_slots + world_size


def test_ranks_take_the_parts_one_after_the_other():
    alone, ranks = plan_of(world_size=1), plan_of(world_size=3)
    for number in range(30):
        mine, theirs = alone.partition(number, 0), ranks.partition(*divmod(number, 3))
        assert np.array_equal(mine.bounds_R2, theirs.bounds_R2)
        assert (mine.epoch, mine.fold) == (theirs.epoch, theirs.fold)


def test_parts_follow_from_the_seed():
    plans = (plan_of(seed=seed) for seed in (1, 1, 2))
    first, same, other = (
        [plan.partition(step, 0).paper_B.tolist() for step in range(5)] for plan in plans
    )
    assert first == same
    assert all(mine != theirs for mine, theirs in zip(first, other, strict=True))


def test_one_part_makes_every_citation_a_target_exactly_once_in_every_epoch():
    is_cited_NN = random_citations(30, 0.15, seed=1)
    everything = sorted(zip(*(side.tolist() for side in np.nonzero(is_cited_NN)), strict=True))
    plan = plan_of(30, 30)
    epochs = []
    for epoch in range(3):
        folds = [
            targets(batch_of(is_cited_NN, plan.partition(FOLDS * epoch + fold, 0)))
            for fold in range(FOLDS)
        ]
        assert sorted(itertools.chain(*folds)) == everything
        assert all(
            len(everything) / FOLDS / 2 < len(fold) < len(everything) / FOLDS * 2 for fold in folds
        )
        epochs.append(folds[0])
    assert epochs[0] != epochs[1] != epochs[2]


def test_citations_that_are_targets_together_are_others_in_the_next_epoch():
    is_cited_NN = random_citations(60, 0.2, seed=2)
    first, second = (
        set(targets(batch_of(is_cited_NN, partition_of([0, 60], epoch=epoch)))) for epoch in (0, 1)
    )
    assert 0.5 / FOLDS < len(first & second) / len(first) < 2 / FOLDS


def test_a_citation_is_a_target_in_the_same_fold_whatever_the_part():
    is_cited_NN = random_citations(40, 0.2, seed=3)
    whole = set(targets(batch_of(is_cited_NN, partition_of([0, 40], epoch=2, fold=3))))
    part = partition_of([5, 20], [31, 38], epoch=2, fold=3)
    found = targets(batch_of(is_cited_NN, part))
    assert found
    assert set(found) == whole & inside(is_cited_NN, part.paper_B)


BOUNDS = [([0, 30],), ([4, 19],), ([0, 3], [3, 11], [20, 22]), ([1, 2], [29, 30]), ([7, 8],)]


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("fold", range(FOLDS))
def test_targets_and_messages_are_together_all_links_of_the_part_and_no_target_is_heard(
    bounds, fold
):
    is_cited_NN = random_citations(30, 0.3, seed=4)
    part = partition_of(*bounds, epoch=1, fold=fold)
    batch = batch_of(is_cited_NN, part)
    told, heard = targets(batch), messages(batch)
    assert len(set(told)) == len(told)
    assert len(set(heard)) == len(heard)
    assert set(told) <= inside(is_cited_NN, part.paper_B)
    assert not set(heard) & (set(told) | turned(told))
    assert set(heard) | set(told) | turned(told) == inside(
        is_cited_NN | is_cited_NN.T, part.paper_B
    )


def test_papers_that_cite_each_other_are_targets_together_and_silent_together():
    is_cited_NN = random_citations(40, 0.1, seed=5)
    is_cited_NN |= is_cited_NN.T
    for fold in range(FOLDS):
        batch = batch_of(is_cited_NN, partition_of([0, 40], fold=fold))
        told = set(targets(batch))
        assert told
        assert told == turned(told)
        assert not told & set(messages(batch))


def test_messages_go_both_ways_and_lie_in_ascending_rows():
    batch = batch_of(random_citations(30, 0.2, seed=6), partition_of([2, 17], [20, 29]))
    heard = messages(batch)
    assert len(heard) > 20
    assert set(heard) == turned(heard)
    assert heard == sorted(heard)
    assert batch.adj.num_rows == len(batch.paper_B)
    assert len(batch.adj.index_E) == batch.adj.ptr_N1[-1]


def test_sources_are_distinct_and_ascending_and_each_has_a_citation():
    batch = batch_of(random_citations(30, 0.3, seed=7), partition_of([0, 12], [15, 30]))
    assert len(batch.source_index_P) == len(batch.target_P) > len(batch.source_S)
    assert (np.diff(batch.source_S) > 0).all()
    assert (np.diff(batch.source_index_P) >= 0).all()
    assert np.unique(batch.source_index_P).tolist() == list(range(len(batch.source_S)))


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_masked_are_the_source_itself_its_neighbours_and_papers_that_are_not_older(seed, dated):
    is_cited_NN = random_citations(30, 0.15, seed=seed)
    day_N = random_days(30, seed=seed) if dated else None
    batch = batch_of(
        is_cited_NN, partition_of([1, 9], [12, 27]), day_N=day_N, num_negatives=12, seed=(seed,)
    )
    negative_K = batch.paper_B[batch.negative_K]
    expected_SK = [
        [
            s == n or is_cited_NN[s, n] or is_cited_NN[n, s] or (dated and day_N[n] >= day_N[s])
            for n in negative_K
        ]
        for s in batch.paper_B[batch.source_S]
    ]
    assert np.array_equal(batch.false_negative_mask_SK, expected_SK)
    assert 0 < batch.false_negative_mask_SK.mean() < 1


def test_a_target_is_masked_among_the_negatives_of_its_source():
    batch = batch_of(random_citations(20, 0.3, seed=8), partition_of([0, 20]), num_negatives=20)
    assert batch.false_negative_mask_SK[batch.source_index_P, batch.target_P].all()
    assert not batch.false_negative_mask_SK.all(axis=1).any()


def test_negatives_are_different_papers_of_the_part_each_as_likely_as_any_other():
    is_cited_NN, part = random_citations(30, 0.2, seed=9), partition_of([3, 8], [20, 25])
    drawn = [
        batch_of(is_cited_NN, part, num_negatives=4, seed=(seed,)).negative_K
        for seed in range(1000)
    ]
    assert all(len(set(negative_K.tolist())) == 4 for negative_K in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=10)
    assert len(counts) == 10
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400)


def test_a_part_with_fewer_papers_than_negatives_gives_all_of_them():
    batch = batch_of(random_citations(30, 0.2, seed=10), partition_of([3, 8]), num_negatives=1000)
    assert batch.negative_K.tolist() == list(range(5))


def test_a_batch_follows_from_part_and_seed():
    is_cited_NN, part = random_citations(30, 0.2, seed=11), partition_of([2, 28], fold=1)
    first, same = (as_bytes(batch_of(is_cited_NN, part, seed=(1, 2, 3))) for _ in range(2))
    assert first == same
    for other in [(0, 2, 3), (1, 0, 3), (1, 2, 0)]:
        found = as_bytes(batch_of(is_cited_NN, part, seed=other))
        assert {name for name in first if first[name] != found[name]} == {
            "negative_K",
            "false_negative_mask_SK",
        }


def as_bytes(batch):
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    links = values.pop("links")
    values |= {"ptr": links.ptr_N1, "index": links.index_E}
    return {name: value.tobytes() for name, value in values.items()}


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_what_grows_with_the_graph_is_held_in_32_bits(bounds):
    batch = batch_of(random_citations(30, 0.3, seed=12), partition_of(*bounds))
    arrays = [
        batch.paper_B,
        batch.adj.ptr_N1,
        batch.adj.index_E,
        batch.source_S,
        batch.target_P,
        batch.negative_K,
    ]
    assert {array.dtype for array in arrays} == {np.dtype(np.int32)}
    assert batch.false_negative_mask_SK.dtype == bool
    assert batch.false_negative_mask_SK.shape == (len(batch.source_S), len(batch.negative_K))


def test_the_rows_of_a_graph_may_be_maps_of_files(tmp_path):
    is_cited_NN, part = random_citations(30, 0.2, seed=13), partition_of([2, 8], [11, 28])
    references, _, neighbors = csrs(is_cited_NN)
    mapped = []
    for graph, name in ((references, "references"), (neighbors, "neighbours")):
        for array, field in ((graph.ptr_N1, "ptr"), (graph.index_E, "index")):
            np.save(tmp_path / f"{name}-{field}.npy", array)
        arrays = (
            np.load(tmp_path / f"{name}-{field}.npy", mmap_mode="r") for field in ("ptr", "index")
        )
        mapped.append(type(graph)(*arrays))
    found = make_batch(
        part, references=mapped[0], neighbors=mapped[1], day_N=None, num_negatives=8, seed=(0, 0, 0)
    )
    assert as_bytes(found) == as_bytes(batch_of(is_cited_NN, part))


def test_a_part_without_a_citation_is_an_empty_batch():
    is_cited_NN = np.zeros((9, 9), dtype=bool)
    is_cited_NN[0, 8] = True
    for fold in range(FOLDS):
        batch = batch_of(is_cited_NN, partition_of([1, 4], [6, 9], fold=fold), num_negatives=3)
        assert batch.paper_B.tolist() == [1, 2, 3, 6, 7, 8]
        assert (
            len(batch.source_S),
            len(batch.source_index_P),
            len(batch.target_P),
            len(batch.adj.index_E),
        ) == (0, 0, 0, 0)
        assert (len(batch.negative_K), batch.false_negative_mask_SK.shape) == (3, (0, 3))


def test_two_papers_tell_their_citation_once_and_hear_of_it_in_the_other_folds():
    is_cited_NN = np.array([[False, True], [False, False]])
    batches = [batch_of(is_cited_NN, plan_of(2, 2).part(step, 0)) for step in range(FOLDS)]
    assert sorted(targets(batch) for batch in batches) == [[]] * (FOLDS - 1) + [[(0, 1)]]
    for batch in batches:
        assert messages(batch) == ([] if targets(batch) else [(0, 1), (1, 0)])


def test_keys_of_large_graphs_do_not_collide():
    """The product of two row numbers of three million papers needs 43 bits, and the epoch all 64."""
    last = 3_000_000
    paper_B = np.array([0, 1, last - 2, last - 1], dtype=np.int32)
    a_E, b_E = (
        np.array(side, dtype=np.int32)
        for side in zip(*[(0, 3), (3, 0), (1, 2), (2, 3)], strict=True)
    )
    folds = np.array(
        [
            sampling._supervision_fold(
                paper_B[a_E], paper_B[b_E], partition_of([0, last], epoch=epoch), last
            ).tolist()
            for epoch in range(2000)
        ]
    )
    assert np.array_equal(folds[:, 0], folds[:, 1])
    for column in (0, 2, 3):
        assert np.abs(np.bincount(folds[:, column], minlength=FOLDS) - 500).max() < 5 * np.sqrt(500)
    for pair in ((0, 2), (0, 3), (2, 3)):
        assert 400 < (folds[:, pair[0]] == folds[:, pair[1]]).sum() < 600


@pytest.mark.fault("F11")
def test_all_ranks_take_as_many_steps_and_each_citation_is_told_once_or_lies_between_parts(figure):
    rng = np.random.default_rng(1)
    for seed in range(150):
        num_papers, papers, world_size = (int(rng.integers(2, end)) for end in (70, 80, 10))
        plan = plan_of(num_papers, papers, world_size=world_size - 1, seed=seed)
        share = float(rng.choice([0, 0.02, 0.2]))
        check_epoch(plan, np.nonzero(random_citations(num_papers, share, seed=seed)), figure)


@pytest.mark.fault("F11")
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5000])
@pytest.mark.parametrize("papers", [40, 4097])
def test_a_number_of_citations_that_no_number_of_ranks_divides_is_dealt_all_the_same(
    world_size, papers, figure
):
    rng = np.random.default_rng(3)
    pairs = rng.choice(500 * 499, 4097, replace=False)
    citing_E, place_E = np.divmod(pairs, 499)
    graph = citing_E, place_E + (place_E >= citing_E)
    check_epoch(plan_of(500, papers, world_size=world_size), graph, figure)


def check_epoch(plan, citations, figure):
    """Deal the first epoch, as the ranks would, and look at what became of each citation."""
    references = build_csr(*citations, plan.num_papers)
    neighbors = to_undirected(references)
    told, together, num_partitions = [], set(), 0
    steps_R = np.zeros(plan.world_size, dtype=int)
    for step, rank in itertools.product(range(plan.steps_per_epoch), range(plan.world_size)):
        part = plan.partition(step, rank)
        steps_R[rank] += len(part.paper_B) > 0
        if part.epoch == 0:
            num_partitions += 1
            batch = make_batch(
                part,
                references=references,
                neighbors=neighbors,
                day_N=None,
                num_negatives=2,
                seed=(step, rank),
            )
            told += targets(batch)
            together |= pairs_in(part, references, neighbors.num_rows)
    assert num_partitions == FOLDS * plan.num_partitions
    assert set(steps_R) == {plan.steps_per_epoch}
    assert len(set(told)) == len(told)
    assert set(told) == together
    everything = len(references.index_E)
    figure(
        plans=1,
        citations=everything,
        told_once=len(told),
        between_parts=everything - len(together),
        uneven_ranks=len(set(steps_R)) - 1,
    )


def pairs_in(part, references, num_papers):
    """Citations between papers of a part that its pass tells, found in another way than `make_batch` does."""
    is_mine_N = np.zeros(num_papers, dtype=bool)
    is_mine_N[part.paper_B] = True
    citing_E, cited_E = references.edges()
    is_inside_E = is_mine_N[citing_E] & is_mine_N[cited_E]
    a_E, b_E = citing_E[is_inside_E], cited_E[is_inside_E]
    rows_N = np.arange(num_papers, dtype=np.int32)
    is_told_E = sampling._supervision_fold(rows_N[a_E], rows_N[b_E], part, num_papers) == part.fold
    return set(zip(a_E[is_told_E].tolist(), b_E[is_told_E].tolist(), strict=True))
