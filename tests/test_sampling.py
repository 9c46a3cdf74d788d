"""Partitions cover the graph; in a batch a citation is a target or a message, never both.

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
from citeflow.sampling import FOLDS, Partition, PartitionSampler, sample_subgraph

BOUNDS = [([0, 30],), ([4, 19],), ([0, 3], [3, 11], [20, 22]), ([1, 2], [29, 30]), ([7, 8],)]


def make_sampler(num_papers=50, nodes_per_batch=10, *, world_size=1, seed=0):
    return PartitionSampler(
        num_papers=num_papers, nodes_per_batch=nodes_per_batch, world_size=world_size, seed=seed
    )


def partitions(sampler, sweep=0):
    """All partitions of a sweep."""
    numbers = range(sweep * sampler.num_partitions, (sweep + 1) * sampler.num_partitions)
    return [sampler.partition(*divmod(number, sampler.world_size)) for number in numbers]


def partition_of(*bounds, epoch=0, fold=0):
    return Partition(bounds_R2=np.array(bounds), epoch=epoch, fold=fold)


def batch_of(
    is_cited_NN, partition, *, day_N=None, num_negatives=8, seed=(0, 0, 0), hidden_share=0.0
):
    references, _, neighbors = csrs(is_cited_NN)
    return sample_subgraph(
        partition,
        references=references,
        neighbors=neighbors,
        day_N=day_N,
        num_negatives=num_negatives,
        seed=seed,
        hidden_share=hidden_share,
    )


def targets(batch):
    """Citations that are targets, as pairs of papers of the graph."""
    citing_P = batch.paper_B[batch.source_S[batch.source_index_P]]
    return list(zip(citing_P.tolist(), batch.paper_B[batch.target_P].tolist(), strict=True))


def messages(batch):
    """Edges that carry a message, as pairs of papers of the graph."""
    row_E, column_E = batch.paper_B[batch.adj.edges()]
    return list(zip(row_E.tolist(), column_E.tolist(), strict=True))


def inside(is_NN, papers):
    """Pairs of the graph of which both papers lie in a partition."""
    chosen = set(papers.tolist())
    return {(a, b) for a, b in np.argwhere(is_NN).tolist() if a in chosen and b in chosen}


def reverse(pairs):
    return {(b, a) for a, b in pairs}


def to_bytes(batch):
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    adj = values.pop("adj")
    values |= {"ptr": adj.rowptr_N1, "index": adj.col_E}
    return {name: value.tobytes() for name, value in values.items()}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    num_papers=st.integers(1, 90),
    nodes_per_batch=st.integers(2, 100),
    world_size=st.integers(1, 5),
    sweep=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_sweep_holds_every_paper_once(num_papers, nodes_per_batch, world_size, sweep, seed):
    sampler = make_sampler(num_papers, nodes_per_batch, world_size=world_size, seed=seed)
    dealt = partitions(sampler, sweep)
    papers = np.concatenate([partition.paper_B for partition in dealt])
    assert np.sort(papers).tolist() == list(range(num_papers))
    num_slots = FOLDS * sampler.num_partitions
    assert num_slots <= sampler.steps_per_epoch * world_size < num_slots + world_size
    for partition in dealt:
        assert (partition.epoch, partition.fold) == divmod(sweep, FOLDS)
        bounds = partition.bounds_R2.ravel()
        assert 0 <= bounds[0] < bounds[-1] <= num_papers
        assert (partition.bounds_R2[:, 0] < partition.bounds_R2[:, 1]).all()
        assert partition.paper_B.dtype == np.int32
        assert (np.diff(partition.paper_B) > 0).all()


@pytest.mark.parametrize("nodes_per_batch", [2, 7, 25, 100])
def test_partitions_are_a_few_ranges_of_the_size_asked_for(nodes_per_batch):
    sampler = make_sampler(1000, nodes_per_batch)
    dealt = [partition for sweep in range(4) for partition in partitions(sampler, sweep)]
    sizes = [len(partition.paper_B) for partition in dealt]
    assert sampler.num_partitions == round(1000 / nodes_per_batch)
    assert np.ptp(sizes) <= sampling.SEGMENTS
    assert max(sizes) <= nodes_per_batch + sampling.SEGMENTS
    assert max(len(partition.bounds_R2) for partition in dealt) <= sampling.SEGMENTS + 1


@pytest.mark.parametrize(("num_papers", "segments"), [(1000, 4), (1001, 2)])
def test_partitions_of_large_graphs_have_longer_segments(num_papers, segments, monkeypatch):
    monkeypatch.setattr(sampling, "LARGE", 1001)
    sampler = make_sampler(num_papers, 40)
    dealt = partitions(sampler, 0)
    whole = [len(each.bounds_R2) for each in dealt if each.bounds_R2[0, 0] > 0]
    assert max(whole) == segments
    papers = np.concatenate([partition.paper_B for partition in dealt])
    assert np.sort(papers).tolist() == list(range(num_papers))


def test_sweeps_cut_and_deal_differently():
    sampler = make_sampler(100, 20)
    sweeps = [partitions(sampler, sweep) for sweep in range(20)]
    cuts = {
        frozenset(np.concatenate([each.bounds_R2.ravel() for each in dealt]).tolist())
        for dealt in sweeps
    }
    assert len(cuts) > 2
    assert len({tuple(each.paper_B.tobytes() for each in dealt) for dealt in sweeps}) == 20
    ends = [(each.bounds_R2[0, 0], each.bounds_R2[-1, 1]) for dealt in sweeps for each in dealt]
    assert (0, 100) in ends  # a segment that passes the end of the ring


def test_small_graph_is_one_partition():
    sampler = make_sampler(50, 50)
    assert (sampler.num_partitions, sampler.steps_per_epoch) == (1, FOLDS)
    for step in range(9):
        partition = sampler.partition(step, 0)
        assert partition.bounds_R2.tolist() == [[0, 50]]
        assert (partition.epoch, partition.fold) == divmod(step, FOLDS)


@pytest.mark.parametrize(
    ("num_papers", "expected"), [(1999, 1), (4000, 2), (11_000, 5), (400_000, 6), (10**6, 10)]
)
def test_num_partitions_grows_with_the_graph(num_papers, expected):
    assert make_sampler(num_papers, 100_000).num_partitions == expected


def test_ranks_take_partitions_in_turn_by_the_seed():
    alone = make_sampler()
    ranks = make_sampler(world_size=3)
    other = make_sampler(seed=1)
    for number in range(30):
        expected = alone.partition(number, 0)
        found = ranks.partition(*divmod(number, 3))
        assert np.array_equal(found.bounds_R2, expected.bounds_R2)
        assert (found.epoch, found.fold) == (expected.epoch, expected.fold)
    assert any(
        alone.partition(step, 0).paper_B.tolist() != other.partition(step, 0).paper_B.tolist()
        for step in range(5)
    )


def test_citation_is_a_target_once_in_every_epoch():
    is_cited_NN = random_citations(30, 0.15, seed=1)
    everything = sorted(map(tuple, np.argwhere(is_cited_NN).tolist()))
    sampler = make_sampler(30, 30)
    first_folds = []
    for epoch in range(3):
        folds = [
            targets(batch_of(is_cited_NN, sampler.partition(FOLDS * epoch + fold, 0)))
            for fold in range(FOLDS)
        ]
        assert sorted(itertools.chain(*folds)) == everything
        share = len(everything) / FOLDS
        assert all(share / 2 < len(fold) < share * 2 for fold in folds)
        first_folds.append(folds[0])
    assert first_folds[0] != first_folds[1] != first_folds[2]


def test_fold_of_a_citation_does_not_depend_on_the_partition():
    is_cited_NN = random_citations(40, 0.2, seed=3)
    whole = set(targets(batch_of(is_cited_NN, partition_of([0, 40], epoch=2, fold=3))))
    partition = partition_of([5, 20], [31, 38], epoch=2, fold=3)
    found = targets(batch_of(is_cited_NN, partition))
    assert found
    assert set(found) == whole & inside(is_cited_NN, partition.paper_B)


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("fold", range(FOLDS))
def test_targets_and_messages_are_all_edges_and_disjoint(bounds, fold):
    is_cited_NN = random_citations(30, 0.3, seed=4)
    partition = partition_of(*bounds, epoch=1, fold=fold)
    batch = batch_of(is_cited_NN, partition)
    positives = targets(batch)
    edges = messages(batch)
    assert len(set(positives)) == len(positives)
    assert edges == sorted(set(edges))
    assert set(edges) == reverse(edges)
    assert set(positives) <= inside(is_cited_NN, partition.paper_B)
    assert reverse(positives) & inside(is_cited_NN, partition.paper_B) <= set(positives)
    hidden = set(positives) | reverse(positives)
    assert not set(edges) & hidden
    assert set(edges) | hidden == inside(is_cited_NN | is_cited_NN.T, partition.paper_B)
    assert (np.diff(batch.source_S) > 0).all()
    assert (np.diff(batch.source_index_P) >= 0).all()
    assert np.unique(batch.source_index_P).tolist() == list(range(len(batch.source_S)))
    for array in (
        batch.paper_B, batch.adj.rowptr_N1, batch.adj.col_E, batch.source_S, batch.target_P,
        batch.negative_K,
    ):  # fmt: skip
        assert array.dtype == np.int32
    assert batch.false_negative_mask_SK.dtype == bool


@pytest.mark.parametrize("bounds", BOUNDS[:3])
def test_hidden_sources_have_no_message_with_their_references(bounds):
    is_cited_NN = random_citations(30, 0.3, seed=2)
    partition = partition_of(*bounds)
    whole = batch_of(is_cited_NN, partition)
    batch = batch_of(is_cited_NN, partition, hidden_share=0.4)
    hidden = set(batch.paper_B[batch.source_S[batch.is_hidden_S]].tolist())
    assert 0 < len(hidden) < len(batch.source_S)
    assert not whole.is_hidden_S.any()
    references = {(s, t) for s, t in np.argwhere(is_cited_NN).tolist() if s in hidden}
    assert set(messages(batch)) == set(messages(whole)) - references - reverse(references)
    for name in ("source_S", "source_index_P", "target_P", "negative_K", "false_negative_mask_SK"):
        assert np.array_equal(getattr(batch, name), getattr(whole, name))


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_mask_marks_itself_neighbors_and_papers_not_older(seed, dated):
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


def test_negatives_are_distinct_and_drawn_evenly():
    is_cited_NN = random_citations(30, 0.2, seed=9)
    partition = partition_of([3, 8], [20, 25])
    drawn = [
        batch_of(is_cited_NN, partition, num_negatives=4, seed=(seed,)).negative_K
        for seed in range(400)
    ]
    assert all(len(set(negative_K.tolist())) == 4 for negative_K in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=10)
    assert len(counts) == 10
    assert np.abs(counts - 160).max() < 5 * np.sqrt(160)
    assert batch_of(is_cited_NN, partition, num_negatives=99).negative_K.tolist() == [*range(10)]


def test_batch_is_seeded():
    is_cited_NN = random_citations(30, 0.2, seed=11)
    partition = partition_of([2, 28], fold=1)
    first = to_bytes(batch_of(is_cited_NN, partition, seed=(1, 2, 3)))
    assert to_bytes(batch_of(is_cited_NN, partition, seed=(1, 2, 3))) == first
    for seed in [(0, 2, 3), (1, 0, 3), (1, 2, 0)]:
        other = to_bytes(batch_of(is_cited_NN, partition, seed=seed))
        differ = {name for name in first if first[name] != other[name]}
        assert differ == {"negative_K", "false_negative_mask_SK"}


def test_partition_without_citations_is_an_empty_batch():
    is_cited_NN = np.zeros((9, 9), dtype=bool)
    is_cited_NN[0, 8] = True
    for fold in range(FOLDS):
        batch = batch_of(is_cited_NN, partition_of([1, 4], [6, 9], fold=fold), num_negatives=3)
        assert batch.paper_B.tolist() == [1, 2, 3, 6, 7, 8]
        assert not targets(batch) + messages(batch)
        assert (len(batch.negative_K), batch.false_negative_mask_SK.shape) == (3, (0, 3))


def test_two_papers_make_batches():
    is_cited_NN = np.array([[False, True], [False, False]])
    batches = [batch_of(is_cited_NN, make_sampler(2, 2).partition(i, 0)) for i in range(FOLDS)]
    assert sorted(targets(batch) for batch in batches) == [[]] * (FOLDS - 1) + [[(0, 1)]]
    for batch in batches:
        assert messages(batch) == ([] if targets(batch) else [(0, 1), (1, 0)])


def test_folds_of_large_graphs_are_independent():
    """The key of a pair of three million papers needs 43 bits, and the epoch all 64."""
    last = 3_000_000
    a_E = np.array([0, last - 1, 1, last - 2], dtype=np.int32)
    b_E = np.array([last - 1, 0, last - 2, last - 1], dtype=np.int32)
    folds = np.stack(
        [
            sampling._supervision_fold(a_E, b_E, partition_of([0, last], epoch=epoch), last)
            for epoch in range(2000)
        ]
    ).astype(int)
    assert np.array_equal(folds[:, 0], folds[:, 1])
    for column in (0, 2, 3):
        assert np.abs(np.bincount(folds[:, column], minlength=FOLDS) - 500).max() < 5 * np.sqrt(500)
    for a, b in ((0, 2), (0, 3), (2, 3)):
        assert 400 < (folds[:, a] == folds[:, b]).sum() < 600


@pytest.mark.fault("F11")
def test_ranks_take_equally_many_steps_and_each_citation_once():
    rng = np.random.default_rng(1)
    for seed in range(60):
        num_papers, nodes_per_batch, world_size = (
            int(rng.integers(2, end)) for end in (70, 80, 10)
        )
        sampler = make_sampler(num_papers, nodes_per_batch, world_size=world_size - 1, seed=seed)
        share = float(rng.choice([0, 0.02, 0.2]))
        check_epoch(sampler, np.nonzero(random_citations(num_papers, share, seed=seed)))


@pytest.mark.fault("F11")
@pytest.mark.parametrize(("world_size", "nodes_per_batch"), [(3, 40), (5000, 40), (1, 4097)])
def test_prime_number_of_citations_is_dealt(world_size, nodes_per_batch):
    rng = np.random.default_rng(3)
    citing_E, offset_E = np.divmod(rng.choice(500 * 499, 4093, replace=False), 499)
    citations = citing_E, offset_E + (offset_E >= citing_E)
    check_epoch(make_sampler(500, nodes_per_batch, world_size=world_size), citations)


def check_epoch(sampler, citations):
    """Deal the first epoch as the ranks would, and follow each citation."""
    references = build_csr(*citations, sampler.num_papers)
    neighbors = to_undirected(references)
    positives = []
    supervised = set()
    num_partitions = 0
    steps_R = np.zeros(sampler.world_size, dtype=int)
    slots = itertools.product(range(sampler.steps_per_epoch), range(sampler.world_size))
    for step, rank in slots:
        partition = sampler.partition(step, rank)
        steps_R[rank] += len(partition.paper_B) > 0
        if partition.epoch:
            continue
        num_partitions += 1
        batch = sample_subgraph(
            partition,
            references=references,
            neighbors=neighbors,
            day_N=None,
            num_negatives=2,
            seed=(step, rank),
        )
        positives += targets(batch)
        supervised |= supervised_pairs(partition, references)
    assert num_partitions == FOLDS * sampler.num_partitions
    assert set(steps_R) == {sampler.steps_per_epoch}
    assert len(set(positives)) == len(positives)
    assert set(positives) == supervised


def supervised_pairs(partition, references):
    """Targets of a partition, found in another way than by `sample_subgraph`."""
    is_inside_N = np.isin(np.arange(references.num_rows), partition.paper_B)
    citing_E, cited_E = references.edges()
    is_inside_E = is_inside_N[citing_E] & is_inside_N[cited_E]
    a_E = citing_E[is_inside_E]
    b_E = cited_E[is_inside_E]
    fold_E = sampling._supervision_fold(a_E, b_E, partition, references.num_rows)
    is_target_E = fold_E == partition.fold
    return set(zip(a_E[is_target_E].tolist(), b_E[is_target_E].tolist(), strict=True))
