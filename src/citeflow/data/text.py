"""Features from titles and abstracts, for a dataset that brings no features of its own.

Legend: N papers, V words, F width of a vector.
"""

from collections.abc import Sequence

import numpy as np

from citeflow.errors import INSTALL, MissingPackageError

MAX_WORDS = 100_000


def tfidf_features(text_N: Sequence[str], *, width: int, seed: int) -> np.ndarray | None:
    """Compute TF-IDF vectors and reduce them by a truncated SVD.

    A word counts if two papers use it, because others relate no papers; of more than MAX_WORDS
    words the most frequent stay.

    Args:
        text_N: one text per paper, which may be empty.
        width: F at most; there are fewer dimensions where there are fewer words or papers.
        seed: of the randomised SVD; the same texts and seed give the same vectors.

    Returns:
        x_NF, float32, rows of length 1, or 0 for a paper with none of the words; None where no two
        papers share a word.

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """
    try:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import normalize
    except ImportError:
        hint = f"{INSTALL}, or give the papers features"
        raise MissingPackageError(
            "package needed to read text", "scikit-learn", hint=hint
        ) from None
    words = TfidfVectorizer(
        sublinear_tf=True, stop_words="english", min_df=2, max_features=MAX_WORDS, dtype=np.float32
    )
    try:
        weight_NV = words.fit_transform(text_N)
    except ValueError:  # raised by scikit-learn where no word is left
        return None
    if weight_NV.shape[1] <= width:
        x_NF = weight_NV.toarray()
    else:
        svd = TruncatedSVD(width, random_state=seed)
        # It divides by the variance, which is 0 where all texts are equal.
        with np.errstate(invalid="ignore", divide="ignore"):
            x_NF = svd.fit_transform(weight_NV)
    return np.asarray(normalize(x_NF), dtype=np.float32)
