"""Scores equal the formula of each predictor, pair by pair.

Legend: N papers, P sources, K candidates, H hidden channels.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from whole_graphs import graph_of, held_out, model_of

from citeflow.config import ModelConfig
from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation import chunks, scoring
from citeflow.evaluation.chunks import random_chunks
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import (
    PaperRows,
    build_structural_features,
    sample_held_out,
    score_candidates,
    score_held_out,
)
from citeflow.models import feature_cosine
from citeflow.models.predictors import PREDICTORS
from citeflow.utils import large_arrays

NUM_PAPERS = 60


@pytest.fixture(scope="module")
def graph():
    return graph_of(NUM_PAPERS)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_score_is_that_of_the_pair_alone(graph, predictor):
    model = model_of(graph, predictor=predictor)
    structural = build_structural_features(graph, ModelConfig())
    embedding_NH = embed_all(model, graph)
    source_P = np.array([5, 5, 58], dtype=np.int32)
    candidate_PK = held_out(3, NUM_PAPERS).negative_PK
    rows = PaperRows(embedding_NH, structural)
    found_PK = score_candidates(model, rows, source_P, candidate_PK)
    assert found_PK.dtype == np.float32
    for (i, k), candidate in np.ndenumerate(candidate_PK):
        source = source_P[i]
        score = model.predictor(embedding_NH[source][None], embedding_NH[candidate][None])
        if model.head is not None:
            features = structural.for_candidates(source[None], np.array([[candidate]]))
            score = model.head(score, torch.from_numpy(features))
        assert found_PK[i, k] == pytest.approx(score.item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("pairs", [1, 100, 1 << 17])
@pytest.mark.parametrize("num_citations", [1, 127])
def test_chunks_hold_every_citation_once(num_citations, pairs, monkeypatch):
    monkeypatch.setattr(chunks, "PAIRS", pairs)
    expected = held_out(num_citations, NUM_PAPERS)
    found = list(random_chunks(expected, np.arange(num_citations)))
    for chunk in found:
        assert len(chunk.source_P) == len(chunk.candidate_PK) >= 1
        assert chunk.candidate_PK.size <= pairs or len(chunk.candidate_PK) == 1
    source_P = np.concatenate([chunk.source_P for chunk in found])
    candidate_PK = np.concatenate([chunk.candidate_PK for chunk in found])
    assert np.array_equal(source_P, expected.source_P)
    assert np.array_equal(candidate_PK[:, 0], expected.target_P)
    assert np.array_equal(candidate_PK[:, 1:], expected.negative_PK)


def test_held_out_citations_score_as_candidates(graph):
    model = model_of(graph)
    structural = build_structural_features(graph, ModelConfig())
    embedding_NH = embed_all(model, graph)
    valid = graph.valid
    candidate_PK = np.concatenate([valid.target_P[:, None], valid.negative_PK], axis=1)
    rows = PaperRows(embedding_NH, structural)
    expected_PK = score_candidates(model, rows, valid.source_P, candidate_PK)
    found_PK = score_held_out(model, rows, valid)
    np.testing.assert_allclose(found_PK, expected_PK, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("allowed", [1 << 40, 0])
def test_rows_of_some_papers_alone_give_the_same_scores(graph, allowed, monkeypatch):
    model = model_of(graph)
    monkeypatch.setattr(feature_cosine, "MAX_KEPT_FEATURES", 0)
    rows = PaperRows(embed_all(model, graph), build_structural_features(graph, ModelConfig()))
    few = dataclasses.replace(graph.valid, negative_PK=graph.valid.negative_PK[:, :1])
    expected_P2 = score_held_out(model, rows, few)
    ends = (few.source_P, few.target_P, few.negative_PK.ravel())
    only = rows.only(np.unique(np.concatenate(ends)))
    monkeypatch.setattr(large_arrays, "_allowed", lambda: allowed)
    rows.embedding_NH.fill_(torch.nan)
    assert np.array_equal(score_held_out(model, only, few), expected_P2)


@pytest.mark.parametrize(("pairs", "held"), [(1, 1), (1, 500), (50, 130), (1 << 17, 1)])
@pytest.mark.parametrize("kept", [0, 1 << 24])
def test_rows_that_are_held_give_the_same_scores(graph, pairs, held, kept, monkeypatch):
    model = model_of(graph)
    structural = build_structural_features(graph, ModelConfig())
    embedding_NH = embed_all(model, graph)
    monkeypatch.setattr(chunks, "PAIRS", pairs)
    monkeypatch.setattr(feature_cosine, "MAX_KEPT_FEATURES", kept)
    rows = PaperRows(embedding_NH, structural)
    expected_PK = score_held_out(model, rows, graph.valid)
    monkeypatch.setattr(large_arrays, "_allowed", lambda: 0)
    monkeypatch.setattr(scoring, "rows_that_fit", lambda *_: held)
    assert np.array_equal(score_held_out(model, rows, graph.valid), expected_PK)
    groups = list(rows.groups(model, random_chunks(graph.valid, np.arange(len(expected_PK)))))
    sizes = []
    for own, group in groups:
        assert own.paper_U is not None
        assert len(own.embedding_NH) == len(own.structural.x_NF) == len(own.paper_U)
        sizes.append(sum(len(each.source_P) + each.candidate_PK.size for each in group))
        assert sizes[-1] <= held or len(group) == 1
    assert all(first + second > held for first, second in itertools.pairwise(sizes))


def test_features_are_not_held_for_a_model_that_takes_none(graph, monkeypatch):
    model = model_of(graph, predictor="dot")
    rows = PaperRows(embed_all(model, graph), build_structural_features(graph, ModelConfig()))
    monkeypatch.setattr(large_arrays, "_allowed", lambda: 0)
    groups = list(rows.groups(model, random_chunks(graph.valid, np.arange(2))))
    for own, _ in groups:
        assert len(own.embedding_NH) == len(own.paper_U)
        assert own.structural is rows.structural


def test_rows_in_memory_are_not_copied(graph):
    model = model_of(graph)
    rows = PaperRows(embed_all(model, graph), build_structural_features(graph, ModelConfig()))
    group = iter(())
    assert list(rows.groups(model, group)) == [(rows, group)]


@pytest.mark.parametrize("world_size", [1, 3, 7])
@pytest.mark.parametrize(("total", "most"), [(300, 2000), (300, 299), (300, 41), (300, 1), (2, 5)])
def test_ranks_share_an_even_sample(total, most, world_size):
    source_P = np.arange(total)
    held = HeldOut(source_P=source_P, target_P=source_P + 1000, negative_PK=source_P[:, None])
    shares = [
        sample_held_out(held, most=most, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    sizes = [len(share.source_P) for share in shares]
    chosen = np.sort(np.concatenate([share.source_P for share in shares]))
    assert len(chosen) == len(set(chosen.tolist())) == min(total, most)
    assert max(sizes) - min(sizes) <= 1
    assert chosen[0] == 0
    assert most == 1 or (chosen[-1] == total - 1 and np.ptp(np.diff(chosen)) <= 1)
    for share in shares:
        assert np.array_equal(share.target_P, share.source_P + 1000)
        assert np.array_equal(share.negative_PK[:, 0], share.source_P)
