"""A view is the graph that is prepared without the citations that were taken away."""

import dataclasses
import itertools

import numpy as np
import pytest
from small_graphs import csrs, random_citations, random_days

from citeflow.graph.prepared import PreparedGraph
from citeflow.graph.time_slices import newer_papers, time_slices
from citeflow.graph.views import without_later_citations, without_references

NUM_PAPERS = 60


@pytest.fixture(scope="module")
def is_cited_NN():
    return random_citations(NUM_PAPERS, 0.1, seed=0)


@pytest.fixture(scope="module")
def graph(is_cited_NN, prepared):
    references, citations, neighbors = csrs(is_cited_NN)
    return dataclasses.replace(
        PreparedGraph.open(prepared.graph),
        references=references,
        citations=citations,
        neighbors=neighbors,
        day_N=random_days(NUM_PAPERS, seed=0),
    )


def assert_equal(view, is_cited_NN):
    expected = csrs(is_cited_NN)
    for found, csr in zip((view.references, view.citations, view.neighbors), expected, strict=True):
        assert np.array_equal(found.rowptr_N1, csr.rowptr_N1)
        assert np.array_equal(found.col_E, csr.col_E)


def test_without_references_keeps_who_cites_the_sources(graph, is_cited_NN):
    sources = np.array([5, 0, 41], dtype=np.int32)
    left_NN = is_cited_NN.copy()
    left_NN[sources] = False
    assert left_NN[:, sources].any()
    assert_equal(without_references(graph, sources), left_NN)


def test_without_later_citations_is_the_graph_of_the_day(graph, is_cited_NN):
    day_N = graph.day_N
    for part in time_slices(np.arange(40, 60), day_N, most=60):
        left_NN = is_cited_NN & (day_N[:, None] <= part.first)
        assert_equal(without_later_citations(graph, part), left_NN)


def test_slices_hold_every_source_once_and_about_as_many_each():
    rng = np.random.default_rng(0)
    day_N = rng.integers(0, 300, 5000)
    source_P = rng.integers(0, 5000, 900)
    slices = time_slices(source_P, day_N)
    assert len(slices) == 16
    rows = [part.rows(day_N[source_P]) for part in slices]
    assert sorted(np.concatenate(rows)) == list(range(900))
    assert np.array_equal(
        np.sort(np.concatenate([part.source_S for part in slices])), np.unique(source_P)
    )
    assert max(map(len, rows)) < 2 * min(map(len, rows))
    assert all(before.last < after.first for before, after in itertools.pairwise(slices))


def test_newer_papers_leaves_sources_and_undated_papers_in():
    day_N = np.array([5, 6, 7, 8, 9, 9])
    (part,) = time_slices(np.array([1, 3]), day_N, most=1)
    is_dated_N = np.array([True, True, True, True, True, False])
    assert newer_papers(part, day_N).tolist() == [2, 4, 5]
    assert newer_papers(part, day_N, is_dated_N).tolist() == [2, 4]
