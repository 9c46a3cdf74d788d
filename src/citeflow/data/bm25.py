"""BM25: how much the words of one paper say of another, the classic baseline of text retrieval.

Robertson & Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009, equation 3.15,
with the idf of Lucene, which is never negative.

Legend: N papers, V words.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from citeflow.data.text import MAX_WORDS
from citeflow.utils.logging import log

K1 = 1.2
"""How soon more of the same word adds no more."""

B = 0.75
"""How much a longer text has to have more of a word."""


def bm25_weights(text_N: Sequence[str]) -> scipy.sparse.csr_matrix | None:
    """Weigh the words of each text.

    The score of a text for a query is the sum of its weights of the query's words.

    Args:
        text_N: one text per paper, which may be empty.

    Returns:
        float32 [N, V]; a word counts if two papers use it, and of very many the most frequent stay.
        None where no two papers share a word, or scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import CountVectorizer
    except ImportError:
        log("data", "no BM25, as scikit-learn is not installed")
        return None
    words = CountVectorizer(
        stop_words="english", min_df=2, max_features=MAX_WORDS, dtype=np.float32
    )
    try:
        count_NV = words.fit_transform(text_N).tocsr()
    except ValueError:  # raised by scikit-learn where no word is left
        return None
    num_texts, num_words = count_NV.shape
    frequency_V = np.bincount(count_NV.indices, minlength=num_words)
    idf_V = np.log1p((num_texts - frequency_V + 0.5) / (frequency_V + 0.5))
    length_N = np.asarray(count_NV.sum(axis=1)).ravel()
    norm_N = K1 * (1 - B + B * length_N / length_N.mean())
    count_E = count_NV.data
    norm_E = np.repeat(norm_N, np.diff(count_NV.indptr))
    weight_E = idf_V[count_NV.indices] * count_E * (K1 + 1) / (count_E + norm_E)
    return scipy.sparse.csr_matrix(
        (weight_E.astype(np.float32), count_NV.indices, count_NV.indptr), shape=count_NV.shape
    )
