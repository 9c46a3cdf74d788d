"""The graph as somebody else would see it.

With further papers, without the references of some, or at an earlier time.

A view is a PreparedGraph with adjacency in memory, so that whatever embeds papers and scores pairs
takes it as it takes the graph itself. All other arrays are the graph's own maps.

Legend: N papers, P new papers, S sources, F features.
"""

import dataclasses

import numpy as np

from citeflow.graph.csr import Csr, drop_rows, to_undirected, transpose
from citeflow.graph.prepared import PreparedGraph
from citeflow.graph.similar import similar_to_new
from citeflow.graph.time_slices import TimeSlice, newer_papers


def with_papers(
    graph: PreparedGraph,
    x_PF: np.ndarray | None,
    references: Csr,
    day_P: np.ndarray | None,
) -> PreparedGraph:
    """Append papers that cite papers of the graph; their rows are N to N + P - 1.

    Only they see their references: the rows of the N papers stay as they are, so that these are
    embedded as without the new papers, and no new paper sees another. The arrays are copied, which
    takes as much memory as the graph.

    Args:
        graph: N papers.
        x_PF: features of the new papers; None where the graph has none.
        references: papers of the graph that each new paper cites, ascending; P rows.
        day_P: their dates in days; None where the graph has none.
    """
    return dataclasses.replace(
        graph,
        x_NF=_append(graph.x_NF, x_PF),
        day_N=_append(graph.day_N, day_P),
        is_dated_N=_append(graph.is_dated_N, np.ones(references.num_rows, dtype=bool)),
        references=_append_rows(graph.references, references),
        citations=_append_rows(graph.citations, _empty_rows(references.num_rows)),
        neighbors=_append_rows(graph.neighbors, references),
        similar=_append_similar(graph, x_PF, day_P),
    )


def without_references(graph: PreparedGraph, source_S: np.ndarray) -> PreparedGraph:
    """Take all references of some papers away, as if nobody knew yet what they cite.

    What cites these papers, their features and their dates stay.
    """
    return _with_references(graph, drop_rows(graph.references, source_S))


def without_later_citations(graph: PreparedGraph, part: TimeSlice) -> PreparedGraph:
    """Take away the citations that papers newer than the sources of a slice have made.

    The sources keep their own references. In a slice of one date that is exact; in a longer one its
    older sources see the references of its newer sources.
    """
    assert graph.day_N is not None
    newer = newer_papers(part, graph.day_N, graph.is_dated_N)
    return _with_references(graph, drop_rows(graph.references, newer))


def _with_references(graph: PreparedGraph, references: Csr) -> PreparedGraph:
    return dataclasses.replace(
        graph,
        references=references,
        citations=transpose(references),
        neighbors=to_undirected(references),
    )


def _append_similar(
    graph: PreparedGraph, x_PF: np.ndarray | None, day_P: np.ndarray | None
) -> Csr | None:
    if graph.similar is None or graph.x_NF is None or x_PF is None:
        return None
    rows = similar_to_new(
        graph.x_NF, graph.day_N, x_PF=x_PF, day_P=day_P, k=graph.facts.num_similar
    )
    return _append_rows(graph.similar, rows)


def _append(array_N: np.ndarray | None, array_P: np.ndarray | None) -> np.ndarray | None:
    if array_N is None or array_P is None:
        return None
    return np.concatenate([array_N, array_P.astype(array_N.dtype, copy=False)])


def _append_rows(csr: Csr, rows: Csr) -> Csr:
    return Csr(
        np.concatenate([csr.rowptr_N1, csr.rowptr_N1[-1] + rows.rowptr_N1[1:]]),
        np.concatenate([csr.col_E, rows.col_E.astype(np.int32, copy=False)]),
    )


def _empty_rows(num_rows: int) -> Csr:
    return Csr(np.zeros(num_rows + 1, dtype=np.int64), np.empty(0, dtype=np.int32))
