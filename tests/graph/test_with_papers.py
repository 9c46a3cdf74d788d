"""Views add papers in memory, and leave those that are there as they are."""

import numpy as np
import pytest
from small_graphs import csrs, random_citations

from citeflow.data.citation_graph import HeldOut
from citeflow.graph.csr import Csr
from citeflow.graph.prepared import PreparedGraph
from citeflow.graph.views import with_papers

NUM_PAPERS = 20


@pytest.fixture
def graph(tmp_path):
    references, citations, neighbors = csrs(random_citations(NUM_PAPERS, 0.2, seed=0))
    nothing = HeldOut(
        source_P=np.empty(0, np.int32), target_P=np.empty(0, np.int32), negative_PK=np.empty((0, 1))
    )
    return PreparedGraph(
        path=tmp_path,
        manifest=None,
        facts=None,
        x_NF=np.random.default_rng(0).random((NUM_PAPERS, 3), dtype=np.float32),
        day_N=np.arange(NUM_PAPERS, dtype=np.int32),
        is_dated_N=np.arange(NUM_PAPERS) > 0,
        references=references,
        citations=citations,
        neighbors=neighbors,
        valid=nothing,
        test=nothing,
    )


def test_with_papers_adds_rows_that_the_others_do_not_see(graph):
    rows = Csr(np.array([0, 2, 2]), np.array([3, 7], dtype=np.int32))
    x_PF = np.ones((2, 3), dtype=np.float32)
    view = with_papers(graph, x_PF, rows, np.array([50, 60]))
    assert view.num_papers == NUM_PAPERS + 2
    for name in ("references", "neighbors"):
        assert getattr(view, name).row(NUM_PAPERS).tolist() == [3, 7]
    assert not len(view.citations.row(NUM_PAPERS))
    for name in ("references", "citations", "neighbors"):
        before, after = getattr(graph, name), getattr(view, name)
        assert not len(after.row(NUM_PAPERS + 1))
        assert (after.rowptr_N1.dtype, after.col_E.dtype) == (np.int64, np.int32)
        for row in range(NUM_PAPERS):
            assert after.row(row).tolist() == before.row(row).tolist()
    assert view.x_NF[NUM_PAPERS:].tolist() == x_PF.tolist()
    assert view.day_N[NUM_PAPERS:].tolist() == [50, 60]
    assert view.is_dated_N[[0, 1, NUM_PAPERS, NUM_PAPERS + 1]].tolist() == [False, True, True, True]
