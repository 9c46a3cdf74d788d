"""Small random citation graphs, in which some papers cite each other.

Legend: N papers.
"""

import numpy as np

from citeflow.graph.csr import build_csr, to_undirected, transpose


def random_citations(num_papers, share, *, seed):
    """Random citations, bool [N, N], in either direction or both, without self-citations."""
    is_cited_NN = np.random.default_rng(seed).random((num_papers, num_papers)) < share
    np.fill_diagonal(is_cited_NN, False)
    is_cited_NN[0, 1] = True
    return is_cited_NN


def csrs(is_cited_NN):
    """References, citations and neighbors."""
    references = build_csr(*np.nonzero(is_cited_NN), len(is_cited_NN))
    return references, transpose(references), to_undirected(references)


def random_days(num_papers, *, seed):
    """Dates in days, some of them the same."""
    rng = np.random.default_rng((seed, 1))
    return rng.integers(9_000, 9_000 + 4 * num_papers, num_papers).astype(np.int32)
