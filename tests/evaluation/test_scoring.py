"""Scores equal the formula of each predictor, pair by pair.

Legend: N papers, P sources, K candidates, H hidden channels.
"""

import numpy as np
import pytest
import torch
from whole_graphs import graph_of, held_out, model_of

from citeflow.config import ModelConfig
from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation import scoring
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import (
    build_structural_features,
    iter_chunks,
    sample_held_out,
    score_candidates,
    score_held_out,
)
from citeflow.models.predictors import PREDICTORS

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
    found_PK = score_candidates(model, embedding_NH, structural, source_P, candidate_PK)
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
    monkeypatch.setattr(scoring, "PAIRS", pairs)
    expected = held_out(num_citations, NUM_PAPERS)
    chunks = list(iter_chunks(expected))
    for source_P, candidate_PK in chunks:
        assert len(source_P) == len(candidate_PK) >= 1
        assert candidate_PK.size <= pairs or len(candidate_PK) == 1
    source_P, candidate_PK = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    assert np.array_equal(source_P, expected.source_P)
    assert np.array_equal(candidate_PK[:, 0], expected.target_P)
    assert np.array_equal(candidate_PK[:, 1:], expected.negative_PK)


def test_held_out_citations_score_as_candidates(graph):
    model = model_of(graph)
    structural = build_structural_features(graph, ModelConfig())
    embedding_NH = embed_all(model, graph)
    valid = graph.valid
    candidate_PK = np.concatenate([valid.target_P[:, None], valid.negative_PK], axis=1)
    expected_PK = score_candidates(model, embedding_NH, structural, valid.source_P, candidate_PK)
    found_PK = score_held_out(model, embedding_NH, structural, valid)
    np.testing.assert_allclose(found_PK, expected_PK, rtol=1e-5, atol=1e-6)


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
