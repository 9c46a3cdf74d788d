"""The encoder equals GraphSAGE's formula on dense matrices, and PyG's SAGEConv on a plain list of edges."""

import numpy as np
import pytest
import torch
from small_graphs import csrs, random_citations

from citeflow import config as settings
from citeflow.config import ModelConfig
from citeflow.learning.model import DotPredictor, Encoder, HadamardPredictor, LinkPredictor, StructuralHead
from citeflow.learning.sampling import neighbourhood
from citeflow.learning.tensors import to_sparse

NUM_PAPERS, NUM_FEATURES = 30, 5
WANTED = np.array([3, 17, 8, 0], dtype=np.int32)
AGGREGATIONS = ["mean", "add", "max"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def encoder_of(**changes):
    """An encoder that is not in training; it scales its input."""
    encoder = Encoder(NUM_FEATURES, ModelConfig(**{"layers": 2, "width": 6, **changes}))
    encoder.mean_F, encoder.scale_F = torch.randn(NUM_FEATURES), torch.rand(NUM_FEATURES) + 0.5
    return encoder.eval()


def features():
    return torch.randn(NUM_PAPERS, NUM_FEATURES, generator=torch.Generator().manual_seed(1))


def on_blocks(encoder, is_cited_NN, x_NF, wanted=WANTED, **how):
    near = neighbourhood(wanted, neighbours=csrs(is_cited_NN)[2], layers=encoder.config.layers, **how)
    return encoder(x_NF[torch.from_numpy(near.paper_B).long()], [to_sparse(block) for block in near.blocks])


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
        joined = aggregate(adjacency_NN, x, encoder.config.aggregation)
        x = joined @ conv.lin_l.weight.T + conv.lin_l.bias + x @ conv.lin_r.weight.T
        x = x / x.norm(dim=1, keepdim=True) if encoder.config.normalize else x
        x = x.clamp(min=0) if layer + 1 < len(encoder.convs) else x
    return x


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_an_encoder_on_blocks_equals_graphsage_on_dense_matrices(aggregation, layers, normalized):
    is_cited_NN = random_citations(NUM_PAPERS, 0.03, seed=0)
    encoder = encoder_of(layers=layers, aggregation=aggregation, normalize=normalized)
    adjacency_NN = torch.from_numpy(is_cited_NN | is_cited_NN.T).float()
    assert (adjacency_NN.sum(dim=1) == 0).any()
    expected = dense(encoder, adjacency_NN, features())[torch.from_numpy(WANTED).long()]
    torch.testing.assert_close(on_blocks(encoder, is_cited_NN, features()), expected)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_an_encoder_on_blocks_equals_sageconv_on_a_list_of_edges(aggregation):
    is_cited_NN = random_citations(NUM_PAPERS, 0.1, seed=1)
    encoder = encoder_of(aggregation=aggregation)
    edge_2E = torch.from_numpy(np.stack(np.nonzero(is_cited_NN | is_cited_NN.T)))
    first, second = encoder.convs
    x = encoder.scaled(features())
    expected = second(first(x, edge_2E).relu(), edge_2E)[torch.from_numpy(WANTED).long()]
    torch.testing.assert_close(on_blocks(encoder, is_cited_NN, features()), expected)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_gradients_through_blocks_are_those_of_dense_matrices(aggregation):
    is_cited_NN = random_citations(NUM_PAPERS, 0.1, seed=2)
    encoder = encoder_of(aggregation=aggregation)
    adjacency_NN = torch.from_numpy(is_cited_NN | is_cited_NN.T).float()
    wanted = np.arange(NUM_PAPERS, dtype=np.int32)
    weights = torch.randn(NUM_PAPERS, 6)
    leaves = list(encoder.parameters())
    found = torch.autograd.grad((on_blocks(encoder, is_cited_NN, features(), wanted) * weights).sum(), leaves)
    expected = torch.autograd.grad((dense(encoder, adjacency_NN, features()) * weights).sum(), leaves)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_neighbour_drawn_twice_counts_twice():
    is_cited_NN = np.zeros((4, 4), dtype=bool)
    is_cited_NN[0, 1:] = True
    encoder = encoder_of(layers=1, aggregation="mean")
    near = neighbourhood(np.array([0]), neighbours=csrs(is_cited_NN)[2], layers=1, fanout=(2,), seed=(3,))
    drawn = near.paper_B[near.blocks[0].index]
    assert len(set(drawn.tolist())) == 1
    x_NF = features()[:4]
    conv, x = encoder.convs[0], encoder.scaled(x_NF)
    found = encoder(x_NF[torch.from_numpy(near.paper_B).long()], [to_sparse(near.blocks[0])])
    torch.testing.assert_close(found[0], conv.lin_l(x[int(drawn[0])]) + conv.lin_r(x[0]))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_block_without_any_message_leaves_the_paper_to_itself(aggregation):
    is_cited_NN = random_citations(2, 0, seed=0)
    alone = (np.array([0], dtype=np.int32), np.array([1], dtype=np.int32))
    encoder = encoder_of(layers=1, aggregation=aggregation)
    found = on_blocks(encoder, is_cited_NN, features()[:2], np.array([0, 1]), without=alone)
    conv = encoder.convs[0]
    torch.testing.assert_close(found, conv.lin_r(encoder.scaled(features()[:2])) + conv.lin_l.bias)


def test_without_layers_the_encoder_is_a_perceptron_on_the_features():
    encoder = encoder_of(layers=0)
    x_NF = features()
    before, _, after = encoder.perceptron
    expected = after(before((x_NF - encoder.mean_F) * encoder.scale_F).relu())
    assert len(encoder.convs) == 0
    torch.testing.assert_close(encoder(x_NF, []), expected)


def test_dropout_acts_in_training_behind_every_layer_but_the_last():
    encoder = encoder_of(layers=2, width=400, dropout=0.5)
    is_cited_NN = random_citations(NUM_PAPERS, 0.1, seed=3)
    near = neighbourhood(np.arange(NUM_PAPERS), neighbours=csrs(is_cited_NN)[2], layers=1)
    block, x = to_sparse(near.blocks[0]), features()
    calm = encoder.layer(0, x, x, block)
    encoder.train()
    hidden = encoder.layer(0, x, x, block)
    active = calm > 0
    assert 0.45 < (hidden[active] == 0).float().mean() < 0.55
    kept = active & (hidden != 0)
    torch.testing.assert_close(hidden[kept], 2 * calm[kept])
    last = encoder.layer(1, hidden, hidden, block)
    assert torch.equal(last, encoder.layer(1, hidden, hidden, block))
    assert (last != 0).all()


def test_the_seed_preset_is_five_normalised_sums_of_width_256_on_a_constant():
    config = settings.load(preset="seed").model
    encoder = Encoder(1, config).eval()
    assert [(conv.in_channels, conv.out_channels) for conv in encoder.convs] == [(1, 256)] + [(256, 256)] * 4
    assert {(conv.aggr, conv.normalize) for conv in encoder.convs} == {("add", True)}
    is_cited_NN = random_citations(NUM_PAPERS, 0.1, seed=4)
    embedding = on_blocks(encoder, is_cited_NN, torch.ones(NUM_PAPERS, 1))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(len(WANTED)))
    model = LinkPredictor(1, 11, config, scaled=False)
    assert not model.uses_evidence
    assert list(model.predictor.parameters()) == []


def predictors():
    learned = DotPredictor(scaled=True)
    torch.nn.init.constant_(learned.log_scale, 0.7)
    return {"dot": DotPredictor(scaled=False), "scaled dot": learned, "hadamard": HadamardPredictor(6)}


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
    torch.testing.assert_close(predictors()["scaled dot"](source_SH, target_KH), plain_SK * float(np.exp(0.7)))
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
    torch.testing.assert_close(joined_SK.flatten(), head(score_SK.flatten(), evidence_SKD.reshape(15, 4)))
    z = torch.cat([score_SK[2, 3, None], evidence_SKD[2, 3]])
    torch.testing.assert_close(joined_SK[2, 3], (head.perceptron(z) + head.linear(z)).squeeze())


@pytest.mark.parametrize("predictor", ["dot", "mlp", "structural"])
def test_only_the_structural_predictor_hears_the_evidence(predictor):
    model = LinkPredictor(NUM_FEATURES, 4, ModelConfig(width=6, predictor=predictor), scaled=True)
    score_SK = model.embedded(torch.randn(3, 6), torch.randn(5, 6))
    joined = [model.joined(score_SK, torch.full((3, 5, 4), value)) for value in (0.0, 1.0)]
    assert model.uses_evidence == (predictor == "structural")
    assert torch.equal(*joined) != model.uses_evidence
    assert model.uses_evidence or joined[0] is score_SK


def test_the_scale_of_the_features_is_saved_with_the_weights():
    first = encoder_of()
    second = Encoder(NUM_FEATURES, first.config).eval()
    second.load_state_dict(first.state_dict())
    is_cited_NN = random_citations(NUM_PAPERS, 0.1, seed=5)
    assert torch.equal(on_blocks(first, is_cited_NN, features()), on_blocks(second, is_cited_NN, features()))
    assert not first.mean_F.requires_grad
