import sys

import numpy as np
import pytest

from citeflow.data.text import tfidf_features
from citeflow.errors import UnavailableError

STRINGS = ["string theory of branes", "branes and strings in theory", "theory of string duality"]
GALAXIES = [
    "galaxy clusters and dark matter",
    "dark matter in a galaxy",
    "clusters of galaxy halos, dark halos",
]


def many_texts(num_papers=300, num_words=400, seed=0):
    rng = np.random.default_rng(seed)
    return [
        " ".join(f"word{word}" for word in rng.integers(0, num_words, 30))
        for _ in range(num_papers)
    ]


def test_papers_on_one_subject_lie_closer_than_papers_on_two():
    x_NF = tfidf_features(STRINGS + GALAXIES, width=128, seed=0)

    alike_NN = x_NF @ x_NF.T
    assert alike_NN[:3, :3].min() > alike_NN[:3, 3:].max()


def test_vectors_have_the_width_that_was_asked_and_length_one():
    x_NF = tfidf_features(many_texts(), width=16, seed=0)

    assert x_NF.shape == (300, 16)
    assert x_NF.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(x_NF, axis=1), 1, rtol=1e-5)


def test_the_same_texts_and_seed_give_the_same_bits():
    first, second, other = (tfidf_features(many_texts(), width=16, seed=seed) for seed in (3, 3, 4))

    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != other.tobytes()


def test_few_words_give_one_dimension_each():
    x_NF = tfidf_features(["quark gluon", "gluon", "quark", "quark gluon"], width=128, seed=0)

    assert x_NF.shape == (4, 2)


def test_few_papers_give_no_more_dimensions_than_papers():
    words = " ".join(f"word{word}" for word in range(50))

    x_NF = tfidf_features([words, words + " word1", words + " word2"], width=20, seed=0)

    assert x_NF.shape == (3, 3)


def test_a_paper_without_words_is_a_row_of_zeros():
    x_NF = tfidf_features([*STRINGS, "", "the of and"], width=128, seed=0)

    assert not x_NF[3:].any()
    assert x_NF[:3].any(axis=1).all()


@pytest.mark.parametrize("texts", [["", "", ""], ["alpha", "beta", "gamma"], ["the", "the and"]])
def test_texts_that_share_no_word_give_no_vectors(texts):
    assert tfidf_features(texts, width=128, seed=0) is None


def test_equal_texts_are_no_division_by_zero():
    x_NF = tfidf_features([" ".join(f"word{word}" for word in range(30))] * 5, width=4, seed=0)

    assert np.isfinite(x_NF).all()
    np.testing.assert_allclose(x_NF @ x_NF.T, 1, rtol=1e-5)


def test_a_machine_without_scikit_learn_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)

    with pytest.raises(UnavailableError, match=r"scikit-learn\nhint: pip install"):
        tfidf_features(STRINGS, width=2, seed=0)
