"""The encoder equals GraphSAGE's formula on dense matrices, and PyG's SAGEConv on a plain list of edges."""

import numpy as np
import pytest
import torch
from small_graphs import csrs, random_citations
from torch_geometric.nn import SAGEConv

from citeflow import config as settings
from citeflow.config import ModelConfig
from citeflow.graph.csr import Csr
from citeflow.models.link_predictor import (
    DotPredictor,
    Encoder,
    LinkPredictor,
    MLPPredictor,
    StructuralHead,
    SymmetricSAGEConv,
    _dropped,
    _Propagate,
)
from citeflow.models.tensors import to_sparse_tensor

NUM_PAPERS, NUM_FEATURES = 30, 5
AGGREGATIONS = ["mean", "add", "max"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def encoder_of(**changes):
    """An encoder that is not in training; it scales its input."""
    encoder = Encoder(
        NUM_FEATURES, ModelConfig(**{"num_layers": 2, "hidden_channels": 6, **changes})
    )
    encoder.mean_F, encoder.scale_F = torch.randn(NUM_FEATURES), torch.rand(NUM_FEATURES) + 0.5
    return encoder.eval()


def features(num_papers=NUM_PAPERS):
    return torch.randn(num_papers, NUM_FEATURES, generator=torch.Generator().manual_seed(1))


def links_of(is_cited_NN):
    """Who listens to whom: sparse, dense, and as a list of edges."""
    neighbors = csrs(is_cited_NN)[2]
    is_linked_NN = torch.from_numpy(is_cited_NN | is_cited_NN.T)
    return (
        to_sparse_tensor(neighbors, len(is_cited_NN)),
        is_linked_NN.float(),
        is_linked_NN.nonzero().T,
    )


def aggregate(adjacency_NN, x, aggregation):
    """Join each paper's neighbours; zeros where there are none."""
    counts = adjacency_NN.sum(dim=1, keepdim=True)
    if aggregation == "max":
        among = torch.where(adjacency_NN[:, :, None] > 0, x[None], -torch.inf).amax(dim=1)
        return torch.where(counts > 0, among, 0.0)
    total = adjacency_NN @ x
    return total / counts.clamp(min=1) if aggregation == "mean" else total


def dense(encoder, adjacency_NN, x):
    """GraphSAGE on the whole graph, from matrices: W1 AGG(neighbours) + b + W2 x, normalised, and a ReLU between."""
    x = (x - encoder.mean_F) * encoder.scale_F
    for layer, conv in enumerate(encoder.convs):
        joined = aggregate(adjacency_NN, x, encoder.config.aggr)
        x = joined @ conv.lin_l.weight.T + conv.lin_l.bias + x @ conv.lin_r.weight.T
        x = x / x.norm(dim=1, keepdim=True) if encoder.config.normalize else x
        x = x.clamp(min=0) if layer + 1 < len(encoder.convs) else x
    return x


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_an_encoder_equals_graphsage_on_dense_matrices_in_values_and_gradients(
    aggregation, layers, normalized
):
    encoder = encoder_of(layers=layers, aggregation=aggregation, normalize=normalized)
    links_NN, adjacency_NN, _ = links_of(random_citations(NUM_PAPERS, 0.03, seed=0))
    assert (adjacency_NN.sum(dim=1) == 0).any()
    weights, leaves = torch.randn(NUM_PAPERS, 6), list(encoder.parameters())
    found, expected = encoder(features(), links_NN), dense(encoder, adjacency_NN, features())
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((each * weights).sum(), leaves) for each in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_an_encoder_equals_sageconvs_of_pyg_on_a_list_of_edges(aggregation):
    encoder = encoder_of(aggregation=aggregation)
    links_NN, _, edge_2E = links_of(random_citations(NUM_PAPERS, 0.1, seed=1))
    first, second = (pygs(conv) for conv in encoder.convs)
    x = (features() - encoder.mean_F) * encoder.scale_F
    torch.testing.assert_close(
        encoder(features(), links_NN), second(first(x, edge_2E).relu(), edge_2E)
    )


def pygs(conv):
    """PyG's own layer with the same weights."""
    theirs = SAGEConv(conv.in_channels, conv.out_channels, aggr=conv.aggr, normalize=conv.normalize)
    theirs.load_state_dict(conv.state_dict())
    return theirs


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_layer_equals_pygs_in_values_and_in_the_gradients_of_input_and_weights(
    aggregation, normalized
):
    links_NN, _, edge_2E = links_of(random_citations(NUM_PAPERS, 0.1, seed=2))
    mine = SymmetricSAGEConv(NUM_FEATURES, 6, aggr=aggregation, normalize=normalized)
    theirs, weights = pygs(mine), torch.randn(NUM_PAPERS, 6)
    found, expected = [], []
    for conv, links, told in ((mine, links_NN, found), (theirs, edge_2E, expected)):
        x = features().requires_grad_()
        h = conv(x, links)
        told += [h, *torch.autograd.grad((h * weights).sum(), [x, *conv.parameters()])]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_way_back_through_a_symmetric_matrix_is_that_of_finite_differences():
    links_NN, _, _ = links_of(random_citations(12, 0.2, seed=3))
    x = torch.randn(12, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: _Propagate.apply(x, links_NN.double()), (x,))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_papers_of_a_piece_are_embedded_as_in_the_whole_from_those_that_they_listen_to(aggregation):
    encoder = encoder_of(aggregation=aggregation)
    is_cited_NN = random_citations(NUM_PAPERS, 0.1, seed=4)
    neighbors = csrs(is_cited_NN)[2]
    links_NN, _, _ = links_of(is_cited_NN)
    ptr = neighbors.ptr_N1[7:19]
    links_BN = to_sparse_tensor(Csr(ptr - ptr[0], neighbors.index_E[ptr[0] : ptr[-1]]), NUM_PAPERS)
    x = features()
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.layer(0, x, x[7:18], links_BN), encoder.layer(0, x, x, links_NN)[7:18]
        )


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_graph_without_any_link_leaves_every_paper_to_itself(aggregation):
    encoder = encoder_of(layers=1, aggr=aggregation)
    conv, x = encoder.convs[0], encoder.transform_features(features())
    links_NN = to_sparse_tensor(csrs(np.zeros((NUM_PAPERS, NUM_PAPERS), dtype=bool))[2], NUM_PAPERS)
    torch.testing.assert_close(encoder(features(), links_NN), conv.lin_r(x) + conv.lin_l.bias)


def test_without_layers_the_encoder_is_a_perceptron_on_the_features():
    encoder = encoder_of(layers=0)
    x_NF = features()
    before, _, after = encoder.perceptron
    expected = after(before((x_NF - encoder.mean_F) * encoder.scale_F).relu())
    assert len(encoder.convs) == 0
    torch.testing.assert_close(encoder(x_NF, torch.empty(0, 0)), expected)
    torch.testing.assert_close(encoder.transform_features(x_NF), expected)


def test_dropout_acts_in_training_behind_every_layer_but_the_last():
    encoder = encoder_of(layers=2, width=400, dropout=0.5)
    links_NN, _, _ = links_of(random_citations(NUM_PAPERS, 0.1, seed=3))
    x = features()
    calm = encoder.layer(0, x, x, links_NN)
    encoder.train()
    hidden = encoder.layer(0, x, x, links_NN)
    active = calm > 0
    assert 0.45 < (hidden[active] == 0).float().mean() < 0.55
    kept = active & (hidden != 0)
    torch.testing.assert_close(hidden[kept], 2 * calm[kept])
    last = encoder.layer(1, hidden, hidden, links_NN)
    assert torch.equal(last, encoder.layer(1, hidden, hidden, links_NN))
    assert (last != 0).all()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    x = torch.ones(1001, 101, requires_grad=True)
    dropped = _dropped(x, share)
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert len(dropped.unique()) == (1 if share == 0 else 2)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped.detach())


def test_dropout_follows_from_torchs_seed_and_takes_each_value_for_itself():
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(_dropped(torch.ones(100_003), 0.5) == 0)
    assert torch.equal(masks[0], masks[1])
    for lag in (1, 7, 8, 9):
        assert (masks[0][lag:] == masks[0][:-lag]).float().mean().item() == pytest.approx(
            0.5, abs=0.01
        )
    assert (masks[0] == masks[2]).float().mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (3, 5)])
def test_dropout_of_few_values_has_their_shape_and_is_finite_to_the_last_share(shape):
    dropped = _dropped(torch.ones(shape), 0.9999)
    assert dropped.shape == shape
    assert dropped.isfinite().all()


def test_the_seed_preset_is_five_normalised_sums_of_width_256_on_a_constant():
    config = settings.load(preset="seed").model
    encoder = Encoder(1, config).eval()
    assert [(conv.in_channels, conv.out_channels) for conv in encoder.convs] == [(1, 256)] + [
        (256, 256)
    ] * 4
    assert {(conv.aggr, conv.normalize) for conv in encoder.convs} == {("add", True)}
    links_NN, _, _ = links_of(random_citations(NUM_PAPERS, 0.1, seed=4))
    embedding_NH = encoder(torch.ones(NUM_PAPERS, 1), links_NN)
    torch.testing.assert_close(embedding_NH.norm(dim=1), torch.ones(NUM_PAPERS))
    model = LinkPredictor(1, 11, config, scaled=False)
    assert not model.uses_structural_features
    assert list(model.predictor.parameters()) == []


def predictors():
    learned = DotPredictor(scaled=True)
    torch.nn.init.constant_(learned.log_scale, 0.7)
    return {
        "dot": DotPredictor(scaled=False),
        "scaled dot": learned,
        "hadamard": MLPPredictor(6),
    }


@pytest.mark.parametrize("name", predictors())
def test_candidates_score_the_same_shared_or_private(name):
    predictor = predictors()[name]
    source_SH, target_KH = torch.randn(4, 6), torch.randn(9, 6)
    shared_SK = predictor(source_SH, target_KH)
    assert shared_SK.shape == (4, 9)
    torch.testing.assert_close(shared_SK, predictor(source_SH, target_KH.expand(4, 9, 6)))
    one_by_one = torch.stack([predictor(source_SH[i : i + 1], target_KH)[0] for i in range(4)])
    torch.testing.assert_close(shared_SK, one_by_one)


def test_a_dot_product_is_scaled_by_the_exponential_of_its_weight():
    source_SH, target_KH = torch.randn(4, 6), torch.randn(9, 6)
    plain_SK = torch.einsum("sh,kh->sk", source_SH, target_KH)
    torch.testing.assert_close(predictors()["dot"](source_SH, target_KH), plain_SK)
    torch.testing.assert_close(
        predictors()["scaled dot"](source_SH, target_KH), plain_SK * float(np.exp(0.7))
    )
    torch.testing.assert_close(DotPredictor(scaled=True)(source_SH, target_KH), plain_SK)


def test_a_hadamard_score_is_a_perceptron_on_the_product():
    predictor = predictors()["hadamard"]
    before, _, after = predictor.perceptron
    source_SH, target_KH = torch.randn(2, 6), torch.randn(3, 6)
    expected = after(before(source_SH[1] * target_KH[2]).relu()).squeeze()
    torch.testing.assert_close(predictor(source_SH, target_KH)[1, 2], expected)


def test_the_head_joins_pairs_of_any_shape_one_by_one():
    head = StructuralHead(4)
    score_SK, evidence_SKD = torch.randn(3, 5), torch.randn(3, 5, 4)
    joined_SK = head(score_SK, evidence_SKD)
    assert joined_SK.shape == (3, 5)
    torch.testing.assert_close(
        joined_SK.flatten(), head(score_SK.flatten(), evidence_SKD.reshape(15, 4))
    )
    z = torch.cat([score_SK[2, 3, None], evidence_SKD[2, 3]])
    torch.testing.assert_close(joined_SK[2, 3], (head.perceptron(z) + head.linear(z)).squeeze())


@pytest.mark.parametrize("predictor", ["dot", "mlp", "structural"])
def test_only_the_structural_predictor_hears_the_evidence(predictor):
    model = LinkPredictor(
        NUM_FEATURES, 4, ModelConfig(hidden_channels=6, predictor=predictor), scaled=True
    )
    score_SK = model.score_embeddings(torch.randn(3, 6), torch.randn(5, 6))
    joined = [
        model.add_structural_score(score_SK, torch.full((3, 5, 4), value)) for value in (0.0, 1.0)
    ]
    assert model.uses_structural_features == (predictor == "structural")
    assert torch.equal(*joined) != model.uses_structural_features
    assert model.uses_structural_features or joined[0] is score_SK


def test_the_scale_of_the_features_is_saved_with_the_weights():
    first = encoder_of()
    second = Encoder(NUM_FEATURES, first.config).eval()
    second.load_state_dict(first.state_dict())
    links_NN, _, _ = links_of(random_citations(NUM_PAPERS, 0.1, seed=5))
    assert torch.equal(first(features(), links_NN), second(features(), links_NN))
    assert not first.mean_F.requires_grad
