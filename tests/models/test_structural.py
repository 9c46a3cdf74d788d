"""The evidence equals networkx's figures, and a count of paths one by one in a graph without the pair's own citation.

Legend: N papers, P pairs, K candidates.
"""

import itertools
import math

import networkx
import numpy as np
import pytest
from small_graphs import csrs, random_citations, random_days

import citeflow.models.structural as module
from citeflow.models.structural import BASELINES, PATHS, StructuralFeatures

SEEDS = range(3)
NUM_PAPERS = 11


def build_structural_features(is_cited_NN, day_N=None, *, hops=3):
    return StructuralFeatures(*csrs(is_cited_NN), day_N, hops=hops)


NONE = np.empty(0, dtype=np.int64)


def of_citations(structural, source_P, target_P):
    """Evidence for citations, each as if it alone were missing."""
    return structural.for_batch(source_P, np.arange(len(source_P)), target_P, NONE)[0]


def of_shared(structural, source_S, candidate_K):
    """Evidence for candidates of sources that lack nothing."""
    return structural.for_batch(source_S, NONE, NONE, candidate_K)[1]


def networkx_graph(is_cited_NN):
    return networkx.Graph(np.argwhere(is_cited_NN).tolist())


def all_pairs(num_papers):
    """Every ordered pair of different papers."""
    return np.array(list(itertools.permutations(range(num_papers), 2)), dtype=np.int32).T


def by_enumeration(is_cited_NN, day_N, source, target, hops=3):
    """Evidence of a pair, path by path, straight from its definition."""
    hop_of = {
        "references": is_cited_NN.tolist(),
        "citations": is_cited_NN.T.tolist(),
        "neighbours": (is_cited_NN | is_cited_NN.T).tolist(),
    }
    values = []
    for path in PATHS:
        if len(path.hops) <= hops:
            total = 0.0
            for way in itertools.product(
                set(range(len(is_cited_NN))) - {source}, repeat=len(path.hops) - 1
            ):
                papers = (source, *way, target)
                steps = zip(path.hops, itertools.pairwise(papers), strict=True)
                if all(hop_of[hop][before][after] for hop, (before, after) in steps):
                    degrees = [
                        sum(hop_of[hop][paper])
                        for hop, paper in zip(path.hops[1:], way, strict=True)
                    ]
                    total += math.prod(weigh(path.weight, degree) for degree in degrees)
            values.append(math.log(1 + path.scale * total))
    return values + of_papers(is_cited_NN, day_N, source, target)


def weigh(weight, degree):
    if weight == "log":
        return 1 / math.log(degree)
    return 1 / degree if weight == "inverse" else 1.0


def of_papers(is_cited_NN, day_N, source, target):
    cited, citing = is_cited_NN[:, target].sum(), is_cited_NN[target].sum()
    values = [math.log(1 + cited), math.log(1 + citing)]
    if day_N is not None:
        years = max(int(day_N[source]) - int(day_N[target]), 0) / 365.25
        values += [math.log(1 + years), math.log(1 + cited / (years + 0.5))]
    return values


def without(is_cited_NN, source, target):
    left = is_cited_NN.copy()
    left[source, target] = False
    return left


BASELINE_OF_NETWORKX = {
    "common_neighbors": lambda graph, s, t: len(list(networkx.common_neighbors(graph, s, t))),
    "adamic_adar": lambda graph, s, t: next(iter(networkx.adamic_adar_index(graph, [(s, t)])))[2],
    "resource_allocation": lambda graph, s, t: next(
        iter(networkx.resource_allocation_index(graph, [(s, t)]))
    )[2],
}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_baselines_are_those_of_networkx_and_popularity_is_the_citation_count(seed):
    is_cited_NN = random_citations(30, 0.1, seed=seed)
    graph = networkx_graph(is_cited_NN)
    source_P = np.array(sorted(graph), dtype=np.int32)
    candidate_PK = np.array([[t for t in source_P if t != s] for s in source_P], dtype=np.int32)
    scores = dict(build_structural_features(is_cited_NN, hops=0).baselines(source_P, candidate_PK))
    assert tuple(scores) == BASELINES
    for name, index in BASELINE_OF_NETWORKX.items():
        pairs = zip(source_P, candidate_PK, strict=True)
        expected_PK = [
            [index(graph, int(s), int(t)) for t in candidates] for s, candidates in pairs
        ]
        np.testing.assert_allclose(scores[name], expected_PK, rtol=1e-5)
        assert scores[name].max() > 0
    assert np.array_equal(scores["popularity"], is_cited_NN.sum(axis=0)[candidate_PK])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", BASELINE_OF_NETWORKX)
def test_a_citations_evidence_is_networkxs_index_in_the_graph_without_it(name, seed):
    is_cited_NN = random_citations(25, 0.12, seed=seed)
    structural = build_structural_features(is_cited_NN)
    source_P, target_P = np.nonzero(is_cited_NN)
    column, scale = (
        structural.names.index(name),
        next(path.scale for path in PATHS if path.name == name),
    )
    found_P = np.expm1(of_citations(structural, source_P, target_P)[:, column]) / scale
    for s, t, found in zip(source_P.tolist(), target_P.tolist(), found_P, strict=True):
        graph = networkx_graph(without(is_cited_NN, s, t))
        graph.add_nodes_from([s, t])
        assert found == pytest.approx(BASELINE_OF_NETWORKX[name](graph, s, t), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_equals_a_count_of_paths_one_by_one(seed, dated):
    is_cited_NN = random_citations(NUM_PAPERS, 0.25, seed=seed)
    day_N = random_days(NUM_PAPERS, seed=seed) if dated else None
    source_P, target_P = all_pairs(NUM_PAPERS)
    found_PD = build_structural_features(is_cited_NN, day_N).for_candidates(
        source_P, target_P[:, None]
    )[:, 0]
    expected_PD = [
        by_enumeration(is_cited_NN, day_N, s, t) for s, t in zip(source_P, target_P, strict=True)
    ]
    np.testing.assert_allclose(found_PD, expected_PD, rtol=1e-5, atol=1e-6)
    assert (found_PD.max(axis=0) > 0).all()


@pytest.mark.parametrize(("hubs", "from_walks"), [(0, True), (10**9, False)])
def test_a_last_hop_is_worth_the_same_from_either_side(hubs, from_walks, monkeypatch):
    is_cited_NN = random_citations(NUM_PAPERS, 0.25, seed=12)
    monkeypatch.setattr(module, "HUBS", hubs)
    other_side = "_from_candidates" if from_walks else "_from_walks"
    monkeypatch.delattr(StructuralFeatures, other_side)
    candidate_PK = np.random.default_rng(3).integers(0, NUM_PAPERS, (NUM_PAPERS, 6))
    candidate_PK[:, 4] = candidate_PK[:, 1]
    source_P = np.arange(NUM_PAPERS)
    found_PKD = build_structural_features(is_cited_NN).for_candidates(source_P, candidate_PK)
    for s, candidate_K, found_KD in zip(source_P, candidate_PK, found_PKD, strict=True):
        expected_KD = [by_enumeration(is_cited_NN, None, s, t) for t in candidate_K]
        np.testing.assert_allclose(found_KD, expected_KD, rtol=1e-5, atol=1e-6)


def test_citations_may_come_in_any_order():
    is_cited_NN = random_citations(20, 0.2, seed=13)
    structural = build_structural_features(is_cited_NN)
    source_P, target_P = np.nonzero(is_cited_NN)
    source_S, source_index_P = np.unique(source_P, return_inverse=True)
    own_PD, shared_SKD = structural.for_batch(source_S, source_index_P, target_P, np.arange(5))
    mixed = np.random.default_rng(4).permutation(len(source_index_P))
    mixed_PD, same_SKD = structural.for_batch(
        source_S, source_index_P[mixed], target_P[mixed], np.arange(5)
    )
    np.testing.assert_allclose(mixed_PD, own_PD[mixed], rtol=1e-6)
    assert np.array_equal(same_SKD, shared_SKD)
    assert len(np.unique(own_PD, axis=0)) > len(own_PD) / 2


def test_nothing_is_computed_of_the_graph_before_it_is_asked():
    structural = build_structural_features(random_citations(20, 0.2, seed=14), hops=2)
    assert len(structural.names) == 7
    assert (structural._weights, structural._degrees) == ({}, {})
    list(structural.baselines(np.array([0]), np.array([[1, 2]])))
    assert {hop for hop, _ in structural._weights} == {"neighbours"}


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_citation_is_counted_as_in_a_graph_that_never_had_it(seed, dated):
    is_cited_NN = random_citations(NUM_PAPERS, 0.3, seed=seed)
    day_N = random_days(NUM_PAPERS, seed=seed) if dated else None
    source_P, target_P = np.nonzero(is_cited_NN)
    found_PD = of_citations(build_structural_features(is_cited_NN, day_N), source_P, target_P)
    expected_PD = [
        by_enumeration(without(is_cited_NN, s, t), day_N, s, t)
        for s, t in zip(source_P, target_P, strict=True)
    ]
    np.testing.assert_allclose(found_PD, expected_PD, rtol=1e-5, atol=1e-6)
    assert (found_PD.max(axis=0) > 0).all()


@pytest.mark.parametrize(("num_papers", "share"), [(40, 0.02), (24, 0.1), (16, 0.4), (9, 1.0)])
def test_a_citation_is_scored_as_a_candidate_of_the_graph_without_it(num_papers, share):
    is_cited_NN = random_citations(num_papers, share, seed=3)
    day_N = random_days(num_papers, seed=3)
    source_P, target_P = np.nonzero(is_cited_NN)
    found_PD = of_citations(build_structural_features(is_cited_NN, day_N), source_P, target_P)
    for s, t, found_D in zip(source_P, target_P, found_PD, strict=True):
        alone = build_structural_features(without(is_cited_NN, s, t), day_N)
        np.testing.assert_allclose(
            found_D, alone.for_candidates(s[None], t[None, None])[0, 0], rtol=1e-5, atol=1e-6
        )


def test_candidates_are_looked_up_without_the_citations_that_they_are_told_from():
    is_cited_NN = np.triu(random_citations(24, 0.3, seed=5), 1)
    source, targets = 0, np.flatnonzero(is_cited_NN[0])[:3]
    candidate_K = np.flatnonzero(~is_cited_NN[0])[1:]
    one = np.array([source])
    _, shared_SKD = build_structural_features(is_cited_NN).for_batch(
        one, np.zeros(3, dtype=int), targets, candidate_K
    )
    fewer_NN = is_cited_NN.copy()
    fewer_NN[source, targets] = False
    alone, whole = build_structural_features(fewer_NN), build_structural_features(is_cited_NN)
    alone._weights = whole._weights
    expected_KD = alone.for_candidates(one, candidate_K[None])[0]
    np.testing.assert_allclose(shared_SKD[0], expected_KD, rtol=1e-5, atol=1e-6)
    assert not np.allclose(shared_SKD[0], whole.for_candidates(one, candidate_K[None])[0])


def test_a_citation_counted_as_if_it_were_none_would_see_itself():
    is_cited_NN = random_citations(24, 0.2, seed=4)
    structural = build_structural_features(is_cited_NN)
    source_P, target_P = np.nonzero(is_cited_NN)
    seen_PD = structural.for_candidates(source_P, target_P[:, None])[:, 0]
    unseen_PD = of_citations(structural, source_P, target_P)
    column = structural.names.index("co_citation")
    assert (seen_PD >= unseen_PD - 1e-6).all()
    assert (seen_PD[:, column] > unseen_PD[:, column] + 0.1).mean() > 0.9


def test_of_two_papers_that_cite_each_other_only_the_citation_asked_for_is_left_out():
    is_cited_NN = random_citations(NUM_PAPERS, 0.25, seed=5)
    is_cited_NN[[2, 7], [7, 2]] = True
    found_D = of_citations(build_structural_features(is_cited_NN), np.array([2]), np.array([7]))[0]
    np.testing.assert_allclose(
        found_D, by_enumeration(without(is_cited_NN, 2, 7), None, 2, 7), rtol=1e-5
    )
    neither_NN = without(without(is_cited_NN, 2, 7), 7, 2)
    names = build_structural_features(is_cited_NN).names
    differs = ~np.isclose(found_D, by_enumeration(neither_NN, None, 2, 7), rtol=1e-5)
    assert [name for name, differ in zip(names, differs, strict=True) if differ] == [
        "references_given"
    ]


def test_a_citation_alone_in_the_world_has_no_evidence():
    is_cited_NN = np.zeros((3, 3), dtype=bool)
    is_cited_NN[0, 1] = True
    assert not of_citations(
        build_structural_features(is_cited_NN), np.array([0]), np.array([1])
    ).any()


@pytest.mark.parametrize("hops", [0, 2, 3])
@pytest.mark.parametrize("dated", [False, True])
def test_shared_candidates_have_the_evidence_of_own_ones(hops, dated):
    is_cited_NN = random_citations(30, 0.15, seed=6)
    structural = build_structural_features(
        is_cited_NN, random_days(30, seed=6) if dated else None, hops=hops
    )
    source_S = np.array([4, 29, 0, 11], dtype=np.int32)
    candidate_K = np.array([3, 3, 0, 28, 17, 4, 9], dtype=np.int32)
    shared_SKD = of_shared(structural, source_S, candidate_K)
    assert shared_SKD.shape == (4, 7, len(structural.names))
    assert shared_SKD.dtype == np.float32
    own_SKD = structural.for_candidates(source_S, np.tile(candidate_K, (4, 1)))
    assert own_SKD.dtype == np.float32
    np.testing.assert_allclose(shared_SKD, own_SKD, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize(("hops", "num_paths"), [(0, 0), (2, 5), (3, 9)])
def test_fewer_hops_leave_out_the_longer_paths_and_nothing_else(hops, num_paths, dated):
    is_cited_NN = random_citations(20, 0.2, seed=7)
    day_N = random_days(20, seed=7) if dated else None
    all_of_it, part = (
        build_structural_features(is_cited_NN, day_N),
        build_structural_features(is_cited_NN, day_N, hops=hops),
    )
    ends = ["popularity", "references_given"] + (["age", "citations_per_year"] if dated else [])
    assert list(part.names) == [path.name for path in PATHS[:num_paths]] + ends
    columns = [all_of_it.names.index(name) for name in part.names]
    source_P, target_P = np.nonzero(is_cited_NN)
    assert np.array_equal(
        of_citations(part, source_P, target_P),
        of_citations(all_of_it, source_P, target_P)[:, columns],
    )


def test_names_are_distinct_and_the_baselines_are_among_them():
    names = build_structural_features(
        random_citations(5, 0.5, seed=0), random_days(5, seed=0)
    ).names
    assert len(set(names)) == len(names)
    assert set(BASELINES) <= set(names)


def test_a_paper_newer_than_its_source_has_no_age():
    is_cited_NN = random_citations(6, 0.4, seed=8)
    structural = build_structural_features(
        is_cited_NN, np.array([100, 500, 100, 0, 0, 0], dtype=np.int32)
    )
    age_K = structural.for_candidates(np.array([0]), np.array([[1, 2, 3]]))[
        0, :, structural.names.index("age")
    ]
    np.testing.assert_allclose(age_K, [0, 0, math.log(1 + 100 / 365.25)], rtol=1e-6)


def test_a_source_asked_twice_is_answered_twice():
    is_cited_NN = random_citations(20, 0.2, seed=9)
    structural = build_structural_features(is_cited_NN)
    source, targets = next(
        (s, np.flatnonzero(row)) for s, row in enumerate(is_cited_NN) if row.sum() > 2
    )
    together_PD = of_citations(structural, np.full(len(targets), source), targets)
    for target, found_D in zip(targets, together_PD, strict=True):
        assert np.array_equal(
            found_D, of_citations(structural, np.array([source]), target[None])[0]
        )


def test_asking_leaves_the_graph_as_it_was():
    is_cited_NN = random_citations(20, 0.2, seed=10)
    graphs = csrs(is_cited_NN)
    for graph in graphs:
        for part in (graph.ptr_N1, graph.index_E):
            part.flags.writeable = False
    structural = StructuralFeatures(*graphs, None)
    source_P, target_P = np.nonzero(is_cited_NN)
    first = of_citations(structural, source_P, target_P)
    of_shared(structural, source_P[:3], target_P[:3])
    list(structural.baselines(source_P, target_P[:, None]))
    assert np.array_equal(of_citations(structural, source_P, target_P), first)


def test_asking_for_candidates_in_pieces_gives_the_same_as_at_once():
    is_cited_NN = random_citations(20, 0.2, seed=11)
    structural = build_structural_features(is_cited_NN)
    source_P, candidate_PK = np.array([3, 7]), np.random.default_rng(2).integers(0, 20, (2, 10))
    pieces = [
        structural.for_candidates(source_P, candidate_PK[:, piece])
        for piece in (slice(0, 4), slice(4, 10))
    ]
    assert np.array_equal(
        np.concatenate(pieces, axis=1), structural.for_candidates(source_P, candidate_PK)
    )
