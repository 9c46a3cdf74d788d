"""Decoders, the registry of predictors, and the model that they make."""

import math

import pytest
import torch

from citeflow.config import ModelConfig
from citeflow.models import tensors
from citeflow.models.decoders import InnerProductDecoder, MLPDecoder, StructuralHead
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.predictors import PREDICTORS


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make_decoders():
    learned = InnerProductDecoder(6, scaled=True)
    torch.nn.init.constant_(learned.log_scale, 0.7)
    return {
        "dot": InnerProductDecoder(6, scaled=False),
        "scaled dot": learned,
        "mlp": MLPDecoder(6, scaled=True),
    }


@pytest.mark.parametrize("name", make_decoders())
def test_decoder_scores_shared_candidates_as_own_ones(name):
    decoder = make_decoders()[name]
    source_SH = torch.randn(4, 6)
    target_KH = torch.randn(9, 6)
    shared_SK = decoder(source_SH, target_KH)
    torch.testing.assert_close(shared_SK, decoder(source_SH, target_KH.expand(4, 9, 6)))
    one_by_one = [decoder(source_SH, target_KH[k].expand(4, 1, 6)) for k in range(9)]
    torch.testing.assert_close(shared_SK, torch.cat(one_by_one, dim=1))


def test_decoders_compute_their_formulas():
    source_SH = torch.randn(4, 6)
    target_KH = torch.randn(9, 6)
    decoders = make_decoders()
    plain_SK = torch.einsum("sh,kh->sk", source_SH, target_KH)
    torch.testing.assert_close(decoders["dot"](source_SH, target_KH), plain_SK)
    scaled_SK = decoders["scaled dot"](source_SH, target_KH)
    torch.testing.assert_close(scaled_SK, plain_SK * math.exp(0.7))
    torch.testing.assert_close(InnerProductDecoder(6, scaled=True)(source_SH, target_KH), plain_SK)
    first, _, second = decoders["mlp"].perceptron
    expected = second(first(source_SH[1] * target_KH[2]).relu()).squeeze()
    torch.testing.assert_close(decoders["mlp"](source_SH, target_KH)[1, 2], expected)


def test_structural_head_joins_pairs_of_any_shape():
    head = StructuralHead(4)
    score_SK = torch.randn(3, 5)
    structural_SKD = torch.randn(3, 5, 4)
    joint_SK = head(score_SK, structural_SKD)
    flat = head(score_SK.flatten(), structural_SKD.reshape(15, 4))
    torch.testing.assert_close(joint_SK.flatten(), flat)
    z = torch.cat([score_SK[2, 3, None], structural_SKD[2, 3]])
    torch.testing.assert_close(joint_SK[2, 3], (head.perceptron(z) + head.linear(z)).squeeze())


@pytest.mark.parametrize(("name", "limit"), [("mlp", 16), ("dot", 256)])
def test_registry_limits_negatives(name, limit):
    assert PREDICTORS[name].limit_negatives(256) == limit
    assert PREDICTORS[name].limit_negatives(5) == 5


KEYS = {
    "dot": ["predictor.log_scale"],
    "mlp": [f"predictor.perceptron.{i}.{part}" for i in (0, 2) for part in ("weight", "bias")],
    "structural": [
        "predictor.log_scale",
        *(f"head.linear.{part}" for part in ("weight", "bias")),
        *(f"head.perceptron.{i}.{part}" for i in (0, 2, 4) for part in ("weight", "bias")),
    ],
}
ENCODER_KEYS = [
    "encoder.mean_F",
    "encoder.scale_F",
    *(f"encoder.convs.0.lin_{side}" for side in ("l.weight", "l.bias", "r.weight")),
]


@pytest.mark.parametrize("name", PREDICTORS)
def test_link_predictor_keeps_the_names_of_its_weights(name):
    config = ModelConfig(num_layers=1, hidden_channels=6, predictor=name)
    model = LinkPredictor(5, 4, config, scaled=True)
    assert list(model.state_dict()) == ENCODER_KEYS + KEYS[name]


@pytest.mark.parametrize("name", PREDICTORS)
def test_link_predictor_uses_structural_features_if_registered(name):
    model = LinkPredictor(5, 4, ModelConfig(hidden_channels=6, predictor=name), scaled=True)
    score_SK = model.score_embeddings(torch.randn(3, 6), torch.randn(5, 6))
    joint = [
        model.add_structural_score(score_SK, torch.full((3, 5, 4), value)) for value in (0.0, 1.0)
    ]
    assert model.uses_structural_features == (name == "structural")
    assert torch.equal(*joint) != model.uses_structural_features
    assert model.uses_structural_features or joint[0] is score_SK


@pytest.mark.parametrize("name", PREDICTORS)
def test_score_pairs_equals_scores_of_candidates(name, monkeypatch):
    monkeypatch.setattr(tensors, "BLOCK", 24)
    model = LinkPredictor(5, 4, ModelConfig(hidden_channels=6, predictor=name), scaled=True)
    h_BH = torch.randn(7, 6, requires_grad=True)
    source_S, source_index_P = torch.tensor([2, 5, 6]), torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 2])
    target_P = torch.tensor([5, 3, 5, 0, 1, 1, 2, 4, 6])
    weight_P = torch.randn(len(target_P))
    found_P = model.score_pairs(h_BH[source_S], source_index_P, h_BH, target_P)
    expected_P = model.score_embeddings(h_BH[source_S], h_BH)[source_index_P, target_P]
    torch.testing.assert_close(found_P, expected_P)
    weights = [h_BH, *model.predictor.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(found_P @ weight_P, weights),
        torch.autograd.grad(expected_P @ weight_P, weights),
    )
