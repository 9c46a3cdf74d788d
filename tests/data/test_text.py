import sys

import numpy as np
import pytest

from citeflow.data.text import fit_text_model
from citeflow.errors import MissingPackageError

STRINGS = ["string theory of branes", "branes and strings in theory", "theory of string duality"]
GALAXIES = ["galaxy clusters, dark matter", "dark matter in a galaxy", "clusters of galaxy halos"]
WORDS = " ".join(f"word{word}" for word in range(50))


def many_texts(num_papers=300, num_words=400):
    rng = np.random.default_rng(0)
    return [
        " ".join(f"word{word}" for word in rng.integers(0, num_words, 30))
        for _ in range(num_papers)
    ]


def features_of(texts, **settings):
    """Features of the texts that the model is fitted to."""
    fitted = fit_text_model(texts, **settings)
    return fitted and fitted[1]


def test_text_features_are_alike_for_papers_on_one_subject():
    x_NF = features_of([*STRINGS, *GALAXIES, "", "the of and"], width=128, seed=0)
    similarity_NN = x_NF @ x_NF.T
    assert similarity_NN[:3, :3].min() > similarity_NN[:3, 3:].max()
    assert x_NF[:6].any(axis=1).all()
    assert not x_NF[6:].any()  # papers without words


@pytest.mark.parametrize("texts", [many_texts(), [WORDS] * 300])
def test_text_features_have_the_width_and_length_one(texts):
    x_NF = features_of(texts, width=16, seed=0)
    assert x_NF.shape == (300, 16)
    assert x_NF.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(x_NF, axis=1), 1, rtol=1e-5)


def test_text_features_are_the_same_bits_for_one_seed():
    seeds = (3, 3, 4)
    first, second, other = (features_of(many_texts(), width=16, seed=seed) for seed in seeds)
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize(
    ("texts", "width", "shape"),
    [
        (["quark gluon", "gluon", "quark", "quark gluon"], 128, (4, 2)),
        ([WORDS, WORDS + " word1", WORDS + " word2"], 20, (3, 3)),
    ],
)
def test_text_features_are_narrower_for_few_words_or_papers(texts, width, shape):
    assert features_of(texts, width=width, seed=0).shape == shape


@pytest.mark.parametrize("texts", [["", "", ""], ["alpha", "beta", "gamma"], ["the", "the and"]])
def test_text_features_without_a_shared_word_are_none(texts):
    assert features_of(texts, width=128, seed=0) is None


def test_text_features_without_scikit_learn_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(MissingPackageError, match=r"scikit-learn\nhint: pip install"):
        features_of(STRINGS, width=2, seed=0)


@pytest.mark.parametrize("texts", [many_texts(), [*STRINGS, *GALAXIES]])
def test_text_model_gives_a_known_text_its_features(texts):
    model, x_NF = fit_text_model(texts, width=16, seed=0)
    x_BF = model.features([texts[3], "no such word", texts[0]])
    assert (x_BF.dtype, x_BF.shape) == (np.float32, (3, model.width))
    np.testing.assert_allclose(x_BF[[0, 2]], x_NF[[3, 0]], atol=1e-5)
    assert not x_BF[1].any()
