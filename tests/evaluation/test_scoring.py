"""Scores of a whole graph equal those of the papers' neighbourhoods, and the formula of each predictor.

Legend: N papers, P sources, K candidates, H width.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from citeflow.config import ModelConfig
from citeflow.data.records import HeldOut
from citeflow.evaluation import scoring
from citeflow.evaluation.scoring import embed_all, evidence_of, part_of, pieces_of, score_candidates, score_held_out
from citeflow.graph.csr import build_csr, transpose, undirected
from citeflow.graph.prepared import PreparedGraph
from citeflow.learning.model import LinkPredictor
from citeflow.learning.sampling import neighbourhood
from citeflow.learning.tensors import features_of, to_sparse

NUM_PAPERS = 60


def held_out(num_citations, *, seed=0, num_negatives=5):
    rng = np.random.default_rng(seed)
    source_P, target_P, negative_PK = (
        rng.integers(0, NUM_PAPERS, shape).astype(np.int32)
        for shape in (num_citations, num_citations, (num_citations, num_negatives))
    )
    return HeldOut(source_P=source_P, target_P=target_P, negative_PK=negative_PK)


@pytest.fixture(scope="module")
def graph():
    """A PreparedGraph that lies nowhere; its arrays are read-only, as maps are. The last papers have no neighbours."""
    rng = np.random.default_rng(0)
    is_cited_NN = np.triu(rng.random((NUM_PAPERS, NUM_PAPERS)) < 0.1, 1)
    is_cited_NN[:, -3:] = False
    references = build_csr(*np.nonzero(is_cited_NN), NUM_PAPERS)
    graph = PreparedGraph(
        path=Path(),
        manifest={},
        x_NF=rng.normal(size=(NUM_PAPERS, 4)).astype(np.float32),
        day_N=rng.integers(0, 4000, NUM_PAPERS).astype(np.int32),
        references=references,
        citations=transpose(references),
        neighbours=undirected(references),
        valid=held_out(300),
        test=held_out(10),
    )
    for array in (graph.x_NF, graph.day_N, graph.neighbours.index_E, graph.neighbours.ptr_N1):
        array.flags.writeable = False
    return graph


def model_of(graph, **changes):
    torch.manual_seed(0)
    config = ModelConfig(**{"width": 6, **changes})
    num_features = graph.x_NF.shape[1] if config.features == "given" else 1
    return LinkPredictor(num_features, len(evidence_of(graph, config).names), config, scaled=True).eval()


@pytest.mark.parametrize("chunk", [1, 7, 60, 65_536])
@pytest.mark.parametrize(("layers", "aggregation"), [(0, "mean"), (1, "max"), (2, "mean"), (3, "add")])
def test_every_paper_is_embedded_as_from_its_whole_neighbourhood(graph, monkeypatch, layers, aggregation, chunk):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    model = model_of(graph, layers=layers, aggregation=aggregation)
    near = neighbourhood(np.arange(NUM_PAPERS, dtype=np.int32), neighbours=graph.neighbours, layers=layers)
    blocks = [to_sparse(block) for block in near.blocks]
    embedding_NH = embed_all(model, graph)
    assert embedding_NH.shape == (NUM_PAPERS, 6)
    torch.testing.assert_close(embedding_NH, model.encoder(features_of(graph.x_NF, near.paper_B), blocks))


def test_some_papers_are_embedded_the_same_alone(graph):
    model = model_of(graph)
    wanted = np.array([59, 3, 30], dtype=np.int32)
    near = neighbourhood(wanted, neighbours=graph.neighbours, layers=2)
    alone = model.encoder(features_of(graph.x_NF, near.paper_B), [to_sparse(block) for block in near.blocks])
    torch.testing.assert_close(embed_all(model, graph)[torch.from_numpy(wanted).long()], alone)


def test_a_constant_input_tells_papers_apart_by_structure_alone(graph):
    embedding_NH = embed_all(model_of(graph, features="ones", aggregation="add"), graph)
    assert torch.equal(embedding_NH[-1], embedding_NH[-2])
    assert not torch.isclose(embedding_NH[0], embedding_NH[-1]).all()


def test_embedding_drops_nothing_keeps_no_gradient_and_leaves_the_model_in_training(graph):
    model = model_of(graph, dropout=0.5)
    expected = embed_all(model, graph)
    model.train()
    found = embed_all(model, graph)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert model.training
    assert model.encoder.training


@pytest.mark.parametrize("predictor", ["dot", "mlp", "structural"])
def test_a_candidates_score_is_that_of_its_pair_alone(graph, predictor):
    model, evidence = model_of(graph, predictor=predictor), evidence_of(graph, ModelConfig())
    embedding_NH = embed_all(model, graph)
    source_P, candidate_PK = np.array([5, 5, 58], dtype=np.int32), held_out(3).negative_PK
    found_PK = score_candidates(model, embedding_NH, evidence, source_P, candidate_PK)
    assert found_PK.dtype == np.float32
    for i, source in enumerate(source_P):
        for k, candidate in enumerate(candidate_PK[i]):
            score = model.predictor(embedding_NH[source][None], embedding_NH[candidate][None])
            if predictor == "structural":
                pair = torch.from_numpy(evidence.of_candidates(source[None], candidate[None, None]))
                score = model.head(score, pair)
            assert found_PK[i, k] == pytest.approx(score.item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("hops", "num_evidence"), [(0, 4), (2, 9), (3, 13)])
def test_evidence_is_as_long_as_the_configuration_says(graph, hops, num_evidence):
    assert len(evidence_of(graph, ModelConfig(evidence_hops=hops)).names) == num_evidence


@pytest.mark.parametrize("most_pairs", [1, 100, 1 << 17])
@pytest.mark.parametrize("num_citations", [1, 127, 300])
def test_pieces_hold_every_citation_once_and_in_order_in_front_of_its_negatives(num_citations, most_pairs, monkeypatch):
    monkeypatch.setattr(scoring, "PAIRS", most_pairs)
    wanted = held_out(num_citations)
    pieces = list(pieces_of(wanted))
    assert all(len(source_P) == len(candidate_PK) >= 1 for source_P, candidate_PK in pieces)
    assert all(candidate_PK.size <= most_pairs or len(candidate_PK) == 1 for _, candidate_PK in pieces)
    source_P, candidate_PK = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    assert np.array_equal(source_P, wanted.source_P)
    assert np.array_equal(candidate_PK[:, 0], wanted.target_P)
    assert np.array_equal(candidate_PK[:, 1:], wanted.negative_PK)


def test_held_out_citations_score_as_their_candidates_do(graph):
    model, evidence = model_of(graph), evidence_of(graph, ModelConfig())
    embedding_NH = embed_all(model, graph)
    valid = graph.valid
    candidate_PK = np.concatenate([valid.target_P[:, None], valid.negative_PK], axis=1)
    at_once_PK = score_candidates(model, embedding_NH, evidence, valid.source_P, candidate_PK)
    np.testing.assert_allclose(score_held_out(model, embedding_NH, evidence, valid), at_once_PK, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize(("total", "most"), [(300, 2000), (300, 300), (300, 299), (300, 41), (300, 1), (2, 5)])
def test_ranks_share_an_even_sample_and_each_citation_goes_to_one(total, most, world_size):
    wanted = HeldOut(source_P=np.arange(total), target_P=np.arange(total) + 1000, negative_PK=np.arange(total)[:, None])
    parts = [part_of(wanted, most=most, rank=rank, world_size=world_size) for rank in range(world_size)]
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
