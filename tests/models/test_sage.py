"""GraphSAGE equals its formula on dense matrices, and PyG's SAGEConv on a list of edges."""

import pytest
import torch
from small_graphs import csrs, random_citations
from torch_geometric.nn import SAGEConv

from citeflow import config as settings
from citeflow.config import ModelConfig
from citeflow.models.sage import GraphSAGE, SymmetricSAGEConv, _dropout, _SymmetricSpMM
from citeflow.models.tensors import to_sparse_tensor

NUM_PAPERS = 30
NUM_FEATURES = 5
AGGREGATIONS = ["mean", "add", "max"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make_encoder(**changes):
    """An encoder in evaluation mode that scales its input."""
    config = ModelConfig(**{"num_layers": 2, "hidden_channels": 6, **changes})
    encoder = GraphSAGE(NUM_FEATURES, config)
    encoder.mean_F = torch.randn(NUM_FEATURES)
    encoder.scale_F = torch.rand(NUM_FEATURES) + 0.5
    return encoder.eval()


def features(num_papers=NUM_PAPERS):
    return torch.randn(num_papers, NUM_FEATURES, generator=torch.Generator().manual_seed(1))


def adjacencies(share, seed):
    """The same graph as a sparse and a dense matrix, and as a list of edges."""
    is_cited_NN = random_citations(NUM_PAPERS, share, seed=seed)
    neighbors = csrs(is_cited_NN)[2]
    is_linked_NN = torch.from_numpy(is_cited_NN | is_cited_NN.T)
    return (
        to_sparse_tensor(neighbors, NUM_PAPERS),
        is_linked_NN.float(),
        is_linked_NN.nonzero().T,
    )


def aggregate(adj_NN, x, aggr):
    counts = adj_NN.sum(dim=1, keepdim=True)
    if aggr == "max":
        highest = torch.where(adj_NN[:, :, None] > 0, x[None], -torch.inf).amax(dim=1)
        return torch.where(counts > 0, highest, 0.0)
    total = adj_NN @ x
    return total / counts.clamp(min=1) if aggr == "mean" else total


def dense_graphsage(encoder, adj_NN, x):
    """W1 AGG(neighbors) + b + W2 x, normalized, and a ReLU between."""
    x = (x - encoder.mean_F) * encoder.scale_F
    for layer, conv in enumerate(encoder.convs):
        neighbors = aggregate(adj_NN, x, encoder.config.aggr)
        x = neighbors @ conv.lin_l.weight.T + conv.lin_l.bias + x @ conv.lin_r.weight.T
        x = x / x.norm(dim=1, keepdim=True) if encoder.config.normalize else x
        x = x.clamp(min=0) if layer + 1 < len(encoder.convs) else x
    return x


def pyg_conv(conv):
    """PyG's own layer with the same weights."""
    theirs = SAGEConv(conv.in_channels, conv.out_channels, aggr=conv.aggr, normalize=conv.normalize)
    theirs.load_state_dict(conv.state_dict())
    return theirs


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("aggr", AGGREGATIONS)
def test_graphsage_equals_dense_matrices(aggr, num_layers, normalize):
    encoder = make_encoder(num_layers=num_layers, aggr=aggr, normalize=normalize)
    adj_sparse, adj_NN, _ = adjacencies(0.03, seed=0)
    assert (adj_NN.sum(dim=1) == 0).any()
    weights = torch.randn(NUM_PAPERS, 6)
    leaves = list(encoder.parameters())
    found = encoder(features(), adj_sparse)
    expected = dense_graphsage(encoder, adj_NN, features())
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((h * weights).sum(), leaves) for h in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("aggr", AGGREGATIONS)
def test_conv_equals_pyg_in_values_and_gradients(aggr, normalize):
    adj_NN, _, edge_2E = adjacencies(0.1, seed=2)
    ours = SymmetricSAGEConv(NUM_FEATURES, 6, aggr=aggr, normalize=normalize)
    weights = torch.randn(NUM_PAPERS, 6)
    results = []
    for conv, edges in ((ours, adj_NN), (pyg_conv(ours), edge_2E)):
        x = features().requires_grad_()
        h = conv(x, edges)
        results.append([h, *torch.autograd.grad((h * weights).sum(), [x, *conv.parameters()])])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_spmm_gradient_is_that_of_finite_differences():
    adj_NN, _, _ = adjacencies(0.2, seed=3)
    x = torch.randn(NUM_PAPERS, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: _SymmetricSpMM.apply(x, adj_NN.double()), (x,))


def test_graphsage_without_layers_is_an_mlp_on_features():
    encoder = make_encoder(num_layers=0)
    first, _, second = encoder.perceptron
    expected = second(first((features() - encoder.mean_F) * encoder.scale_F).relu())
    assert len(encoder.convs) == 0
    torch.testing.assert_close(encoder(features(), torch.empty(0, 0)), expected)


def test_dropout_acts_behind_every_layer_but_the_last():
    encoder = make_encoder(hidden_channels=400, dropout=0.5)
    adj_NN, _, _ = adjacencies(0.1, seed=3)
    x = features()
    plain = encoder.layer(0, x, x, adj_NN)
    encoder.train()
    hidden = encoder.layer(0, x, x, adj_NN)
    active = plain > 0
    assert 0.45 < (hidden[active] == 0).float().mean() < 0.55
    kept = active & (hidden != 0)
    torch.testing.assert_close(hidden[kept], 2 * plain[kept])
    last = encoder.layer(1, hidden, hidden, adj_NN)
    assert torch.equal(last, encoder.layer(1, hidden, hidden, adj_NN))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    x = torch.ones(1001, 101, requires_grad=True)
    dropped = _dropout(x, p)
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped.detach())
    assert _dropout(torch.ones(0, 4), 0.9999).shape == (0, 4)
    assert _dropout(torch.ones(3, 5), 0.9999).isfinite().all()


def test_dropout_is_seeded_and_independent():
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(_dropout(torch.ones(100_003), 0.5) == 0)
    assert torch.equal(masks[0], masks[1])
    for lag in (1, 7, 8, 9):
        same = (masks[0][lag:] == masks[0][:-lag]).float().mean().item()
        assert same == pytest.approx(0.5, abs=0.01)
    assert (masks[0] == masks[2]).float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_seed_preset_is_the_published_architecture():
    config = settings.load(preset="seed").model
    encoder = GraphSAGE(1, config).eval()
    channels = [(conv.in_channels, conv.out_channels) for conv in encoder.convs]
    assert channels == [(1, 256)] + [(256, 256)] * 4
    assert {(conv.aggr, conv.normalize) for conv in encoder.convs} == {("add", True)}
    adj_NN, _, _ = adjacencies(0.1, seed=4)
    embedding_NH = encoder(torch.ones(NUM_PAPERS, 1), adj_NN)
    torch.testing.assert_close(embedding_NH.norm(dim=1), torch.ones(NUM_PAPERS))
