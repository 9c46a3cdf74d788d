"""Small random citation graphs, in which some papers cite each other.

Legend: N papers.
"""

import numpy as np

from citeflow.graph.csr import build_csr, to_undirected, transpose


def random_citations(num_papers, share, *, seed):
    """Which paper cites which, bool [N, N]: pairs at random, in either direction or both, no self-citation."""
    is_cited_NN = np.random.default_rng(seed).random((num_papers, num_papers)) < share
    np.fill_diagonal(is_cited_NN, False)
    is_cited_NN[0, 1] = True
    return is_cited_NN


def csrs(is_cited_NN):
    """References, citations and neighbours."""
    references = build_csr(*np.nonzero(is_cited_NN), len(is_cited_NN))
    return references, transpose(references), to_undirected(references)


def random_days(num_papers, *, seed):
    """Dates in days, some of them the same."""
    return (
        np.random.default_rng((seed, 1))
        .integers(9_000, 9_000 + 4 * num_papers, num_papers)
        .astype(np.int32)
    )
