"""Scores equal the formula of each predictor, pair by pair, and every held-out citation gets its own.

Legend: N papers, P sources, K candidates, H width.
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

NUM_PAPERS = 60


@pytest.fixture(scope="module")
def graph():
    return graph_of(NUM_PAPERS)


@pytest.mark.parametrize("predictor", ["dot", "mlp", "structural"])
def test_a_candidates_score_is_that_of_its_pair_alone(graph, predictor):
    model, structural = (
        model_of(graph, predictor=predictor),
        build_structural_features(graph, ModelConfig()),
    )
    embedding_NH = embed_all(model, graph)
    source_P, candidate_PK = (
        np.array([5, 5, 58], dtype=np.int32),
        held_out(3, NUM_PAPERS).negative_PK,
    )
    found_PK = score_candidates(model, embedding_NH, structural, source_P, candidate_PK)
    assert found_PK.dtype == np.float32
    for i, source in enumerate(source_P):
        for k, candidate in enumerate(candidate_PK[i]):
            score = model.predictor(embedding_NH[source][None], embedding_NH[candidate][None])
            if predictor == "structural":
                pair = torch.from_numpy(
                    structural.for_candidates(source[None], candidate[None, None])
                )
                score = model.head(score, pair)
            assert found_PK[i, k] == pytest.approx(score.item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("hops", "num_evidence"), [(0, 4), (2, 9), (3, 13)])
def test_evidence_is_as_long_as_the_configuration_says(graph, hops, num_evidence):
    assert (
        len(build_structural_features(graph, ModelConfig(structural_hops=hops)).names)
        == num_evidence
    )


@pytest.mark.parametrize("most_pairs", [1, 100, 1 << 17])
@pytest.mark.parametrize("num_citations", [1, 127, 300])
def test_pieces_hold_every_citation_once_and_in_order_in_front_of_its_negatives(
    num_citations, most_pairs, monkeypatch
):
    monkeypatch.setattr(scoring, "PAIRS", most_pairs)
    wanted = held_out(num_citations, NUM_PAPERS)
    pieces = list(iter_chunks(wanted))
    assert all(len(source_P) == len(candidate_PK) >= 1 for source_P, candidate_PK in pieces)
    assert all(
        candidate_PK.size <= most_pairs or len(candidate_PK) == 1 for _, candidate_PK in pieces
    )
    source_P, candidate_PK = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    assert np.array_equal(source_P, wanted.source_P)
    assert np.array_equal(candidate_PK[:, 0], wanted.target_P)
    assert np.array_equal(candidate_PK[:, 1:], wanted.negative_PK)


def test_held_out_citations_score_as_their_candidates_do(graph):
    model, structural = model_of(graph), build_structural_features(graph, ModelConfig())
    embedding_NH = embed_all(model, graph)
    valid = graph.valid
    candidate_PK = np.concatenate([valid.target_P[:, None], valid.negative_PK], axis=1)
    at_once_PK = score_candidates(model, embedding_NH, structural, valid.source_P, candidate_PK)
    np.testing.assert_allclose(
        score_held_out(model, embedding_NH, structural, valid), at_once_PK, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("total", "most"), [(300, 2000), (300, 300), (300, 299), (300, 41), (300, 1), (2, 5)]
)
def test_ranks_share_an_even_sample_and_each_citation_goes_to_one(total, most, world_size):
    wanted = HeldOut(
        source_P=np.arange(total),
        target_P=np.arange(total) + 1000,
        negative_PK=np.arange(total)[:, None],
    )
    parts = [
        sample_held_out(wanted, most=most, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    sizes = [len(part.source_P) for part in parts]
    chosen = np.sort(np.concatenate([part.source_P for part in parts]))
    assert len(chosen) == len(set(chosen.tolist())) == min(total, most)
    assert max(sizes) - min(sizes) <= 1
    assert chosen[0] == 0
    assert most == 1 or chosen[-1] == total - 1
    assert most == 1 or np.ptp(np.diff(chosen)) <= 1
    for part in parts:
        assert np.array_equal(part.target_P, part.source_P + 1000)
        assert np.array_equal(part.negative_PK[:, 0], part.source_P)
