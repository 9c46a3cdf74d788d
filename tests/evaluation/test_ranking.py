"""Ranks are those of the whole list of candidates, however they come in chunks.

Legend: Q citations, K candidates.
"""

import numpy as np
import pytest
import torch
from torch_geometric.metrics import LinkPredMetricCollection, LinkPredMRR, LinkPredRecall

from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation import chunks, metrics, ranking
from citeflow.graph.candidates import Candidates, HardCandidates
from citeflow.graph.csr import Csr, build_csr

NUM_PAPERS = 300


@pytest.fixture(scope="module")
def score_NN():
    """Distinct scores of all pairs."""
    rng = np.random.default_rng(0)
    return rng.permutation(NUM_PAPERS**2).astype(np.float32).reshape(NUM_PAPERS, NUM_PAPERS)


@pytest.fixture(scope="module")
def test_split():
    rng = np.random.default_rng(1)
    source_P, target_P = rng.integers(0, NUM_PAPERS, (2, 40)).astype(np.int32)
    return HeldOut(source_P=source_P, target_P=target_P, negative_PK=np.empty((40, 0), np.int32))


@pytest.fixture(scope="module")
def rule(test_split):
    linked = build_csr(*np.random.default_rng(2).integers(0, NUM_PAPERS, (2, 2000)), NUM_PAPERS)
    return Candidates(linked, [test_split], None, None)


def rank_by(score_NN, own_chunks, num):
    def methods(source_P, candidate_PK):
        yield "it", score_NN[source_P[:, None], candidate_PK]

    return ranking.rank([(methods, own_chunks)], name="test", of=num)


def rank_among_all(score_NN, test_split, rule, row_Q):
    def methods(source_P):
        return lambda candidate_K: [("it", score_NN[source_P[:, None], candidate_K])]

    return ranking.rank_among_all(methods, test_split, rule, row_Q, name="test")


@pytest.mark.parametrize("pairs", [100, 1000, 1 << 17])
def test_ranks_among_all_papers_equal_sorted_lists(
    score_NN, test_split, rule, pairs, monkeypatch, pyg_means
):
    monkeypatch.setattr(ranking, "PAIRS", pairs)
    monkeypatch.setattr(chunks, "PAIRS", pairs)
    row_Q = np.arange(0, 40, 3)
    found = rank_among_all(score_NN, test_split, rule, row_Q)
    lists = []
    for row, rank, num in zip(row_Q, found.by_method["it"], found.num_candidates_Q, strict=True):
        source, target = test_split.source_P[row], test_split.target_P[row]
        candidate_K = rule.of(source)
        lists.append(sorted([target, *candidate_K], key=lambda paper: -score_NN[source, paper]))
        assert lists[-1].index(target) + 1 == rank
        assert num == len(candidate_K)
    figures = metrics.ranking(found.by_method["it"])
    targets = test_split.target_P[row_Q]
    assert {name: figures[name] for name in pyg_means(lists, targets)} == pytest.approx(
        pyg_means(lists, targets), rel=1e-6
    )


@pytest.fixture(scope="module")
def pyg_means():
    """Figures of PyG's collection, from lists of papers, best first, and the right ones."""

    def means(lists, targets):
        collection = LinkPredMetricCollection(
            {
                "mrr": LinkPredMRR(NUM_PAPERS),
                "recall@20": LinkPredRecall(20),
                "recall@100": LinkPredRecall(100),
            }
        )
        padded = [[*each, *[-1] * (NUM_PAPERS - len(each))] for each in lists]
        edges = torch.tensor([range(len(targets)), targets.tolist()])
        collection.update(torch.tensor(np.array(padded)), edges)
        return {name: value.item() for name, value in collection.compute().items()}

    return means


def test_ties_count_half_and_others_not_at_all():
    positive_P = torch.tensor([2.0, 2.0])
    negative_PK = torch.tensor([[3.0, 2.0, 2.0, 1.0], [9.0, 9.0, 9.0, 2.0]])
    is_counted_PK = torch.tensor([[True, True, True, True], [False, False, True, True]])
    assert metrics.count_better(positive_P, negative_PK, is_counted_PK).tolist() == [2.0, 1.5]


def test_hard_candidates_of_different_number_are_ranked_each_among_its_own(score_NN, test_split):
    source_S = np.unique(test_split.source_P)[::2]
    rng = np.random.default_rng(3)
    lists = [rng.choice(NUM_PAPERS, 1 + i % 7, replace=False) for i in range(len(source_S))]
    rowptr_S1 = np.cumsum([0, *map(len, lists)])
    hard = HardCandidates(source_S, Csr(rowptr_S1, np.concatenate(lists)))
    row_Q = np.flatnonzero(hard.index(test_split.source_P) >= 0)
    assert 0 < len(row_Q) < 40
    found = rank_by(score_NN, chunks.hard_chunks(test_split, hard, row_Q), len(row_Q))
    for row, rank, num in zip(row_Q, found.by_method["it"], found.num_candidates_Q, strict=True):
        source = test_split.source_P[row]
        candidate_K = lists[np.flatnonzero(source_S == source)[0]]
        score_K = score_NN[source, candidate_K]
        positive = score_NN[source, test_split.target_P[row]]
        assert num == len(candidate_K)
        assert rank == 1 + (score_K > positive).sum() + 0.5 * (score_K == positive).sum()


def test_a_score_that_is_not_a_number_is_refused(score_NN, test_split, rule):
    with pytest.raises(ValueError, match="NaN"):
        rank_among_all(np.full_like(score_NN, np.nan), test_split, rule, np.arange(3))


def test_intervals_of_samples_hold_the_mean_of_all():
    rank_N = torch.from_numpy(np.random.default_rng(0).zipf(1.6, 20_000)).float()
    figures = metrics.ranking(rank_N)
    hits = dict.fromkeys(("mrr", "recall@20", "recall@100"), 0)
    for seed in range(40):
        sample = np.random.default_rng(seed).choice(20_000, 200, replace=False)
        for name, (low, high) in ranking.confidence_intervals(rank_N[sample], seed=seed).items():
            hits[name] += low <= figures[name] <= high
    assert all(hit >= 34 for hit in hits.values()), hits


def test_items_are_mapped_in_order_and_few_wait(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    taken = []

    def items():
        for item in range(50):
            taken.append(item)
            yield item

    for i, (item, result) in enumerate(ranking.map_in_threads(lambda item: -item, items())):
        assert (item, result) == (i, -i)
        assert len(taken) - i <= 4
