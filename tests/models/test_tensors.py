import numpy as np
import pytest
import torch

from citeflow.config import ModelConfig
from citeflow.graph.csr import Csr
from citeflow.models import tensors
from citeflow.models.tensors import (
    RANDOM_FEATURES,
    encoder_input,
    gather_features,
    mean_and_scale,
    to_sparse_tensor,
)


@pytest.fixture
def x_NF():
    """Columns of unlike mean and deviation; the third is constant."""
    x_NF = np.random.default_rng(0).normal(size=(100, 4)) * [1, 1e-3, 0, 50] + [0, 5, 1999, -1e4]
    return x_NF.astype(np.float32)


def test_gather_features_copies_the_rows(x_NF, tmp_path):
    np.save(tmp_path / "x.npy", x_NF)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    paper_B = np.array([7, 3, 7, 99], dtype=np.int32)
    found = gather_features(mapped, paper_B)
    assert np.array_equal(found.numpy(), x_NF[paper_B])
    gather_features(mapped, np.arange(3)).add_(1)
    assert np.array_equal(mapped, x_NF)
    assert gather_features(None, paper_B).tolist() == [[1.0]] * 4


def test_gather_features_of_16_bits_gives_float32(x_NF):
    half_NF = x_NF.astype(np.float16)
    found = gather_features(half_NF, np.array([5, 1]))
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), half_NF[[5, 1]].astype(np.float32))


def test_to_sparse_tensor_holds_ones():
    matrix = to_sparse_tensor(Csr(np.array([0, 2, 2, 3]), np.array([0, 2, 4], dtype=np.int32)), 5)
    assert matrix.layout == torch.sparse_csr
    assert matrix.crow_indices().dtype == matrix.col_indices().dtype == torch.int32
    assert (matrix @ torch.eye(5)).tolist() == [[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    empty = to_sparse_tensor(Csr(np.zeros(4, dtype=np.int64), np.empty(0, dtype=np.int32)), 6)
    assert empty.shape == (3, 6)
    assert not (empty @ torch.ones(6, 2)).any()


def test_encoder_input_is_features_random_or_constant(x_NF):
    assert encoder_input(x_NF, 100, ModelConfig()) is x_NF
    assert encoder_input(x_NF, 100, ModelConfig(features="ones")) is None
    random_NF = encoder_input(None, 100, ModelConfig())
    assert (random_NF.shape, random_NF.dtype) == ((100, RANDOM_FEATURES), np.float32)
    assert len(np.unique(random_NF, axis=0)) == 100
    tensors._random_features.cache_clear()
    assert np.array_equal(encoder_input(None, 100, ModelConfig()), random_NF)


@pytest.mark.parametrize(("sample", "stride"), [(40, 2), (50, 2), (100, 1), (1000, 1)])
def test_mean_and_scale_equal_numpy_on_an_even_sample(monkeypatch, x_NF, sample, stride):
    monkeypatch.setattr(tensors, "STATISTICS_SAMPLE", sample)
    sample_SF = x_NF.astype(np.float64)[::stride]
    mean_F, scale_F = mean_and_scale(x_NF)
    np.testing.assert_allclose(mean_F, sample_SF.mean(axis=0), rtol=1e-6)
    varied = [0, 1, 3]
    np.testing.assert_allclose(scale_F[varied], 1 / sample_SF.std(axis=0)[varied], rtol=1e-4)
    assert scale_F[2] == 1
    assert mean_F.dtype == scale_F.dtype == torch.float32


@pytest.mark.parametrize("unit", [1e-9, 1e-20, 1e9])
def test_feature_counts_alike_in_any_unit(x_NF, unit):
    _, scale_F = mean_and_scale((x_NF[:, :1] * unit).astype(np.float32))
    assert (scale_F * unit * x_NF[:, 0].std()).item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("constant", [0.1, 1e-3, 123_456.7, -3e7])
def test_constant_feature_becomes_zero(constant):
    x_NF = np.full((70_000, 1), constant, dtype=np.float32)
    mean_F, scale_F = mean_and_scale(x_NF)
    assert ((torch.from_numpy(x_NF) - mean_F) * scale_F).abs().max() < 1e-3
