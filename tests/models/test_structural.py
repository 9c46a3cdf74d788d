"""Structural features equal networkx's indices, and counts of paths without the pair's edge.

Legend: N papers, P pairs, K candidates.
"""

import itertools
import math

import networkx
import numpy as np
import pytest
from small_graphs import csrs, random_citations, random_days

from citeflow.graph.csr import Csr, build_csr
from citeflow.graph.source import Source
from citeflow.models import path_sums
from citeflow.models.meta_paths import BASELINE_PATHS, PATHS
from citeflow.models.structural import BASELINES, StructuralFeatures

SEEDS = range(3)
NUM_PAPERS = 11
NONE = np.empty(0, dtype=np.int64)
SIMILAR_NN = random_citations(NUM_PAPERS, 0.2, seed=20)
SIMILAR_NN |= SIMILAR_NN.T
X_NF = np.random.default_rng(21).normal(size=(NUM_PAPERS, 3)).astype(np.float32)
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def make_features(is_cited_NN, day_N=None, *, hops=3):
    """Features of a graph; one of NUM_PAPERS papers has similar ones and features, too."""
    known = {}
    if len(is_cited_NN) == NUM_PAPERS:
        known = {"similar": build_csr(*np.nonzero(SIMILAR_NN), NUM_PAPERS), "x_NF": X_NF}
    return StructuralFeatures(*csrs(is_cited_NN), day_N, hops=hops, **known)


def for_citations(structural, source_P, target_P):
    """Features of citations, each as if it alone were missing."""
    return structural.for_batch(source_P, np.arange(len(source_P)), target_P, NONE)[0]


def random_years(num_papers, *, seed):
    """Dates over some years, in days."""
    return 40 * (random_days(num_papers, seed=seed) - 9000)


def to_networkx(is_cited_NN):
    graph = networkx.Graph(np.argwhere(is_cited_NN).tolist())
    graph.add_nodes_from(range(len(is_cited_NN)))
    return graph


def without(is_cited_NN, source, target):
    fewer_NN = is_cited_NN.copy()
    fewer_NN[source, target] = False
    return fewer_NN


def by_enumeration(is_cited_NN, day_N, source, target):
    """Features of a pair, path by path, straight from their definition."""
    adjacency = {
        "references": is_cited_NN.tolist(),
        "citations": is_cited_NN.T.tolist(),
        "neighbors": (is_cited_NN | is_cited_NN.T).tolist(),
        "similar": SIMILAR_NN.tolist(),
    }
    weigh = {"one": lambda _: 1.0, "log": lambda d: 1 / math.log(d), "inverse": lambda d: 1 / d}
    others = set(range(len(is_cited_NN))) - {source}
    values = []
    for path in PATHS:
        total = 0.0
        for between in itertools.product(others, repeat=len(path.hops) - 1):
            steps = zip(path.hops, itertools.pairwise((source, *between, target)), strict=True)
            if all(adjacency[hop][a][b] for hop, (a, b) in steps):
                passed = zip(path.hops[1:], between, strict=True)
                degrees = [sum(adjacency[hop][paper]) for hop, paper in passed]
                total += math.prod(weigh[path.weight](degree) for degree in degrees)
        values.append(math.log(1 + path.scale * total))
    cited = is_cited_NN[:, target].sum()
    values += [math.log(1 + count) for count in (cited, *is_cited_NN[[target, source]].sum(axis=1))]
    if day_N is not None:
        day, days = (
            int(day_N[source]),
            [int(day_N[p]) for p in np.flatnonzero(is_cited_NN[:, target])],
        )
        years = max(day - int(day_N[target]), 0) / 365.25
        values += [math.log(1 + years), math.log(1 + cited / (years + 0.5))]
        values += [
            math.log(1 + sum(day - 366 * length <= each < day for each in days))
            for length in (1, 3)
        ]
    root_NF = np.sign(X_NF) * np.sqrt(np.abs(X_NF))
    a_F, b_F = root_NF[[source, target]]
    return [*values, a_F @ b_F / np.linalg.norm(a_F) / np.linalg.norm(b_F)]


INDICES = {
    "common_neighbors": lambda graph, s, t: len(list(networkx.common_neighbors(graph, s, t))),
    "adamic_adar": lambda graph, s, t: next(iter(networkx.adamic_adar_index(graph, [(s, t)])))[2],
    "resource_allocation": lambda graph, s, t: next(
        iter(networkx.resource_allocation_index(graph, [(s, t)]))
    )[2],
}


@pytest.mark.parametrize("seed", SEEDS)
def test_baselines_equal_networkx(seed):
    is_cited_NN = random_citations(30, 0.1, seed=seed)
    graph = to_networkx(is_cited_NN)
    source_P = np.arange(30)
    candidate_PK = np.array([[t for t in source_P if t != s] for s in source_P])
    structural = make_features(is_cited_NN, hops=0)
    sums = structural.sum_own(BASELINE_PATHS, source_P, candidate_PK)
    scores = dict(structural.baselines(sums, source_P, candidate_PK))
    assert tuple(scores) == BASELINES
    for name, index in INDICES.items():
        expected_PK = [
            [index(graph, int(s), int(t)) for t in row]
            for s, row in zip(source_P, candidate_PK, strict=True)
        ]
        np.testing.assert_allclose(scores[name], expected_PK, rtol=1e-5)
        assert scores[name].max() > 0
    assert np.array_equal(scores["popularity"], is_cited_NN.sum(axis=0)[candidate_PK])


@pytest.mark.parametrize("name", INDICES)
def test_citation_equals_networkx_in_the_graph_without_it(name):
    is_cited_NN = random_citations(25, 0.12, seed=0)
    structural = make_features(is_cited_NN)
    source_P, target_P = np.nonzero(is_cited_NN)
    column = structural.names.index(name)
    found_P = np.expm1(for_citations(structural, source_P, target_P)[:, column])
    for s, t, found in zip(source_P.tolist(), target_P.tolist(), found_P, strict=True):
        index = INDICES[name](to_networkx(without(is_cited_NN, s, t)), s, t)
        assert found / PATHS[column].scale == pytest.approx(index, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_candidates_equal_enumerated_paths(seed, dated):
    is_cited_NN = random_citations(NUM_PAPERS, 0.25, seed=seed)
    day_N = random_years(NUM_PAPERS, seed=seed) if dated else None
    pairs = list(itertools.permutations(range(NUM_PAPERS), 2))
    source_P, target_P = np.array(pairs).T
    found_PD = make_features(is_cited_NN, day_N).for_candidates(source_P, target_P[:, None])[:, 0]
    expected_PD = [by_enumeration(is_cited_NN, day_N, s, t) for s, t in pairs]
    np.testing.assert_allclose(found_PD, expected_PD, **CLOSE)
    assert (found_PD.max(axis=0) > 0).all()


@pytest.mark.parametrize("factor", [0, 10**9], ids=["forward", "backward"])
def test_last_hop_has_the_same_sums_from_either_side(factor, monkeypatch):
    is_cited_NN = random_citations(NUM_PAPERS, 0.25, seed=12)
    monkeypatch.setattr(path_sums, "HUB_FACTOR", factor)
    candidate_PK = np.random.default_rng(3).integers(0, NUM_PAPERS, (NUM_PAPERS, 6))
    candidate_PK[:, 4] = candidate_PK[:, 1]
    source_P = np.arange(NUM_PAPERS)
    found_PKD = make_features(is_cited_NN).for_candidates(source_P, candidate_PK)
    for s, candidate_K, found_KD in zip(source_P, candidate_PK, found_PKD, strict=True):
        expected_KD = [by_enumeration(is_cited_NN, None, s, t) for t in candidate_K]
        np.testing.assert_allclose(found_KD, expected_KD, **CLOSE)


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_citation_equals_paths_in_the_graph_without_it(seed, dated):
    is_cited_NN = random_citations(NUM_PAPERS, 0.3, seed=seed)
    day_N = random_years(NUM_PAPERS, seed=seed) if dated else None
    source_P, target_P = np.nonzero(is_cited_NN)
    found_PD = for_citations(make_features(is_cited_NN, day_N), source_P, target_P)
    expected_PD = [
        by_enumeration(without(is_cited_NN, s, t), day_N, s, t)
        for s, t in zip(source_P, target_P, strict=True)
    ]
    np.testing.assert_allclose(found_PD, expected_PD, **CLOSE)
    assert (found_PD.max(axis=0) > 0).all()


@pytest.mark.parametrize(("num_papers", "share"), [(40, 0.02), (24, 0.1), (16, 0.4), (9, 1.0)])
def test_citation_equals_a_candidate_of_the_graph_without_it(num_papers, share):
    is_cited_NN = random_citations(num_papers, share, seed=3)
    day_N = random_days(num_papers, seed=3)
    source_P, target_P = np.nonzero(is_cited_NN)
    found_PD = for_citations(make_features(is_cited_NN, day_N), source_P, target_P)
    for s, t, found_D in zip(source_P, target_P, found_PD, strict=True):
        fewer = make_features(without(is_cited_NN, s, t), day_N)
        expected_D = fewer.for_candidates(s[None], t[None, None])[0, 0]
        np.testing.assert_allclose(found_D, expected_D, **CLOSE)


def test_shared_candidates_are_seen_without_the_batch():
    is_cited_NN = np.triu(random_citations(24, 0.3, seed=5), 1)
    source_1 = np.array([0])
    targets = np.flatnonzero(is_cited_NN[0])[:3]
    candidate_K = np.flatnonzero(~is_cited_NN[0])[1:]
    whole = make_features(is_cited_NN)
    fewer = make_features(without(is_cited_NN, 0, targets))
    fewer._sums._weights = (
        whole._sums._weights
    )  # degrees of papers between are those of the whole graph
    _, shared_SKD = whole.for_batch(source_1, np.zeros(3, dtype=int), targets, candidate_K)
    expected_KD = fewer.for_candidates(source_1, candidate_K[None])[0]
    np.testing.assert_allclose(shared_SKD[0], expected_KD, **CLOSE)
    assert not np.allclose(shared_SKD[0], whole.for_candidates(source_1, candidate_K[None])[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_hidden_source_is_seen_without_any_reference(seed):
    is_cited_NN = np.triu(random_citations(NUM_PAPERS, 0.4, seed=seed), 1)
    day_N = random_years(NUM_PAPERS, seed=seed)
    source_S = np.array([1, 3, 0])
    targets = [np.array([t]) for t in (6, 7, 5)]
    is_cited_NN[source_S[:, None], [5, 6, 7]] = True
    whole = make_features(is_cited_NN, day_N)
    candidate_K = np.array([4, 8, 9])
    own_PD, shared_SKD = whole.for_batch(
        source_S, np.arange(3), np.concatenate(targets), candidate_K, is_hidden_S=source_S == 3
    )
    for i, (s, target) in enumerate(zip(source_S, targets, strict=True)):
        unknown = slice(None) if s == 3 else target
        fewer = make_features(without(is_cited_NN, s, unknown), day_N)
        fewer._sums._weights = (
            whole._sums._weights
        )  # degrees of papers between are those of the whole graph
        uncited_K = ~is_cited_NN[s, candidate_K]
        expected_KD = fewer.for_candidates(source_S[i : i + 1], candidate_K[None])[0]
        np.testing.assert_allclose(shared_SKD[i, uncited_K], expected_KD[uncited_K], **CLOSE)
        expected_D = fewer.for_candidates(source_S[i : i + 1], target[None])[0, 0]
        np.testing.assert_allclose(own_PD[i], expected_D, **CLOSE)
    known = whole.names.index("references_known")
    assert own_PD[1, known] == 0 < own_PD[0, known]


def test_citation_in_return_still_counts():
    is_cited_NN = random_citations(NUM_PAPERS, 0.25, seed=5)
    is_cited_NN[[2, 7], [7, 2]] = True
    structural = make_features(is_cited_NN)
    found_D = for_citations(structural, np.array([2]), np.array([7]))[0]
    expected_D = by_enumeration(without(is_cited_NN, 2, 7), None, 2, 7)
    np.testing.assert_allclose(found_D, expected_D, rtol=1e-5)
    neither_D = by_enumeration(without(is_cited_NN, [2, 7], [7, 2]), None, 2, 7)
    differs = ~np.isclose(found_D, neither_D, rtol=1e-5)
    assert np.array(structural.names)[differs].tolist() == ["references_given"]


@pytest.mark.parametrize("hops", [0, 2, 3])
@pytest.mark.parametrize("dated", [False, True])
def test_shared_candidates_equal_own_ones(hops, dated):
    is_cited_NN = random_citations(30, 0.15, seed=6)
    structural = make_features(is_cited_NN, random_days(30, seed=6) if dated else None, hops=hops)
    source_S = np.array([4, 29, 0, 11], dtype=np.int32)
    candidate_K = np.array([3, 3, 0, 28, 17, 4, 9], dtype=np.int32)
    _, shared_SKD = structural.for_batch(source_S, NONE, NONE, candidate_K)
    own_SKD = structural.for_candidates(source_S, np.tile(candidate_K, (4, 1)))
    assert shared_SKD.shape == (4, 7, len(structural.names))
    assert shared_SKD.dtype == own_SKD.dtype == np.float32
    np.testing.assert_allclose(shared_SKD, own_SKD, **CLOSE)


@pytest.mark.parametrize("candidate_K", [[2, 2, 0, 10, 7], [3, *range(NUM_PAPERS)]])
@pytest.mark.parametrize("dated", [False, True])
def test_paths_that_are_walked_to_their_ends_equal_searched_ones(dated, candidate_K):
    days = random_years(NUM_PAPERS, seed=6) if dated else None
    structural = make_features(random_citations(NUM_PAPERS, 0.3, seed=6), days)
    source_S = np.array([4, 9, 0])
    candidate_SK = np.tile(candidate_K, (3, 1))
    own = structural.sum_own(structural.paths, source_S, candidate_SK)
    shared = structural.ends(structural.paths, source_S).sums(np.array(candidate_K))
    assert shared.keys() == own.keys()
    found_SKD = structural.features(shared, source_S, np.array(candidate_K))
    expected_SKD = structural.for_candidates(source_S, candidate_SK)
    np.testing.assert_allclose(found_SKD, expected_SKD, **CLOSE)
    found = dict(structural.baselines(shared, source_S, np.array(candidate_K)))
    for name, score_SK in structural.baselines(own, source_S, candidate_SK):
        np.testing.assert_allclose(found[name], score_SK, rtol=1e-6)


@pytest.mark.parametrize("walk", [1, 60])
def test_sources_are_computed_alike_in_any_groups(walk, monkeypatch):
    is_cited_NN = random_citations(NUM_PAPERS, 0.3, seed=8)
    structural = make_features(is_cited_NN, random_years(NUM_PAPERS, seed=8))
    source_P, target_P = np.nonzero(is_cited_NN)
    source_S, index_P = np.unique(source_P, return_inverse=True)
    arguments = source_S, index_P, target_P, np.arange(5)
    is_hidden_S = source_S % 3 == 0
    candidate_SK = np.tile([4, 0, 7], (len(source_S), 1))

    def features():
        batch = structural.for_batch(*arguments, is_hidden_S=is_hidden_S)
        return *batch, structural.for_candidates(source_S, candidate_SK)

    at_once = features()
    monkeypatch.setattr(path_sums, "WALK", walk)
    for found, expected in zip(features(), at_once, strict=True):
        np.testing.assert_allclose(found, expected, **CLOSE)


def with_row(csr, row):
    """Append a row, whose paper no other row has."""
    return Csr(
        np.append(csr.rowptr_N1, csr.rowptr_N1[-1] + len(row)),
        np.append(csr.col_E, row).astype(np.int32),
    )


@pytest.mark.parametrize("day", [None, 8_000, 9_020, 12_000])
@pytest.mark.parametrize("references", [[], [3], [1, 4, 7, 10]])
def test_a_source_that_is_new_has_the_features_of_an_appended_row(references, day):
    graphs = csrs(random_citations(NUM_PAPERS, 0.25, seed=9))
    similar = build_csr(*np.nonzero(SIMILAR_NN), NUM_PAPERS)
    day_N = None if day is None else random_days(NUM_PAPERS, seed=9)
    x_F = np.array([0.3, -1, 2], dtype=np.float32)
    reference_R, like_k = np.array(references, dtype=np.int32), np.array([0, 8], dtype=np.int32)
    firsts = (reference_R, reference_R[:0], reference_R, like_k)
    appended = [with_row(*each) for each in zip((*graphs, similar), firsts, strict=True)]
    candidate_K = np.arange(NUM_PAPERS, dtype=np.int32)
    expected_KD = StructuralFeatures(
        *appended[:3],
        None if day_N is None else np.append(day_N, day),
        similar=appended[3],
        x_NF=np.vstack([X_NF, x_F]),
    ).for_candidates(np.array([NUM_PAPERS]), candidate_K[None])[0]
    structural = StructuralFeatures(*graphs, day_N, similar=similar, x_NF=X_NF)
    hops = dict(zip(("references", "citations", "neighbors", "similar"), firsts, strict=True))
    source = Source(row=NUM_PAPERS, hops=hops, day=day, is_dated=True, x_F=x_F)
    found_KD = structural.for_source(source, structural.walk_from(source), candidate_K)
    np.testing.assert_allclose(found_KD, expected_KD, **CLOSE)
    assert found_KD.any()


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize(("hops", "num_paths"), [(0, 0), (2, 6), (3, 10)])
def test_fewer_hops_leave_out_longer_paths(hops, num_paths, dated):
    is_cited_NN = random_citations(20, 0.2, seed=7)
    day_N = random_days(20, seed=7) if dated else None
    whole = make_features(is_cited_NN, day_N)
    part = make_features(is_cited_NN, day_N, hops=hops)
    assert len(part.paths) == num_paths
    assert set(whole.names) - set(part.names) == {p.name for p in whole.paths if len(p.hops) > hops}
    assert len(set(part.names)) == len(part.names)
    columns = [whole.names.index(name) for name in part.names]
    source_P, target_P = np.nonzero(is_cited_NN)
    expected_PD = for_citations(whole, source_P, target_P)[:, columns]
    assert np.array_equal(for_citations(part, source_P, target_P), expected_PD)


def test_for_batch_takes_citations_in_any_order():
    is_cited_NN = random_citations(20, 0.2, seed=13)
    structural = make_features(is_cited_NN)
    source_P, target_P = np.nonzero(is_cited_NN)
    source_S, index_P = np.unique(source_P, return_inverse=True)
    own_PD, shared_SKD = structural.for_batch(source_S, index_P, target_P, np.arange(5))
    mixed = np.random.default_rng(4).permutation(len(index_P))
    mixed_PD, same_SKD = structural.for_batch(
        source_S, index_P[mixed], target_P[mixed], np.arange(5)
    )
    np.testing.assert_allclose(mixed_PD, own_PD[mixed], rtol=1e-6)
    assert np.array_equal(same_SKD, shared_SKD)


def test_features_leave_read_only_graphs_alone_and_repeat():
    is_cited_NN = random_citations(20, 0.2, seed=10)
    graphs = csrs(is_cited_NN)
    for graph in graphs:
        graph.rowptr_N1.flags.writeable = False
        graph.col_E.flags.writeable = False
    structural = StructuralFeatures(*graphs, None)
    source_P, target_P = np.nonzero(is_cited_NN)
    first_PD = for_citations(structural, source_P, target_P)
    target_P1 = target_P[:, None]
    sums = structural.sum_own(BASELINE_PATHS, source_P, target_P1)
    list(structural.baselines(sums, source_P, target_P1))
    assert np.array_equal(for_citations(structural, source_P, target_P), first_PD)
    for i in (0, 7):
        alone_D = for_citations(structural, source_P[i : i + 1], target_P[i : i + 1])[0]
        assert np.array_equal(alone_D, first_PD[i])
