import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from citeflow.models.losses import _MaskedLogSumExp, bce, info_nce

NOTHING = torch.zeros(2, 3, dtype=torch.bool)
each_loss = pytest.mark.parametrize("loss", [info_nce, bce])


def scores(seed=0, *, citations=5, sources=3, negatives=4):
    """Positives, negatives, mask and source indices; no source is without negatives."""
    generator = torch.Generator().manual_seed(seed)
    positive_P = torch.randn(citations, generator=generator, dtype=torch.float64)
    negative_SK = torch.randn(sources, negatives, generator=generator, dtype=torch.float64)
    mask_SK = torch.rand(sources, negatives, generator=generator) < 0.4
    mask_SK[:, 0] = False
    return (
        positive_P,
        negative_SK,
        mask_SK,
        torch.randint(sources, (citations,), generator=generator),
    )


@pytest.mark.parametrize("seed", range(3))
def test_info_nce_equals_cross_entropy_of_torch(seed):
    positive_P, negative_SK, mask_SK, source_index_P = scores(seed)
    each = [
        cross_entropy(
            torch.cat([positive[None], negative_SK[row][~mask_SK[row]]])[None], torch.tensor([0])
        )
        for positive, row in zip(positive_P, source_index_P, strict=True)
    ]
    found = info_nce(positive_P, negative_SK, mask_SK, source_index_P)
    torch.testing.assert_close(found, torch.stack(each).mean())


@pytest.mark.parametrize("seed", range(3))
def test_bce_equals_that_of_torch_with_balanced_classes(seed):
    positive_P, negative_SK, mask_SK, source_index_P = scores(seed)
    positive = binary_cross_entropy_with_logits(positive_P, torch.ones_like(positive_P))
    kept = [negative_SK[row][~mask_SK[row]] for row in source_index_P]
    negative = [binary_cross_entropy_with_logits(each, torch.zeros_like(each)) for each in kept]
    found = bce(positive_P, negative_SK, mask_SK, source_index_P)
    torch.testing.assert_close(found, positive + torch.stack(negative).mean())


@each_loss
def test_loss_gradients_are_right(loss):
    positive_P, negative_SK, mask_SK, source_index_P = scores(7)
    leaves = (positive_P.requires_grad_(), negative_SK.requires_grad_())
    assert torch.autograd.gradcheck(lambda p, n: loss(p, n, mask_SK, source_index_P), leaves)
    of_positive, of_negative = torch.autograd.grad(loss(*leaves, mask_SK, source_index_P), leaves)
    assert (of_positive < 0).all()
    assert (of_negative >= 0).all()


@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0])
def test_masked_log_sum_exp_equals_that_of_torch(spread):
    """With a spread of 1000 most of what is not masked underflows."""
    _, score_SK, mask_SK, _ = scores(1, sources=40, negatives=9)
    score_SK = (score_SK * spread).requires_grad_()
    weight_S = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found_S = _MaskedLogSumExp.apply(score_SK, mask_SK)
    expected_S = score_SK.masked_fill(mask_SK, -torch.inf).logsumexp(dim=1)
    torch.testing.assert_close(found_S, expected_S)
    gradients = [
        torch.autograd.grad((each * weight_S).sum(), score_SK)[0] for each in (found_S, expected_S)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_scores_do_not_drown_others(dtype):
    positive_P = torch.tensor([-200.0], dtype=dtype)
    negative_SK = torch.tensor([[0.0, -201.0, -200.0]], dtype=dtype)
    mask_SK = torch.tensor([[True, False, False]])
    found = info_nce(positive_P, negative_SK, mask_SK, torch.tensor([0]))
    assert found.item() == pytest.approx(math.log(2 + math.exp(-1)), rel=1e-4)


@each_loss
def test_loss_of_no_citations_is_zero(loss):
    positive_P = torch.empty(0, requires_grad=True)
    negative_SK = torch.randn(0, 3, requires_grad=True)
    mask_SK = torch.empty(0, 3, dtype=torch.bool)
    value = loss(positive_P, negative_SK, mask_SK, torch.empty(0, dtype=torch.long))
    value.backward()
    assert value == 0
    assert (positive_P.grad.shape, negative_SK.grad.shape) == ((0,), (0, 3))


@each_loss
def test_masked_negatives_change_nothing(loss):
    positive_P, negative_SK, mask_SK, source_index_P = scores()
    leaves = (
        negative_SK.clone().requires_grad_(),
        negative_SK.masked_fill(mask_SK, 60.0).requires_grad_(),
    )
    values = [loss(positive_P, each, mask_SK, source_index_P) for each in leaves]
    gradients = [
        torch.autograd.grad(value, each)[0] for value, each in zip(values, leaves, strict=True)
    ]
    assert torch.equal(*values)
    assert torch.equal(*gradients)
    assert gradients[0][mask_SK].abs().max() < 1e-20


@each_loss
def test_source_without_negatives_has_a_finite_loss(loss):
    positive_P = torch.tensor([0.5, -2.0], requires_grad=True)
    negative_SK = torch.randn(2, 3, requires_grad=True)
    value = loss(positive_P, negative_SK, ~NOTHING, torch.tensor([0, 1]))
    of_positive, of_negative = torch.autograd.grad(value, (positive_P, negative_SK))
    assert value.isfinite()
    assert of_positive.isfinite().all()
    assert of_negative.abs().max() < 1e-20
    assert loss is bce or (value == 0 and not of_positive.any())


@each_loss
def test_large_logits_do_not_overflow(loss):
    positive_P = torch.tensor([-300.0, 300.0], requires_grad=True)
    negative_SK = torch.full((2, 3), 300.0, requires_grad=True)
    value = loss(positive_P, negative_SK, NOTHING, torch.tensor([0, 1]))
    gradients = torch.autograd.grad(value, (positive_P, negative_SK))
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
