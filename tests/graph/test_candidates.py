"""Candidates are the papers that a source may cite, and the hard ones lead some heuristic.

Legend: N papers, S sources.
"""

import numpy as np
import pytest
from small_graphs import csrs, random_citations, random_days

from citeflow.config import DataConfig
from citeflow.data.citation_graph import HeldOut
from citeflow.graph import candidates
from citeflow.graph.candidates import Candidates, choose_hard

NUM_PAPERS = 120


@pytest.fixture(scope="module")
def is_cited_NN():
    return random_citations(NUM_PAPERS, 0.06, seed=0)


@pytest.fixture(scope="module")
def held_out():
    source_P, target_P = np.random.default_rng(1).integers(0, NUM_PAPERS, (2, 30)).astype(np.int32)
    return HeldOut(source_P=source_P, target_P=target_P, negative_PK=np.empty((30, 0), np.int32))


def test_candidates_are_older_and_not_cited(is_cited_NN, held_out):
    references, _, _ = csrs(is_cited_NN)
    day_N = random_days(NUM_PAPERS, seed=0)
    day_N[7] = day_N[9]
    is_dated_N = np.arange(NUM_PAPERS) % 10 > 0
    rule = Candidates(references, [held_out], day_N, is_dated_N)
    true_pairs = set(zip(*np.nonzero(is_cited_NN), strict=True))
    true_pairs |= set(zip(held_out.source_P.tolist(), held_out.target_P.tolist(), strict=True))
    for source in range(NUM_PAPERS):
        expected = [
            paper
            for paper in range(NUM_PAPERS)
            if paper != source
            and (source, paper) not in true_pairs
            and (day_N[paper] <= day_N[source] or not is_dated_N[[paper, source]].all())
        ]
        assert rule.of(source).tolist() == expected
        assert rule.mask(source, np.array([source, *expected])).tolist() == [
            False,
            *[True] * len(expected),
        ]


def choose(is_cited_NN, held_out, x_NF, *, day_N=None, **settings):
    references, _, neighbors = csrs(is_cited_NN)
    linked = neighbors if day_N is None else references
    rule = Candidates(linked, [held_out], day_N, None)
    config = DataConfig(**{"hard_candidates": 12, **settings})
    hard = choose_hard(
        held_out.source_P,
        rule,
        references=references,
        neighbors=neighbors,
        x_NF=x_NF,
        config=config,
    )
    return rule, {
        int(source): hard.candidates.row(i).tolist() for i, source in enumerate(hard.source_S)
    }


def best_ranks(is_cited_NN, seen_NN, x_NF, rule, source):
    """The best rank of each candidate by dense matrices; ties take the best or the worst place."""
    linked_NN = (seen_NN | seen_NN.T).astype(float)
    shared_N = (linked_NN / np.maximum(linked_NN.sum(0), 1)) @ linked_NN[:, source]
    unit_NF = x_NF / np.linalg.norm(x_NF, axis=1, keepdims=True)
    scores = [shared_N, unit_NF @ unit_NF[source], seen_NN.sum(0)]
    paper_K = rule.of(source)
    low, high = [], []
    for score_N in scores:
        score_K = score_N[paper_K].round(9)
        worst_K = (score_K[None, :] >= score_K[:, None]).sum(1)
        best_K = 1 + (score_K[None, :] > score_K[:, None]).sum(1)
        is_none_K = (score_K == 0) if score_N is shared_N else np.zeros(len(paper_K), bool)
        low.append(np.where(is_none_K, NUM_PAPERS, best_K))
        high.append(np.where(is_none_K, NUM_PAPERS, worst_K))
    return dict(
        zip(paper_K.tolist(), zip(np.min(low, 0), np.min(high, 0), strict=True), strict=True)
    )


@pytest.mark.parametrize("dense_share", [0, 10**6], ids=["sorted", "dense"])
@pytest.mark.parametrize("time_cut", [False, True])
def test_hard_candidates_have_the_best_ranks_by_any_heuristic(
    is_cited_NN, held_out, time_cut, dense_share, monkeypatch
):
    monkeypatch.setattr(candidates, "DENSE_SHARE", dense_share)
    x_NF = np.random.default_rng(2).normal(size=(NUM_PAPERS, 5)).astype(np.float32)
    day_N = np.random.default_rng(3).integers(0, 8, NUM_PAPERS).astype(np.int32)
    rule, chosen = choose(is_cited_NN, held_out, x_NF, day_N=day_N, time_cut=time_cut)
    assert list(chosen) == [s for s in np.unique(held_out.source_P) if len(rule.of(s))]
    for source, papers in chosen.items():
        assert len(set(papers)) == len(papers) == min(12, len(rule.of(source)))
        seen_NN = is_cited_NN & (day_N[:, None] <= day_N[source]) if time_cut else is_cited_NN
        ranks = best_ranks(is_cited_NN, seen_NN, x_NF, rule, source)
        worst_chosen = max(ranks[paper][0] for paper in papers)
        assert all(ranks[paper][1] >= worst_chosen for paper in ranks.keys() - set(papers))


def test_hard_candidates_do_not_depend_on_the_size_of_blocks(is_cited_NN, held_out, monkeypatch):
    x_NF = np.random.default_rng(2).normal(size=(NUM_PAPERS, 5)).astype(np.float32)
    _, expected = choose(is_cited_NN, held_out, x_NF)
    monkeypatch.setattr(candidates, "BLOCK_SOURCES", 4)
    monkeypatch.setattr(candidates, "BLOCK_PAPERS", 7)
    assert choose(is_cited_NN, held_out, x_NF)[1] == expected


def test_a_sample_of_sources_has_hard_candidates_where_there_are_very_many(
    is_cited_NN, held_out, monkeypatch
):
    _, expected = choose(is_cited_NN, held_out, None)
    monkeypatch.setattr(candidates, "MAX_COSINES", 5 * NUM_PAPERS)
    _, chosen = choose(is_cited_NN, held_out, None)
    assert len(chosen) == 5
    assert chosen.items() <= expected.items()
