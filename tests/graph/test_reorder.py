"""Papers that cite each other are near each other in the order."""

import numpy as np
import pytest

from citeflow.graph.csr import build_csr, inverse_permutation, to_undirected
from citeflow.graph.reorder import order_by_locality


def graph_of(pairs, num_papers):
    source_E, target_E = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    return to_undirected(build_csr(source_E, target_E, num_papers))


def communities(num_communities, size, seed=0, *, strangers=0.05):
    """Papers that cite 8 of their community and now and then a stranger; rows are shuffled."""
    rng = np.random.default_rng(seed)
    num_papers = num_communities * size
    source_E = np.repeat(np.arange(num_papers), 8)
    target_E = source_E // size * size + rng.integers(0, size, len(source_E))
    is_strange_E = rng.random(len(source_E)) < strangers
    target_E[is_strange_E] = rng.integers(0, num_papers, is_strange_E.sum())
    row_N = rng.permutation(num_papers)
    return graph_of(np.stack([row_N[source_E], row_N[target_E]], axis=1), num_papers)


def share_near(neighbors, order_N, distance):
    position_2E = inverse_permutation(order_N)[neighbors.edges()]
    return np.mean(np.abs(position_2E[0] - position_2E[1]) < distance)


@pytest.mark.parametrize(
    ("pairs", "num_papers"),
    [
        ([], 0),
        ([], 1),
        ([], 5),
        ([(0, 1)], 2),
        ([(0, 1), (3, 4)], 6),
        ([(0, i) for i in range(1, 40)], 40),
        ([(i, i + 1) for i in range(99)], 120),
    ],
    ids=["nothing", "one paper", "no citation", "two papers", "apart", "star", "path"],
)
def test_order_is_a_permutation(pairs, num_papers):
    order_N = order_by_locality(graph_of(pairs, num_papers), seed=0)
    assert order_N.dtype == np.int32
    assert np.array_equal(np.sort(order_N), np.arange(num_papers))


def test_order_keeps_communities_together():
    neighbors = communities(50, 60)
    assert share_near(neighbors, np.arange(3000), 60) < 0.05
    assert share_near(neighbors, order_by_locality(neighbors, seed=0), 60) > 0.85
    apart = communities(10, 40, strangers=0)
    assert share_near(apart, order_by_locality(apart, seed=0), 40) == 1


def test_order_is_local_at_every_scale():
    rng = np.random.default_rng(0)
    source_E = np.repeat(np.arange(4800), 12)
    width_E = rng.choice([30, 480, 4800], size=len(source_E), p=[0.7, 0.25, 0.05])
    target_E = source_E // width_E * width_E + rng.integers(0, width_E)
    row_N = rng.permutation(4800)
    neighbors = graph_of(np.stack([row_N[source_E], row_N[target_E]], axis=1), 4800)
    order_N = order_by_locality(neighbors, seed=0)
    assert share_near(neighbors, order_N, 30) > 0.6
    assert share_near(neighbors, order_N, 480) > 0.9


def test_order_is_seeded():
    neighbors = communities(20, 30)
    first, again, other = (order_by_locality(neighbors, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
