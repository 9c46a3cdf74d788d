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


def random_features(num_papers=100, *, seed=0):
    """Columns of unlike mean and deviation; the third is constant."""
    rng = np.random.default_rng(seed)
    x_NF = rng.normal(size=(num_papers, 4)) * [1, 1e-3, 0, 50] + [0, 5, 1999, -1e4]
    return x_NF.astype(np.float32)


def test_features_are_those_of_the_papers_asked_for():
    x_NF = random_features()
    papers = np.array([7, 3, 7, 99], dtype=np.int32)
    assert np.array_equal(gather_features(x_NF, papers).numpy(), x_NF[papers])


def test_features_of_a_read_only_map_are_a_copy(tmp_path):
    np.save(tmp_path / "x.npy", random_features())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    gather_features(mapped, np.arange(3)).add_(1)
    assert np.array_equal(mapped, random_features())


def test_papers_without_features_get_a_constant():
    assert gather_features(None, np.array([4, 2])).tolist() == [[1.0], [1.0]]


def test_rows_become_a_matrix_of_ones():
    matrix = to_sparse_tensor(Csr(np.array([0, 2, 2, 3]), np.array([0, 2, 4], dtype=np.int32)), 5)
    assert matrix.layout == torch.sparse_csr
    assert matrix.crow_indices().dtype == matrix.col_indices().dtype == torch.int32
    assert (matrix @ torch.eye(5)).tolist() == [[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]


def test_a_matrix_without_entries_has_its_shape():
    matrix = to_sparse_tensor(Csr(np.zeros(4, dtype=np.int64), np.empty(0, dtype=np.int32)), 6)
    assert matrix.shape == (3, 6)
    assert not (matrix @ torch.ones(6, 2)).any()


def test_an_encoder_reads_the_features_that_there_are_else_random_ones_and_none_where_a_constant_is_asked_for():
    x_NF = random_features()
    assert encoder_input(x_NF, 100, ModelConfig()) is x_NF
    assert encoder_input(x_NF, 100, ModelConfig(features="ones")) is None
    drawn_NF = encoder_input(None, 100, ModelConfig())
    assert (drawn_NF.shape, drawn_NF.dtype) == ((100, RANDOM_FEATURES), np.float32)
    assert len(np.unique(drawn_NF, axis=0)) == 100
    tensors._random_features.cache_clear()
    assert np.array_equal(encoder_input(None, 100, ModelConfig()), drawn_NF)


@pytest.mark.parametrize("measured", [40, 50, 100, 1000])
def test_mean_and_scale_are_numpys_of_an_even_sample_or_of_all(monkeypatch, measured):
    monkeypatch.setattr(tensors, "MEASURED", measured)
    x_NF = random_features().astype(np.float64)[:: 2 if measured <= 50 else 1]
    mean_F, scale_F = mean_and_scale(random_features())
    np.testing.assert_allclose(mean_F, x_NF.mean(axis=0), rtol=1e-6)
    varied = [0, 1, 3]
    np.testing.assert_allclose(scale_F[varied], 1 / x_NF.std(axis=0)[varied], rtol=1e-4)
    assert mean_F.dtype == scale_F.dtype == torch.float32


def test_a_constant_feature_becomes_zero_and_not_nan():
    x_NF = random_features()
    mean_F, scale_F = mean_and_scale(x_NF)
    scaled_NF = (torch.from_numpy(x_NF) - mean_F) * scale_F
    assert scale_F[2] == 1
    assert not scaled_NF[:, 2].any()
    torch.testing.assert_close(
        scaled_NF[:, [0, 1, 3]].std(dim=0, correction=0), torch.ones(3), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("constant", [0.1, 1e-3, 123_456.7, -3e7])
def test_a_constant_of_any_size_becomes_nothing_that_matters(constant):
    x_NF = np.full((70_000, 1), constant, dtype=np.float32)
    mean_F, scale_F = mean_and_scale(x_NF)
    scaled_NF = (torch.from_numpy(x_NF) - mean_F) * scale_F
    assert scaled_NF.abs().max() < 1e-3
