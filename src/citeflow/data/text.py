"""Features from titles and abstracts, for a dataset that brings no features of its own.

Legend: N papers, B papers of a call, V words, F width of a vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from citeflow.errors import INSTALL, MissingPackageError

MAX_WORDS = 100_000


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """The weights of words and the SVD of them that turn a text into the features of a paper."""

    word_V: np.ndarray
    """Words, str objects, in alphabetical order."""

    idf_V: np.ndarray
    """Inverse document frequency of each word, float32."""

    component_FV: np.ndarray | None
    """Directions of the truncated SVD, float32; None where each word is a feature."""

    @property
    def width(self) -> int:
        """Number of features, F."""
        return len(self.word_V if self.component_FV is None else self.component_FV)

    def features(self, text_B: Sequence[str]) -> np.ndarray:
        """Return x_BF, float32; rows of length 1, or 0 for a text with none of the words.

        Raises:
            MissingPackageError: scikit-learn is not installed.
        """
        return _reduce(self._words.transform(text_B), self.component_FV)

    @cached_property
    def _words(self) -> Any:
        words = _vectorizer(vocabulary={word: index for index, word in enumerate(self.word_V)})
        words.idf_ = self.idf_V
        return words


def join_text(title: str, abstract: str) -> str:
    """Join the parts of a paper's text, as they are joined where features are made of them."""
    return f"{title}\n{abstract}"


def fit_text_model(
    text_N: Sequence[str], *, width: int, seed: int
) -> tuple[TextModel, np.ndarray] | None:
    """Compute TF-IDF vectors and reduce them by a truncated SVD.

    A word counts if two papers use it, because others relate no papers; of more than MAX_WORDS
    words the most frequent stay.

    Args:
        text_N: one text per paper, which may be empty.
        width: F at most; there are fewer dimensions where there are fewer words or papers.
        seed: of the randomised SVD; the same texts and seed give the same vectors.

    Returns:
        The model, and its `features` of the texts; None where no two papers share a word.

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """
    words = _vectorizer(min_df=2, max_features=MAX_WORDS)
    try:
        weight_NV = words.fit_transform(text_N)
    except ValueError:  # raised by scikit-learn where no word is left
        return None
    component_FV = None
    if weight_NV.shape[1] > width:
        from sklearn.decomposition import TruncatedSVD

        # It divides by the variance, which is 0 where all texts are equal.
        with np.errstate(invalid="ignore", divide="ignore"):
            svd = TruncatedSVD(width, random_state=seed).fit(weight_NV)
        component_FV = svd.components_.astype(np.float32)
    model = TextModel(
        word_V=words.get_feature_names_out(),
        idf_V=words.idf_.astype(np.float32),
        component_FV=component_FV,
    )
    return model, _reduce(weight_NV, component_FV)


def _vectorizer(**settings: object) -> Any:
    """Return scikit-learn's TfidfVectorizer.

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        hint = f"{INSTALL}, or give the papers features"
        raise MissingPackageError(
            "package needed to read text", "scikit-learn", hint=hint
        ) from None
    return TfidfVectorizer(sublinear_tf=True, stop_words="english", dtype=np.float32, **settings)


def _reduce(weight_BV: scipy.sparse.csr_matrix, component_FV: np.ndarray | None) -> np.ndarray:
    """Project the weights of words, and scale each row to length 1."""
    x_BF = weight_BV.toarray() if component_FV is None else weight_BV @ component_FV.T
    length_B1 = np.linalg.norm(x_BF, axis=1, keepdims=True)
    return np.asarray(x_BF / np.where(length_B1 > 0, length_B1, 1), dtype=np.float32)
