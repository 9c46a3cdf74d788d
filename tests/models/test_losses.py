import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from citeflow.models.losses import LOSSES, _MaskedLogSumExp, bce, info_nce

NOTHING = torch.zeros(2, 3, dtype=torch.bool)


def scores(seed=0, *, citations=5, sources=3, negatives=4, dtype=torch.float64):
    """Logits, masks and rows in which no source is without negatives."""
    generator = torch.Generator().manual_seed(seed)
    positive_P = torch.randn(citations, generator=generator, dtype=dtype)
    negative_SK = torch.randn(sources, negatives, generator=generator, dtype=dtype)
    false_negative_mask_SK = torch.rand(sources, negatives, generator=generator) < 0.4
    false_negative_mask_SK[:, 0] = False
    return (
        positive_P,
        negative_SK,
        false_negative_mask_SK,
        torch.randint(sources, (citations,), generator=generator),
    )


def test_a_contrastive_loss_by_hand():
    positive_P = torch.tensor([0.0, math.log(2), math.log(2), 0.0])
    negative_SK = torch.tensor([[0.0, 0.0, 0.0], [math.log(3), 0.0, 0.0]])
    false_negative_mask_SK = torch.tensor([[False, False, False], [False, True, False]])
    found = info_nce(positive_P, negative_SK, false_negative_mask_SK, torch.tensor([0, 0, 1, 1]))
    expected = (math.log(4 / 1) + math.log(5 / 2) + math.log(6 / 2) + math.log(5 / 1)) / 4
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_a_cross_entropy_by_hand():
    positive_P = torch.tensor([0.0, math.log(3)])
    negative_SK = torch.tensor([[0.0, 0.0, 0.0], [math.log(3), 7.0, 0.0]])
    false_negative_mask_SK = torch.tensor([[False, False, False], [False, True, False]])
    found = bce(positive_P, negative_SK, false_negative_mask_SK, torch.tensor([0, 1]))
    of_positives = (math.log(2) + math.log(4 / 3)) / 2
    of_negatives = (math.log(2) + (math.log(4) + math.log(2)) / 2) / 2
    assert found.item() == pytest.approx(of_positives + of_negatives, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_contrastive_loss_is_torchs_cross_entropy_of_each_citation_in_front_of_its_negatives(
    seed,
):
    positive_P, negative_SK, false_negative_mask_SK, source_index_P = scores(seed)
    each = [
        cross_entropy(
            torch.cat([positive[None], negative_SK[row][~false_negative_mask_SK[row]]])[None],
            torch.tensor([0]),
        )
        for positive, row in zip(positive_P, source_index_P, strict=True)
    ]
    torch.testing.assert_close(
        info_nce(positive_P, negative_SK, false_negative_mask_SK, source_index_P),
        torch.stack(each).mean(),
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_binary_loss_is_torchs_with_each_citation_weighing_as_much_as_its_negatives(seed):
    positive_P, negative_SK, false_negative_mask_SK, source_index_P = scores(seed)
    positive = binary_cross_entropy_with_logits(positive_P, torch.ones_like(positive_P))
    kept = [negative_SK[row][~false_negative_mask_SK[row]] for row in source_index_P]
    negative = [binary_cross_entropy_with_logits(each, torch.zeros_like(each)) for each in kept]
    torch.testing.assert_close(
        bce(positive_P, negative_SK, false_negative_mask_SK, source_index_P),
        positive + torch.stack(negative).mean(),
    )


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_are_right(loss):
    positive_P, negative_SK, false_negative_mask_SK, source_index_P = scores()
    leaves = (positive_P.requires_grad_(), negative_SK.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda p, n: loss(p, n, false_negative_mask_SK, source_index_P), leaves
    )


@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_masked_sum_of_exponentials_is_torchs_in_value_and_gradient(seed, spread):
    """With a spread of 1000 most of what is not masked underflows, and what is masked is often the highest."""
    _, score_SK, false_negative_mask_SK, _ = scores(seed, sources=40, negatives=9)
    score_SK = (score_SK * spread).requires_grad_()
    weight_S = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found_S = _MaskedLogSumExp.apply(score_SK, false_negative_mask_SK)
    expected_S = score_SK.masked_fill(false_negative_mask_SK, -torch.inf).logsumexp(dim=1)
    torch.testing.assert_close(found_S, expected_S)
    gradients = [
        torch.autograd.grad((each * weight_S).sum(), score_SK)[0] for each in (found_S, expected_S)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-20)


def test_the_gradient_of_the_masked_sum_is_that_of_finite_differences():
    _, score_SK, false_negative_mask_SK, _ = scores(1)
    false_negative_mask_SK[2] = True
    false_negative_mask_SK[2, 1] = False
    score_SK = (score_SK * 5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda score: _MaskedLogSumExp.apply(score, false_negative_mask_SK), (score_SK,)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_negatives_that_score_far_above_all_others_do_not_drown_them(dtype):
    positive_P = torch.tensor([-200.0], dtype=dtype)
    negative_SK = torch.tensor([[0.0, -201.0, -200.0]], dtype=dtype)
    found = info_nce(
        positive_P, negative_SK, torch.tensor([[True, False, False]]), torch.tensor([0])
    )
    assert found.item() == pytest.approx(math.log(2 + math.exp(-1)), rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_batch_without_citations_costs_nothing_and_pulls_at_nothing(loss):
    positive_P, negative_SK = (
        torch.empty(0, requires_grad=True),
        torch.randn(0, 3, requires_grad=True),
    )
    value = loss(
        positive_P,
        negative_SK,
        torch.empty(0, 3, dtype=torch.bool),
        torch.empty(0, dtype=torch.long),
    )
    value.backward()
    assert value == 0
    assert (positive_P.grad.shape, negative_SK.grad.shape) == ((0,), (0, 3))


@pytest.mark.parametrize("shift", [-1000.0, 1000.0])
def test_the_contrastive_loss_sees_only_differences_of_logits(shift):
    positive_P, negative_SK, false_negative_mask_SK, source_index_P = scores()
    expected = info_nce(positive_P, negative_SK, false_negative_mask_SK, source_index_P)
    torch.testing.assert_close(
        info_nce(positive_P + shift, negative_SK + shift, false_negative_mask_SK, source_index_P),
        expected,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_masked_negatives_change_neither_the_loss_nor_any_gradient(loss, dtype):
    positive_P, negative_SK, false_negative_mask_SK, source_index_P = scores(dtype=dtype)
    negative_SK.requires_grad_()
    other_SK = negative_SK.detach().masked_fill(false_negative_mask_SK, 60.0).requires_grad_()
    leaves = (negative_SK, other_SK)
    values = [loss(positive_P, each, false_negative_mask_SK, source_index_P) for each in leaves]
    gradients = [
        torch.autograd.grad(value, each)[0] for value, each in zip(values, leaves, strict=True)
    ]
    assert torch.equal(*values)
    assert torch.equal(*gradients)
    assert gradients[0][false_negative_mask_SK].abs().max() < 1e-20
    assert gradients[0][~false_negative_mask_SK][
        torch.isin(torch.where(~false_negative_mask_SK)[0], source_index_P)
    ].all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_source_without_any_negative_has_a_finite_loss_and_gradient(loss):
    positive_P = torch.tensor([0.5, -2.0], requires_grad=True)
    negative_SK = torch.randn(2, 3, requires_grad=True)
    value = loss(positive_P, negative_SK, ~NOTHING, torch.tensor([0, 1]))
    of_positive, of_negative = torch.autograd.grad(value, (positive_P, negative_SK))
    assert value.isfinite()
    assert of_positive.isfinite().all()
    assert of_negative.abs().max() < 1e-20
    if loss is info_nce:
        assert value == 0
        assert not of_positive.any()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_large_logits_do_not_overflow(loss):
    positive_P = torch.tensor([-300.0, 300.0], requires_grad=True)
    negative_SK = torch.full((2, 3), 300.0, requires_grad=True)
    value = loss(positive_P, negative_SK, NOTHING, torch.tensor([0, 1]))
    gradients = torch.autograd.grad(value, (positive_P, negative_SK))
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_step_against_the_gradient_raises_citations_and_lowers_negatives(loss):
    positive_P, negative_SK, false_negative_mask_SK, source_index_P = scores(7)
    leaves = (positive_P.requires_grad_(), negative_SK.requires_grad_())
    of_positive, of_negative = torch.autograd.grad(
        loss(*leaves, false_negative_mask_SK, source_index_P), leaves
    )
    assert (of_positive < 0).all()
    assert (of_negative >= 0).all()
