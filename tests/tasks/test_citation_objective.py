"""The loss and its gradient against a loop over citations in which no citation sees itself.

Legend: N papers, F features, P citations, K negatives, H width.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from citeflow.config import Config, ModelConfig, TrainConfig
from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import build_structural_features
from citeflow.graph.csr import build_csr, to_undirected, transpose
from citeflow.graph.prepared import PreparedGraph
from citeflow.graph.similar import similar_papers
from citeflow.models.link_predictor import LinkPredictor
from citeflow.sampling import FOLDS, Partition
from citeflow.tasks import citation_objective
from citeflow.tasks.citation_objective import Objective, make_batch

NUM_PAPERS = 40
PREDICTORS = ["dot", "mlp", "structural"]
SEED = (1, 2, 3)


def citations(share=0.1, seed=0):
    """Which paper cites which, bool [N, N]; some cite each other."""
    is_cited_NN = np.random.default_rng(seed).random((NUM_PAPERS, NUM_PAPERS)) < share
    np.fill_diagonal(is_cited_NN, False)
    is_cited_NN[[3, 5], [5, 3]] = True
    return is_cited_NN


def graph_of(is_cited_NN, *, features=True):
    """A PreparedGraph without a folder; its arrays are read-only, as maps are."""
    rng = np.random.default_rng(9)
    references = build_csr(*np.nonzero(is_cited_NN), NUM_PAPERS)
    none = HeldOut(
        source_P=np.empty(0, np.int32),
        target_P=np.empty(0, np.int32),
        negative_PK=np.empty((0, 1), np.int32),
    )
    x_NF = rng.normal(size=(NUM_PAPERS, 4)).astype(np.float32)
    x_NF.flags.writeable = False
    day_N = rng.integers(0, 4000, NUM_PAPERS).astype(np.int32)
    return PreparedGraph(
        path=Path(),
        manifest=None,
        facts=None,
        x_NF=x_NF if features else None,
        day_N=day_N,
        references=references,
        citations=transpose(references),
        neighbors=to_undirected(references),
        similar=similar_papers(x_NF, day_N, 3) if features else None,
        valid=none,
        test=none,
    )


ALL = 1 - 1e-9
"""Share of the sources whose references are hidden: all."""


def config_of(predictor="structural", loss="info_nce", *, hidden=0.0, **model):
    return Config(
        model=ModelConfig(
            **{"hidden_channels": 6, "dropout": 0.0, "predictor": predictor, **model}
        ),
        train=TrainConfig(loss=loss, num_negatives=20, hide_references=hidden),
    )


def model_of(config, graph, seed=0):
    torch.manual_seed(seed)
    num_structural = len(build_structural_features(graph, config.model).names)
    num_features = 1 if graph.x_NF is None else graph.x_NF.shape[1]
    return LinkPredictor(
        num_features, num_structural, config.model, scaled=config.train.loss == "info_nce"
    )


def partition_of(*bounds, fold=0):
    return Partition(bounds_R2=np.array(bounds or [[0, NUM_PAPERS]]), epoch=0, fold=fold)


def batch_of(graph, config, part=None, *, seed=SEED):
    """The citations that a step trains on, as papers of the graph, and what it gathers for them."""
    part, structural = part or partition_of(), build_structural_features(graph, config.model)
    batch = make_batch(part, graph=graph, structural=structural, config=config, seed=seed)
    source_P, target_P = batch.source_S[batch.source_index_P], batch.target_P
    return np.stack([part.paper_B[source_P], part.paper_B[target_P]]), batch


def without(is_cited_NN, edge_2P):
    """The citations left when pairs are unknown in both directions."""
    left = is_cited_NN.copy()
    left[edge_2P[0], edge_2P[1]] = left[edge_2P[1], edge_2P[0]] = False
    return left


def in_double(batch):
    """The same batch for a model in float64."""

    def widened(record):
        values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        return {
            k: v.double()
            for k, v in values.items()
            if isinstance(v, torch.Tensor) and v.is_floating_point()
        }

    structural_batch = batch.structural and dataclasses.replace(
        batch.structural, **widened(batch.structural)
    )
    return dataclasses.replace(batch, **widened(batch), structural=structural_batch)


def unseen(is_cited_NN, edge_2P, config):
    """The citations that their sources are seen without: those that are scored, or all."""
    if not config.train.hide_references:
        return edge_2P
    is_source_N = np.isin(np.arange(NUM_PAPERS), edge_2P[0])
    return np.stack(np.nonzero(is_cited_NN & is_source_N[:, None]))


def inside(is_cited_NN, part):
    """The citations between papers of a part."""
    is_inside_N = np.isin(np.arange(NUM_PAPERS), part.paper_B)
    return is_cited_NN & is_inside_N & is_inside_N[:, None]


PARTS = [partition_of(), partition_of([3, 20], [22, 39], fold=1)]


@pytest.mark.parametrize("part", PARTS, ids=["whole", "part"])
@pytest.mark.parametrize(("layers", "hidden"), [(1, 0.0), (2, 0.0), (3, 0.0), (2, ALL)])
def test_encoder_sees_the_partition_without_its_targets(layers, hidden, part):
    is_cited_NN = citations()
    config = config_of(num_layers=layers, hidden=hidden)
    graph = graph_of(is_cited_NN)
    model = model_of(config, graph)
    edge_2P, batch = batch_of(graph, config, part)
    h_BH = model.encoder(batch.x_BF, batch.adj_BB)
    hidden_2E = unseen(is_cited_NN, edge_2P, config)
    unseen_NH = embed_all(model, graph_of(without(inside(is_cited_NN, part), hidden_2E)))
    seen_NH = embed_all(model, graph_of(inside(is_cited_NN, part)))
    torch.testing.assert_close(h_BH, unseen_NH[torch.from_numpy(part.paper_B)])
    assert not torch.isclose(seen_NH[edge_2P[0]], unseen_NH[edge_2P[0]]).all(dim=1).any()


def test_batch_hides_mutual_citations_both_ways():
    is_cited_NN = citations()
    graph, config = graph_of(is_cited_NN), config_of(num_layers=1)
    folds = [batch_of(graph, config, partition_of(fold=fold)) for fold in range(FOLDS)]
    [(edge_2P, batch)] = [each for each in folds if (each[0] == [[3], [5]]).all(axis=0).any()]
    assert (edge_2P == [[5], [3]]).all(axis=0).any()
    adj_BB = batch.adj_BB.to_dense()
    assert adj_BB[3, 5] == adj_BB[5, 3] == 0
    assert sum(float(batch.adj_BB.to_dense()[3, 5]) for _, batch in folds) == FOLDS - 1


def loop_over_citations(model, batch, edge_2P, graph, is_cited_NN, part, config):
    """The loss by definition, citation by citation, with embeddings without the batch."""
    loss = config.train.loss
    hidden_2E = unseen(is_cited_NN, edge_2P, config)
    embedding_NH = embed_all(model, graph_of(without(inside(is_cited_NN, part), hidden_2E)))
    negative_K = part.paper_B[batch.negative_K]
    structural_P = [] if batch.structural is None else batch.structural.citation_Y.tolist()
    terms, structural_terms, mean_of = [], [], {}
    for i, (s, t) in enumerate(edge_2P.T):
        is_wrong_K = (negative_K == s) | is_cited_NN[s, negative_K] | is_cited_NN[negative_K, s]
        is_wrong_K |= graph.day_N[negative_K] >= graph.day_N[s]
        candidate_K = np.append(t, negative_K[~is_wrong_K])
        score_K = model.score_embeddings(embedding_NH[[s]], embedding_NH[candidate_K])[0]
        terms.append(loss_of_one(score_K, loss))
        if i in structural_P:
            structural = structural_without(
                is_cited_NN, hidden_2E[:, hidden_2E[0] == s], model.config
            )
            structural_KD = structural.for_candidates(s[None], candidate_K[None])[0]
            joint_K = model.add_structural_score(score_K, torch.from_numpy(structural_KD))
            structural_terms.append(loss_of_one(joint_K, loss))
            mean_of[s] = joint_K[1:].sum() / max(1, len(joint_K) - 1)
    total = torch.stack(terms).mean()
    if structural_terms:
        total = total + torch.stack(structural_terms).mean()
    if structural_terms and loss == "info_nce":
        total = total + 0.01 * torch.stack([*mean_of.values()]).square().mean()
    return total


def structural_without(is_cited_NN, edge_2P, config):
    """Structural features without some citations, paths keeping the weights that they had."""
    structural, whole = (
        build_structural_features(graph_of(each), config)
        for each in (without(is_cited_NN, edge_2P), is_cited_NN)
    )
    for path in whole.paths:
        structural._sums._weights |= {
            (hop, path.weight): whole._sums._weight(hop, path.weight) for hop in path.hops
        }
    # A citation in return still counts as a reference of the candidate.
    known_N = whole._sums.degree("references").copy()
    np.subtract.at(known_N, edge_2P[0], 1)
    structural._sums._degrees["references"] = known_N
    return structural


def loss_of_one(score_K, loss):
    """Loss of one citation, scored first, against its own negatives."""
    if loss == "info_nce":
        return cross_entropy(score_K[None], torch.tensor([0]))
    each = [(score_K[:1], torch.ones(1)), (score_K[1:], torch.zeros(len(score_K) - 1))]
    return sum(
        binary_cross_entropy_with_logits(score, label) for score, label in each if len(score)
    )


@pytest.mark.parametrize("part", PARTS, ids=["whole", "part"])
@pytest.mark.parametrize("loss", ["info_nce", "bce"])
@pytest.mark.parametrize(
    ("predictor", "hidden"), [*((name, 0.0) for name in PREDICTORS), ("structural", ALL)]
)
def test_objective_equals_a_loop_over_citations(predictor, hidden, loss, part, monkeypatch):
    """Evidence is that of the whole graph without the citations of the source in question."""
    monkeypatch.setattr(citation_objective, "STRUCTURAL_SOURCES", 10)
    is_cited_NN = citations()
    config, graph = config_of(predictor, loss, hidden=hidden), graph_of(is_cited_NN)
    model = model_of(config, graph)
    edge_2P, batch = batch_of(graph, config, part)
    found = Objective(model, loss)(batch)
    assert (batch.structural is not None) == (predictor == "structural")
    torch.testing.assert_close(
        found, loop_over_citations(model, batch, edge_2P, graph, is_cited_NN, part, config)
    )


@pytest.mark.parametrize("aggregation", ["mean", "add", "max"])
@pytest.mark.parametrize("loss", ["info_nce", "bce"])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_objective_gradient_equals_finite_differences(predictor, loss, aggregation):
    graph, config = graph_of(citations()), config_of(predictor, loss, aggr=aggregation)
    model = model_of(config, graph).double()
    batch = in_double(batch_of(graph, config)[1])
    compute = Objective(model, loss)
    compute(batch).backward()
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        expected = slope(compute, batch, parameter, direction)
        assert (parameter.grad * direction).sum().item() == pytest.approx(
            expected, rel=1e-4, abs=1e-8
        )
    assert all(parameter.grad.any() for parameter in model.parameters() if parameter.numel() > 1)


@pytest.mark.parametrize("aggregation", ["mean", "add", "max"])
@pytest.mark.parametrize("loss", ["info_nce", "bce"])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_objective_of_bfloat16_is_nearly_that_of_float32(predictor, loss, aggregation):
    graph = graph_of(citations())
    config = config_of(predictor, loss, aggr=aggregation, hidden_channels=32)
    model, (_, batch) = model_of(config, graph), batch_of(graph, config)
    losses, gradients = [], []
    for is_less in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_less):
            found = Objective(model, loss)(batch)
        model.zero_grad()
        found.backward()
        losses.append(found.item())
        gradients.append(torch.cat([each.grad.flatten() for each in model.parameters()]))
        assert {found.dtype, gradients[-1].dtype} == {torch.float32}
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.995
    assert not torch.equal(*gradients)


@torch.no_grad()
def slope(compute, batch, parameter, direction, step=1e-6):
    """Central difference of the loss along a direction of one parameter."""
    values = []
    for sign in (1, -1):
        parameter.add_(direction, alpha=sign * step)
        values.append(compute(batch).item())
        parameter.add_(direction, alpha=-sign * step)
    return (values[0] - values[1]) / (2 * step)


def test_objective_is_finite_where_all_negatives_are_masked():
    graph, config = graph_of(citations()), config_of()
    model = model_of(config, graph)
    batch = batch_of(graph, config)[1]
    blind = dataclasses.replace(
        batch, false_negative_mask_SK=torch.ones_like(batch.false_negative_mask_SK)
    )
    loss = Objective(model, "info_nce")(blind)
    loss.backward()
    assert loss.isfinite()
    assert all(
        parameter.grad is None or parameter.grad.isfinite().all()
        for parameter in model.parameters()
    )


@pytest.mark.parametrize("loss", ["info_nce", "bce"])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_objective_of_no_citation_is_zero_with_gradients(predictor, loss):
    """Every weight has a gradient all the same, for other ranks wait for it."""
    is_cited_NN = citations()
    is_cited_NN[10:20, 10:20] = False
    graph, config = graph_of(is_cited_NN), config_of(predictor, loss)
    model = model_of(config, graph)
    edge_2P, batch = batch_of(graph, config, partition_of([10, 20]))
    assert (edge_2P.shape, batch.num_samples) == ((2, 0), 0)
    found = Objective(model, loss)(batch)
    found.backward()
    assert found == 0
    assert all(
        parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters()
    )


@pytest.mark.parametrize("most", [1, 7, 10_000])
def test_structural_batch_has_all_citations_of_its_sources(monkeypatch, most):
    monkeypatch.setattr(citation_objective, "STRUCTURAL_SOURCES", most)
    graph, config = graph_of(citations(0.2)), config_of()
    edge_2P, batch = batch_of(graph, config, partition_of([2, 37]))
    structural, num_sources = batch.structural, len(batch.source_S)
    assert len(structural.source_Z) == min(most, num_sources)
    assert structural.source_Z.tolist() == sorted(set(structural.source_Z.tolist()))
    chosen = np.unique(edge_2P[0])[structural.source_Z.numpy()]
    expected_Y = np.flatnonzero(np.isin(edge_2P[0], chosen))
    assert structural.citation_Y.tolist() == expected_Y.tolist()
    assert np.array_equal(chosen[structural.source_index_Y.numpy()], edge_2P[0][expected_Y])
    assert structural.structural_ZKD.shape[:2] == (len(chosen), config.train.num_negatives)


def test_batch_follows_from_the_seed(monkeypatch):
    monkeypatch.setattr(citation_objective, "STRUCTURAL_SOURCES", 10)
    graph = graph_of(citations())
    first, again, other = (
        batch_of(graph, config_of(), seed=seed)[1] for seed in (SEED, SEED, (1, 3, 3))
    )
    for drawn in (
        lambda batch: batch.negative_K.tolist(),
        lambda batch: batch.structural.source_Z.tolist(),
    ):
        assert drawn(first) == drawn(again) != drawn(other)


def test_batch_to_moves_every_tensor():
    graph, config = graph_of(citations()), config_of()
    batch = batch_of(graph, config)[1]
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    for record in (moved, moved.structural):
        tensors = [getattr(record, field.name) for field in dataclasses.fields(record)]
        tensors = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]
        assert tensors
        assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.adj_BB.shape == batch.adj_BB.shape
